use model::quota::Metric;
use serde_json::{Value, json};

use crate::{
    store::Actor,
    testing::{Backend, Control, id_of, on_both, tenant},
};

on_both![
    a_parents_usage_shows_its_own_and_its_subtrees_together,
    a_family_without_figures_is_a_503,
];

async fn family(control: &Control) -> Vec<Value> {
    let mut family: Vec<Value> = Vec::new();
    for (slug, parent) in
        [("upper", None), ("middle", Some(0)), ("lower", Some(1)), ("alone", None)]
    {
        let mut new = tenant(slug);
        new["parent_tenant_id"] =
            parent.map_or(Value::Null, |parent: usize| family[parent]["id"].clone());
        family.push(control.create(&new).await);
    }
    family
}

async fn a_parents_usage_shows_its_own_and_its_subtrees_together(on: Backend) {
    let control = Control::start(on).await;
    // What every tenant is said to have used.
    control.usage.set(10, 3);
    *control.sessions.0.lock().expect("not poisoned") = Some(2);
    let family = family(&control).await;
    for (number, member) in (1..).zip(&family) {
        let levels = [
            (Metric::Users, number),
            (Metric::Projects, 10 * number),
            // Three halves of a megabyte are two, not three.
            (Metric::Storage, 1 << 19),
        ];
        control
            .store
            .put_levels(&Actor::Program, id_of(member), &levels.into())
            .await
            .expect("levels");
    }
    let usage = async |place: usize| {
        let path = format!("/api/v1/tenants/{}/usage", id_of(&family[place]));
        let answer = control.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    };
    let upper = usage(0).await;
    assert_eq!(upper["current_usage"]["users_count"], 1, "its own stay its own");
    let subtree = &upper["subtree"];
    assert_eq!(subtree["tenants"], 3);
    let sums = &subtree["current_usage"];
    assert_eq!((&sums["users_count"], &sums["projects_count"]), (&json!(6), &json!(60)));
    assert_eq!(sums["storage_used_mb"], 2);
    assert_eq!(
        (&sums["api_calls_this_month"], &sums["ai_requests_today"]),
        (&30.into(), &9.into())
    );
    assert_eq!(sums["concurrent_sessions"], 6);
    let middle = usage(1).await;
    assert_eq!(middle["subtree"]["current_usage"]["users_count"], 5);
    let id = id_of(&family[0]);
    for (role, sees) in [("parent-admin", true), ("tenant-admin", false)] {
        let new = json!({ "role": role, "name": role });
        let issued = control.json("POST", &format!("/api/v1/tenants/{id}/tokens"), &new).await;
        let token = issued.json["token"].as_str().expect("a token").to_owned();
        let path = format!("/api/v1/tenants/{id}/usage");
        let answer = control.as_token(&token, "GET", &path, &Value::Null).await;
        assert_eq!(answer.json.get("subtree").is_some(), sees, "{role}: {}", answer.text);
    }
    for leaf in [2, 3] {
        assert_eq!(usage(leaf).await.get("subtree"), None, "the guide's answer as it is");
    }
}

async fn a_family_without_figures_is_a_503(on: Backend) {
    let control = Control::start(on).await;
    let family = family(&control).await;
    let path = format!("/api/v1/tenants/{}/usage", id_of(&family[0]));
    assert_eq!(control.get(&path).await.status, 503);
}
