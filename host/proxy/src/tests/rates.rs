//! The rate of a tenant: before its quotas, and with fields of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use model::{
    limiter::{Bucket, Limiter, NamedKey, Taken, Unlimited, Verdict},
    rate::Rate,
    snapshot::TenantEntry,
};

use super::world::{Mode, Setup, World};

/// A rate of 10 a second and 25 at once, as it stands when a test says so.
#[derive(Debug, Default)]
struct Standing {
    wait_ms: AtomicU64,
    later: AtomicBool,
    taken: AtomicU64,
}

#[derive(Debug)]
struct Fake(Arc<Standing>);

impl Bucket for Fake {
    fn take(self: Arc<Self>, cost: u32) -> Taken {
        let wait_ms = self.0.wait_ms.load(Ordering::SeqCst);
        let allowed = wait_ms == 0;
        self.0.taken.fetch_add(u64::from(cost), Ordering::SeqCst);
        let rate = Rate::new(10, 25).expect("a rate");
        let remaining = if allowed { 24 } else { 0 };
        let verdict = Verdict { allowed, rate, remaining, wait_ms, full_ms: 1_100 };
        match self.0.later.load(Ordering::SeqCst) {
            false => Taken::Now(verdict),
            true => Taken::Later(Box::pin(async move {
                tokio::task::yield_now().await;
                verdict
            })),
        }
    }
}

impl Limiter for Fake {
    fn of_tenant(&self, _: &TenantEntry) -> Option<Arc<dyn Bucket>> {
        Some(Arc::new(Self(Arc::clone(&self.0))))
    }

    fn of_key(&self, tenant: &TenantEntry, key: NamedKey<'_>) -> Arc<dyn Bucket> {
        Unlimited.of_key(tenant, key)
    }
}

fn world() -> (World, Arc<Standing>) {
    let standing = Arc::<Standing>::default();
    let limiter: Arc<dyn Limiter> = Arc::new(Fake(Arc::clone(&standing)));
    (World::with(Setup { limiter, ..Setup::default() }), standing)
}

#[test]
fn a_request_above_the_rate_gets_429_and_takes_no_token() {
    let (world, standing) = world();
    for (wait_ms, later, retry_after) in [(1, false, "1"), (1_000, true, "1"), (2_001, false, "3")]
    {
        standing.wait_ms.store(wait_ms, Ordering::SeqCst);
        standing.later.store(later, Ordering::SeqCst);
        let answer = world.get("/a", "");
        assert_eq!((answer.status, answer.code()), (429, "rate-exceeded".to_owned()));
        assert_eq!(answer.field("retry-after").as_deref(), Some(retry_after));
        let problem = answer.json();
        assert_eq!(problem["type"], model::problem::QUOTA_EXCEEDED);
        assert_eq!(problem["title"], "Request rate exceeded");
        assert_eq!(problem["violated-policies"], serde_json::json!(["rate"]));
        assert_eq!(problem["retry_after"].to_string(), retry_after);
        assert_eq!(answer.field("ratelimit-policy").as_deref(), Some("\"rate\";q=25;w=3"));
        let limit = format!("\"rate\";r=0;t={retry_after}");
        assert_eq!(answer.field("ratelimit"), Some(limit));
    }
    assert!(world.origin.seen().is_empty());
    assert_eq!(world.gate.counts(), (0, 0), "no token was taken");
}

#[test]
fn an_admitted_answer_has_the_rate_beside_the_quotas() {
    let (world, standing) = world();
    for later in [false, true] {
        standing.later.store(later, Ordering::SeqCst);
        let answer = world.get("/a", "");
        let policy = answer.field("ratelimit-policy").expect("a policy");
        assert_eq!(policy, "\"monthly-api\";q=1000;w=2678400, \"rate\";q=25;w=3");
        let limit = answer.field("ratelimit").expect("a limit");
        assert!(limit.ends_with(", \"rate\";r=24;t=2"), "{limit}");
    }
    assert_eq!(standing.taken.load(Ordering::SeqCst), 2);
    world.gate.set(Mode::Unlimited);
    let answer = world.get("/a", "");
    assert_eq!(answer.field("ratelimit").as_deref(), Some("\"rate\";r=24;t=2"));
}

#[test]
fn a_refusal_by_the_quota_shows_the_rate_too() {
    let (world, _) = world();
    world.gate.set(Mode::Exhausted);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.code()), (429, "quota-exceeded".to_owned()));
    let policy = answer.field("ratelimit-policy").expect("a policy");
    assert_eq!(policy, "\"monthly-api\";q=1000;w=2678400, \"rate\";q=25;w=3");
}
