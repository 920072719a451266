//! Checks PostgreSQL's own catalogue against the rules of row-level security.
//!
//! Run by the tests after every migration and by `leanvibe-edge check`, which must not
//! migrate what it looks at. The rules are queries, in `lint/rules.rs`. Invariant: reads the
//! catalogue only, so it can be run at any time, also while a part is being moved, and needs
//! no right on a row.

mod rules;

use self::rules::RULES;
use super::{
    Store, StoreError,
    db::{ControlTx, Db, Purpose, is_postgres, sql},
};

/// Something in the database that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFinding {
    /// Stable name of the rule.
    pub rule: &'static str,
    /// The table, role or index.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Store {
    /// Whether the database itself keeps tenants apart: PostgreSQL.
    #[must_use]
    pub fn has_row_level_security(&self) -> bool {
        self.db.has_row_security()
    }

    /// What in the database breaks the rules of row-level security; nothing on SQLite,
    /// which has none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn schema_findings(&self) -> Result<Vec<SchemaFinding>, StoreError> {
        if !self.db.has_row_security() {
            return Ok(Vec::new());
        }
        findings_in(&self.db).await
    }

    /// What in the PostgreSQL of a URL breaks the rules, as it is: nothing is migrated.
    /// `None` for SQLite, and for a PostgreSQL that no release has made a schema in.
    ///
    /// # Errors
    /// The server is away or too old, or a rule cannot be looked up.
    pub async fn inspect_schema(url: &str) -> Result<Option<Vec<SchemaFinding>>, StoreError> {
        if !is_postgres(url) {
            return Ok(None);
        }
        let Some(db) = Db::inspect(url).await? else { return Ok(None) };
        let findings = findings_in(&db).await;
        db.close().await;
        findings.map(Some)
    }
}

async fn findings_in(db: &Db) -> Result<Vec<SchemaFinding>, StoreError> {
    let mut tx = db.control(Purpose::Read).await?;
    let findings = findings(&mut tx).await;
    tx.end(findings).await
}

async fn findings(tx: &mut ControlTx) -> Result<Vec<SchemaFinding>, StoreError> {
    let mut findings = Vec::new();
    for &(rule, query) in RULES {
        let broken: Vec<(String, String)> = sql(query).all(tx).await?;
        let finding = |(object, detail)| SchemaFinding { rule, object, detail };
        findings.extend(broken.into_iter().map(finding));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests;
