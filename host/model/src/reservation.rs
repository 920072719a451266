//! Room under a quota that is set aside while a request uses it: bytes of an upload, one
//! user, one project.
//!
//! The data plane asks the [`StorageGate`] before it reads a body, and settles when the
//! upstream has answered. Asked only on routes that declare it. Invariant: for every tenant
//! and pool, what is used and what is set aside together stay within the limit, and what a
//! lost edge had set aside stays so until somebody says what became of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    BoxFuture,
    plan::{Plan, upgrade_options},
    pool::Bound,
    problem::{Problem, QUOTA_EXCEEDED},
    quota::{BYTES_PER_MB, Metric, whole_mb},
    tenant::TenantId,
};

/// Bytes set aside at a time for a body of unknown length (4 MiB): one transaction each, and
/// the most that such an upload may hold beyond what it has sent.
pub const STEP_BYTES: u64 = 4 << 20;

/// An amount to set aside, in the metric's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// As much as this, if there is room.
    pub most: u64,
    /// No less than this.
    pub least: u64,
}

impl Amount {
    /// This much and nothing else.
    #[must_use]
    pub const fn exactly(amount: u64) -> Self {
        Self { most: amount, least: amount }
    }

    /// A step for a body that goes on, with room for `least` bytes.
    #[must_use]
    pub const fn step(least: u64) -> Self {
        Self { most: if least > STEP_BYTES { least } else { STEP_BYTES }, least }
    }
}

/// Room that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub tenant: TenantId,
    /// Of what: users, projects or storage (in bytes).
    pub metric: Metric,
    /// How much.
    pub amount: Amount,
}

/// What a route's requests need room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserves {
    /// The bytes of the body: they are stored.
    Body,
    /// One more of this.
    One(Metric),
}

impl Reserves {
    /// The level that rises.
    #[must_use]
    pub const fn metric(self) -> Metric {
        match self {
            Self::Body => Metric::Storage,
            Self::One(metric) => metric,
        }
    }
}

/// No room: as it stood, in the metric's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Of what.
    pub metric: Metric,
    /// The level.
    pub used: u64,
    /// Set aside for requests under way, or whose outcome is not known.
    pub reserved: u64,
    /// The most that the tenant can have.
    pub limit: u64,
    /// What left no room.
    pub by: Bound,
}

impl Exceeded {
    /// The refusal, on the edge and on the API alike. What an upgrade would not help is not
    /// offered as one: an allocation in a pool replaces the plan's quota.
    #[must_use]
    pub fn problem(&self, plans: &BTreeMap<String, Arc<Plan>>) -> Problem {
        let storage = self.metric == Metric::Storage;
        let status = if storage { 413 } else { 403 };
        let problem = Problem::new(status, "quota-exceeded", self.metric.exceeded_title())
            .of_type(QUOTA_EXCEEDED)
            .detail(detail(self.by))
            .with("violated-policies", vec![self.metric.rate_limit_name()])
            .with("limited_by", self.by.as_str());
        let (problem, limit) = if storage { self.in_mb(problem) } else { self.counted(problem) };
        let upgrades = match self.by {
            Bound::Plan => upgrade_options(plans, limit, self.metric),
            Bound::Share | Bound::Pool => Vec::new(),
        };
        problem.with("upgrade_options", upgrades)
    }

    fn in_mb(&self, problem: Problem) -> (Problem, u64) {
        let actions = match self.by {
            Bound::Plan => vec!["delete_files", "upgrade_plan"],
            Bound::Share | Bound::Pool => vec!["delete_files"],
        };
        let limit = self.limit / BYTES_PER_MB;
        let problem = problem
            .with("available_actions", actions)
            .with("current_usage_mb", whole_mb(self.used))
            .with("quota_limit_mb", limit);
        (self.set_aside(problem, "reserved_mb", whole_mb(self.reserved)), limit)
    }

    fn counted(&self, problem: Problem) -> (Problem, u64) {
        let problem = problem.with("current_usage", self.used).with("quota_limit", self.limit);
        (self.set_aside(problem, "reserved", self.reserved), self.limit)
    }

    fn set_aside(&self, problem: Problem, member: &str, reserved: u64) -> Problem {
        if self.reserved == 0 { problem } else { problem.with(member, reserved) }
    }
}

const fn detail(by: Bound) -> &'static str {
    match by {
        Bound::Plan => "The claim goes beyond the quota of the plan.",
        Bound::Share => "The claim goes beyond the tenant's share of its parent's pool.",
        Bound::Pool => "What is left of the parent's pool is set aside for others, or used.",
    }
}

/// Why nothing was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Exceeded(Exceeded),
    /// Nobody can say.
    Unavailable,
}

/// What became of a request that had room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The level changed by so much: what was stored, or what the upstream reports.
    Taken(i64),
    /// Nothing came of it.
    Nothing,
    /// The upstream had all of it and never answered: it stays set aside until somebody says.
    Unknown,
}

/// Sets room aside. Both waits are bounded by the implementation.
pub trait StorageGate: Send + Sync {
    /// Room for a request. Dropping the future, or what it gave, gives the room back.
    fn reserve(&self, wanted: Wanted) -> BoxFuture<'static, Result<Reservation, Refused>>;
}

/// Whoever keeps one reservation alive; called by [`Reservation`] alone.
pub trait Keeper: Send + Sync {
    /// More room; how much.
    fn extend(&self, more: Amount) -> BoxFuture<'static, Result<u64, Refused>>;
    /// Whether it is known to be in force for a while yet. Asked per piece of a body.
    fn is_live(&self) -> bool;
    /// Ends it; called once, never waits.
    fn settle(&self, outcome: Outcome);
}

/// Room that is set aside. Given back when dropped.
pub struct Reservation {
    keeper: Option<Arc<dyn Keeper>>,
    amount: u64,
}

impl Reservation {
    /// Made by the gate only, once the room is durably set aside.
    #[must_use]
    pub fn new(keeper: Arc<dyn Keeper>, amount: u64) -> Self {
        Self { keeper: Some(keeper), amount }
    }

    /// How much was set aside at first.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Asks for more room; how much was given.
    pub fn extend(&self, more: Amount) -> BoxFuture<'static, Result<u64, Refused>> {
        match &self.keeper {
            Some(keeper) => keeper.extend(more),
            None => Box::pin(std::future::ready(Err(Refused::Unavailable))),
        }
    }

    /// Whether what is being done with it may go on.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.is_live())
    }

    /// Says what became of it.
    pub fn settle(mut self, outcome: Outcome) {
        if let Some(keeper) = self.keeper.take() {
            keeper.settle(outcome);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.settle(Outcome::Nothing);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("amount", &self.amount).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Outcome>>);

    impl Keeper for Told {
        fn extend(&self, more: Amount) -> BoxFuture<'static, Result<u64, Refused>> {
            Box::pin(std::future::ready(Ok(more.most)))
        }

        fn is_live(&self) -> bool {
            true
        }

        fn settle(&self, outcome: Outcome) {
            self.0.lock().expect("the list").push(outcome);
        }
    }

    #[test]
    fn a_reservation_is_settled_once_and_given_back_when_dropped() {
        let told = Arc::<Told>::default();
        Reservation::new(Arc::clone(&told) as _, 1).settle(Outcome::Taken(-7));
        drop(Reservation::new(Arc::clone(&told) as _, 1));
        Reservation::new(Arc::clone(&told) as _, 1).settle(Outcome::Unknown);
        let outcomes = told.0.lock().expect("the list").clone();
        assert_eq!(outcomes, [Outcome::Taken(-7), Outcome::Nothing, Outcome::Unknown]);
    }

    #[test]
    fn a_step_has_room_for_what_is_at_hand() {
        assert_eq!(Amount::step(1), Amount { most: STEP_BYTES, least: 1 });
        let large = STEP_BYTES + 1;
        assert_eq!(Amount::step(large), Amount::exactly(large));
    }

    #[test]
    fn a_refusal_of_storage_speaks_in_mb_and_shows_what_is_set_aside() {
        let mut why = Exceeded {
            metric: Metric::Storage,
            used: 5 * BYTES_PER_MB + 1,
            reserved: 0,
            limit: 10 * BYTES_PER_MB,
            by: Bound::Plan,
        };
        let problem = why.problem(&BTreeMap::new());
        assert_eq!((problem.status, problem.title), (413, "Storage quota exceeded"));
        assert_eq!(problem.extra["current_usage_mb"], 6);
        assert_eq!(problem.extra["quota_limit_mb"], 10);
        assert_eq!(problem.extra.get("reserved_mb"), None);
        assert_eq!(problem.extra.get("retry_after"), None);
        why.reserved = 1;
        assert_eq!(why.problem(&BTreeMap::new()).extra["reserved_mb"], 1);
        let users = Exceeded { metric: Metric::Users, by: Bound::Pool, ..why };
        let problem = users.problem(&BTreeMap::new());
        assert_eq!((problem.status, problem.title), (403, "User quota exceeded"));
        assert_eq!(problem.extra["upgrade_options"], serde_json::json!([]));
    }
}
