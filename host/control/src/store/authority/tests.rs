//! The contract of an authority, on both databases. Every window of every test is audited
//! at its end.

use std::sync::Arc;

use model::{
    anchor::Anchor,
    clock::{ManualClock, UnixMs},
    ledger::{
        Authority, BootId, EpochRef, Fence, Holder, HolderId, InstallPermit, LateRefunds,
        LeaseReport, OpenRequest, Opening, Report, Stranded, Will, WindowAccount, WindowKey,
    },
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    store::{
        Store,
        db::{Purpose, Row, sql},
    },
    testing::{Backend, Database, on_both, report_of},
};

pub(super) const NOON: UnixMs = UnixMs(1_700_000_000_000);

pub(super) struct Bench {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) holder: HolderId,
    pub(super) boot: BootId,
    number: u64,
    pub(super) database: Database,
}

impl Bench {
    pub(super) async fn new(on: Backend) -> Self {
        Self::on(on.database()).await
    }

    pub(super) async fn on(database: Database) -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        let boot = BootId(Uuid::new_v4());
        let holder = register(&store, boot).await;
        Self { store, clock, holder, boot, number: 0, database }
    }

    /// Runs a statement that answers one row.
    pub(super) async fn row<T: Row>(&self, statement: &'static str) -> T {
        let mut tx = self.store.db.control(Purpose::Account).await.expect("a transaction");
        let row = sql(statement).one(&mut tx).await;
        tx.end(row).await.expect("a row")
    }

    pub(super) async fn open(&self, key: WindowKey, latest: u64, limit: u64) -> Opening {
        let fence = Fence::Holder(self.holder);
        let request = OpenRequest { key, fence, latest, limit, above: None, rate_per_s: 0 };
        self.store.open(self.holder, vec![request]).await.expect("an answer").remove(0)
    }

    pub(super) async fn opened(&self, key: WindowKey, latest: u64, limit: u64) -> InstallPermit {
        match self.open(key, latest, limit).await {
            Opening::Opened(permit) => permit,
            other => panic!("expected a tranche, got {other:?}"),
        }
    }

    pub(super) async fn report(&mut self, leases: Vec<LeaseReport>, late: Vec<LateRefunds>) -> u64 {
        self.number += 1;
        let report = Report { late, ..report_of(self.holder, self.number, leases) };
        self.store.report(report).await.expect("an answer").credited
    }

    pub(super) async fn account(&self, key: WindowKey) -> WindowAccount {
        self.store.accounts(vec![key]).await.expect("an answer").remove(0).expect("a window")
    }

    pub(super) async fn audit(&self) {
        assert_eq!(self.store.audit_quotas().await.expect("an audit"), []);
    }
}

pub(super) async fn register(store: &Store, boot: BootId) -> HolderId {
    let id = HolderId::random();
    store.register(Holder { id, edge: "local".into(), boot }).await.expect("registered");
    id
}

pub(super) fn key(metric: Metric) -> WindowKey {
    let window = Window::of(metric, NOON, Anchor::default()).expect("a window");
    WindowKey { tenant: TenantId(Uuid::new_v4()), metric, window }
}

pub(super) fn figures(key: WindowKey, epoch: u64, spent: u64, sealed: bool) -> LeaseReport {
    let of = EpochRef { key, epoch };
    LeaseReport { of, tranche: 8, lease: 1, spent, refunded: 0, sealed }
}

async fn a_quota_of_five_is_one_tranche_of_five_and_then_exhausted(on: Backend) {
    let bench = Bench::new(on).await;
    let key = key(Metric::AiRequests);
    let permit = bench.opened(key, 0, 5).await;
    assert_eq!((permit.epoch(), permit.tranche(), permit.beyond()), (1, 5, 0));
    assert!(matches!(bench.open(key, 1, 5).await, Opening::Exhausted));
    assert_eq!(bench.account(key).await.granted, 5);
    bench.audit().await;
}

async fn who_does_not_know_the_latest_epoch_debits_nothing(on: Backend) {
    let bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    assert!(matches!(bench.open(key, 0, 100).await, Opening::Lost { latest: 1 }));
    assert!(matches!(bench.open(key, 7, 100).await, Opening::Lost { latest: 1 }));
    assert_eq!(bench.account(key).await.granted, 8);
    bench.audit().await;
}

async fn one_commit_opens_for_many_and_answers_in_order(on: Backend) {
    let bench = Bench::new(on).await;
    let fence = Fence::Holder(bench.holder);
    let requests: Vec<_> = (0..50)
        .map(|limit| OpenRequest {
            key: key(Metric::ApiCalls),
            fence,
            latest: 0,
            limit,
            above: None,
            rate_per_s: 0,
        })
        .collect();
    let answers = bench.store.open(bench.holder, requests.clone()).await.expect("answers");
    for (request, answer) in requests.iter().zip(answers) {
        match answer {
            Opening::Opened(permit) => {
                assert_eq!(permit.key(), request.key);
                assert_eq!(permit.tranche(), request.limit.min(8));
            }
            Opening::Exhausted | Opening::Parked => assert_eq!(request.limit, 0),
            Opening::Lost { .. } => panic!("nobody else opens"),
        }
    }
    bench.audit().await;
}

async fn only_final_figures_are_credited_and_only_once(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    assert_eq!(bench.report(vec![figures(key, 1, 3, false)], vec![]).await, 0);
    assert_eq!(bench.account(key).await.charged, 3);
    assert_eq!(bench.report(vec![figures(key, 1, 5, true)], vec![]).await, 3);
    assert_eq!(bench.report(vec![figures(key, 1, 5, true)], vec![]).await, 0);
    assert_eq!(bench.report(vec![figures(key, 1, 0, true)], vec![]).await, 0);
    let account = bench.account(key).await;
    assert_eq!((account.granted, account.credited, account.charged), (8, 3, 5));
    bench.audit().await;
}

async fn an_older_report_never_replaces_a_newer_one(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    bench.number = 5;
    bench.report(vec![figures(key, 1, 6, false)], vec![]).await;
    bench.number = 2;
    bench.report(vec![figures(key, 1, 1, true)], vec![]).await;
    assert_eq!(bench.account(key).await.charged, 6);
    bench.audit().await;
}

async fn a_holder_cannot_report_what_is_anothers(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    bench.holder = register(&bench.store, bench.boot).await;
    assert_eq!(bench.report(vec![figures(key, 1, 0, true)], vec![]).await, 0);
    assert_eq!(bench.account(key).await.credited, 0);
    bench.audit().await;
}

async fn late_refunds_are_credited_by_difference_while_the_window_is_open(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::AiRequests);
    bench.opened(key, 0, 8).await;
    bench.report(vec![figures(key, 1, 8, true)], vec![]).await;
    let late = |total| vec![LateRefunds { key, total }];
    assert_eq!(bench.report(vec![], late(2)).await, 2);
    assert_eq!(bench.report(vec![], late(3)).await, 1);
    assert_eq!(bench.report(vec![], late(3)).await, 0);
    assert_eq!(bench.opened(key, 1, 8).await.tranche(), 3);
    bench.clock.advance_ms(24 * 3_600_000);
    assert_eq!(bench.report(vec![], late(7)).await, 0);
    bench.audit().await;
}

async fn a_raised_limit_counts_at_once_and_a_lowered_one_opens_nothing_above_it(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::AiRequests);
    bench.opened(key, 0, 5).await;
    bench.report(vec![figures(key, 1, 5, true)], vec![]).await;
    assert!(matches!(bench.open(key, 1, 5).await, Opening::Exhausted));
    assert_eq!(bench.opened(key, 1, 12).await.tranche(), 7);
    assert!(matches!(bench.open(key, 2, 3).await, Opening::Exhausted));
    assert_eq!(bench.account(key).await.limit, 3);
    bench.audit().await;
}

async fn a_will_ends_its_holder_and_brings_back_what_it_did_not_spend(on: Backend) {
    let bench = Bench::new(on).await;
    let (leased, never_leased) = (key(Metric::ApiCalls), key(Metric::AiRequests));
    bench.opened(leased, 0, 100).await;
    bench.opened(leased, 1, 100).await;
    bench.opened(never_leased, 0, 100).await;
    let will = Will {
        predecessor: bench.holder,
        boot: bench.boot,
        leases: vec![figures(leased, 1, 8, true), figures(leased, 2, 2, true)],
    };
    let inherited = bench.store.inherit(will.clone()).await.expect("inherited");
    assert_eq!((inherited.epochs, inherited.credited), (3, 6 + 8));
    let again = bench.store.inherit(will).await.expect("inherited");
    assert_eq!((again.epochs, again.credited), (0, 0));
    assert_eq!(bench.account(leased).await.charged, 10);
    assert_eq!(bench.account(never_leased).await.charged, 0);
    bench.audit().await;
}

async fn a_will_of_another_uptime_is_not_believed(on: Backend) {
    let bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    let will = Will { predecessor: bench.holder, boot: BootId(Uuid::new_v4()), leases: Vec::new() };
    let inherited = bench.store.inherit(will).await.expect("an answer");
    assert_eq!(inherited.credited, 0);
    assert_eq!(bench.account(key).await.credited, 0);
}

async fn without_a_will_open_tranches_stay_charged_until_one_is_found(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    bench.report(vec![figures(key, 1, 3, false)], vec![]).await;
    let heir = register(&bench.store, bench.boot).await;
    let stranded = bench.store.strand_others(heir).await.expect("an answer");
    assert_eq!(stranded, Stranded { epochs: 1, tokens: 5 });
    assert_eq!(bench.account(key).await.charged, 8, "a lost share counts as fully spent");
    let again = bench.store.strand_others(heir).await.expect("an answer");
    assert_eq!(again, Stranded::default());
    bench.audit().await;
    let will = Will {
        predecessor: bench.holder,
        boot: bench.boot,
        leases: vec![figures(key, 1, 4, true)],
    };
    assert_eq!(bench.store.inherit(will).await.expect("inherited").credited, 4);
    bench.audit().await;
}

async fn a_tranche_that_the_database_forgot_is_adopted_and_stays_charged(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.report(vec![figures(key, 3, 6, true)], vec![]).await;
    let account = bench.account(key).await;
    assert_eq!((account.latest, account.charged), (3, 6));
    bench.audit().await;
}

async fn a_long_window_keeps_few_rows_and_all_sums(on: Backend) {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    for latest in 0..100 {
        bench.opened(key, latest, 1_000_000).await;
        bench.report(vec![figures(key, latest + 1, 7, true)], vec![]).await;
    }
    let account = bench.account(key).await;
    assert_eq!((account.granted, account.credited, account.charged), (800, 100, 700));
    let (rows,): (i64,) = bench.row("SELECT count(*) FROM quota_epoch").await;
    assert!(rows <= 16, "{rows} rows");
    assert_eq!(bench.report(vec![figures(key, 1, 0, true)], vec![]).await, 0, "folded is final");
    bench.audit().await;
}

async fn the_audit_finds_a_broken_sum(on: Backend) {
    let bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, 100).await;
    let (_,): (i64,) = bench.row("UPDATE quota_window SET credited = 1 RETURNING credited").await;
    let found = bench.store.audit_quotas().await.expect("an audit");
    assert_eq!(found.len(), 1);
    assert!(found[0].rule.starts_with("credited"), "{found:?}");
}

on_both! {
    a_quota_of_five_is_one_tranche_of_five_and_then_exhausted,
    who_does_not_know_the_latest_epoch_debits_nothing,
    one_commit_opens_for_many_and_answers_in_order,
    only_final_figures_are_credited_and_only_once,
    an_older_report_never_replaces_a_newer_one,
    a_holder_cannot_report_what_is_anothers,
    late_refunds_are_credited_by_difference_while_the_window_is_open,
    a_raised_limit_counts_at_once_and_a_lowered_one_opens_nothing_above_it,
    a_will_ends_its_holder_and_brings_back_what_it_did_not_spend,
    a_will_of_another_uptime_is_not_believed,
    without_a_will_open_tranches_stay_charged_until_one_is_found,
    a_tranche_that_the_database_forgot_is_adopted_and_stays_charged,
    a_long_window_keeps_few_rows_and_all_sums,
    the_audit_finds_a_broken_sum,
}

/// One random step of one holder in one window.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Spend(u64),
    Seal,
    Limit(u64),
    LateRefund,
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Open),
        4 => (0_u64..12).prop_map(Step::Spend),
        3 => Just(Step::Seal),
        1 => (0_u64..60).prop_map(Step::Limit),
        1 => Just(Step::LateRefund),
        1 => Just(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_what_was_spent_is_within_the_largest_limit(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for on in [Backend::Sqlite, Backend::Postgres] {
            runtime.block_on(run(on, steps.clone()))?;
        }
    }
}

async fn run(on: Backend, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(on).await;
    let key = key(Metric::ApiCalls);
    let (mut limit, mut highest, mut latest) = (30, 30, 0);
    // The tranche in hand: epoch, size, spent.
    let mut held: Option<(u64, u64, u64)> = None;
    // Requests served and not refunded, by all holders; refundable and refunded by this one.
    let (mut charged, mut refundable, mut late) = (0, 0, 0);
    for step in steps {
        match step {
            Step::Open if held.is_none() => match bench.open(key, latest, limit).await {
                Opening::Opened(permit) => {
                    latest = permit.epoch();
                    held = Some((latest, permit.tranche(), 0));
                }
                Opening::Lost { latest: now } => latest = now,
                Opening::Exhausted | Opening::Parked => {}
            },
            Step::Spend(tokens) => {
                if let Some((_, size, spent)) = &mut held {
                    let tokens = tokens.min(*size - *spent);
                    *spent += tokens;
                    charged += tokens;
                }
            }
            Step::Seal => {
                if let Some((epoch, _, spent)) = held.take() {
                    refundable += spent;
                    bench.report(vec![figures(key, epoch, spent, true)], vec![]).await;
                }
            }
            Step::Limit(new) => {
                limit = new;
                highest = highest.max(new);
            }
            Step::LateRefund if late < refundable => {
                late += 1;
                charged -= 1;
                bench.report(vec![], vec![LateRefunds { key, total: late }]).await;
            }
            Step::Die => {
                (held, refundable, late) = (None, 0, 0);
                bench.holder = register(&bench.store, bench.boot).await;
                bench.store.strand_others(bench.holder).await.expect("stranded");
            }
            Step::Open | Step::LateRefund => {}
        }
        prop_assert!(charged <= highest, "{charged} of {highest}");
    }
    prop_assert_eq!(bench.store.audit_quotas().await.expect("an audit"), vec![]);
    Ok(())
}
