//! Rates: of a plan, of one tenant, and of what a policy counts.

use std::path::Path;

use serde_json::json;

use crate::{
    actors::{TenantActor, World, WorldOptions, eventually, guest},
    policy::{declare, link},
};

/// Gives the plan `team` a rate.
pub fn of_team(policies: &Path, per_second: u32, burst: u32) {
    let file = policies.join("plans.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let team = "max_concurrent_sessions = 10\n";
    assert!(text.contains(team), "the plan team");
    let rate = format!("{team}\n[plan.rate]\nper_second = {per_second}\nburst = {burst}\n");
    std::fs::write(file, text.replacen(team, &rate, 1)).expect("a file");
}

async fn world(prepare: impl FnOnce(&Path) + Send + 'static) -> World {
    let prepare = Some(Box::new(prepare) as _);
    World::with(WorldOptions { config: String::new(), prepare }).await
}

async fn statuses(tenant: &TenantActor, requests: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(tenant.get("/").await.status.as_u16());
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_plans_rate_gets_429_and_is_not_charged() {
    let world = world(|policies| of_team(policies, 2, 3)).await;
    let tenant = world.tenant("hasty", "team", "us").await;
    let admitted = tenant.get("/").await.expect(200);
    let policy = admitted.header("ratelimit-policy");
    assert!(policy.contains("\"monthly-api\";q=100000"), "{policy}");
    assert!(policy.contains("\"rate\";q=3;w=2"), "{policy}");
    assert!(admitted.header("ratelimit").contains("\"rate\";r=2;t=1"), "{admitted:?}");
    assert_eq!(statuses(&tenant, 2).await, [200, 200]);
    let refused = tenant.get("/").await.expect(429);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("ratelimit-policy"), "\"rate\";q=3;w=2");
    assert_eq!(refused.header("ratelimit"), "\"rate\";r=0;t=1");
    let problem = refused.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(
        (problem["code"].as_str(), &problem["retry_after"]),
        (Some("rate-exceeded"), &json!(1))
    );
    assert_eq!(problem["violated-policies"], json!(["rate"]));
    world.clock.advance_ms(500);
    assert_eq!(statuses(&tenant, 2).await, [200, 429], "one is earned in half a second");
    assert_eq!(world.arrivals(), 4);
    assert_eq!(world.usage(&tenant).await["current_usage"]["api_calls_this_month"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_rate_is_its_own_and_a_change_is_in_force_without_a_restart() {
    let world = world(|policies| {
        of_team(policies, 1, 2);
        std::fs::create_dir_all(policies.join("tenants")).expect("a folder");
        let text = "[rate]\nper_second = 1\nburst = 4\n";
        std::fs::write(policies.join("tenants/patient.toml"), text).expect("a file");
    })
    .await;
    let [plain, patient] = ["plain", "patient"];
    let plain = world.tenant(plain, "team", "us").await;
    let patient = world.tenant(patient, "team", "us").await;
    assert_eq!(statuses(&plain, 3).await, [200, 200, 429]);
    assert_eq!(statuses(&patient, 5).await, [200, 200, 200, 200, 429]);
    world.edit("tenants/patient.toml", |text| text.replace("burst = 4", "burst = 6"));
    eventually("the larger burst is in force", || async {
        (patient.get("/").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(statuses(&patient, 2).await, [200, 429]);
    assert_eq!(statuses(&plain, 1).await, [429]);
}

/// Takes one of the limit `login` for a key, and answers 429 where none is there.
pub fn counting() -> Vec<u8> {
    let imports = r#"(import "leanvibe:policy/rate-limit@0.1.0" "take"
        (func $take (param i32 i32 i32 i32 i64 i32)))"#;
    let body = "(call $take (i32.const 200) (i32.const 5) (i32.const 205) (i32.const 3)
            (i64.const 1) (i32.const 1024))
        (if (i32.load8_u (i32.const 1024)) (then unreachable))
        (if (i32.eqz (i32.load8_u (i32.const 1032)))
            (then (i32.store (i32.const 68) (i32.const 2))
                  (i32.store16 (i32.const 72) (i32.const 429))))
        (i32.const 64)";
    guest(imports, "loginkey", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_counts_under_the_operators_limit_apart_for_every_tenant() {
    let world = world(|policies| {
        let limits = "grants = [\"rate-limit\"]\n\
            [[rate_limit]]\nname = \"login\"\nper_second = 1\nburst = 2\n";
        declare(policies, "count", &counting(), limits);
        link(policies, "one", "count", "");
        link(
            policies,
            "two",
            "count",
            "[[rate_limit]]\npolicy = \"count\"\nname = \"login\"\nper_second = 1\nburst = 3\n",
        );
    })
    .await;
    let one = world.tenant("one", "team", "us").await;
    let two = world.tenant("two", "team", "us").await;
    assert_eq!(statuses(&one, 3).await, [200, 200, 429]);
    assert_eq!(statuses(&two, 4).await, [200, 200, 200, 429]);
    world.clock.advance_ms(1_000);
    assert_eq!(statuses(&one, 2).await, [200, 429]);
}
