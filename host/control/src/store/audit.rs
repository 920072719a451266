//! The audit chains: every mutation appends one entry in its own transaction.
//!
//! [`super::change::Change`] appends for whatever the directory shows; other writes call
//! [`append`] before they end. The canonical form and the hash are `model::audit`'s.
//! Invariant: entries of one chain are appended one at a time, each naming the hash of the
//! one before; none is ever changed.

use std::{fmt, sync::Arc};

use model::{
    audit::{self, AuditEntry, GENESIS, PLATFORM_CHAIN},
    clock::UnixMs,
    key::KeyId,
    tenant::TenantId,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Store, StoreError,
    db::{Purpose, Tx, sql, sql_each},
    idempotency::{self, Attempt},
    rows::stored,
};

/// Entries of the longest page.
pub const AUDIT_PAGE_MAX: u32 = 200;

/// Who changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The holder of the configured admin token.
    Operator,
    /// The holder of an issued token.
    Token(KeyId),
    /// A periodic job.
    Job(&'static str),
    /// The program itself: seeds and start-up.
    Program,
    /// One of these, in a request that takes effect once.
    Once(Box<Self>, Arc<Attempt>),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Job(name) => write!(f, "job:{name}"),
            Self::Program => f.write_str("program"),
            Self::Once(actor, _) => actor.fmt(f),
        }
    }
}

/// Who does what to which thing.
#[derive(Clone, Debug)]
pub(super) struct Act {
    actor: String,
    by_job: bool,
    once: Option<Arc<Attempt>>,
    action: &'static str,
    target: String,
    before: Option<String>,
    after: Option<String>,
    detail: Value,
}

impl Act {
    /// An act of `by`; `action` is `noun.verb`, `target` names a thing of the tenant.
    pub(super) fn new(by: &Actor, action: &'static str, target: impl Into<String>) -> Self {
        Self {
            actor: by.to_string(),
            by_job: matches!(by, Actor::Job(_)),
            once: match by {
                Actor::Once(_, attempt) => Some(Arc::clone(attempt)),
                _ => None,
            },
            action,
            target: target.into(),
            before: None,
            after: None,
            detail: json!({}),
        }
    }

    /// Whether nobody waits for it.
    pub(super) fn is_by_job(&self) -> bool {
        self.by_job
    }

    /// Names the thing, when it was not known before.
    pub(super) fn target(&mut self, target: &str) {
        target.clone_into(&mut self.target);
    }

    /// Adds a detail; never personal data.
    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>) {
        if let Value::Object(members) = &mut self.detail {
            members.insert(name.to_owned(), value.into());
        }
    }

    /// Adds what the thing was and has become; `None` where it was not, or is no more. The
    /// entry keeps digests, and the names of the members that differ.
    pub(super) fn describe(&mut self, before: Option<&dyn Shown>, after: Option<&dyn Shown>) {
        let (before, after) = (before.map(Shown::shown), after.map(Shown::shown));
        self.note("changed", changed(before.as_ref(), after.as_ref()));
        let digest = |value: Value| audit::digest(value.to_string().as_bytes());
        self.before = before.map(digest);
        self.after = after.map(digest);
    }
}

/// Something that can be shown as JSON.
pub(super) trait Shown {
    fn shown(&self) -> Value;
}

impl<T: Serialize> Shown for T {
    fn shown(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The members that differ; all of them where there is one side only.
fn changed(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let none = Map::new();
    let members = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let (before, after) = (members(before), members(after));
    let (before, after) = (before.as_ref().unwrap_or(&none), after.as_ref().unwrap_or(&none));
    let mut names: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Appends an entry to the chain of `chain`, within the transaction of the act itself. An
/// act whose request took effect before is refused, and with it everything it did.
pub(super) async fn append<S>(
    tx: &mut Tx<S>,
    chain: TenantId,
    act: &Act,
    now: UnixMs,
) -> Result<(), StoreError> {
    if let Some(attempt) = &act.once {
        idempotency::note(tx, attempt, now).await?;
    }
    // One appender of a chain at a time; on SQLite there is only one writer anyway.
    let lock = sql_each(
        "SELECT 1 WHERE $1 IS NOT NULL",
        "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS locked",
    );
    let _locked: Option<(i64,)> = lock.bind(format!("audit:{chain}")).optional(tx).await?;
    let last: Option<(i64, String)> =
        sql("SELECT seq, hash FROM audit_entry WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 1")
            .bind(chain.0)
            .optional(tx)
            .await?;
    let (seq, previous) = last.unwrap_or_else(|| (0, GENESIS.to_owned()));
    let mut entry = AuditEntry {
        seq: u64::try_from(seq).unwrap_or(0) + 1,
        at_ms: now.0,
        actor: act.actor.clone(),
        action: act.action.to_owned(),
        target: act.target.clone(),
        before: act.before.clone(),
        after: act.after.clone(),
        detail: act.detail.to_string(),
        previous,
        hash: String::new(),
    };
    entry.hash = entry.expected_hash(chain);
    insert(tx, chain, &entry).await
}

async fn insert<S>(tx: &mut Tx<S>, chain: TenantId, entry: &AuditEntry) -> Result<(), StoreError> {
    sql("INSERT INTO audit_entry (tenant_id, seq, at, actor, action, target, before_digest,
             after_digest, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
    .bind(chain.0)
    .bind(i64::try_from(entry.seq).unwrap_or(i64::MAX))
    .bind(stored(entry.at()))
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.target)
    .bind(entry.before.as_deref())
    .bind(entry.after.as_deref())
    .bind(&entry.detail)
    .bind(&entry.previous)
    .bind(&entry.hash)
    .execute(tx)
    .await
    .map(drop)
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    seq: i64,
    at: i64,
    actor: String,
    action: String,
    target: String,
    before_digest: Option<String>,
    after_digest: Option<String>,
    detail: String,
    previous: String,
    hash: String,
}

impl Store {
    /// Up to `limit` entries of a tenant's chain after number `after`, oldest first. `None`
    /// is the platform's chain.
    ///
    /// # Errors
    /// The store failed.
    pub async fn audit_entries(
        &self,
        chain: Option<TenantId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        match chain {
            Some(tenant) => {
                let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
                let entries = entries(&mut tx, tenant, after, limit).await;
                tx.end(entries).await
            }
            None => {
                let mut tx = self.db.control(Purpose::Read).await?;
                let entries = entries(&mut tx, PLATFORM_CHAIN, after, limit).await;
                tx.end(entries).await
            }
        }
    }
}

async fn entries<S>(
    tx: &mut Tx<S>,
    chain: TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows: Vec<EntryRow> = sql("SELECT seq, at, actor, action, target, before_digest,
             after_digest, detail, previous, hash
         FROM audit_entry WHERE tenant_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
    .bind(chain.0)
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(i64::from(limit.min(AUDIT_PAGE_MAX)))
    .all(tx)
    .await?;
    let entry = |row: EntryRow| AuditEntry {
        seq: u64::try_from(row.seq).unwrap_or(0),
        at_ms: u64::try_from(row.at).unwrap_or(0),
        actor: row.actor,
        action: row.action,
        target: row.target,
        before: row.before_digest,
        after: row.after_digest,
        detail: row.detail,
        previous: row.previous,
        hash: row.hash,
    };
    Ok(rows.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests;
