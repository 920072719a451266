//! The ground truth: what was admitted and not given back, counted by the simulation itself.
//!
//! Invariants that are checked at every admission and every credit: what is charged of a
//! window is at most what the authority has debited of it; what is charged together within any
//! bound (a tenant's limit, a member's maximum, a pool's total) is at most that, and what is
//! debited together at most what the bound was at any time. A request counts in the window of
//! the true time of its admission.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    anchor::Anchor,
    clock::Clock as _,
    quota::{Metric, MetricSet},
    tenant::TenantId,
    window::Window,
};

use super::{clock::SimClock, population::Bound};

/// After a limit fell, time in which the old one may still be spent: the lease TTL of ten
/// seconds, and one that edges and authority need to hear of it.
const FALLS_WITHIN: Duration = Duration::from_secs(15);

/// A tenant's window of a metric, by its start.
pub(super) type Account = (TenantId, Metric, u64);

#[derive(Clone)]
pub(super) struct Truth(Arc<Mutex<State>>);

struct State {
    clock: SimClock,
    charged: BTreeMap<Account, u64>,
    debited: BTreeMap<Account, u64>,
    bounds: Vec<Limited>,
    admitted: u64,
    refunded: u64,
    broken: Option<String>,
    wasted: Option<String>,
}

/// A bound, and since when it was how much.
struct Limited {
    metric: Metric,
    over: Vec<TenantId>,
    limits: Vec<(Duration, u64)>,
}

impl Truth {
    pub(super) fn new(clock: SimClock) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock,
            charged: BTreeMap::new(),
            debited: BTreeMap::new(),
            bounds: Vec::new(),
            admitted: 0,
            refunded: 0,
            broken: None,
            wasted: None,
        })))
    }

    /// These are in force from now on; always the same ones in the same order.
    pub(super) fn bound(&self, bounds: Vec<Bound>) {
        let mut state = self.0.lock().unwrap();
        let since = state.clock.elapsed();
        if state.bounds.is_empty() {
            let none = |bound: &Bound| Limited {
                metric: bound.metric,
                over: bound.over.clone(),
                limits: Vec::new(),
            };
            state.bounds = bounds.iter().map(none).collect();
        }
        assert_eq!(state.bounds.len(), bounds.len());
        for (limited, bound) in state.bounds.iter_mut().zip(bounds) {
            assert_eq!((limited.metric, &limited.over), (bound.metric, &bound.over));
            limited.limits.push((since, bound.most));
        }
    }

    /// A request got its tokens; the accounts that it is charged to.
    pub(super) fn admit(&self, tenant: TenantId, metrics: MetricSet) -> Vec<Account> {
        let mut state = self.0.lock().unwrap();
        let accounts = state.present(tenant, metrics);
        state.admitted += 1;
        for account in &accounts {
            *state.charged.entry(*account).or_default() += 1;
            state.check_debit(*account);
            state.check_limits(*account);
        }
        accounts
    }

    pub(super) fn refund(&self, accounts: &[Account]) {
        let mut state = self.0.lock().unwrap();
        state.refunded += 1;
        for account in accounts {
            *state.charged.entry(*account).or_default() -= 1;
        }
    }

    /// What the authority has debited of an account, and not credited.
    pub(super) fn debited(&self, account: Account, tokens: u64) {
        let mut state = self.0.lock().unwrap();
        state.debited.insert(account, tokens);
        state.check_debit(account);
        state.check_debits(account);
    }

    pub(super) fn charged(&self, account: Account) -> u64 {
        self.0.lock().unwrap().charged.get(&account).copied().unwrap_or(0)
    }

    pub(super) fn present(&self, tenant: TenantId, metric: Metric) -> Account {
        let state = self.0.lock().unwrap();
        state.present(tenant, MetricSet::of(metric))[0]
    }

    pub(super) fn admitted(&self) -> u64 {
        self.0.lock().unwrap().admitted
    }

    pub(super) fn refunded(&self) -> u64 {
        self.0.lock().unwrap().refunded
    }

    /// Something is not as promised; the first time counts.
    pub(super) fn fail(&self, what: impl Display) {
        self.0.lock().unwrap().fail(what);
    }

    /// Something that was not charged is not usable.
    pub(super) fn waste(&self, what: impl Display) {
        self.0.lock().unwrap().wasted = Some(what.to_string());
    }

    /// What was admitted, spent or credited beyond what there is.
    pub(super) fn broken(&self) -> Option<String> {
        self.0.lock().unwrap().broken.clone()
    }

    pub(super) fn wasted(&self) -> Option<String> {
        self.0.lock().unwrap().wasted.clone()
    }
}

impl State {
    fn present(&self, tenant: TenantId, metrics: MetricSet) -> Vec<Account> {
        let of = |metric: &Metric| {
            let window = Window::of(*metric, self.clock.now(), Anchor::default()).unwrap();
            (tenant, *metric, window.start.0)
        };
        Metric::CONSUMABLE.iter().filter(|metric| metrics.contains(**metric)).map(of).collect()
    }

    fn check_debit(&mut self, account: Account) {
        let charged = self.charged.get(&account).copied().unwrap_or(0);
        let debited = self.debited.get(&account).copied().unwrap_or(0);
        if charged > debited {
            self.fail(format_args!("{account:?}: {charged} charged, {debited} debited"));
        }
    }

    fn check_limits(&mut self, account: Account) {
        let now = self.clock.elapsed();
        let over =
            |bound: &Limited| bound.sum(&self.charged, account).zip(Some(bound.highest(now)));
        let broken = self.bounds.iter().filter_map(over).find(|(charged, most)| charged > most);
        if let Some((charged, most)) = broken {
            self.fail(format_args!("{account:?}: {charged} charged of {most}"));
        }
    }

    fn check_debits(&mut self, account: Account) {
        let over = |bound: &Limited| {
            let most = bound.limits.iter().map(|(_, limit)| *limit).max();
            bound.sum(&self.debited, account).zip(most)
        };
        let broken = self.bounds.iter().filter_map(over).find(|(debited, most)| debited > most);
        if let Some((debited, most)) = broken {
            self.fail(format_args!("{account:?}: {debited} debited of {most}"));
        }
    }

    fn fail(&mut self, what: impl Display) {
        let after = self.clock.elapsed();
        self.broken.get_or_insert_with(|| format!("after {after:?}: {what}"));
    }
}

impl Limited {
    /// What the tenants have together in a window; `None` when the account is not theirs.
    fn sum(&self, of: &BTreeMap<Account, u64>, account: Account) -> Option<u64> {
        let (tenant, metric, start) = account;
        let mine = metric == self.metric && self.over.contains(&tenant);
        let one = |tenant: &TenantId| of.get(&(*tenant, metric, start)).copied().unwrap_or(0);
        mine.then(|| self.over.iter().map(one).sum())
    }

    /// The highest limit that may still be spent.
    fn highest(&self, now: Duration) -> u64 {
        let ended = |next: Option<&(Duration, u64)>| {
            next.is_some_and(|(since, _)| *since + FALLS_WITHIN < now)
        };
        let limits = self.limits.iter().enumerate();
        let in_force = limits.filter(|(index, _)| !ended(self.limits.get(index + 1)));
        in_force.map(|(_, (_, limit))| *limit).max().unwrap_or(0)
    }
}
