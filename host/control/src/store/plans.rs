//! The versions of plans: each distinct content that was ever in force, once.
//!
//! Invariant: a content has one version for ever, so a plan that goes back to an earlier
//! content goes back to its version too.

use std::{collections::BTreeMap, sync::Arc};

use model::{clock::UnixMs, plan::Plan};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Actor, Store, StoreError,
    audit::Act,
    change::{Change, detached},
    db::{Installation, Purpose, Tx, sql},
    rows::{self, stored},
};

/// A content of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanVersion {
    /// Counts the contents of the plan from 1 on.
    pub version: u64,
    /// SHA-256 of the body.
    pub digest: [u8; 32],
    /// The plan as JSON, in one canonical form.
    pub body: String,
    /// When it was first in force.
    pub first_seen_at: UnixMs,
}

/// Who records, for the audit chain.
const RECORDER: Actor = Actor::Job("plans");

/// A content of a plan that is in force.
struct Content {
    plan: String,
    body: String,
    digest: [u8; 32],
}

/// What identifies contents: plan and digest, with the version.
type Known = BTreeMap<(String, Vec<u8>), u64>;

impl Store {
    /// The versions of these plans; new contents are recorded.
    ///
    /// # Errors
    /// The store failed.
    pub async fn record_plans(
        self: &Arc<Self>,
        plans: &BTreeMap<String, Arc<Plan>>,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let contents: Vec<_> =
            plans.values().map(|plan| Content::of(plan)).collect::<Result<_, _>>()?;
        let mut tx = self.db.control(Purpose::Read).await?;
        let known = known(&mut tx).await;
        let known = tx.end(known).await?;
        if let Some(versions) = versions(&contents, &known) {
            return Ok(versions);
        }
        let act = Act::new(&RECORDER, "plan.record", "");
        let store = Arc::clone(self);
        detached(async move {
            let mut change = Change::of_installation(&store, act).await?;
            let outcome = record(&mut change, &contents, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }

    /// Up to `limit` versions of a plan below `before`, the newest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plan_versions(
        &self,
        plan: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<PlanVersion>, StoreError> {
        let before = before.and_then(|version| i64::try_from(version).ok()).unwrap_or(i64::MAX);
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows = sql("SELECT version, digest, body, first_seen_at FROM plan_version
             WHERE plan = $1 AND version < $2 ORDER BY version DESC LIMIT $3")
        .bind(plan)
        .bind(before)
        .bind(i64::from(limit))
        .all::<(i64, Vec<u8>, String, i64), _>(&mut tx)
        .await;
        let decode = |(version, digest, body, first_seen_at): (i64, Vec<u8>, String, i64)| {
            let bad = |_| StoreError::Decode(format!("version {version} of plan {plan:?}"));
            Ok(PlanVersion {
                version: u64::try_from(version).unwrap_or(0),
                digest: digest.try_into().map_err(bad)?,
                body,
                first_seen_at: rows::instant(first_seen_at),
            })
        };
        tx.end(rows).await?.into_iter().map(decode).collect()
    }
}

impl Content {
    fn of(plan: &Plan) -> Result<Self, StoreError> {
        let body = serde_json::to_value(plan).map(canonical);
        let body = body.map_err(|error| StoreError::Decode(error.to_string()))?.to_string();
        let digest = Sha256::digest(&body).into();
        Ok(Self { plan: plan.name.clone(), body, digest })
    }
}

/// Members in the order of their names, and none that is `null`: the order in a file is no
/// content, nor is a key that a later release knows and the file does not set.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let set = members.into_iter().filter(|(_, value)| !value.is_null());
            let sorted: BTreeMap<_, _> =
                set.map(|(name, value)| (name, canonical(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

async fn known<S>(tx: &mut Tx<S>) -> Result<Known, StoreError> {
    let rows: Vec<(String, Vec<u8>, i64)> =
        sql("SELECT plan, digest, version FROM plan_version").all(tx).await?;
    let version = |(plan, digest, version)| ((plan, digest), u64::try_from(version).unwrap_or(0));
    Ok(rows.into_iter().map(version).collect())
}

/// The version of every content, if all of them are known.
fn versions(contents: &[Content], known: &Known) -> Option<BTreeMap<String, u64>> {
    let version = |content: &Content| {
        let version = known.get(&(content.plan.clone(), content.digest.to_vec()))?;
        Some((content.plan.clone(), *version))
    };
    contents.iter().map(version).collect()
}

async fn record(
    change: &mut Change<Installation>,
    contents: &[Content],
    now: UnixMs,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let tx = &mut change.tx;
    let mut recorded = Vec::new();
    for content in contents {
        let added = sql("INSERT INTO plan_version (plan, version, digest, body, first_seen_at)
             SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, $4 FROM plan_version
             WHERE plan = $1
             ON CONFLICT (plan, digest) DO NOTHING")
        .bind(&content.plan)
        .bind(content.digest.as_slice())
        .bind(&content.body)
        .bind(stored(now))
        .execute(tx)
        .await?;
        if added == 1 {
            recorded.push(content.plan.as_str());
        }
    }
    let known = known(tx).await?;
    change.target(&recorded.join(","));
    if recorded.is_empty() {
        // Another process was quicker.
        change.unchanged();
    }
    versions(contents, &known)
        .ok_or_else(|| StoreError::Decode("a plan that was just recorded".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Backend, on_both};

    /// The plans of a `plans.toml` as JSON.
    fn declared(calls: u64, extra: Value) -> BTreeMap<String, Arc<Plan>> {
        let mut plan = json!({
            "name": "team",
            "quotas": {
                "max_users": 1, "max_projects": 1, "max_api_calls_per_month": calls,
                "max_storage_mb": 1, "max_ai_requests_per_day": 1, "max_concurrent_sessions": 1,
            },
        });
        plan.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        let plan: Plan = serde_json::from_value(plan).expect("a plan");
        BTreeMap::from([("team".to_owned(), Arc::new(plan))])
    }

    on_both![
        each_content_has_one_version_for_ever,
        contents_recorded_at_the_same_time_get_one_version_each,
    ];

    async fn each_content_has_one_version_for_ever(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        for (calls, version) in [(1, 1), (2, 2), (2, 2), (1, 1), (3, 3)] {
            let versions = store.record_plans(&declared(calls, json!({}))).await.expect("a record");
            assert_eq!(versions["team"], version, "{calls}");
        }
        let all = store.plan_versions("team", None, 9).await.expect("a list");
        assert_eq!(all.iter().map(|one| one.version).collect::<Vec<_>>(), [3, 2, 1]);
        let body: Value = serde_json::from_str(&all[1].body).expect("JSON");
        assert_eq!(body["quotas"]["max_api_calls_per_month"], 2);
        let page = store.plan_versions("team", Some(3), 1).await.expect("a list");
        assert_eq!(page, all[1..2]);
        assert_eq!(store.plan_versions("none", None, 9).await.expect("a list"), []);
    }

    async fn contents_recorded_at_the_same_time_get_one_version_each(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let store = Arc::clone(&store);
                tokio::spawn(
                    async move { store.record_plans(&declared(task % 4, json!({}))).await },
                )
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("a record");
        }
        let all = store.plan_versions("team", None, 9).await.expect("a list");
        assert_eq!(all.iter().map(|one| one.version).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    #[test]
    fn a_rate_and_rules_for_a_lost_authority_are_content_but_not_their_defaults() {
        let digest = |extra: Value| Content::of(&declared(1, extra)["team"]).expect("one").digest;
        let plain = digest(json!({}));
        assert_eq!(digest(json!({"on_authority_loss": {"api_calls": "deny"}})), plain);
        assert_ne!(digest(json!({"on_authority_loss": {"api_calls": "allow"}})), plain);
        assert_ne!(digest(json!({"rate": {"per_second": 1, "burst": 1}})), plain);
        let body = Content::of(&declared(1, json!({}))["team"]).expect("one").body;
        assert!(!body.contains("on_authority_loss") && !body.contains("rate"), "{body}");
    }

    #[test]
    fn the_order_of_a_file_is_no_content_and_neither_is_null() {
        let one = json!({"b": [{"y": 1, "x": null}], "a": {"d": 2, "c": 3}});
        let two = json!({"a": {"c": 3, "d": 2}, "n": null, "b": [{"y": 1}]});
        assert_eq!(canonical(one).to_string(), canonical(two).to_string());
        let link =
            |config: Value| json!({"chain": [{"policy": "p", "order": 1, "config": config}]});
        let digest = |config: Value| {
            Content::of(&declared(1, link(config))["team"]).expect("a content").digest
        };
        assert_eq!(digest(json!({"x": 1, "y": 2})), digest(json!({"y": 2, "x": 1})));
        assert_ne!(digest(json!({"x": 1})), digest(json!({"x": 2})));
    }
}
