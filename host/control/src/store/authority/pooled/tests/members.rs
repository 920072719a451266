//! Members that come and go in a window, with windows of their own, and what the audit says.

use model::{anchor::Anchor, clock::Clock as _, ledger::LateRefunds};

use super::{super::super::edges::lease, *};
use crate::store::{
    StoreError,
    authority::int,
    db::{Purpose, sql},
};

on_both![
    late_refunds_of_a_pools_tokens_leave_no_debt_in_what_came_before,
    a_tenant_that_comes_into_a_pool_keeps_its_window_to_its_end,
    a_row_that_only_carries_is_in_nobodys_way_and_still_counts,
    the_audit_finds_members_that_have_more_than_their_pool,
    a_pool_that_shrank_is_measured_by_its_old_size_to_the_end_of_the_window,
];

/// Only the second child is a member; then the first is too.
const WITHOUT: &[(usize, u64, u64)] = &[(2, 0, 100)];
const WITH: &[(usize, u64, u64)] = &[(1, 0, 100), (2, 0, 100)];

async fn late_refunds_of_a_pools_tokens_leave_no_debt_in_what_came_before(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(WITHOUT)).await);
    let before = bench.draw(1).await;
    assert!(bench.pool(0, 100, Some(WITH)).await);
    let of_pool = bench.draw(1).await;
    let key = bench.key(1);
    let [first, second] = [1, 2].map(|epoch| EpochRef { key, epoch });
    let spent = LeaseReport { tranche: of_pool, ..lease(second, 9, of_pool, true) };
    bench.edge.send(report_of(bench.edge.id, 0, vec![spent])).await;
    let late = vec![LateRefunds { key, total: 5 }];
    bench.edge.send(Report { late, ..empty() }).await;
    // All of the first comes back, and more than is left of what came before the pool.
    assert_eq!(bench.edge.seal(first).await.credited, before);
    assert_eq!(bench.world.account(key).await, (of_pool - 5, before + 5));
    let rest = bench.draw_all(2, PLAN).await;
    assert_eq!(rest, 100 - (of_pool - 5), "what the first child has of the pool is known exactly");
    bench.world.audit().await;
}

impl Bench {
    /// An own tranche for a child in a window of its own choice.
    async fn ask_in(&mut self, n: usize, window: Window, latest: u64) -> Opening {
        let key = WindowKey { window, ..self.key(n) };
        let request = OpenRequest { key, latest, ..self.request(n, self.edge.id) };
        self.stores[0].open(self.edge.id, vec![request]).await.expect("an answer").remove(0)
    }

    async fn audit(&self) -> Vec<(String, i64, i64)> {
        let found = self.world.store.audit_quotas().await.expect("an audit");
        found.into_iter().map(|one| (one.rule, one.found, one.expected)).collect()
    }

    /// Overwrites the pool of the first tenant, behind everybody's back.
    async fn corrupt(&self, total: u64) {
        let mut tx = self.world.store.db.control(Purpose::Write).await.expect("begun");
        for statement in [
            "UPDATE pool SET total = $2 WHERE tenant_id = $1 AND metric = 'api_calls'",
            "UPDATE quota_pool SET total_high = $2 WHERE tenant_id = $1 AND metric = 'api_calls'",
        ] {
            let done = sql(statement).bind(self.ids[0].0).bind(int(total)).execute(&mut tx).await;
            assert_eq!(done.expect("a row"), 1);
        }
        tx.end(Ok::<_, StoreError>(())).await.expect("committed");
    }
}

/// Months that begin on the tenth.
fn tenth(at: model::clock::UnixMs) -> Window {
    let anchor = Anchor::on(10).expect("a day");
    Window::of(Metric::ApiCalls, at, anchor).expect("a window")
}

async fn a_tenant_that_comes_into_a_pool_keeps_its_window_to_its_end(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(WITHOUT)).await);
    let own = tenth(NOON);
    assert!(matches!(bench.ask_in(1, own, 0).await, Opening::Opened(_)));
    assert!(bench.pool(0, 100, Some(WITH)).await);
    let pools = bench.key(1).window;
    assert_ne!(own.end, pools.end);
    let told = bench.ask_in(1, pools, 0).await;
    assert!(matches!(told, Opening::Elsewhere { window } if window == own), "{told:?}");
    assert!(matches!(bench.ask_in(1, own, 1).await, Opening::Opened(_)), "of the pool, in its own");
    // The pool's month ends first: the member is still in its own.
    bench.world.clock.advance_ms(pools.end.ms_since(NOON));
    let next = Window::of(Metric::ApiCalls, pools.end, Anchor::default()).expect("a window");
    let told = bench.ask_in(1, next, 0).await;
    assert!(matches!(told, Opening::Elsewhere { window } if window == own), "{told:?}");
    // Then it has what is left of the pool's, and all of the ones after that.
    bench.world.clock.advance_ms(own.end.ms_since(bench.world.clock.now()));
    let rest = Window { start: own.end, end: next.end };
    let told = bench.ask_in(1, next, 0).await;
    assert!(matches!(told, Opening::Elsewhere { window } if window == rest), "{told:?}");
    assert!(matches!(bench.ask_in(1, rest, 0).await, Opening::Opened(_)));
    bench.world.audit().await;
}

async fn a_row_that_only_carries_is_in_nobodys_way_and_still_counts(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(WITH)).await);
    let taken = bench.draw_all(1, 30).await;
    assert!(bench.pool(0, 100, Some(WITHOUT)).await);
    // The owner has a row now, of which nothing was granted.
    let carrying = bench.key(0).window;
    let longer = Window { end: carrying.end.plus_ms(1), ..carrying };
    let told = bench.ask_in(0, longer, 0).await;
    assert!(matches!(told, Opening::Elsewhere { window } if window == carrying), "{told:?}");
    let opened = bench.ask_in(0, tenth(NOON), 0).await;
    assert!(matches!(opened, Opening::Opened(_)), "a window of other bounds: {opened:?}");
    let told = bench.ask_in(0, carrying, 0).await;
    assert!(matches!(told, Opening::Elsewhere { window } if window == tenth(NOON)), "{told:?}");
    assert_eq!(bench.draw_all(2, PLAN).await, 100 - taken);
    bench.world.audit().await;
}

async fn the_audit_finds_members_that_have_more_than_their_pool(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(WITH)).await);
    let taken = bench.draw_all(1, 40).await;
    assert!(bench.pool(0, 100, Some(WITHOUT)).await);
    let rest = bench.draw_all(2, PLAN).await;
    assert_eq!(taken + rest, 100, "of a former member and of a present one");
    bench.corrupt(100).await;
    assert_eq!(bench.audit().await, []);
    bench.corrupt(99).await;
    assert_eq!(bench.audit().await, [("sum of members <= pool".to_owned(), 100, 99)]);
}

async fn a_pool_that_shrank_is_measured_by_its_old_size_to_the_end_of_the_window(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(WITH)).await);
    assert_eq!(bench.draw_all(1, PLAN).await, 100);
    assert!(bench.pool(0, 60, Some(&[(1, 0, 60), (2, 0, 60)])).await);
    assert_eq!(bench.audit().await, [], "it was granted before");
    assert_eq!(bench.draw(2).await, 0);
    // The next month is the smaller pool's from the beginning.
    let next = bench.key(1).window.end;
    bench.world.clock.advance_ms(next.ms_since(NOON));
    let window = Window::of(Metric::ApiCalls, next, Anchor::default()).expect("a window");
    let (mut drawn, mut latest) = (0, 0);
    while let Opening::Opened(permit) = bench.ask_in(2, window, latest).await {
        (drawn, latest) = (drawn + permit.tranche(), permit.epoch());
    }
    assert_eq!(drawn, 60);
    bench.corrupt(59).await;
    let found = bench.audit().await;
    assert!(found.contains(&("sum of members <= pool".to_owned(), 60, 59)), "{found:?}");
}
