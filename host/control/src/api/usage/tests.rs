use std::collections::BTreeMap;

use model::{
    clock::UnixMs,
    gate::MeteredUsage,
    quota::{BYTES_PER_MB, Metric},
};
use serde_json::json;

use crate::{
    store::Actor,
    testing::{Backend, Control, acme, id_of, on_both},
};

on_both![
    the_guides_example_is_answered_field_by_field,
    an_authority_that_does_not_answer_is_a_503_with_retry_after,
    an_unknown_tenant_is_not_found,
];

async fn the_guides_example_is_answered_field_by_field(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let levels = BTreeMap::from([
        (Metric::Users, 45),
        (Metric::Projects, 23),
        (Metric::Storage, 8_500 * BYTES_PER_MB),
        (Metric::ConcurrentSessions, 12),
    ]);
    control.store.put_levels(&Actor::Program, id_of(&tenant), &levels).await.expect("levels");
    *control.usage.0.lock().expect("not poisoned") = Some(MeteredUsage {
        api_calls_this_month: 85_000,
        ai_requests_today: 750,
        as_of: UnixMs(1_705_314_600_000),
    });
    let guide = json!({
        "tenant_id": tenant["id"],
        "current_usage": {
            "users_count": 45,
            "projects_count": 23,
            "api_calls_this_month": 85000,
            "storage_used_mb": 8500,
            "ai_requests_today": 750,
            "concurrent_sessions": 12
        },
        "quotas": {
            "max_users": 999999,
            "max_projects": 999999,
            "max_api_calls_per_month": 999999999,
            "max_storage_mb": 1048576,
            "max_ai_requests_per_day": 10000,
            "max_concurrent_sessions": 100
        },
        "utilization_percentages": {
            "users": 0.0045,
            "projects": 0.0023,
            "api_calls": 0.0085,
            "storage": 0.81,
            "ai_requests": 7.5,
            "concurrent_sessions": 12.0
        },
        "last_calculated_at": "2024-01-15T10:30:00Z"
    });
    for prefix in ["/api/v1", "/v1"] {
        let answer = control.get(&format!("{prefix}/tenants/{}/usage", id_of(&tenant))).await;
        assert_eq!(answer.text, guide.to_string());
    }
}

async fn an_authority_that_does_not_answer_is_a_503_with_retry_after(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let answer = control.get(&format!("/api/v1/tenants/{}/usage", id_of(&tenant))).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json["code"], "temporary-reduced-capacity");
}

async fn an_unknown_tenant_is_not_found(on: Backend) {
    let control = Control::start(on).await;
    for id in ["00000000-0000-0000-0000-000000000000", "acme-corp", "%ff", "1"] {
        let answer = control.get(&format!("/api/v1/tenants/{id}/usage")).await;
        assert_eq!((answer.status, &answer.json["code"]), (404, &"not-found".into()), "{id}");
    }
}
