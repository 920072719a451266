//! Which migrations a database has and which this release would add, without opening it.
//!
//! Read by the command line before and during a migration, beside a serving process too.
//! Invariant: looking changes nothing: no file, no role and no table is made.

use sqlx::migrate::Migrator;

use super::{Store, StoreError, db};

/// The schema of a database, as this release sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The last migration that the database has; 0 for an empty or missing database.
    pub version: i64,
    /// What this release would add, in order.
    pub pending: Vec<PendingMigration>,
}

/// A migration that a database does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingMigration {
    /// Its number.
    pub version: i64,
    /// What it makes, in a word or two.
    pub description: String,
}

impl Schema {
    /// Reads the schema of the database of a URL.
    ///
    /// # Errors
    /// The database cannot be read, or is of a later release.
    pub async fn of(url: &str) -> Result<Self, StoreError> {
        Self::compare(&db::applied(url).await?, db::migrations(url))
    }

    fn compare(applied: &[i64], known: &Migrator) -> Result<Self, StoreError> {
        if let Some(later) = applied.iter().find(|version| !known.version_exists(**version)) {
            return Err(StoreError::LaterRelease(*later));
        }
        let pending = known.iter().filter(|migration| !applied.contains(&migration.version));
        Ok(Self {
            version: applied.iter().copied().max().unwrap_or(0),
            pending: pending
                .map(|migration| PendingMigration {
                    version: migration.version,
                    description: migration.description.to_string(),
                })
                .collect(),
        })
    }
}

impl Store {
    /// Brings the database of a URL to this release's schema, as [`Store::open`] does, and
    /// closes it.
    ///
    /// # Errors
    /// As [`Store::open`]; what was applied before stays.
    pub async fn migrate(url: &str) -> Result<(), StoreError> {
        db::Db::open(url).await?.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, on_both};

    on_both![
        an_empty_database_lacks_everything_and_looking_changes_nothing,
        a_migrated_database_lacks_nothing_even_while_it_is_served,
    ];

    async fn an_empty_database_lacks_everything_and_looking_changes_nothing(on: Backend) {
        let database = on.database();
        let before = Schema::of(&database.url()).await.expect("a schema");
        assert_eq!((before.version, before.pending[0].version), (0, 1));
        assert_eq!(before.pending[0].description, "tenants");
        let again = Schema::of(&database.url()).await.expect("a schema");
        assert_eq!(again, before);
        if let Some(path) = database.url().strip_prefix("sqlite://") {
            assert!(!std::path::Path::new(path).exists(), "no file was made");
        }
        Store::migrate(&database.url()).await.expect("migrated");
        let after = Schema::of(&database.url()).await.expect("a schema");
        let last = before.pending.last().expect("one").version;
        assert_eq!(after, Schema { version: last, pending: Vec::new() });
    }

    async fn a_migrated_database_lacks_nothing_even_while_it_is_served(on: Backend) {
        let database = on.database();
        let _serving = database.open().await;
        assert!(Schema::of(&database.url()).await.expect("a schema").pending.is_empty());
    }

    #[test]
    fn a_later_release_is_named() {
        for url in ["sqlite://x", "postgres://h/d"] {
            let refused = Schema::compare(&[1, 2, 9_999], db::migrations(url));
            let refused = refused.expect_err("a refusal");
            assert!(matches!(refused, StoreError::LaterRelease(9_999)), "{refused:?}");
            assert!(refused.to_string().contains("9999"), "{refused}");
        }
    }
}
