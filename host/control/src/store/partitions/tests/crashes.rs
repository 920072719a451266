use std::time::Duration;

use serde_json::json;

use super::{Bench, key, rules};
use crate::store::{
    Actor, MoveState, WantedMove,
    partitions::{Managed, Manager, PartitionRules},
};

/// States that a move of each kind passes through, in their order.
const LADDER: [MoveState; 7] = [
    MoveState::Wanted,
    MoveState::Copying,
    MoveState::Guarding,
    MoveState::Checking,
    MoveState::Verifying,
    MoveState::Swapping,
    MoveState::Dropping,
];

impl Bench {
    /// A manager, as soon as its predecessor's claim is gone.
    pub(super) async fn manager<'a>(&'a self, rules: &'a PartitionRules) -> Manager<'a> {
        loop {
            if let Some(manager) = self.store.manager(rules).await {
                return manager;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A run of the manager, as soon as its predecessor's claim is gone.
    pub(super) async fn finish(&self, rules: &PartitionRules) -> Managed {
        loop {
            let managed = self.store.manage_partitions(rules).await.expect("managed");
            if !managed.by_another {
                return managed;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Ends a manager before and in the middle of every step; the next one must finish.
async fn crash_everywhere(wanted: impl Fn(&Bench) -> WantedMove) {
    let bench = Bench::start().await;
    bench.fill(10);
    let before = [bench.checksum("fill"), bench.checksum("stable")];
    let id = bench.store.want_move(&Actor::Program, &wanted(&bench)).await.expect("taken on").id;
    let rules = rules();
    let mut met = Vec::new();
    for patience_us in [0, 500, 2_000] {
        for last in LADDER {
            let at = bench.store.partition_move(id).await.expect("an answer").expect("a move");
            if at.state > last {
                continue;
            }
            let mut state = at.state;
            let manager = bench.manager(&rules).await;
            while state < last {
                state = manager.advance(id, state).await.expect("a step");
            }
            // The process dies: within the step, at whatever point that is.
            let step = manager.advance(id, state);
            let patience = Duration::from_micros(patience_us);
            let _whatever = tokio::time::timeout(patience, step).await;
            met.push(state);
            let n = 500 + u32::try_from(met.len()).expect("few");
            let tenant = bench.tenants[0];
            bench.store.put_data(tenant, key(n), "late", &json!(n)).await.expect("written");
            bench.no_finding().await;
            bench.sees_its_own(tenant).await;
        }
    }
    bench.finish(&rules).await;
    let ended = bench.store.partition_move(id).await.expect("an answer").expect("a move");
    assert_eq!(ended.state, MoveState::Done, "{ended:?}");
    assert_eq!(before, [bench.checksum("fill"), bench.checksum("stable")]);
    assert_eq!(
        bench.sql("SELECT count(*) FROM edge.tenant_data WHERE kind = 'late'"),
        met.len().to_string()
    );
    for state in LADDER {
        assert!(met.contains(&state), "{state:?} was not met: {met:?}");
    }
    bench.no_leftovers();
    bench.no_finding().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_that_is_interrupted_in_each_step_is_finished_by_the_next_manager() {
    crash_everywhere(|bench| WantedMove::Split(bench.part())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolation_that_is_interrupted_in_each_step_is_finished_by_the_next_manager() {
    crash_everywhere(|bench| WantedMove::Isolate(bench.tenants[0])).await;
}

#[tokio::test]
async fn a_second_manager_leaves_the_work_to_the_first() {
    let bench = Bench::start().await;
    let rules = rules();
    let first = bench.manager(&rules).await;
    let second = bench.store.manage_partitions(&rules).await.expect("an answer");
    assert!(second.by_another);
    drop(first);
    assert!(!bench.finish(&rules).await.months_made.is_empty());
}
