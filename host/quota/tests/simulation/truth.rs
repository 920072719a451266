//! The ground truth: what was admitted and not given back, counted by the simulation itself.
//!
//! Invariants that are checked at every admission and every credit: what is charged of a
//! window is at most the limit, and at most what the authority has debited of it. A request
//! counts in the window of the true time of its admission.

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
    window::Window,
};

use super::clock::SimClock;

/// After a limit fell, time in which the old one may still be spent: the lease TTL of ten
/// seconds, and one that edges and authority need to hear of it.
const FALLS_WITHIN: Duration = Duration::from_secs(15);

/// A metric's window, by its start.
pub(super) type Account = (Metric, u64);

#[derive(Clone)]
pub(super) struct Truth(Arc<Mutex<State>>);

struct State {
    clock: SimClock,
    charged: BTreeMap<Account, u64>,
    debited: BTreeMap<Account, u64>,
    /// Since when which limit was in force, per metric.
    limits: BTreeMap<Metric, Vec<(Duration, u64)>>,
    admitted: u64,
    refunded: u64,
    broken: Option<String>,
    wasted: Option<String>,
}

impl Truth {
    pub(super) fn new(clock: SimClock) -> Self {
        Self(Arc::new(Mutex::new(State {
            clock,
            charged: BTreeMap::new(),
            debited: BTreeMap::new(),
            limits: BTreeMap::new(),
            admitted: 0,
            refunded: 0,
            broken: None,
            wasted: None,
        })))
    }

    /// A limit is in force from now on.
    pub(super) fn limit(&self, metric: Metric, limit: u64) {
        let mut state = self.0.lock().unwrap();
        let since = state.clock.elapsed();
        state.limits.entry(metric).or_default().push((since, limit));
    }

    /// A request got its tokens; the accounts that it is charged to.
    pub(super) fn admit(&self, metrics: MetricSet) -> Vec<Account> {
        let mut state = self.0.lock().unwrap();
        let accounts = state.present(metrics);
        state.admitted += 1;
        for account in &accounts {
            *state.charged.entry(*account).or_default() += 1;
            state.check_debit(*account);
            state.check_limit(*account);
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
    }

    pub(super) fn charged(&self, account: Account) -> u64 {
        self.0.lock().unwrap().charged.get(&account).copied().unwrap_or(0)
    }

    pub(super) fn present(&self, metric: Metric) -> Account {
        let state = self.0.lock().unwrap();
        state.present(MetricSet::of(metric))[0]
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
    fn present(&self, metrics: MetricSet) -> Vec<Account> {
        let of = |metric: &Metric| {
            let window = Window::of(*metric, self.clock.now(), Anchor::default()).unwrap();
            (*metric, window.start.0)
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

    fn check_limit(&mut self, account: Account) {
        let charged = self.charged.get(&account).copied().unwrap_or(0);
        let limit = self.highest(account.0);
        if charged > limit {
            self.fail(format_args!("{account:?}: {charged} charged of {limit}"));
        }
    }

    /// The highest limit that may still be spent.
    fn highest(&self, metric: Metric) -> u64 {
        let now = self.clock.elapsed();
        let limits = self.limits.get(&metric).map_or(&[][..], Vec::as_slice);
        let ended = |next: Option<&(Duration, u64)>| {
            next.is_some_and(|(since, _)| *since + FALLS_WITHIN < now)
        };
        let in_force = limits.iter().enumerate().filter(|(index, _)| !ended(limits.get(index + 1)));
        in_force.map(|(_, (_, limit))| *limit).max().unwrap_or(0)
    }

    fn fail(&mut self, what: impl Display) {
        let after = self.clock.elapsed();
        self.broken.get_or_insert_with(|| format!("after {after:?}: {what}"));
    }
}
