//! Alerts of the real program, killed with kill -9 while it counts and while it tells.
//!
//! The receivers leave whoever tells something for the first time without an answer, so each
//! kill finds a webhook and a mail that were sent and not acknowledged. Afterwards there is
//! one event for each threshold, whatever was sent again.

use std::{collections::BTreeSet, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::actors::{
    ADMIN_TOKEN, Backend, Client, Delivered, EdgeProcess, MailSink, Origin, WebhookReceiver,
    eventually, eventually_within, on_both, prepare_policies,
};

on_both![a_warning_and_a_critical_alert_are_told_once_each_whatever_kill_9_interrupts];

/// Calls of a month that the tenant has.
const QUOTA: u64 = 100;
/// Longest wait for what the killed process had claimed: three times the lease's 30 s.
const LEASE_ENDS: Duration = Duration::from_secs(90);
const RECIPIENT: &str = "ops@told.example";

/// An installation: its data, and what is around it.
struct Installation {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
    process: EdgeProcess,
    origin: Origin,
    webhook: WebhookReceiver,
    mail: MailSink,
}

impl Installation {
    async fn start(on: Backend) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let origin = Origin::start("any").await;
        prepare_policies(dir.path(), &origin);
        let (webhook, mail) = (WebhookReceiver::start().await, MailSink::start().await);
        let networks = "[\"127.0.0.0/8\"]".to_owned();
        let mut env = vec![
            ("LEANVIBE_EDGE__CONTROL__WEBHOOK_ALLOW_NETWORKS", networks),
            ("LEANVIBE_EDGE__CONTROL__SMTP__URL", mail.url()),
            ("LEANVIBE_EDGE__CONTROL__SMTP__FROM", "LeanVibe <alerts@edge.example>".to_owned()),
        ];
        env.extend(on.url().map(|url| ("LEANVIBE_EDGE__STORE__URL", url)));
        let process = serve(dir.path(), &env).await;
        Self { dir, env, process, origin, webhook, mail }
    }

    /// kill -9, and a start on the same data.
    async fn killed_and_started_again(&mut self) {
        self.process.kill().await;
        self.process = serve(self.dir.path(), &self.env).await;
    }

    /// Calls the API as the operator.
    async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = Client::request(method, path, "control.test")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/json");
        let body = body.map(|body| body.to_string().into()).unwrap_or_default();
        let reply = self.process.control.send(request.body(body).expect("a request")).await;
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.text());
        reply.json()
    }

    /// Sends requests through the data plane until so many have reached the origin in all.
    async fn serves_up_to(&self, calls: u64) {
        while (self.origin.arrivals() as u64) < calls {
            self.call().await.expect(200);
        }
    }

    async fn call(&self) -> crate::actors::Reply {
        let request = Client::request("GET", "/", "told.localhost").body(Default::default());
        self.process.edge.send(request.expect("a request")).await
    }

    /// Waits until so many events have arrived by webhook and by mail; none is answered.
    async fn is_in_the_middle_of_telling(&self, events: usize) {
        eventually(&format!("{events} events are on their way"), || async {
            let hooks: BTreeSet<_> = ids(&self.webhook.deliveries());
            let mails: BTreeSet<_> =
                self.mail.mails().iter().map(|mail| mail.id().to_owned()).collect();
            (hooks.len() >= events && mails.len() >= events).then_some(())
        })
        .await;
    }
}

async fn serve(dir: &Path, env: &[(&'static str, String)]) -> EdgeProcess {
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    EdgeProcess::serve_with(dir, &env).await
}

fn ids(deliveries: &[Delivered]) -> BTreeSet<String> {
    deliveries.iter().map(|delivered| delivered.id().to_owned()).collect()
}

/// Creates the tenant with its quota; its id.
async fn tenant(on: &Installation) -> String {
    let body = json!({
        "organization_name": "Told", "slug": "told", "admin_email": "a@told.example",
        "plan": "team", "data_residency": "us",
    });
    let created = on.api("POST", "/api/v1/admin/tenants", Some(body)).await;
    let id = created["id"].as_str().expect("an id").to_owned();
    let quotas = json!({"quota_overrides": {"max_api_calls_per_month": QUOTA}});
    on.api("PATCH", &format!("/api/v1/admin/tenants/{id}"), Some(quotas)).await;
    let shown = on.call().await.expect(200).header("ratelimit-policy");
    assert!(shown.contains(&format!("q={QUOTA};")), "{shown}");
    id
}

/// Has the tenant told by both channels; the secret that webhooks are signed with.
async fn alerts(on: &Installation, tenant: &str) -> String {
    let rule = json!({
        "warning_threshold": 80, "critical_threshold": 95,
        "notification_channels": ["email", "webhook"], "recipients": [RECIPIENT],
        "webhook_url": on.webhook.url(),
    });
    let settings = json!({"quota_alerts": {"api_calls": rule}});
    let put = on.api("PUT", &format!("/api/v1/tenants/{tenant}/alerts"), Some(settings)).await;
    put["webhook_secret"].as_str().expect("a secret").to_owned()
}

async fn a_warning_and_a_critical_alert_are_told_once_each_whatever_kill_9_interrupts(on: Backend) {
    let mut on = Installation::start(on).await;
    let tenant = tenant(&on).await;
    let secret = alerts(&on, &tenant).await;

    on.serves_up_to(79).await;
    on.killed_and_started_again().await;
    on.serves_up_to(80).await;
    on.is_in_the_middle_of_telling(1).await;
    on.killed_and_started_again().await;
    on.serves_up_to(94).await;
    on.killed_and_started_again().await;
    on.serves_up_to(95).await;
    on.is_in_the_middle_of_telling(2).await;
    on.killed_and_started_again().await;
    eventually_within(LEASE_ENDS, "everybody was told", || async {
        let hooks = on.webhook.deliveries().iter().filter(|hook| hook.acknowledged).count();
        let mails = on.mail.mails().iter().filter(|mail| mail.acknowledged).count();
        (hooks >= 2 && mails >= 2 && settled(&on, &tenant).await).then_some(())
    })
    .await;
    // Another life, on the same figures, has nothing to add.
    on.killed_and_started_again().await;
    on.serves_up_to(96).await;
    eventually("another request is counted", || async {
        let usage = on.api("GET", &format!("/api/v1/tenants/{tenant}/usage"), None).await;
        (usage["current_usage"]["api_calls_this_month"].as_u64() >= Some(96)).then_some(())
    })
    .await;

    let told = two_events(&on.webhook.deliveries(), &secret);
    two_mails(&on.mail, &told);
    let events = events(&on, &tenant).await;
    let stored: BTreeSet<_> =
        events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!((events.len(), stored), (2, told));
}

/// The events of the tenant, as the API has them.
async fn events(on: &Installation, tenant: &str) -> Vec<Value> {
    let path = format!("/api/v1/tenants/{tenant}/alerts/events");
    let page = on.api("GET", &path, None).await;
    page["items"].as_array().expect("events").clone()
}

/// Whether each delivery of each event is stored as delivered.
async fn settled(on: &Installation, tenant: &str) -> bool {
    let delivered = |event: &Value| {
        let deliveries = event["deliveries"].as_array().expect("deliveries");
        deliveries.len() == 2 && deliveries.iter().all(|one| one["state"] == "delivered")
    };
    events(on, tenant).await.iter().all(delivered)
}

/// One warning and one critical event, each sent more than once under its id and with one
/// body, all signed; their ids.
#[track_caller]
fn two_events(deliveries: &[Delivered], secret: &str) -> BTreeSet<String> {
    let mut kinds = Vec::new();
    for id in ids(deliveries) {
        let of: Vec<_> = deliveries.iter().filter(|delivered| delivered.id() == id).collect();
        assert!(of.len() >= 2, "the first delivery of {id} was cut off: {of:?}");
        assert!(of.iter().all(|delivered| delivered.body == of[0].body), "{of:?}");
        let event: Value = serde_json::from_str(&of[0].body).expect("JSON");
        let data = &event["data"];
        assert_eq!((&data["metric"], &data["limit"]), (&json!("api_calls"), &json!(QUOTA)));
        // Neither early nor late: nothing that a killed life had counted is counted twice.
        assert_eq!(data["used"], data["threshold"], "{event}");
        kinds.push((event["type"].as_str().expect("a type").to_owned(), data["threshold"].clone()));
    }
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let kind = |name: &str, threshold: u64| (name.to_owned(), json!(threshold));
    assert_eq!(kinds, [kind("quota.critical", 95), kind("quota.warning", 80)]);
    for delivered in deliveries {
        assert!(is_signed(delivered, secret), "{delivered:?}");
        assert!(!is_signed(delivered, &format!("whsec_{}", STANDARD.encode([7; 32]))));
    }
    ids(deliveries)
}

/// Whether a delivery is signed as the Standard Webhooks specification has it.
fn is_signed(delivered: &Delivered, secret: &str) -> bool {
    let key = secret.strip_prefix("whsec_").expect("the prefix");
    let key = STANDARD.decode(key).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    let at = delivered.header("webhook-timestamp");
    mac.update(format!("{}.{at}.{}", delivered.id(), delivered.body).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    delivered.header("webhook-signature").split(' ').any(|signature| signature == expected)
}

/// One mail for each event, byte for byte the same whenever it came.
#[track_caller]
fn two_mails(sink: &MailSink, events: &BTreeSet<String>) {
    let mails = sink.mails();
    let distinct: BTreeSet<_> = mails.iter().map(|mail| (mail.id(), mail.data.as_str())).collect();
    assert_eq!(distinct.len(), 2, "{mails:?}");
    for event in events {
        let of = distinct.iter().filter(|(id, _)| id.contains(event.as_str()));
        assert_eq!(of.count(), 1, "one mail of {event}: {mails:?}");
    }
    assert!(mails.len() >= 4, "the first of each was cut off: {mails:?}");
    assert!(mails.iter().all(|mail| mail.to == RECIPIENT), "{mails:?}");
}
