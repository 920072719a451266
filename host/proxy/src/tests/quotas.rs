//! Permits, charges and refusals: `quotas.md` section 3.

use model::plan::ChargeOn;

use super::world::{Mode, NOW, Setup, World};

#[test]
fn an_exhausted_quota_gets_the_guides_429() {
    let world = World::new();
    world.gate.set(Mode::Exhausted);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.code()), (429, "quota-exceeded".to_owned()));
    let problem = answer.json();
    assert_eq!(problem["type"], model::problem::QUOTA_EXCEEDED);
    assert_eq!(problem["title"], "Monthly API call quota exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["monthly-api"]));
    assert_eq!(problem["resets_at"], "2026-02-01T00:00:00Z");
    assert_eq!(problem["upgrade_options"], serde_json::json!(["team", "enterprise"]));
    let left = (1_769_904_000_000 - NOW.0) / 1000;
    let retry_after: u64 = answer.field("retry-after").expect("a time").parse().expect("seconds");
    assert!((left..=left + 30).contains(&retry_after), "{retry_after} for {left}");
    assert_eq!(problem["retry_after"], retry_after);
    let policy = answer.field("ratelimit-policy").expect("a policy");
    assert_eq!(policy, "\"monthly-api\";q=1000;w=2678400");
    assert_eq!(answer.field("ratelimit"), Some(format!("\"monthly-api\";r=0;t={left}")));
    assert!(world.origin.seen().is_empty());
}

#[test]
fn an_ai_route_is_refused_by_the_daily_quota() {
    let world = World::new();
    world.gate.set(Mode::WaitThenDeny);
    let problem = world.get("/ai/chat", "").json();
    assert_eq!(problem["title"], "Daily AI request quota exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["daily-ai"]));
    assert_eq!(problem["resets_at"], "2026-01-16T00:00:00Z");
}

#[test]
fn soft_and_unknown_say_when_to_come_back() {
    let world = World::new();
    world.gate.set(Mode::Soft);
    let soft = world.get("/a", "");
    assert_eq!((soft.status, soft.field("retry-after").as_deref()), (429, Some("1")));
    assert_eq!(soft.json()["retry_after"], 1);
    assert_eq!(soft.field("ratelimit").as_deref(), Some("\"monthly-api\";r=0"));
    world.gate.set(Mode::Unavailable);
    let unknown = world.get("/a", "");
    assert_eq!((unknown.status, unknown.field("retry-after").as_deref()), (503, Some("3")));
    assert_eq!(unknown.code(), "temporary-reduced-capacity");
    assert_eq!(unknown.json()["retry_after"], 3);
    assert_eq!(unknown.field("ratelimit"), None);
}

#[test]
fn admitted_answers_append_their_quotas_to_the_upstreams() {
    let world = World::new();
    let answer = world.get("/fields", "");
    let limit = answer.field("ratelimit").expect("a limit");
    assert!(limit.starts_with("\"origin\";r=1, \"monthly-api\";r=999;t="), "{limit}");
    world.gate.set(Mode::WaitThenGrant);
    let answer = world.get("/ai/chat", "");
    let policy = answer.field("ratelimit-policy").expect("a policy");
    assert_eq!(policy, "\"monthly-api\";q=1000;w=2678400, \"daily-ai\";q=100;w=86400");
    world.gate.set(Mode::Unlimited);
    assert_eq!(world.get("/a", "").field("ratelimit"), None);
}

#[test]
fn what_the_plan_charges_is_charged_and_the_rest_goes_back() {
    for (charge_on, path, taken, refunded) in [
        (ChargeOn::Answered, "/a", 1, 0),
        (ChargeOn::Answered, "/status/404", 1, 0),
        (ChargeOn::Answered, "/status/503", 1, 1),
        (ChargeOn::Answered, "/close", 1, 1),
        (ChargeOn::Answered, "/garbage", 1, 1),
        (ChargeOn::Answered, "/half-body", 1, 0),
        (ChargeOn::Answered, "/ai/status", 2, 0),
        (ChargeOn::Admission, "/status/503", 1, 0),
        (ChargeOn::Admission, "/close", 1, 0),
    ] {
        let world = World::with(Setup { charge_on, ..Setup::default() });
        world.get(path, "");
        assert_eq!(world.gate.counts(), (taken, refunded), "{charge_on:?} {path}");
    }
}

#[test]
fn a_connection_that_fails_charges_nothing_under_any_plan() {
    for charge_on in [ChargeOn::Answered, ChargeOn::Admission] {
        let endpoint = Some(super::upstreams::nobody());
        let world = World::with(Setup { charge_on, endpoint, ..Setup::default() });
        assert_eq!(world.get("/a", "").status, 502);
        assert_eq!(world.gate.counts(), (1, 1));
    }
}

#[test]
fn a_client_that_leaves_keeps_its_charge() {
    let world = World::new();
    let mut client = world.client();
    client.write("GET /never HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(1);
    client.hang_up();
    // The next exchange of the same worker is settled after it.
    world.still_serves();
    world.gate.await_counts((2, 0));
}
