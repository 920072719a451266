use std::sync::Arc;

use model::{clock::ManualClock, sealing::KEY_BYTES};
use serde_json::json;

use super::*;
use crate::{
    Store,
    keys::Keys,
    store::db::{Purpose, sql},
    testing::{Backend, Control, NEW_YEAR, acme, id_of, keys, on_both, path_of},
};

on_both![
    what_the_api_is_told_in_secret_is_not_in_the_database,
    a_start_seals_what_an_earlier_release_left_open,
    a_process_with_other_keys_is_refused_at_its_start,
    a_value_that_was_moved_to_another_tenant_is_left_out_of_the_directory,
];

#[derive(Debug)]
struct OneKey(SealKey);

impl KeySource for OneKey {
    fn current(&self) -> SealKey {
        self.0.clone()
    }

    fn key(&self, id: SealKeyId) -> Option<SealKey> {
        (id == self.0.id).then(|| self.0.clone())
    }
}

fn sealer(id: u8, key: u8) -> Sealer {
    let key = SealKey::new(SealKeyId([id; KEY_ID_BYTES]), [key; KEY_BYTES]);
    Sealer::new(Some(Arc::new(OneKey(key))))
}

fn place(row: &str) -> Place<'_> {
    Place { tenant: TenantId(uuid::Uuid::nil()), table: "t", row, column: "c" }
}

#[test]
fn a_value_opens_in_its_place_under_its_key_and_nowhere_else() {
    let sealer_1 = sealer(1, 1);
    let sealed = sealer_1.seal(place("r"), b"value").expect("sealed");
    assert_eq!(sealer_1.open(place("r"), &sealed).expect("open"), b"value");
    assert_eq!(sealed.len(), HEAD_BYTES + 5 + AES_256_GCM.tag_len());
    assert_eq!((sealed[0], &sealed[1..17]), (VERSION, &[1; 16][..]));
    let elsewhere = [
        place("s"),
        Place { column: "d", ..place("r") },
        Place { table: "u", ..place("r") },
        Place { tenant: TenantId(uuid::Uuid::max()), ..place("r") },
    ];
    for other in elsewhere {
        let refused = sealer_1.open(other, &sealed).expect_err("a refusal");
        assert!(matches!(refused, StoreError::Unsealable(_)), "{refused}");
    }
    let unknown = sealer(2, 2).open(place("r"), &sealed).expect_err("a refusal");
    assert!(matches!(unknown, StoreError::UnknownKey { .. }), "{unknown}");
    assert!(sealer(1, 9).open(place("r"), &sealed).is_err(), "another key of the same name");
}

#[test]
fn a_value_of_which_one_bit_was_changed_or_that_was_cut_does_not_open() {
    let sealer = sealer(1, 1);
    let sealed = sealer.seal(place("r"), b"value").expect("sealed");
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(sealer.open(place("r"), &changed).is_err(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(sealer.open(place("r"), &sealed[..length]).is_err(), "{length} bytes");
    }
    let again = sealer.seal(place("r"), b"value").expect("sealed");
    assert_ne!(again, sealed, "a nonce of its own");
}

#[test]
fn without_keys_nothing_is_sealed() {
    let refused = Sealer::new(None).seal(place("r"), b"value").map(drop);
    assert!(matches!(refused, Err(StoreError::NoKeys)));
}

async fn what_the_api_is_told_in_secret_is_not_in_the_database(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    control.patch(&tenant, &json!({ "secrets": { "signing": "s3cr3t-in-plain" } })).await;
    let alerts = format!("/api/v1/tenants/{}/alerts/webhook-secret", id_of(&tenant));
    let answer = control.with(("POST", &alerts), &[("idempotency-key", "k")], "").await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let webhook = answer.json["webhook_secret"].as_str().expect("a secret").to_owned();
    let keys = format!("{}/keys", path_of(&tenant));
    let issued = control.with(("POST", &keys), &[("idempotency-key", "l")], "").await;
    let key = issued.json["key"].as_str().expect("a key").to_owned();
    let stored = String::from_utf8_lossy(&control.stored_bytes()).into_owned();
    for secret in ["s3cr3t-in-plain", &webhook, &key] {
        assert!(!stored.contains(secret), "{secret}");
    }
    let directory = control.store.directory().borrow().clone();
    assert_eq!(
        directory.records().next().expect("a tenant").secrets["signing"].expose(),
        "s3cr3t-in-plain"
    );
}

async fn a_start_seals_what_an_earlier_release_left_open(on: Backend) {
    let database = on.database();
    let clock = Arc::new(ManualClock::at(NEW_YEAR));
    let store = database.open_at(Arc::clone(&clock)).await;
    let tenant = crate::store::alerts::tests::tenant(&store, "acme").await;
    let mut tx = store.db.tenant(tenant, Purpose::Write).await.expect("a transaction");
    let old = async {
        sql("INSERT INTO tenant_secret (tenant_id, name, value) VALUES ($1, 'old', 'left-open')")
            .bind(tenant.0)
            .execute(&mut tx)
            .await?;
        sql("INSERT INTO webhook_secret (tenant_id, id, secret, created_at)
             VALUES ($1, $1, 'whsec_bGVmdC1vcGVu', 1)")
        .bind(tenant.0)
        .execute(&mut tx)
        .await
    };
    let old = old.await;
    tx.end(old).await.expect("an earlier release");
    store.close().await;
    drop(store);
    let store = database.open_at(clock).await;
    let mut tx = store.db.control(Purpose::Read).await.expect("a transaction");
    let rows: Result<Vec<(String, Option<String>)>, _> =
        sql("SELECT value, key_id FROM tenant_secret UNION ALL
             SELECT secret, key_id FROM webhook_secret")
        .all(&mut tx)
        .await;
    let live = crate::store::alerts::live_secrets(&mut tx, &store.sealer, tenant, NEW_YEAR).await;
    for (text, key) in tx.end(rows).await.expect("rows") {
        assert!(key.is_some() && !text.contains("left") && !text.contains("whsec"), "{text}");
    }
    assert_eq!(live.expect("secrets")[0].expose(), "whsec_bGVmdC1vcGVu");
    let directory = store.directory().borrow().clone();
    assert_eq!(directory.records().next().expect("a tenant").secrets["old"].expose(), "left-open");
}

async fn a_process_with_other_keys_is_refused_at_its_start(on: Backend) {
    let database = on.database();
    let clock = Arc::new(ManualClock::at(NEW_YEAR));
    database.open_at(Arc::clone(&clock)).await.close().await;
    let folder = tempfile::tempdir().expect("a folder");
    let others = Keys::of_folder(folder.path()).expect("keys");
    let refused = Store::open_with_keys(&database.url(), Arc::clone(&clock) as _, others).await;
    let refused = refused.expect_err("a refusal").to_string();
    let id = keys().sealing.current().id.to_string();
    assert!(refused.contains(&id) && refused.contains("data.keys_dir"), "{refused}");
    database.open_at(clock).await;
}

async fn a_value_that_was_moved_to_another_tenant_is_left_out_of_the_directory(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let secrets = json!({ "secrets": { "a": "value-of-a", "b": "value-of-b" } });
    control.patch(&tenant, &secrets).await;
    let id = id_of(&tenant);
    let mut tx = control.store.db.tenant(id, Purpose::Write).await.expect("a transaction");
    let moved = sql("UPDATE tenant_secret SET value = (SELECT value FROM tenant_secret
             WHERE tenant_id = $1 AND name = 'a') WHERE tenant_id = $1 AND name = 'b'")
    .bind(id.0)
    .execute(&mut tx)
    .await;
    tx.end(moved).await.expect("a change behind the back");
    control.patch(&tenant, &json!({ "display_name": "Another" })).await;
    let directory = control.store.directory().borrow().clone();
    let names: Vec<_> = directory.records().next().expect("a tenant").secrets.keys().collect();
    assert_eq!(names, ["a"]);
}
