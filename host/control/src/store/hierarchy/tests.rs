use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use model::tenant::{Status, Tenant, TenantId};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

use crate::{
    Store,
    store::{
        Actor, CreateError, MoveError, NewTenant, StatusChange, TenantPatch,
        db::{Purpose, sql},
    },
    testing::{Backend, Database, on_both},
};

on_both![
    the_guides_tree_of_eight_is_one_family,
    a_subtree_moves_whole_and_keeps_its_residency,
    a_move_below_oneself_or_a_descendant_is_refused,
    a_family_grows_no_deeper_than_eight_levels_by_a_move,
    a_parent_that_is_not_there_and_a_stale_version_are_refused,
    a_status_of_an_ancestor_is_in_effect_below_it,
    children_come_in_pages,
    of_a_tree_too_large_for_one_answer_the_deepest_are_left_out,
    families_from_before_the_table_are_found_by_the_migration,
];

async fn child(store: &Arc<Store>, slug: &str, parent: Option<TenantId>) -> TenantId {
    create(store, slug, parent).await.expect("a tenant").id
}

async fn create(
    store: &Arc<Store>,
    slug: &str,
    parent: Option<TenantId>,
) -> Result<Tenant, CreateError> {
    let residency = if slug.starts_with("us") { "us" } else { "eu" };
    let new = NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: parent.is_none().then(|| residency.to_owned()),
        home_region: None,
        parent,
        quota_anchor: None,
    };
    store.create_tenant(&Actor::Program, new).await
}

/// A line of tenants, each the child of the one before.
async fn line(store: &Arc<Store>, name: &str, levels: usize) -> Vec<TenantId> {
    let mut ids = Vec::<TenantId>::new();
    for level in 1..=levels {
        ids.push(child(store, &format!("{name}-{level}"), ids.last().copied()).await);
    }
    ids
}

type Rows = Vec<(Uuid, Uuid, i64)>;

/// The closure as stored, and as following parents gives it.
async fn closures(store: &Store) -> [Rows; 2] {
    let mut tx = store.db.control(Purpose::Read).await.expect("a transaction");
    let stored = sql("SELECT tenant_id, ancestor, depth FROM tenant_closure
         ORDER BY tenant_id, depth")
    .all(&mut tx)
    .await
    .expect("rows");
    let followed = sql("WITH RECURSIVE line (tenant_id, ancestor, depth) AS (
             SELECT id, id, CAST(0 AS BIGINT) FROM tenant
             UNION ALL
             SELECT line.tenant_id, tenant.parent, line.depth + 1
             FROM line JOIN tenant ON tenant.id = line.ancestor WHERE tenant.parent IS NOT NULL
         )
         SELECT tenant_id, ancestor, depth FROM line ORDER BY tenant_id, depth")
    .all(&mut tx)
    .await
    .expect("rows");
    [stored, followed]
}

async fn assert_closed(store: &Store) {
    let [stored, followed] = closures(store).await;
    assert_eq!(stored, followed);
}

#[derive(Clone, Debug)]
enum Step {
    /// Create below the tenant of this number, or as a root.
    Create(Option<Index>),
    Move(Index, Option<Index>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = any::<Index>;
    let create = prop::option::weighted(0.8, some()).prop_map(Step::Create);
    let moved = (some(), prop::option::weighted(0.8, some()))
        .prop_map(|(moved, parent)| Step::Move(moved, parent));
    vec(prop_oneof![create, moved], 1..30)
}

#[test]
fn the_closure_is_what_following_parents_gives_on_sqlite() {
    the_closure_is_what_following_parents_gives(Backend::Sqlite);
}

#[test]
fn the_closure_is_what_following_parents_gives_on_postgres() {
    the_closure_is_what_following_parents_gives(Backend::Postgres);
}

fn the_closure_is_what_following_parents_gives(on: Backend) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let database = on.database();
    let store = runtime.block_on(database.open());
    // Cases share the database: each makes tenants of its own.
    let (case, moves) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        case.set(case.get() + 1);
        moves.set(moves.get() + runtime.block_on(walk(&store, case.get(), &steps)));
        let [stored, followed] = runtime.block_on(closures(&store));
        for (tenant, ancestor, _) in &stored {
            prop_assert!(store.is_in_subtree(TenantId(*ancestor), TenantId(*tenant)));
        }
        prop_assert_eq!(stored, followed);
        Ok(())
    });
    outcome.expect("the same");
    assert!(moves.get() > 10, "{} moves", moves.get());
}

/// Takes the steps, in the store and in a reference; how many moves succeeded.
async fn walk(store: &Arc<Store>, case: usize, steps: &[Step]) -> usize {
    let mut ids = Vec::<TenantId>::new();
    let mut parents = BTreeMap::<TenantId, Option<TenantId>>::new();
    let mut moves = 0;
    for (number, step) in steps.iter().enumerate() {
        let pick = |index: &Index| (!ids.is_empty()).then(|| *index.get(&ids));
        match step {
            Step::Create(parent) => {
                let parent = parent.as_ref().and_then(pick);
                let slug = format!("case-{case}-{number}");
                let fits = parent.is_none_or(|parent| above(&parents, parent).len() < 8);
                match create(store, &slug, parent).await {
                    Ok(tenant) => {
                        assert!(fits);
                        ids.push(tenant.id);
                        parents.insert(tenant.id, parent);
                    }
                    Err(CreateError::TooDeep) => assert!(!fits),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Move(moved, parent) => {
                let Some(moved) = pick(moved) else { continue };
                let parent = parent.as_ref().and_then(pick);
                let line = parent.map(|parent| above(&parents, parent)).unwrap_or_default();
                let height = ids
                    .iter()
                    .filter_map(|id| above(&parents, *id).iter().position(|at| *at == moved))
                    .max();
                let stays = parents[&moved] == parent;
                let fits = stays || line.len() + height.expect("itself") < 8;
                match store.move_tenant(&Actor::Program, moved, parent, None).await {
                    Ok(tenant) => {
                        assert!(fits && !line.contains(&moved));
                        assert_eq!(tenant.parent, parent);
                        parents.insert(moved, parent);
                        moves += 1;
                    }
                    Err(MoveError::Cycle(_)) => assert!(line.contains(&moved)),
                    Err(MoveError::TooDeep { .. }) => assert!(!fits),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    moves
}

/// A tenant and its ancestors, by the reference.
fn above(parents: &BTreeMap<TenantId, Option<TenantId>>, from: TenantId) -> Vec<TenantId> {
    std::iter::successors(Some(from), |id| parents[id]).collect()
}

async fn the_guides_tree_of_eight_is_one_family(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let root = child(&store, "parent-corporation", None).await;
    for (subsidiary, divisions) in [
        ("subsidiary-a", &["division-1", "division-2"][..]),
        ("subsidiary-b", &["regional-office-eu", "regional-office-apac"]),
        ("subsidiary-c", &[]),
    ] {
        let subsidiary = child(&store, subsidiary, Some(root)).await;
        for division in divisions {
            child(&store, division, Some(subsidiary)).await;
        }
    }
    let other = child(&store, "stranger", None).await;
    let family = store.family(root).await.expect("a store").expect("a family");
    assert_eq!((family.ancestors.len(), family.truncated), (0, false));
    // Created at one instant, so their order within a level is any.
    let mut shape: Vec<_> = family.members.iter().map(|m| (m.depth, m.slug.as_str())).collect();
    assert!(shape.is_sorted_by_key(|(depth, _)| *depth));
    shape.sort_unstable();
    assert_eq!(
        shape,
        [
            (0, "parent-corporation"),
            (1, "subsidiary-a"),
            (1, "subsidiary-b"),
            (1, "subsidiary-c"),
            (2, "division-1"),
            (2, "division-2"),
            (2, "regional-office-apac"),
            (2, "regional-office-eu"),
        ]
    );
    let of = |slug| family.members.iter().find(|m| m.slug == slug).expect("a member").id;
    let [a, b, office] = ["subsidiary-a", "subsidiary-b", "regional-office-eu"].map(of);
    let within = store.family(office).await.expect("a store").expect("a family");
    assert_eq!(within.ancestors, [b, root]);
    assert_eq!(store.subtree(root).await.expect("a store").len(), 8);
    assert_eq!(store.subtree(b).await.expect("a store").len(), 3);
    assert!(store.is_in_subtree(root, office) && store.is_in_subtree(office, office));
    assert!(!store.is_in_subtree(office, root) && !store.is_in_subtree(root, other));
    assert!(!store.is_in_subtree(a, office), "a sibling's");
    assert_closed(&store).await;
}

async fn a_subtree_moves_whole_and_keeps_its_residency(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let one = line(&store, "one", 3).await;
    let renamed =
        TenantPatch { organization_name: Some("One".to_owned()), ..TenantPatch::default() };
    store.patch_tenant(&Actor::Program, one[1], renamed, None).await.expect("a patch");
    let two = line(&store, "us", 2).await;
    let moved =
        store.move_tenant(&Actor::Program, one[1], Some(two[1]), Some(2)).await.expect("a move");
    assert_eq!((moved.parent, moved.version), (Some(two[1]), 3));
    assert_eq!(moved.data_residency, "eu");
    assert!(store.is_in_subtree(two[0], one[2]) && !store.is_in_subtree(one[0], one[2]));
    assert_closed(&store).await;
    let root = store.move_tenant(&Actor::Program, one[1], None, None).await.expect("a move");
    assert_eq!(root.parent, None);
    assert!(store.is_in_subtree(one[1], one[2]) && !store.is_in_subtree(two[0], one[2]));
    assert_closed(&store).await;
    let stored = store.tenant(one[1]).await.expect("a store").expect("a tenant").tenant;
    assert_eq!(stored, root);
    let again =
        store.move_tenant(&Actor::Program, one[1], None, None).await.expect("nothing to do");
    assert_eq!(again.version, root.version);
}

async fn a_move_below_oneself_or_a_descendant_is_refused(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let ids = line(&store, "level", 3).await;
    for below in &ids {
        let refused = store.move_tenant(&Actor::Program, ids[0], Some(*below), None).await;
        assert!(matches!(refused, Err(MoveError::Cycle(parent)) if parent == *below));
    }
    let stored = store.tenant(ids[0]).await.expect("a store").expect("a tenant").tenant;
    assert_eq!((stored.parent, stored.version), (None, 1));
    assert_closed(&store).await;
}

async fn a_family_grows_no_deeper_than_eight_levels_by_a_move(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let (six, three) = (line(&store, "six", 6).await, line(&store, "three", 3).await);
    let refused = store.move_tenant(&Actor::Program, three[0], Some(six[5]), None).await;
    assert!(matches!(refused, Err(MoveError::TooDeep { above: 6, below: 3 })), "{refused:?}");
    store.move_tenant(&Actor::Program, three[0], Some(six[4]), None).await.expect("eight levels");
    assert_eq!(store.family(three[2]).await.expect("a store").expect("one").ancestors.len(), 7);
    assert_closed(&store).await;
}

async fn a_parent_that_is_not_there_and_a_stale_version_are_refused(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let (one, nobody) = (child(&store, "one", None).await, TenantId(Uuid::from_u128(7)));
    let refused = store.move_tenant(&Actor::Program, one, Some(nobody), None).await;
    assert!(matches!(refused, Err(MoveError::ParentUnknown)));
    let refused = store.move_tenant(&Actor::Program, nobody, None, None).await;
    assert!(matches!(refused, Err(MoveError::NotFound)));
    let refused = store.move_tenant(&Actor::Program, one, None, Some(9)).await;
    assert!(matches!(refused, Err(MoveError::VersionMismatch { current: 1 })));
}

async fn a_status_of_an_ancestor_is_in_effect_below_it(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let ids = line(&store, "level", 4).await;
    let suspend = TenantPatch {
        status: Some(StatusChange::To(Status::Suspended, None)),
        ..TenantPatch::default()
    };
    store.patch_tenant(&Actor::Program, ids[1], suspend, None).await.expect("a suspension");
    let expected = [Status::Trial, Status::Suspended, Status::Suspended, Status::Suspended];
    for (asked, id) in ids.iter().enumerate() {
        let family = store.family(*id).await.expect("a store").expect("a family");
        let shown: Vec<_> = family.members.iter().map(|m| m.effective_status).collect();
        assert_eq!(shown, expected[asked..], "asked for level {asked}");
        let tenant = store.tenant(*id).await.expect("a store").expect("a tenant").tenant;
        assert_eq!(store.effective_status(&tenant), expected[asked]);
    }
    let page = store.children(ids[2], None, 9).await.expect("a store").expect("a tenant");
    let last = &page.children[0];
    assert_eq!((last.status, last.effective_status), (Status::Trial, Status::Suspended));
    store.move_tenant(&Actor::Program, ids[2], None, None).await.expect("a move");
    let family = store.family(ids[2]).await.expect("a store").expect("a family");
    assert!(family.members.iter().all(|member| member.effective_status == Status::Trial));
}

async fn children_come_in_pages(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let root = child(&store, "top", None).await;
    let mut expected = Vec::new();
    for number in 0..5 {
        let id = child(&store, &format!("child-{number}"), Some(root)).await;
        child(&store, &format!("grandchild-{number}"), Some(id)).await;
        expected.push(id);
    }
    expected.sort_unstable();
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.children(root, after, 2).await.expect("a store").expect("a tenant");
        found.extend(page.children.iter().map(|child| child.id));
        pages += 1;
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found, pages), (expected, 3));
    let nobody = TenantId(Uuid::from_u128(7));
    assert!(store.children(nobody, None, 2).await.expect("a store").is_none());
    assert!(store.family(nobody).await.expect("a store").is_none());
}

async fn of_a_tree_too_large_for_one_answer_the_deepest_are_left_out(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let ids = line(&store, "level", 4).await;
    for (most, listed, truncated) in [(3, &ids[..3], true), (4, &ids[..], false)] {
        let mut tx = store.db.control(Purpose::Read).await.expect("a transaction");
        let family = super::read::family(&mut tx, ids[0], most).await;
        let family = tx.end(family).await.expect("a store").expect("a family");
        let members: Vec<_> = family.members.iter().map(|member| member.id).collect();
        assert_eq!((members.as_slice(), family.truncated), (listed, truncated));
    }
}

/// A database as the release before left it: without the tables of families.
async fn forget_families(database: &Database) {
    const DROP: &str = "DROP TABLE tenant_closure; DROP TABLE tenant_parent;
        DROP TABLE tenant_terms; DROP TABLE billing_consolidation; DROP TABLE invoice;
        DROP TABLE invoice_head; DELETE FROM _sqlx_migrations WHERE description = 'hierarchy'";
    match database {
        Database::Sqlite(_) => {
            let mut raw = SqliteConnection::connect(&database.url()).await.expect("a connection");
            sqlx::raw_sql(DROP).execute(&mut raw).await.expect("dropped");
            raw.close().await.expect("an end");
        }
        Database::Postgres(url) => {
            services::postgres().superuser(url, &format!("SET search_path = edge; {DROP}"));
        }
    }
}

async fn families_from_before_the_table_are_found_by_the_migration(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let ids = line(&store, "level", 8).await;
    child(&store, "single", None).await;
    let before = closures(&store).await;
    store.close().await;
    drop(store);
    forget_families(&database).await;
    let store = database.open().await;
    assert_eq!(closures(&store).await, before);
    assert_eq!(before[0].len(), 36 + 1);
    assert_eq!(store.schema_findings().await.expect("findings"), []);
    let mut tx = store.db.control(Purpose::Read).await.expect("a transaction");
    let (parents,): (i64,) = sql("SELECT COUNT(*) FROM tenant_parent WHERE parent IS NOT NULL")
        .one(&mut tx)
        .await
        .expect("a row");
    let (terms,): (i64,) = sql("SELECT COUNT(*) FROM tenant_terms WHERE plan = 'team'")
        .one(&mut tx)
        .await
        .expect("a row");
    assert_eq!((parents, terms), (7, 9));
    drop(tx);
    store.move_tenant(&Actor::Program, ids[7], None, None).await.expect("a move");
    assert_closed(&store).await;
}
