use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use hmac::{Hmac, Mac};
use model::quota::Metric;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::*;
use crate::{
    notify::{
        AllowedNetworks, NotifyConfig, SmtpConfig,
        testing::{MailSink, Received, Receiver},
    },
    store::{
        Actor, AlertSettings, DeliveryRecord, DeliveryState,
        alerts::tests::{Bench, tenant},
    },
    testing::{Backend, on_both},
};

const HOUR_MS: u64 = 3_600_000;
/// As long as a worker may take for one attempt.
const LEASE_MS: u64 = 30_000;

/// A tenant that is told of its API calls, by mail and by webhook.
struct Told {
    bench: Bench,
    receiver: Receiver,
    sink: MailSink,
    /// What webhooks are signed with.
    secret: String,
}

impl Told {
    async fn new(on: Backend) -> Self {
        let (receiver, sink) = (Receiver::start().await, MailSink::start().await);
        let bench = Bench::new(on).await;
        let settings = json!({
            "quota_alerts": {"api_calls": {
                "warning_threshold": 80,
                "critical_threshold": 95,
                "notification_channels": ["email", "webhook"],
                "recipients": ["admin@company.com"],
                "webhook_url": receiver.url("/hook"),
            }, "storage": {"notification_channels": ["webhook"], "webhook_url": receiver.url("/hook")}},
        });
        let settings = serde_json::from_value(settings).expect("settings");
        let put = bench
            .store
            .put_alerts(&Actor::Program, bench.tenant, settings, None)
            .await
            .expect("a put");
        let secret = put.secret.expect("a secret").expose().to_owned();
        Self { bench, receiver, sink, secret }
    }

    fn channels(&self) -> Channels {
        let smtp = SmtpConfig::new(&self.sink.url(), "alerts@edge.example").expect("a server");
        Channels::new(&NotifyConfig { smtp: Some(smtp), webhook_allow_networks: loopback() })
    }

    fn courier(&self) -> Courier {
        self.courier_of(&self.bench.store)
    }

    fn courier_of(&self, store: &Arc<Store>) -> Courier {
        let clock = Arc::clone(&self.bench.clock) as _;
        Courier { store: Arc::clone(store), clock, channels: self.channels() }
    }

    /// Charges so many API calls and looks at the thresholds.
    async fn spend(&self, charged: i64) {
        self.bench.spend(Metric::ApiCalls, charged).await;
        self.bench.evaluate().await;
    }

    async fn run(&self) {
        run(self.courier()).await.expect("a run");
    }

    /// The one delivery of the first event by a channel.
    async fn delivery(&self, channel: Channel) -> DeliveryRecord {
        let events = self.bench.events().await;
        let found = events[0].deliveries.iter().find(|one| one.channel == channel);
        found.expect("a delivery").clone()
    }

    fn verify(&self, received: &Received) {
        assert_eq!(signed(&self.secret, received), received.header("webhook-signature"));
    }
}

fn loopback() -> AllowedNetworks {
    AllowedNetworks::new(vec!["127.0.0.0/8".parse().expect("a network")])
}

/// What the signature must be, as a receiver computes it.
fn signed(secret: &str, received: &Received) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a prefix")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    let [id, at] = ["webhook-id", "webhook-timestamp"].map(|name| received.header(name));
    mac.update(format!("{id}.{at}.{}", received.body).as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

on_both![
    one_warning_and_one_critical_reach_each_channel,
    what_a_killed_worker_had_is_sent_again_under_the_same_id,
    what_was_sent_but_not_stored_is_the_same_message_again,
    a_receiver_that_fails_is_tried_again_later_and_later,
    a_receiver_that_stays_away_is_given_up_after_a_day,
    a_receiver_that_is_gone_gets_nothing_more_until_the_settings_are_put_anew,
    mail_without_a_server_fails_and_says_what_to_set,
    a_rotated_secret_signs_beside_the_new_one_for_a_day,
    one_tenant_does_not_take_every_worker,
    tenants_whose_endpoints_hang_hold_up_nobody_else,
];

async fn one_warning_and_one_critical_reach_each_channel(on: Backend) {
    let told = Told::new(on).await;
    for charged in [0, 799, 800, 801, 949, 950, 1_000] {
        told.spend(charged).await;
        told.run().await;
        told.run().await;
    }
    let received = told.receiver.received();
    let bodies: Vec<Value> =
        received.iter().map(|got| serde_json::from_str(&got.body).expect("JSON")).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    assert_eq!(
        bodies[0],
        json!({
            "type": "quota.warning",
            "timestamp": "2024-01-15T10:30:00Z",
            "data": {
                "tenant_id": told.bench.tenant,
                "metric": "api_calls",
                "used": 800,
                "limit": 1000,
                "percent": 80.0,
                "threshold": 80,
                "window": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
                "occurred_at": "2024-01-15T10:30:00Z",
            },
        })
    );
    assert_eq!(
        (&bodies[1]["type"], &bodies[1]["data"]["used"]),
        (&"quota.critical".into(), &950.into())
    );
    let ids: BTreeSet<_> = received.iter().map(|got| got.header("webhook-id")).collect();
    assert_eq!(ids.len(), 2);
    received.iter().for_each(|got| told.verify(got));
    let mails = told.sink.taken().clone();
    let subjects: Vec<_> = mails.iter().map(|mail| mail.header("Subject").expect("one")).collect();
    assert_eq!(
        subjects,
        [
            "[LeanVibe] Warning: Acme Corp has used 80.0 % of its quota of api calls",
            "[LeanVibe] Critical: Acme Corp has used 95.0 % of its quota of api calls",
        ]
    );
    assert!(mails.iter().all(|mail| mail.to == ["admin@company.com"]));
    let states: BTreeSet<_> = told
        .bench
        .events()
        .await
        .iter()
        .flat_map(|event| {
            event
                .deliveries
                .iter()
                .map(|one| (one.state.as_str(), one.attempts))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(states, BTreeSet::from([("delivered", 1)]));
}

async fn what_a_killed_worker_had_is_sent_again_under_the_same_id(on: Backend) {
    let told = Told::new(on).await;
    told.spend(800).await;
    let killed = told.bench.store.claim_deliveries(10).await.expect("a claim");
    assert_eq!(killed.len(), 2);
    told.run().await;
    told.bench.clock.advance_ms(LEASE_MS - 1);
    told.run().await;
    assert_eq!(told.receiver.received().len(), 0, "they are still with the other");
    let pending = told.delivery(Channel::Webhook).await;
    assert_eq!((pending.state, pending.attempts), (DeliveryState::Pending, 1));
    told.bench.clock.advance_ms(1);
    told.run().await;
    let received = told.receiver.received();
    assert_eq!((received.len(), told.sink.taken().len()), (1, 1));
    assert_eq!(received[0].header("webhook-id"), killed[0].event.to_string());
    let delivered = told.delivery(Channel::Webhook).await;
    assert_eq!((delivered.state, delivered.attempts), (DeliveryState::Delivered, 2));
    // The one that was thought dead comes back, and changes nothing.
    for late in &killed {
        let outcome = Outcome::Failed("late".to_owned());
        assert!(!told.bench.store.settle_delivery(late, &outcome).await.expect("an answer"));
    }
    assert_eq!(told.delivery(Channel::Webhook).await, delivered);
}

async fn what_was_sent_but_not_stored_is_the_same_message_again(on: Backend) {
    let told = Told::new(on).await;
    told.spend(800).await;
    // Sent, and then the process died.
    let courier = told.courier();
    for claimed in told.bench.store.claim_deliveries(10).await.expect("a claim") {
        courier.send(&claimed).await.expect("sent");
    }
    // Another process.
    drop(courier);
    told.bench.clock.advance_ms(LEASE_MS);
    told.run().await;
    let [first, second] = &told.receiver.received()[..] else { panic!("twice") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    assert_ne!(first.header("webhook-timestamp"), second.header("webhook-timestamp"));
    told.verify(second);
    let mails = told.sink.taken().clone();
    assert_eq!((mails.len(), &mails[0].data), (2, &mails[1].data));
}

async fn a_receiver_that_fails_is_tried_again_later_and_later(on: Backend) {
    let told = Told::new(on).await;
    told.spend(800).await;
    for (attempt, delay_s) in [(1_u64, 5_u64), (2, 30), (3, 120)] {
        told.receiver.answer(500, "no room");
        told.run().await;
        told.run().await;
        assert_eq!(told.receiver.received().len() as u64, attempt);
        let failed = told.delivery(Channel::Webhook).await;
        assert_eq!((failed.state, failed.attempts), (DeliveryState::Pending, attempt));
        let reason = "answered 500 Internal Server Error: no room";
        assert_eq!(failed.last_error.as_deref(), Some(reason));
        let wait = failed.next_attempt_at.expect("a time").ms_since(told.bench.now());
        assert!((delay_s * 1_000..=delay_s * 1_200).contains(&wait), "{wait} after {attempt}");
        told.bench.clock.advance_ms(wait - 1);
        told.run().await;
        assert_eq!(told.receiver.received().len() as u64, attempt, "not before its time");
        told.bench.clock.advance_ms(1);
    }
    told.run().await;
    let delivered = told.delivery(Channel::Webhook).await;
    assert_eq!((delivered.state, delivered.attempts), (DeliveryState::Delivered, 4));
    assert_eq!((delivered.last_error, delivered.next_attempt_at), (None, None));
    let received = told.receiver.received();
    let ids: BTreeSet<_> = received.iter().map(|got| got.header("webhook-id")).collect();
    assert_eq!((received.len(), ids.len()), (4, 1));
    assert_eq!(told.sink.taken().len(), 1, "the mail went through at once");
}

async fn a_receiver_that_stays_away_is_given_up_after_a_day(on: Backend) {
    let told = Told::new(on).await;
    told.spend(800).await;
    let begun = told.bench.now();
    while told.delivery(Channel::Webhook).await.state == DeliveryState::Pending {
        assert!(told.bench.now().ms_since(begun) <= 24 * HOUR_MS, "it is tried for a day");
        told.receiver.answer(500, "");
        told.run().await;
        told.bench.clock.advance_ms(HOUR_MS / 4);
    }
    let given_up = told.delivery(Channel::Webhook).await;
    assert_eq!(given_up.last_error.as_deref(), Some("answered 500 Internal Server Error"));
    assert!(given_up.attempts >= 8 && given_up.next_attempt_at.is_none(), "{given_up:?}");
    let settled = given_up.settled_at.expect("a time").ms_since(begun);
    assert!((12 * HOUR_MS..=24 * HOUR_MS).contains(&settled), "{settled}");
    let attempts = told.receiver.received().len();
    told.bench.clock.advance_ms(48 * HOUR_MS);
    told.run().await;
    assert_eq!(told.receiver.received().len(), attempts);
}

async fn a_receiver_that_is_gone_gets_nothing_more_until_the_settings_are_put_anew(on: Backend) {
    let told = Told::new(on).await;
    told.bench.level(Metric::Storage, 800).await;
    told.receiver.answer(500, "");
    told.spend(0).await;
    told.run().await;
    assert_eq!(told.delivery(Channel::Webhook).await.state, DeliveryState::Pending);
    // One waits for another try while the next hears that the receiver is gone.
    told.receiver.answer(410, "");
    told.spend(800).await;
    told.run().await;
    let reason = "answered 410 Gone: nothing is sent there any more";
    for event in told.bench.events().await {
        let hook = event.deliveries.iter().find(|one| one.channel == Channel::Webhook);
        let hook = hook.expect("a webhook");
        assert_eq!((hook.state, hook.last_error.as_deref()), (DeliveryState::Failed, Some(reason)));
    }
    let stored = told.bench.store.alerts(told.bench.tenant).await.expect("alerts");
    assert_eq!(stored.gone, [(told.receiver.url("/hook"), told.bench.now())]);
    told.spend(950).await;
    told.bench.clock.advance_ms(HOUR_MS);
    told.run().await;
    assert_eq!(told.receiver.received().len(), 2);
    let events = told.bench.events().await;
    let refused = events.iter().flat_map(|event| &event.deliveries).filter(|one| {
        one.last_error.as_deref().is_some_and(|error| error.contains("PUT the settings"))
    });
    assert_eq!(refused.count(), 1);
    told.bench
        .store
        .put_alerts(&Actor::Program, told.bench.tenant, stored.settings, None)
        .await
        .expect("a put");
    told.bench.level(Metric::Storage, 950).await;
    told.bench.evaluate().await;
    told.run().await;
    assert_eq!(told.receiver.received().len(), 3);
}

async fn mail_without_a_server_fails_and_says_what_to_set(on: Backend) {
    let told = Told::new(on).await;
    told.spend(800).await;
    let config = NotifyConfig { smtp: None, webhook_allow_networks: AllowedNetworks::default() };
    run(Courier { channels: Channels::new(&config), ..told.courier() }).await.expect("a run");
    let mail = told.delivery(Channel::Email).await;
    assert_eq!(mail.state, DeliveryState::Failed);
    let reason = "no SMTP server is configured: set control.smtp.url";
    assert_eq!(mail.last_error.as_deref(), Some(reason));
    // Nor is a private receiver called where the operator opened no network.
    let hook = told.delivery(Channel::Webhook).await;
    assert_eq!((hook.state, told.receiver.received().len()), (DeliveryState::Failed, 0));
}

async fn a_rotated_secret_signs_beside_the_new_one_for_a_day(on: Backend) {
    let told = Told::new(on).await;
    let rotated = told.bench.store.rotate_webhook_secret(&Actor::Program, told.bench.tenant).await;
    let new = rotated.expect("a secret").text.expose().to_owned();
    told.spend(800).await;
    told.run().await;
    told.bench.clock.advance_ms(24 * HOUR_MS);
    told.spend(950).await;
    told.run().await;
    let [both, one] = &told.receiver.received()[..] else { panic!("two") };
    let expected = format!("{} {}", signed(&new, both), signed(&told.secret, both));
    assert_eq!(both.header("webhook-signature"), expected);
    assert_eq!(one.header("webhook-signature"), signed(&new, one));
}

async fn one_tenant_does_not_take_every_worker(on: Backend) {
    let told = Told::new(on).await;
    let recipients: Vec<_> = (0..20).map(|n| format!("r{n}@acme.example")).collect();
    told.bench.put(json!({"quota_alerts": {"api_calls": {"recipients": recipients}}})).await;
    told.spend(1_000).await;
    let two = tenant(&told.bench.store, "two").await;
    let settings = json!({"quota_alerts": {}, "defaults": {"notification_channels": ["email"]}});
    let settings = serde_json::from_value(settings).expect("settings");
    told.bench.store.put_alerts(&Actor::Program, two, settings, None).await.expect("a put");
    told.bench.store.tell_plan_changed(two).await;
    let claimed = told.bench.store.claim_deliveries(32).await.expect("a claim");
    let mut by_tenant = BTreeMap::<_, usize>::new();
    for claimed in &claimed {
        *by_tenant.entry(claimed.tenant).or_default() += 1;
    }
    assert_eq!(by_tenant, BTreeMap::from([(told.bench.tenant, 4), (two, 1)]));
    let more = told.bench.store.claim_deliveries(32).await.expect("a claim");
    assert_eq!(more.len(), 0, "what is under way counts");
    let ended = claimed.iter().find(|one| one.tenant == told.bench.tenant).expect("a delivery");
    let settled = told.bench.store.settle_delivery(ended, &Outcome::Delivered).await;
    assert!(settled.expect("an answer"));
    let more = told.bench.store.claim_deliveries(32).await.expect("a claim");
    assert_eq!(more.len(), 1, "the place of what has ended is free");
    told.bench.clock.advance_ms(LEASE_MS);
    told.run().await;
    assert_eq!(told.sink.taken().len(), 40 + 1 - 1);
}

async fn tenants_whose_endpoints_hang_hold_up_nobody_else(on: Backend) {
    let told = Told::new(on).await;
    let endpoint = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", endpoint.local_addr().expect("an address"));
    let settings = json!({
        "quota_alerts": {},
        "defaults": {"notification_channels": ["webhook"], "webhook_url": url},
    });
    let settings: AlertSettings = serde_json::from_value(settings).expect("settings");
    let store = &told.bench.store;
    let mut slow = Vec::new();
    for n in 0..4 {
        let one = tenant(store, &format!("slow-{n}")).await;
        store.put_alerts(&Actor::Program, one, settings.clone(), None).await.expect("a put");
        for _ in 0..9 {
            store.tell_plan_changed(one).await;
        }
        slow.push(one);
    }
    let running = tokio::spawn(run(told.courier()));
    let mut unanswered = Vec::new();
    while unanswered.len() < 4 * 4 {
        unanswered.push(endpoint.accept().await.expect("a call"));
    }
    // Due while the others are under way.
    told.spend(800).await;
    while told.receiver.received().is_empty() || told.sink.taken().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!running.is_finished());
    for one in slow {
        let events = store.events(one, None, 100).await.expect("events").events;
        let deliveries: Vec<_> = events.iter().flat_map(|event| &event.deliveries).collect();
        let attempts: u64 = deliveries.iter().map(|one| one.attempts).sum();
        assert_eq!((deliveries.len(), attempts), (9, 4));
        assert!(deliveries.iter().all(|one| one.last_error.is_none()), "none has ended yet");
    }
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_deliver_each_event_once() {
    let told = Told::new(Backend::Postgres).await;
    let stores = join_all((0..3).map(|_| told.bench.another())).await;
    for day in 0..8_u64 {
        let level = if day % 2 == 0 { 1_000 } else { 0 };
        told.bench.level(Metric::Storage, level).await;
        let looks = stores.iter().map(|store| store.evaluate_alerts(&told.bench.catalog));
        join_all(looks).await.into_iter().for_each(|look| {
            look.expect("an evaluation");
        });
        told.bench.evaluate().await;
        let runs = stores.iter().cycle().take(6).map(|store| run(told.courier_of(store)));
        join_all(runs).await.into_iter().for_each(|done| done.expect("a run"));
        told.bench.clock.advance_ms(1_000);
    }
    told.run().await;
    let received = told.receiver.received();
    let ids: BTreeSet<_> = received.iter().map(|got| got.header("webhook-id")).collect();
    assert_eq!((received.len(), ids.len()), (8, 8), "4 times 2 thresholds, each once");
    received.iter().for_each(|got| told.verify(got));
}
