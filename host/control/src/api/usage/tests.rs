use std::collections::BTreeMap;

use model::{
    anchor::Anchor,
    clock::UnixMs,
    gate::{EdgeQuota, MeteredUsage},
    ledger::{
        Authority as _, BootId, EpochRef, Fence, Holder, HolderId, LeaseReport, OpenRequest,
        WindowKey,
    },
    quota::{BYTES_PER_MB, Metric},
    tenant::TenantId,
    window::Window,
};
use serde_json::{Value, json};

use crate::{
    store::Actor,
    testing::{Backend, Control, NEW_YEAR, acme, id_of, on_both, report_of},
};

on_both![
    the_guides_example_is_answered_field_by_field,
    an_authority_that_does_not_answer_is_a_503_with_retry_after,
    an_unknown_tenant_is_not_found,
    the_numbers_of_leases_add_up_to_what_was_granted,
    reported_levels_are_the_usage_figures,
    levels_that_are_none_are_named_all_at_once,
    a_claim_is_counted_under_the_plan_and_leaves_one_audit_entry,
    a_claim_that_is_sent_again_is_answered_alike,
    users_beyond_the_quota_are_a_403_that_names_larger_plans,
    storage_beyond_the_quota_is_the_guides_413_without_retry_after,
    a_claim_that_is_none_is_named_field_by_field,
    a_pool_replaces_the_quota_that_percentages_and_refusals_are_of,
    trends_are_whole_days_with_gaps_filled,
    trends_of_hours_end_with_this_one,
    trends_are_not_sent_again_to_who_has_them,
    what_is_no_trend_is_refused_with_what_is,
];

async fn the_guides_example_is_answered_field_by_field(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let levels = BTreeMap::from([
        (Metric::Users, 45),
        (Metric::Projects, 23),
        (Metric::Storage, 8_500 * BYTES_PER_MB),
    ]);
    control.store.put_levels(&Actor::Program, id_of(&tenant), &levels).await.expect("levels");
    *control.sessions.0.lock().expect("not poisoned") = Some(12);
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
    control.usage.set(1, 1);
    let path = format!("/api/v1/tenants/{}/usage", id_of(&tenant));
    assert_eq!(control.get(&path).await.status, 200);
    *control.sessions.0.lock().expect("not poisoned") = None;
    assert_eq!(control.get(&path).await.status, 503, "sessions that nobody can count are not 0");
}

async fn the_numbers_of_leases_add_up_to_what_was_granted(on: Backend) {
    let control = Control::start(on).await;
    let (tenant, path) = team(&control).await;
    control.usage.set(0, 0);
    assert_eq!(control.get(&path).await.json.get("lease"), None, "nothing was granted");
    let id: TenantId = id_of(&tenant);
    let window = Window::of(Metric::ApiCalls, NEW_YEAR, Anchor::default()).expect("a window");
    let key = WindowKey { tenant: id, metric: Metric::ApiCalls, window };
    let (one, other) = (holder(&control, "one").await, holder(&control, "other").await);
    let store = &control.store;
    for holder in [one, other] {
        let fence = Fence::Holder(holder);
        let request =
            OpenRequest { key, fence, latest: 0, limit: 1_000, above: None, rate_per_s: 0 };
        store.open(holder, vec![request]).await.expect("opened");
    }
    let spent = |epoch, spent, refunded| LeaseReport {
        of: EpochRef { key, epoch },
        tranche: 8,
        lease: 1,
        spent,
        refunded,
        sealed: false,
    };
    store.report(report_of(one, 1, vec![spent(1, 3, 2)])).await.expect("reported");
    store.report(report_of(other, 1, vec![spent(2, 1, 0)])).await.expect("reported");
    let heir = holder(&control, "other").await;
    store.strand_others(heir).await.expect("lost");
    let edge = EdgeQuota {
        metric: Metric::ApiCalls,
        at_hand: 5,
        kept: 0,
        admitted: 8,
        dispatcher_calls: 2,
    };
    *control.usage.1.lock().expect("not poisoned") = vec![edge];
    let lease = control.get(&path).await.json["lease"].clone();
    assert_eq!(
        lease,
        json!({"api_calls": {
            "window_start": "2024-01-01T00:00:00Z",
            "window_end": "2024-02-01T00:00:00Z",
            "limit": 1000, "granted": 16, "credited": 0, "spent": 4, "wasted": 7,
            "outstanding": 5, "refunded": 2,
            "edge": {
                "at_hand": 5, "kept": 0, "admitted": 8, "dispatcher_calls": 2,
                "dispatcher_calls_per_admitted": 0.25
            }
        }})
    );
}

async fn holder(control: &Control, edge: &str) -> HolderId {
    let id = HolderId::random();
    let boot = BootId(uuid::Uuid::new_v4());
    control.store.register(Holder { id, edge: edge.into(), boot }).await.expect("registered");
    id
}

async fn an_unknown_tenant_is_not_found(on: Backend) {
    let control = Control::start(on).await;
    for id in ["00000000-0000-0000-0000-000000000000", "acme-corp", "%ff", "1"] {
        let answer = control.get(&format!("/api/v1/tenants/{id}/usage")).await;
        assert_eq!((answer.status, &answer.json["code"]), (404, &"not-found".into()), "{id}");
    }
}

/// A tenant on the team plan: 10 users, 50 projects, 10,240 MB.
async fn team(control: &Control) -> (Value, String) {
    let mut new = acme();
    new["plan"] = "team".into();
    let tenant = control.create(&new).await;
    let path = format!("/api/v1/tenants/{}/usage", id_of(&tenant));
    (tenant, path)
}

fn claim(id: &str, metric: &str, delta: i64) -> Value {
    json!({ "id": id, "metric": metric, "delta": delta })
}

async fn reported_levels_are_the_usage_figures(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    control.usage.set(0, 0);
    let levels = format!("{usage}/levels");
    let bytes = 5 * BYTES_PER_MB + 1;
    let answer = control.json("PUT", &levels, &json!({ "users": 4, "storage_bytes": bytes })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json, json!({ "users": 4, "projects": 0, "storage_bytes": bytes }));
    let answer = control.json("PUT", &levels, &json!({ "projects": 400, "users": null })).await;
    assert_eq!(answer.json, json!({ "users": 4, "projects": 400, "storage_bytes": bytes }));
    let usage = control.get(&usage).await.json;
    assert_eq!(usage["current_usage"]["storage_used_mb"], 6);
    assert_eq!(usage["current_usage"]["users_count"], 4);
    assert_eq!(usage["utilization_percentages"]["users"], 40.0);
    assert_eq!(usage["utilization_percentages"]["projects"], 800.0);
    assert_eq!(usage.get("pools"), None);
}

async fn levels_that_are_none_are_named_all_at_once(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    let levels = format!("{usage}/levels");
    let bad = json!({ "users": -1, "projects": 1.5, "storage_bytes": "1", "storage_mb": 1 });
    let answer = control.json("PUT", &levels, &bad).await;
    assert_eq!(answer.bad_fields(), ["users", "projects", "storage_bytes", "storage_mb"]);
    let answer = control.json("PUT", &levels, &json!({ "users": 1_u64 << 53 })).await;
    assert_eq!(answer.bad_fields(), ["users"]);
    for nothing in [json!({}), json!({ "users": null })] {
        assert_eq!(control.json("PUT", &levels, &nothing).await.bad_fields(), ["users"]);
    }
}

async fn a_claim_is_counted_under_the_plan_and_leaves_one_audit_entry(on: Backend) {
    let control = Control::start(on).await;
    let (tenant, usage) = team(&control).await;
    let claims = format!("{usage}/claims");
    // What a client may take for an id.
    const ID: &str = "jane.doe@acme.example";
    let answer = control.json("POST", &claims, &claim(ID, "users", 3)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let counted = json!({ "id": ID, "metric": "users", "delta": 3, "level": 3 });
    assert_eq!(answer.json, counted);
    let answer = control.json("POST", &claims, &claim("b", "users", -1)).await;
    assert_eq!((answer.status, &answer.json["level"]), (201, &2.into()));
    let audit = control.get(&format!("/api/v1/tenants/{}/audit", id_of(&tenant))).await.json;
    let items = audit["items"].as_array().expect("items");
    let acts: Vec<_> = items.iter().map(|item| [&item["action"], &item["target"]]).collect();
    assert_eq!(
        acts[1..],
        [[&json!("usage.claim"), &json!("users")], [&json!("usage.claim"), &json!("users")]]
    );
    assert!(!audit.to_string().contains(ID), "the chain is for ever: {audit}");
    let refused = control.json("POST", &claims, &claim("c", "users", 9)).await;
    assert_eq!(refused.status, 403);
    let after = control.get(&format!("/api/v1/tenants/{}/audit", id_of(&tenant))).await.json;
    assert_eq!(after, audit, "a refusal changes nothing");
}

async fn a_claim_that_is_sent_again_is_answered_alike(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    let claims = format!("{usage}/claims");
    let first = control.json("POST", &claims, &claim("a", "projects", 1)).await;
    control.json("POST", &claims, &claim("b", "projects", 1)).await;
    let again = control.json("POST", &claims, &claim("a", "projects", 1)).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = control.json("POST", &claims, &claim("a", "projects", 2)).await;
    assert_eq!(other.bad_fields(), ["id"]);
}

async fn users_beyond_the_quota_are_a_403_that_names_larger_plans(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    let answer = control.json("POST", &format!("{usage}/claims"), &claim("a", "users", 11)).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert_eq!(
        answer.json,
        json!({
            "type": model::problem::QUOTA_EXCEEDED,
            "title": "User quota exceeded",
            "status": 403,
            "code": "quota-exceeded",
            "detail": "The claim goes beyond the quota of the plan.",
            "violated-policies": ["users"],
            "limited_by": "plan",
            "current_usage": 0,
            "quota_limit": 10,
            "upgrade_options": ["enterprise"],
        })
    );
    assert!(!answer.headers.contains_key("retry-after"));
}

async fn storage_beyond_the_quota_is_the_guides_413_without_retry_after(on: Backend) {
    let control = Control::start(on).await;
    let mut new = acme();
    new["plan"] = "developer".into();
    let tenant = control.create(&new).await;
    let usage = format!("/api/v1/tenants/{}/usage", id_of(&tenant));
    let full = json!({ "storage_bytes": 1_024 * BYTES_PER_MB });
    control.json("PUT", &format!("{usage}/levels"), &full).await;
    let answer = control.json("POST", &format!("{usage}/claims"), &claim("a", "storage", 1)).await;
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert!(!answer.headers.contains_key("retry-after"));
    for (member, value) in [
        ("title", json!("Storage quota exceeded")),
        ("available_actions", json!(["delete_files", "upgrade_plan"])),
        ("current_usage_mb", json!(1024)),
        ("quota_limit_mb", json!(1024)),
        ("upgrade_options", json!(["team", "enterprise"])),
        ("violated-policies", json!(["storage"])),
    ] {
        assert_eq!(answer.json[member], value, "{member}");
    }
    let largest = control.create(&crate::testing::tenant("largest")).await;
    let claims = format!("/api/v1/tenants/{}/usage/claims", id_of(&largest));
    let answer = control.json("POST", &claims, &claim("a", "storage", 1 << 41)).await;
    assert_eq!((answer.status, &answer.json["upgrade_options"]), (413, &json!([])));
}

async fn a_claim_that_is_none_is_named_field_by_field(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    let claims = format!("{usage}/claims");
    for (bad, fields) in [
        (json!({}), vec!["metric", "delta", "id"]),
        (json!({ "metric": "api_calls", "delta": 0, "id": "" }), vec!["metric", "delta", "id"]),
        (json!({ "metric": "users", "delta": 1.5, "id": "a\u{0}" }), vec!["delta", "id"]),
        (
            json!({ "metric": "users", "delta": i64::MIN, "id": "a".repeat(129) }),
            vec!["delta", "id"],
        ),
        (json!({ "metric": "users", "delta": 1, "id": "a", "unit": "kg" }), vec!["unit"]),
    ] {
        assert_eq!(control.json("POST", &claims, &bad).await.bad_fields(), fields, "{bad}");
    }
}

async fn a_pool_replaces_the_quota_that_percentages_and_refusals_are_of(on: Backend) {
    let control = Control::start(on).await;
    control.usage.set(0, 0);
    let parent = control.create(&crate::testing::tenant("parent")).await;
    let mut child = crate::testing::tenant("child-1");
    child["plan"] = "team".into();
    child["parent_tenant_id"] = parent["id"].clone();
    let child = control.create(&child).await;
    let pools = json!({ "resource_sharing": {
        "shared_storage_pool": {
            "total_allocation_gb": 100,
            "child_allocations": { "child-1": { "guaranteed_gb": 20, "max_gb": 50 } },
        },
        "shared_user_pool": { "total_seats": 40 },
    } });
    let path = format!("/api/v1/tenants/{}/pools", id_of(&parent));
    assert_eq!(control.json("PUT", &path, &pools).await.status, 200);
    let usage = format!("/api/v1/tenants/{}/usage", id_of(&child));
    let levels = json!({ "users": 10, "storage_bytes": 25_u64 << 30 });
    control.json("PUT", &format!("{usage}/levels"), &levels).await;
    let figures = control.get(&usage).await.json;
    assert_eq!(figures["quotas"]["max_storage_mb"], 10_240, "the plan's figures stay");
    assert_eq!(figures["utilization_percentages"]["storage"], 50.0);
    assert_eq!(figures["utilization_percentages"]["users"], 25.0);
    let share = |guaranteed, limit| json!({ "pool_tenant_id": parent["id"], "guaranteed": guaranteed, "limit": limit });
    let expected = json!({ "max_users": share(0, 40), "max_storage_mb": share(20_480, 51_200) });
    assert_eq!(figures["pools"], expected);
    let claims = format!("{usage}/claims");
    let answer = control.json("POST", &claims, &claim("a", "users", 31)).await;
    assert_eq!((answer.status, &answer.json["limited_by"]), (403, &json!("share")));
    assert_eq!(answer.json["upgrade_options"], json!([]), "another plan changes nothing");
    assert_eq!(answer.json["quota_limit"], 40);
    let answer = control.json("POST", &claims, &claim("a", "storage", 26 << 30)).await;
    assert_eq!((answer.status, &answer.json["quota_limit_mb"]), (413, &json!(51_200)));
    assert_eq!(answer.json["available_actions"], json!(["delete_files"]));
    assert_eq!(control.json("POST", &claims, &claim("a", "users", 30)).await.status, 201);
}

async fn trends_are_whole_days_with_gaps_filled(on: Backend) {
    let control = Control::start(on).await;
    let (tenant, usage) = team(&control).await;
    control.clock.advance_ms(3 * 86_400_000 + 5_000);
    let levels = json!({ "users": 7, "storage_bytes": 3 * BYTES_PER_MB - 1 });
    control.json("PUT", &format!("{usage}/levels"), &levels).await;
    control.clock.advance_ms(2 * 86_400_000);
    let path = format!("{usage}/trends?period=4d&metrics=api_calls,storage,users");
    let answer = control.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let bucket = |day: u32, storage: u64, users: u64, partial: bool| {
        json!({
            "start": format!("2024-01-0{day}T00:00:00Z"),
            "partial": partial,
            "values": { "api_calls": 0, "storage": storage, "users": users },
        })
    };
    assert_eq!(
        answer.json,
        json!({
            "tenant_id": tenant["id"],
            "period": "4d",
            "bucket": "day",
            "metrics": ["api_calls", "storage", "users"],
            "buckets": [
                bucket(3, 0, 0, false),
                bucket(4, 3, 7, false),
                bucket(5, 3, 7, false),
                bucket(6, 3, 7, true),
            ],
        })
    );
    let all = control.get(&format!("/v1/tenants/{}/usage/trends", id_of(&tenant))).await.json;
    assert_eq!(all["metrics"].as_array().expect("names").len(), 6);
    assert_eq!(all["buckets"].as_array().expect("buckets").len(), 30);
}

async fn trends_of_hours_end_with_this_one(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    control.clock.advance_ms(10 * 3_600_000 + 1);
    for (period, buckets, first) in
        [("1h", 1, "2024-01-01T10:00:00Z"), ("168h", 168, "2023-12-25T11:00:00Z")]
    {
        let answer = control.get(&format!("{usage}/trends?period={period}")).await.json;
        assert_eq!(answer["bucket"], "hour");
        let all = answer["buckets"].as_array().expect("buckets");
        assert_eq!((all.len(), &all[0]["start"]), (buckets, &json!(first)));
        assert_eq!(all[buckets - 1]["start"], "2024-01-01T10:00:00Z");
        let partial = all.iter().filter(|bucket| bucket["partial"] == true).count();
        assert_eq!((partial, &all[buckets - 1]["partial"]), (1, &json!(true)));
    }
}

async fn trends_are_not_sent_again_to_who_has_them(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    let path = format!("{usage}/trends?period=2d");
    let first = control.get(&path).await;
    let tag = first.headers["etag"].to_str().expect("a tag").to_owned();
    for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let answer = control.with(("GET", &path), &[("if-none-match", &known)], "").await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""), "{known}");
        assert_eq!(answer.headers["etag"], tag.as_str());
    }
    control.json("PUT", &format!("{usage}/levels"), &json!({ "users": 1 })).await;
    let answer = control.with(("GET", &path), &[("if-none-match", &tag)], "").await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.headers["etag"], tag.as_str());
    assert_eq!(answer.headers["cache-control"], "private, no-cache");
}

async fn what_is_no_trend_is_refused_with_what_is(on: Backend) {
    let control = Control::start(on).await;
    let (_, usage) = team(&control).await;
    for period in
        ["0d", "367d", "169h", "30", "d", "1w", "-1d", "+1d", "1.5h", "99999999999999999999h"]
    {
        let answer = control.get(&format!("{usage}/trends?period={period}&metrics=users")).await;
        assert_eq!(answer.bad_fields(), ["period"], "{period}");
        let detail = answer.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains("1h to 168h or 1d to 366d"), "{detail}");
    }
    let answer = control.get(&format!("{usage}/trends?metrics=users,emails&period=x&from=1")).await;
    assert_eq!(answer.bad_fields(), ["period", "metrics", "from"]);
    assert!(answer.text.contains("concurrent_sessions"), "{}", answer.text);
    let nobody = format!("/api/v1/tenants/{}/usage/trends", uuid::Uuid::nil());
    assert_eq!(control.get(&nobody).await.status, 404);
}
