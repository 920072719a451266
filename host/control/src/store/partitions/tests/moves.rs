use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use model::tenant::TenantId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Bench, key, rules};
use crate::store::{
    Actor, DataKey, MoveState, PartitionMoveError, PartitionRules, Store, WantedMove,
    db::{Purpose, Step, sql},
};

/// The product guide's threshold is 100 GB.
const THRESHOLD: u64 = 10 << 20;

type Model = BTreeMap<DataKey, Value>;

/// Writes and deletes rows of one tenant until told to stop; what must be there then.
async fn write(store: Arc<Store>, tenant: TenantId, stop: Arc<AtomicBool>) -> Model {
    let mut random = StdRng::seed_from_u64(tenant.0.as_u64_pair().0);
    let mut model = Model::new();
    let mut version = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = key(random.random_range(0..150));
        if random.random_bool(0.3) {
            let there = store.delete_data(tenant, key).await.expect("deleted");
            assert_eq!(there, model.remove(&key).is_some(), "{key:?}");
        } else {
            version += 1;
            store.put_data(tenant, key, "live", &json!(version)).await.expect("written");
            model.insert(key, json!(version));
        }
    }
    model
}

/// Reads until told to stop.
async fn read(bench: &Bench, tenant: TenantId, stop: &AtomicBool) -> u32 {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        bench.sees_its_own(tenant).await;
        reads += 1;
    }
    reads
}

/// Runs `work` among writers and readers of the part, and compares every row afterwards.
async fn among_tenants<T>(bench: &Bench, work: impl Future<Output = T>) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = bench
        .tenants
        .iter()
        .map(|&tenant| tokio::spawn(write(Arc::clone(&bench.store), tenant, Arc::clone(&stop))))
        .collect();
    let before = [bench.checksum("fill"), bench.checksum("stable")];
    let worked = async {
        let done = work.await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let [one, two, ..] = bench.tenants[..] else { panic!("three tenants") };
    let (done, reads, others) =
        tokio::join!(worked, read(bench, one, &stop), read(bench, two, &stop));
    assert!(reads > 0 && others > 0);
    assert_eq!(before, [bench.checksum("fill"), bench.checksum("stable")]);
    for (writer, &tenant) in writers.into_iter().zip(&bench.tenants) {
        let model = writer.await.expect("a writer that was never refused");
        assert!(!model.is_empty());
        let rows = bench.store.data_page(tenant, Some("live"), None, 1_000).await.expect("rows");
        let there: Model = rows.into_iter().map(|row| (row.key, row.data)).collect();
        assert_eq!(there, model);
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_beyond_the_threshold_is_split_under_writes_without_loss() {
    let bench = Bench::start().await;
    bench.fill(300);
    let before = bench.parts().await;
    let rules = PartitionRules { split_bytes: THRESHOLD, ..rules() };
    let managed = among_tenants(&bench, bench.store.manage_partitions(&rules)).await;
    let managed = managed.expect("managed");
    let [ended] = managed.moves_ended[..] else { panic!("{managed:?}") };
    let ended = bench.store.partition_move(ended).await.expect("an answer").expect("a move");
    assert_eq!(ended.state, MoveState::Done, "{ended:?}");
    assert!(ended.verified.is_some_and(|(rows, _)| rows > 10_000));
    let into = ended.into.expect("two parts");
    let mut expected: Vec<_> =
        before.into_iter().filter(|name| *name != bench.part()).chain(into.clone()).collect();
    expected.sort();
    let mut after = bench.parts().await;
    after.sort();
    assert_eq!(after, expected, "the other parts are as they were");
    let tree = bench.store.partitions().await.expect("an answer").expect("a tree");
    for name in into {
        let part = tree.partitions.iter().find(|part| part.name == name).expect("a part");
        assert_eq!(part.hash.map(|(modulus, _)| modulus), Some(16));
        assert!(part.bytes > 1 << 20, "both got rows: {part:?}");
    }
    bench.no_leftovers();
    bench.no_finding().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_tenant_gets_a_part_of_its_own_and_loses_nothing() {
    let bench = Bench::start().await;
    bench.fill(40);
    let whale = bench.tenants[0];
    bench.store.want_move(&Actor::Program, &WantedMove::Isolate(whale)).await.expect("taken on");
    among_tenants(&bench, bench.store.manage_partitions(&rules())).await.expect("managed");
    let tree = bench.store.partitions().await.expect("an answer").expect("a tree");
    let own = tree.partitions.iter().find(|part| part.tenant == Some(whale)).expect("its own");
    let rows = bench
        .sql(&format!("SELECT count(*), count(DISTINCT tenant_id) FROM edge.\"{}\"", own.name));
    assert!(rows.ends_with("|1"), "{rows}");
    let elsewhere = bench
        .sql(&format!("SELECT count(*) FROM edge.tenant_data_shared WHERE tenant_id = '{whale}'"));
    assert_eq!(elsewhere, "0");
    let again = bench.store.want_move(&Actor::Program, &WantedMove::Isolate(whale)).await;
    assert!(matches!(again, Err(PartitionMoveError::Alone)), "{again:?}");
    bench.no_leftovers();
    bench.no_finding().await;
}

#[tokio::test]
async fn halves_can_be_split_again() {
    let bench = Bench::start().await;
    bench.fill(5);
    let before = [bench.checksum("fill"), bench.checksum("stable")];
    let mut name = bench.part();
    for modulus in [16, 32] {
        let wanted = bench
            .store
            .want_move(&Actor::Program, &WantedMove::Split(name.clone()))
            .await
            .expect("wanted");
        bench.store.manage_partitions(&rules()).await.expect("managed");
        let done = bench.store.partition_move(wanted.id).await.expect("an answer").expect("a move");
        let [left, _] = done.into.expect("two parts");
        name = left;
        assert!(name.starts_with(&format!("tenant_data_h{modulus}_{}", bench.remainder)), "{name}");
    }
    assert_eq!(before, [bench.checksum("fill"), bench.checksum("stable")]);
    bench.no_leftovers();
}

#[tokio::test]
async fn one_move_runs_at_a_time_and_only_of_what_is_there() {
    let bench = Bench::start().await;
    for name in ["tenant_data", "tenant_data_shared", "tenant_data_h8_0_rest", "tenant", "x"] {
        let refused =
            bench.store.want_move(&Actor::Program, &WantedMove::Split(name.to_owned())).await;
        assert!(matches!(refused, Err(PartitionMoveError::NoSuchPart)), "{name}: {refused:?}");
    }
    let unknown = TenantId(uuid::Uuid::from_u128(1));
    let refused = bench.store.want_move(&Actor::Program, &WantedMove::Isolate(unknown)).await;
    assert!(matches!(refused, Err(PartitionMoveError::NoSuchTenant)), "{refused:?}");
    let first = bench
        .store
        .want_move(&Actor::Program, &WantedMove::Split(bench.part()))
        .await
        .expect("taken on");
    let second = bench
        .store
        .want_move(&Actor::Program, &WantedMove::Split("tenant_data_h8_0".to_owned()))
        .await;
    assert!(matches!(second, Err(PartitionMoveError::Busy(id)) if id == first.id), "{second:?}");
}

#[tokio::test]
async fn a_swap_waits_for_a_reader_who_then_has_seen_all_of_its_rows() {
    let bench = Bench::start().await;
    let [tenant, ..] = bench.tenants[..] else { panic!("a tenant") };
    let id = bench
        .store
        .want_move(&Actor::Program, &WantedMove::Split(bench.part()))
        .await
        .expect("taken on")
        .id;
    let rules = rules();
    let manager = bench.manager(&rules).await;
    let mut state = MoveState::Wanted;
    while state != MoveState::Swapping {
        state = manager.advance(id, state).await.expect("a step");
    }
    // Its snapshot is older than the last rows of the copy.
    let reader = bench.store.db.tenant(tenant, Purpose::ReadData).await.expect("a reader");
    bench.store.put_data(tenant, key(3), "live", &json!(1)).await.expect("written");
    let refused = manager.try_step(id, state).await.expect_err("a lock that is not to be had");
    assert!(refused.to_string().contains("lock timeout"), "{refused}");
    reader.end::<_, crate::StoreError>(Ok(())).await.expect("an end");
    assert_eq!(manager.try_step(id, state).await.expect("a step"), MoveState::Dropping);
    bench.sees_its_own(tenant).await;
    assert!(bench.store.data(tenant, key(3)).await.expect("an answer").is_some());
}

#[tokio::test]
async fn a_copy_that_is_not_the_source_is_thrown_away() {
    for spoil in [
        "UPDATE edge.{left} SET data = '\"forged\"' WHERE kind = 'fill'",
        "DELETE FROM edge.{left} WHERE kind = 'fill'",
    ] {
        let bench = Bench::start().await;
        bench.fill(5);
        let before = [bench.checksum("fill"), bench.checksum("stable")];
        let parts = bench.parts().await;
        let id = bench
            .store
            .want_move(&Actor::Program, &WantedMove::Split(bench.part()))
            .await
            .expect("taken on")
            .id;
        let rules = rules();
        {
            let manager = bench.manager(&rules).await;
            let mut state = MoveState::Wanted;
            while state != MoveState::Verifying {
                state = manager.advance(id, state).await.expect("a step");
            }
        }
        let half = bench.store.partition_move(id).await.expect("an answer").expect("a move");
        let [left, _] = half.into.expect("two parts");
        bench.sql(&spoil.replace("{left}", &left));
        bench.finish(&rules).await;
        let failed = bench.store.partition_move(id).await.expect("an answer").expect("a move");
        assert_eq!(failed.state, MoveState::Failed);
        assert!(failed.error.is_some_and(|error| error.contains("not the source")));
        assert_eq!(bench.parts().await, parts);
        assert_eq!(before, [bench.checksum("fill"), bench.checksum("stable")]);
        bench.no_leftovers();
        bench.no_finding().await;
    }
}

#[tokio::test]
async fn a_change_of_the_tree_that_takes_long_is_undone_before_anybody_waits_a_second() {
    let bench = Bench::start().await;
    let owner = bench.store.db.schema_owner().expect("PostgreSQL");
    let mut tx = owner.begin(Step::Restructure).await.expect("the lock");
    sql("DROP TABLE tenant_data_change").execute(&mut tx).await.expect("a change");
    let slow = sql("SELECT pg_sleep(60)").execute(&mut tx).await;
    let refused = tx.end(slow).await.expect_err("a timeout");
    assert!(refused.to_string().contains("statement timeout"), "{refused}");
    bench.no_leftovers();
    bench.sees_its_own(bench.tenants[0]).await;
}

#[tokio::test]
async fn a_step_that_was_done_is_not_done_again_when_its_answer_is_lost() {
    let bench = Bench::start().await;
    let wanted = WantedMove::Split(bench.part());
    let id = bench.store.want_move(&Actor::Program, &wanted).await.expect("taken on").id;
    let rules = rules();
    let manager = bench.manager(&rules).await;
    let copying = manager.advance(id, MoveState::Wanted).await.expect("a step");
    assert_eq!(copying, MoveState::Copying);
    // As after a connection that broke with the answer.
    let again = manager.advance(id, MoveState::Wanted).await.expect("where it is now");
    assert_eq!(again, MoveState::Copying);
    let record = bench.store.partition_move(id).await.expect("an answer").expect("a move");
    assert_eq!((record.state, record.error), (MoveState::Copying, None));
}
