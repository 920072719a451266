//! What policies count under the limits of their declaration.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use model::{
    limiter::{Bucket, Limiter, NamedKey, Taken, Verdict},
    policy::Plugin,
    rate::Rate,
    snapshot::TenantEntry,
};
use sandbox::{BindingSpec, Grants, Sandbox, SandboxConfig};

use crate::kit::{clock, on_request, policy, request_guest_with, spec, status};

/// Lets two through of every tenant, policy, limit and key, and notes what it was asked.
#[derive(Debug, Default)]
struct Two {
    counts: Arc<Mutex<BTreeMap<String, u32>>>,
    /// Whether an answer has to be waited for.
    later: bool,
}

struct Counted {
    name: String,
    rate: Rate,
    counts: Arc<Mutex<BTreeMap<String, u32>>>,
    later: bool,
}

impl Bucket for Counted {
    fn take(self: Arc<Self>, cost: u32) -> Taken {
        let mut counts = self.counts.lock().expect("a lock");
        let count = counts.entry(self.name.clone()).or_default();
        let allowed = cost <= 2 - *count;
        *count += if allowed { cost } else { 0 };
        let remaining = 2 - *count;
        let verdict =
            Verdict { allowed, rate: self.rate, remaining, wait_ms: 6_001, full_ms: 4_000 };
        match self.later {
            false => Taken::Now(verdict),
            true => Taken::Later(Box::pin(async move {
                tokio::task::yield_now().await;
                verdict
            })),
        }
    }
}

impl Limiter for Two {
    fn of_tenant(&self, _: &TenantEntry) -> Option<Arc<dyn Bucket>> {
        None
    }

    fn of_key(&self, tenant: &TenantEntry, key: NamedKey<'_>) -> Arc<dyn Bucket> {
        let NamedKey { policy, limit, key, rate } = key;
        let slug = tenant.record.tenant.slug.as_str();
        let name = format!("{slug}/{policy}/{limit}/{key}");
        Arc::new(Counted { name, rate, counts: Arc::clone(&self.counts), later: self.later })
    }
}

fn sandbox(limiter: Option<Arc<dyn Limiter>>) -> Arc<Sandbox> {
    let config = SandboxConfig { slots: 8, ..SandboxConfig::default() };
    Sandbox::with_limiter(config, clock(), limiter).expect("the engine starts")
}

/// A binding whose policy declares the limit `login` of 7 at once.
fn limited() -> BindingSpec {
    let rate = Rate::new(1, 7).expect("a rate");
    BindingSpec { rate_limits: Arc::new(BTreeMap::from([("login".into(), rate)])), ..spec() }
}

/// A guest that takes `cost` of a limit with a key, and answers 200 + the byte at `at` of
/// the result: 0 is the discriminant, 8 the case of an error or whether it was allowed, 16
/// the limit, 24 what remains, 32 the seconds.
fn takes(limit: &str, key_bytes: usize, cost: i64, at: usize) -> Vec<u8> {
    let imports = r#"(import "leanvibe:policy/rate-limit@0.1.0" "take"
        (func $take (param i32 i32 i32 i32 i64 i32)))"#;
    let length = limit.len();
    let body = format!(
        "(call $take (i32.const 200) (i32.const {length}) (i32.const 300) (i32.const {key_bytes})
            (i64.const {cost}) (i32.const 1024))
         (i32.store8 (i32.const 68) (i32.const 2))
         (i32.store16 (i32.const 72)
            (i32.add (i32.const 200) (i32.load8_u (i32.const {}))))
         (i32.const 64)",
        1024 + at
    );
    // The key at 300 is made of zeros: valid text.
    request_guest_with(imports, limit, &body)
}

fn answers(plugin: &Arc<dyn Plugin>, tenants: &[u128]) -> Vec<u16> {
    tenants.iter().map(|tenant| status(&on_request(plugin, *tenant).1)).collect()
}

#[test]
fn a_policy_takes_from_the_bucket_of_its_tenant_limit_and_key() {
    for later in [false, true] {
        let limiter = Arc::new(Two { later, ..Two::default() });
        let sandbox = sandbox(Some(Arc::clone(&limiter) as _));
        let plugin = policy(&sandbox, &takes("login", 3, 1, 8), limited());
        assert_eq!(answers(&plugin, &[1, 1, 1, 2]), [201, 201, 200, 201], "allowed or not");
        let counts = limiter.counts.lock().expect("a lock");
        let names: Vec<_> = counts.keys().cloned().collect();
        let key = "\0\0\0";
        let named = ["tenant-1", "tenant-2"].map(|slug| format!("{slug}/test/login/{key}"));
        assert_eq!(names, named);
    }
}

#[test]
fn the_outcome_tells_limit_remainder_and_time() {
    for (at, first, refused) in [(0, 200, 200), (16, 207, 207), (24, 200, 200), (32, 204, 207)] {
        let sandbox = sandbox(Some(Arc::new(Two::default())));
        let plugin = policy(&sandbox, &takes("login", 1, 2, at), limited());
        assert_eq!(answers(&plugin, &[1, 1]), [first, refused], "byte {at}");
    }
}

#[test]
fn what_cannot_be_counted_is_told_apart() {
    let limiter = || Some(Arc::new(Two::default()) as Arc<dyn Limiter>);
    let ungranted = BindingSpec { grants: Grants::NONE, ..limited() };
    for (case, sandbox, guest, spec) in [
        (0, sandbox(limiter()), takes("login", 1, 1, 8), ungranted),
        (1, sandbox(limiter()), takes("other", 1, 1, 8), limited()),
        (1, sandbox(limiter()), takes("login", 1, 1, 8), spec()),
        (2, sandbox(None), takes("login", 1, 1, 8), limited()),
        (3, sandbox(limiter()), takes("login", 0, 1, 8), limited()),
        (3, sandbox(limiter()), takes("login", 257, 1, 8), limited()),
    ] {
        let plugin = policy(&sandbox, &guest, spec);
        assert_eq!(answers(&plugin, &[1]), [200 + case]);
    }
}

#[test]
fn more_than_any_burst_is_never_there() {
    let sandbox = sandbox(Some(Arc::new(Two::default())));
    let plugin = policy(&sandbox, &takes("login", 1, i64::MAX, 8), limited());
    assert_eq!(answers(&plugin, &[1]), [200]);
}
