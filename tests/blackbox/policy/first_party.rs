//! The three first-party policies, as shipped.

use serde_json::json;

use crate::actors::{World, WorldOptions, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_golden_case_of_every_policy_holds() {
    let report = edge::golden::run(&crate::actors::policies_source()).await.expect("the cases run");
    let failed: Vec<_> =
        report.outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for policy in ["residency-routing", "feature-flags", "custom-integrations"] {
        let cases =
            report.outcomes.iter().filter(|outcome| outcome.file.starts_with(policy)).count();
        assert!(cases >= 6, "{policy} has {cases} golden cases");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_country_chooses_a_region_inside_the_group_only() {
    let options = WorldOptions {
        config: "[edge]\nclient_country_header = \"x-country\"\ntrusted_proxies = [\"127.0.0.1\"]"
            .into(),
        prepare: None,
    };
    let world = World::with(options).await;
    let euro = world.tenant("euro", "enterprise", "eu").await;
    for (country, region) in [
        ("IE", "eu-west-1"),
        ("DE", "eu-central-1"),
        ("US", "eu-central-1"),
        ("??", "eu-central-1"),
    ] {
        let reply = euro.send("GET", "/", &[("x-country", country)], "").await.expect(200);
        assert_eq!(reply.json()["region"], region, "{country}");
    }
    assert_eq!(world.origin("us-east-1").arrivals(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_may_not_leave_is_refused_and_not_charged() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let refused = acme.send("GET", "/", &[("x-data-class", "eu-personal")], "").await.expect(403);
    assert_eq!(refused.code(), "residency-refused");
    assert_eq!(world.arrivals(), 0);
    assert_eq!(world.usage(&acme).await["current_usage"]["api_calls_this_month"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_the_feature_is_refused_until_the_upgrade_is_answered() {
    let world = World::start().await;
    let solo = world.tenant("solo", "developer", "uk").await;
    let refused = solo.get("/sso/login").await.expect(403);
    assert_eq!(refused.code(), "feature-not-in-plan");
    assert_eq!(refused.json()["feature"], "sso_support");
    let path = format!("/api/v1/admin/tenants/{}", solo.id);
    world.admin("PATCH", &path, Some(json!({"plan": "team"}))).await.expect(200);
    solo.get("/sso/login").await.expect(200);
    world.admin("PATCH", &path, Some(json!({"plan": "developer"}))).await.expect(200);
    solo.get("/sso/login").await.expect(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_reach_the_backend_as_headers_and_cannot_be_forged() {
    let world = World::start().await;
    let acme = world.tenant("solo", "developer", "us").await;
    acme.send("GET", "/", &[("x-feature-new-dashboard", "forged")], "").await.expect(200);
    let value = world.origin("us-east-1").last().header("x-feature-new-dashboard");
    assert!(value == "true" || value == "false", "{value:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_steps_map_rewrite_and_sign() {
    let world = World::start().await;
    let acme = world.tenant("acme-corp", "enterprise", "us").await;
    let closed = acme.get("/crm/x").await.expect(503);
    assert_eq!(closed.code(), "policy-unavailable", "without its secret the policy fails closed");
    let path = format!("/api/v1/admin/tenants/{}", acme.id);
    let secret = json!({"secrets": {"request-signing": "a-secret-of-enough-length-123456"}});
    let patched = world.admin("PATCH", &path, Some(secret)).await.expect(200);
    assert!(!patched.text().contains("a-secret-of-enough"), "secrets are write-only");
    let reply = eventually("the secret is in force", || async {
        let reply = acme.send("GET", "/crm/x", &[("x-acme-user", "ann")], "").await;
        (reply.status == 200).then_some(reply)
    })
    .await;
    let got = world.origin("us-east-1").last();
    assert_eq!(got.path, "/integrations/crm/x");
    assert_eq!(got.header("x-crm-user"), "ann");
    assert_eq!(got.header("x-acme-user"), "");
    assert!(got.header("x-signature").starts_with("t="), "{}", got.header("x-signature"));
    assert_eq!(reply.header("x-frame-options"), "DENY");
}
