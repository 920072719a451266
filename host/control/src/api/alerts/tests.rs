use serde_json::{Value, json};

use crate::{
    notify::AllowedNetworks,
    testing::{Answer, Backend, Control, TOKEN, acme, id_of, on_both, tenant},
};

on_both![
    the_guides_document_is_taken_as_it_is,
    without_settings_nothing_is_told,
    every_bad_field_is_named_at_once,
    a_warning_lies_below_its_critical_threshold_inherited_or_not,
    webhooks_reach_the_public_and_what_the_operator_allows,
    a_secret_is_shown_once_and_rotated,
    an_entity_tag_protects_a_version,
    every_change_leaves_one_entry_of_audit,
    events_are_listed_in_pages_with_their_deliveries,
    other_tenants_see_nothing,
];

fn guide() -> Value {
    json!({
        "quota_alerts": {
            "api_calls": {
                "warning_threshold": 80,
                "critical_threshold": 95,
                "notification_channels": ["email", "webhook"],
                "recipients": ["admin@company.com"]
            },
            "storage": {
                "warning_threshold": 85,
                "critical_threshold": 95,
                "auto_cleanup_enabled": false
            }
        }
    })
}

fn path(tenant: &Value, rest: &str) -> String {
    format!("/api/v1/tenants/{}/alerts{rest}", id_of(tenant))
}

async fn put(control: &Control, tenant: &Value, settings: &Value) -> Answer {
    control.json("PUT", &path(tenant, ""), settings).await
}

async fn the_guides_document_is_taken_as_it_is(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let answer = put(&control, &acme, &guide()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["quota_alerts"], guide()["quota_alerts"]);
    let warnings = answer.json["warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 1, "the guide names no URL for its webhook: {warnings:?}");
    assert!(warnings[0].as_str().expect("text").starts_with("quota_alerts.api_calls: "));
    let path = path(&acme, "").replace("/api/v1", "/v1");
    let read = control.get(&path).await;
    assert_eq!(read.json["quota_alerts"], guide()["quota_alerts"]);
    assert_eq!(read.json.get("defaults"), None);
}

async fn without_settings_nothing_is_told(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let read = control.get(&path(&acme, "")).await;
    let nothing = json!({
        "quota_alerts": {}, "webhook_secrets": [], "disabled_webhooks": [], "warnings": [],
    });
    assert_eq!((read.status, &read.json), (200, &nothing));
    assert_eq!(read.headers["etag"], "\"0\"");
    let events = control.get(&path(&acme, "/events")).await;
    assert_eq!(events.json, json!({"items": [], "next_cursor": null}));
}

async fn every_bad_field_is_named_at_once(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let many: Vec<_> = (0..21).map(|n| format!("r{n}@acme.example")).collect();
    let refused = put(
        &control,
        &acme,
        &json!({
            "quota_alerts": {
                "api_calls": {
                    "warning_threshold": 0,
                    "critical_threshold": 100.01,
                    "notification_channels": ["email", "pigeon"],
                    "recipients": ["admin@company.com", "nobody"],
                    "webhook_url": "ftp://a.example/",
                    "auto_cleanup_enabled": "no",
                    "colour": "red",
                },
                "storage": {"warning_threshold": 80.001, "auto_cleanup_enabled": true},
                "users": {"recipients": []},
                "projects": {"recipients": many},
                "ai_requests": 7,
                "disk": {},
            },
            "defaults": {"critical_threshold": "95"},
            "version": 1,
        }),
    )
    .await;
    assert_eq!(
        refused.bad_fields(),
        [
            "quota_alerts.users.recipients",
            "quota_alerts.projects.recipients",
            "quota_alerts.api_calls.warning_threshold",
            "quota_alerts.api_calls.critical_threshold",
            "quota_alerts.api_calls.notification_channels[1]",
            "quota_alerts.api_calls.recipients[1]",
            "quota_alerts.api_calls.webhook_url",
            "quota_alerts.api_calls.auto_cleanup_enabled",
            "quota_alerts.api_calls.colour",
            "quota_alerts.storage.warning_threshold",
            "quota_alerts.storage.auto_cleanup_enabled",
            "quota_alerts.ai_requests",
            "quota_alerts.disk",
            "defaults.critical_threshold",
            "version",
        ]
    );
    let cleanup = refused.json["errors"].as_array().expect("errors").iter();
    let cleanup =
        cleanup.filter(|error| error["field"] == "quota_alerts.storage.auto_cleanup_enabled");
    let detail = cleanup.map(|error| error["detail"].as_str().expect("text")).collect::<String>();
    assert!(detail.contains("declared ephemeral"), "{detail}");
    for body in [json!({}), json!({"quota_alerts": null}), json!({"quota_alerts": []})] {
        assert_eq!(put(&control, &acme, &body).await.bad_fields(), ["quota_alerts"], "{body}");
    }
    assert_eq!(control.get(&path(&acme, "")).await.headers["etag"], "\"0\"");
}

async fn a_warning_lies_below_its_critical_threshold_inherited_or_not(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let refused = put(
        &control,
        &acme,
        &json!({
            "quota_alerts": {
                "users": {"warning_threshold": 90},
                "storage": {"warning_threshold": 60, "critical_threshold": 60},
                "projects": {"critical_threshold": 80.5},
                "api_calls": {"critical_threshold": 80},
                "ai_requests": {},
            },
            "defaults": {"critical_threshold": 90},
        }),
    )
    .await;
    let mut bad = refused.bad_fields();
    bad.sort_unstable();
    let expected = ["api_calls", "storage", "users"];
    assert_eq!(bad, expected.map(|name| format!("quota_alerts.{name}.warning_threshold")));
}

async fn webhooks_reach_the_public_and_what_the_operator_allows(on: Backend) {
    let inside = AllowedNetworks::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let default = Control::start(on).await;
    let opened = Control::start_with(on, |deps| deps.notify.webhook_allow_networks = inside).await;
    for (control, url, taken) in [
        (&default, "https://hooks.acme.example/x", true),
        (&default, "http://hooks.acme.example/x", false),
        (&default, "https://10.0.0.1/x", false),
        (&default, "https://localhost:1/%00", true),
        (&default, "https://localhost:1/\u{0}", false),
        (&opened, "https://10.0.0.1/x", true),
        (&opened, "http://10.0.0.1/x", true),
        (&opened, "https://192.168.0.1/x", false),
        (&opened, "http://1.1.1.1/x", false),
    ] {
        let tenant = control.create(&tenant(&format!("t{}", control.store.tenant_count()))).await;
        let settings = json!({"quota_alerts": {"users": {"webhook_url": url}}});
        let answer = put(control, &tenant, &settings).await;
        assert_eq!(answer.status, if taken { 200 } else { 422 }, "{url}: {}", answer.text);
    }
}

async fn a_secret_is_shown_once_and_rotated(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let first = put(&control, &acme, &guide()).await.json["webhook_secret"].clone();
    assert!(first.as_str().expect("a secret").starts_with("whsec_"), "{first}");
    assert_eq!(put(&control, &acme, &guide()).await.json.get("webhook_secret"), None);
    let rotated = control.post(&path(&acme, "/webhook-secret")).await;
    assert_eq!(rotated.status, 201, "{}", rotated.text);
    assert_ne!(rotated.json["webhook_secret"], first);
    assert_eq!(rotated.json["previous_expires_at"], "2024-01-02T00:00:00Z");
    let read = control.get(&path(&acme, "")).await;
    assert_eq!(
        read.json["webhook_secrets"],
        json!([
            {"created_at": "2024-01-01T00:00:00Z", "expires_at": null},
            {"created_at": "2024-01-01T00:00:00Z", "expires_at": "2024-01-02T00:00:00Z"},
        ])
    );
    assert!(!read.text.contains("whsec_"), "{}", read.text);
    let body = json!({"secret": "of my own"});
    let refused = control.json("POST", &path(&acme, "/webhook-secret"), &body).await;
    assert_eq!(refused.bad_fields(), ["secret"]);
}

async fn an_entity_tag_protects_a_version(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let send = async |tag: &str| {
        let fields = [("content-type", "application/json"), ("if-match", tag)];
        control.with(("PUT", &path(&acme, "")), &fields, &guide().to_string()).await
    };
    assert_eq!(send("\"1\"").await.status, 412);
    assert_eq!(send("\"0\"").await.headers["etag"], "\"1\"");
    assert_eq!(send("\"0\"").await.status, 412);
    assert_eq!(send("\"1\"").await.headers["etag"], "\"2\"");
    assert_eq!(send("*").await.headers["etag"], "\"3\"");
}

async fn every_change_leaves_one_entry_of_audit(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    put(&control, &acme, &guide()).await;
    put(&control, &acme, &json!({"quota_alerts": {"disk": {}}})).await;
    put(&control, &acme, &json!({"quota_alerts": {}})).await;
    control.post(&path(&acme, "/webhook-secret")).await;
    let audit = control.get(&format!("/api/v1/tenants/{}/audit", id_of(&acme))).await;
    let entries = audit.json["items"].as_array().expect("entries");
    let of = |entry: &Value| (entry["actor"].clone(), entry["action"].clone());
    let ours: Vec<_> = entries.iter().skip(1).map(of).collect();
    let operator = |action: &str| (json!("operator"), json!(action));
    let expected = ["alerts.put", "alerts.put", "webhook_secret.rotate"].map(operator);
    assert_eq!(ours, expected);
    assert!(!audit.text.contains("whsec_"), "{}", audit.text);
}

async fn events_are_listed_in_pages_with_their_deliveries(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    put(
        &control,
        &acme,
        &json!({
            "quota_alerts": {}, "defaults": {"notification_channels": ["email", "webhook"]},
        }),
    )
    .await;
    for _ in 0..5 {
        control.store.tell_plan_changed(id_of(&acme)).await;
        control.clock.advance_ms(1_000);
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = control.get(&path(&acme, &format!("/events{query}"))).await;
        assert_eq!(page.status, 200, "{}", page.text);
        seen.extend(page.json["items"].as_array().expect("items").clone());
        match page.json["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    let at: Vec<_> = seen.iter().map(|event| event["occurred_at"].clone()).collect();
    let expected: Vec<_> = (0..5).rev().map(|n| json!(format!("2024-01-01T00:00:0{n}Z"))).collect();
    assert_eq!(at, expected, "newest first, each once");
    assert_eq!(seen[0]["type"], "tenant.plan_changed");
    assert_eq!(
        seen[0]["deliveries"],
        json!([
            {
                "channel": "email",
                "target": "admin@acme-corp.com",
                "state": "pending",
                "attempts": 0,
                "next_attempt_at": "2024-01-01T00:00:04Z",
                "last_error": null,
                "settled_at": null,
            },
            {
                "channel": "webhook",
                "target": null,
                "state": "failed",
                "attempts": 0,
                "next_attempt_at": null,
                "last_error": "no webhook_url is set: set it for the metric or in defaults",
                "settled_at": "2024-01-01T00:00:04Z",
            },
        ])
    );
    for query in ["?limit=0", "?limit=201", "?limit=x"] {
        let refused = control.get(&path(&acme, &format!("/events{query}"))).await;
        assert_eq!(refused.bad_fields(), ["limit"], "{query}");
    }
    let refused = control.get(&path(&acme, "/events?cursor=x&colour=red")).await;
    assert_eq!(refused.bad_fields(), ["cursor", "colour"]);
}

async fn other_tenants_see_nothing(on: Backend) {
    let control = Control::start(on).await;
    let (own, other) =
        (control.create(&tenant("own")).await, control.create(&tenant("other")).await);
    put(&control, &other, &guide()).await;
    let issued = control
        .json(
            "POST",
            &format!("/api/v1/tenants/{}/tokens", id_of(&own)),
            &json!({"role": "tenant-admin", "name": "t"}),
        )
        .await;
    let token = issued.json["token"].as_str().expect("a token");
    let none = Value::Null;
    let requests = [
        ("GET", "", none.clone(), 200),
        ("PUT", "", guide(), 200),
        ("POST", "/webhook-secret", none.clone(), 201),
        ("GET", "/events", none, 200),
    ];
    let nobody = json!({"id": "00000000-0000-7000-8000-000000000000"});
    for (method, rest, body, status) in requests {
        let send = |tenant| control.as_token(token, method, tenant, &body);
        let (own, other) = (path(&own, rest), path(&other, rest));
        assert_eq!(send(&own).await.status, status, "{method} {rest}");
        let (foreign, missing) = (send(&other).await, send(&path(&nobody, rest)).await);
        assert_eq!((foreign.status, missing.status), (404, 404), "{method} {rest}");
        assert_eq!(foreign.text, missing.text);
        let missing = path(&nobody, rest);
        let operator = control.as_token(TOKEN, method, &missing, &body).await;
        assert_eq!(operator.status, 404, "{method} {rest}: {}", operator.text);
    }
}
