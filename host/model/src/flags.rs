//! The port between whoever answers for feature flags and what evaluates them.
//!
//! The data plane asks for OpenFeature clients; plugins have their own way in the sandbox,
//! whose `host/feature_flags.rs` shows rules the same members of a request. Called per
//! evaluation, on the caller's thread. Invariant: what a caller adds to the context never
//! replaces the tenant in it.

use std::{fmt, net::IpAddr};

use serde_json::{Map, Value, json};

use crate::{clock::UnixMs, snapshot::TenantEntry};

/// The member of a context that only the host writes.
const TENANT: &str = "tenant";

/// What went wrong, by OpenFeature's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagFault {
    /// `FLAG_NOT_FOUND`, `PARSE_ERROR`, `TYPE_MISMATCH` or `GENERAL`.
    pub code: &'static str,
    /// For the developer.
    pub detail: String,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagAnswer {
    /// The value; none where the caller's default holds.
    pub value: Option<Value>,
    /// Name of the variant.
    pub variant: Option<String>,
    /// OpenFeature's reason: `STATIC`, `TARGETING_MATCH`, …
    pub reason: &'static str,
    /// Set exactly when the reason is `ERROR`.
    pub fault: Option<FlagFault>,
    /// Metadata of the flag over that of the set; booleans, texts and numbers.
    pub metadata: Map<String, Value>,
}

/// The flags of an installation.
pub trait FlagSet: Send + Sync + fmt::Debug {
    /// Whether there is no flag at all.
    fn is_empty(&self) -> bool;
    /// Keys of all flags, in order.
    fn keys(&self) -> Vec<&str>;
    /// Evaluates one flag: some microseconds, no IO.
    fn answer(&self, key: &str, context: &Map<String, Value>, now: UnixMs) -> FlagAnswer;
}

/// What the host knows of a request. `targetingKey` is the subject of the verified token,
/// else the tenant's id: both are stable, so a fractional rollout gives one caller one answer.
#[must_use]
pub fn context(
    entry: &TenantEntry,
    subject: Option<&str>,
    client_ip: IpAddr,
    client_country: Option<[u8; 2]>,
) -> Map<String, Value> {
    let tenant = &entry.record.tenant;
    let id = tenant.id.to_string();
    let country = client_country.and_then(|code| String::from_utf8(code.to_vec()).ok());
    let mut context = Map::new();
    context.insert("targetingKey".into(), subject.unwrap_or(&id).into());
    context.insert(
        TENANT.into(),
        json!({
            "id": id,
            "slug": tenant.slug.as_str(),
            "plan": tenant.plan,
            "residency": &*entry.group.name,
            "region": &*entry.home.name,
        }),
    );
    context.insert("client".into(), json!({ "ip": client_ip.to_string(), "country": country }));
    context
}

/// A context with what the caller adds; that wins, but over the tenant.
#[must_use]
pub fn with_extra(
    mut context: Map<String, Value>,
    extra: impl IntoIterator<Item = (String, Value)>,
) -> Map<String, Value> {
    context.extend(extra.into_iter().filter(|(name, _)| name != TENANT));
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_adds_and_replaces_but_never_passes_for_another_tenant() {
        let own = Map::from_iter([
            (TENANT.to_owned(), json!({ "slug": "acme" })),
            ("targetingKey".to_owned(), json!("id")),
        ]);
        let extra = [
            (TENANT.to_owned(), json!({ "slug": "other" })),
            ("targetingKey".to_owned(), json!("u-1")),
            ("beta".to_owned(), json!(true)),
        ];
        let context = with_extra(own, extra);
        assert_eq!(context.get(TENANT), Some(&json!({ "slug": "acme" })));
        assert_eq!(context.get("targetingKey"), Some(&json!("u-1")));
        assert_eq!(context.get("beta"), Some(&json!(true)));
    }
}
