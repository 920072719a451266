//! The two databases behind the store: SQLite for one process, PostgreSQL for many.
//!
//! [`Db::begin`] is the only way in. What the databases share is written once, with
//! [`sql`]; what differs (opening, the start of a transaction, notifications) is in the
//! file of each. Invariant: no pool and no connection leaves this folder, so that there is
//! no statement outside a transaction whose scope is known.

mod outlook;
mod owner;
mod postgres;
mod roles;
mod sqlite;
mod statement;
mod transaction;

use std::future::Future;

use model::tenant::TenantId;
use sqlx::migrate::Migrator;

#[cfg(test)]
pub(super) use self::statement::Row;
pub(super) use self::{
    outlook::Lookout,
    owner::{SchemaOwner, SchemaTx, Step},
    postgres::{Claim, Notices},
    statement::{Statement, locking, sql, sql_each},
    transaction::{ControlTx, Installation, OneTenant, TenantTx, Tx},
};
use super::StoreError;

/// Which migrations a database has, in the order of their numbers: the driver's own table.
const APPLIED: &str = "SELECT version FROM _sqlx_migrations ORDER BY version";

/// An open database. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub(super) enum Db {
    Sqlite(sqlite::Database),
    Postgres(postgres::Database),
}

/// What this release knows to bring the database of a URL to its schema.
pub(super) fn migrations(url: &str) -> &'static Migrator {
    if is_postgres(url) { &postgres::MIGRATIONS } else { &sqlite::MIGRATIONS }
}

/// The numbers of the migrations that the database of a URL has. Changes nothing.
pub(super) async fn applied(url: &str) -> Result<Vec<i64>, StoreError> {
    if is_postgres(url) { postgres::applied(url).await } else { sqlite::applied(url).await }
}

/// Whose rows a transaction may touch.
pub(super) trait Scope: Copy + Send {
    /// The tenant, if it is one.
    fn tenant(self) -> Option<TenantId>;
}

impl Scope for OneTenant {
    fn tenant(self) -> Option<TenantId> {
        Some(self.0)
    }
}

impl Scope for Installation {
    fn tenant(self) -> Option<TenantId> {
        None
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Sees one committed state throughout, and cannot write.
    Read,
    /// As `Read`, for `tenant_data`: its parts stay as they are until the end.
    ReadData,
    /// A change of the directory: excludes every other one, whichever process makes it.
    Change,
    /// A change of what the directory does not show; excludes nobody on PostgreSQL from the
    /// rows that it does not lock, and every other write on SQLite.
    Write,
    /// A change of quota accounts: durable once it has ended, whatever the database's
    /// default is. On SQLite it excludes every other write; on PostgreSQL it excludes
    /// nobody from the rows that it does not lock.
    Account,
}

/// What became of a claim.
pub(super) enum Claimed {
    /// Claimed for as long as the value lives, if it needs one.
    Yes(Option<Claim>),
    ByAnother,
}

/// Whether a URL is PostgreSQL's.
pub(super) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

impl Db {
    /// Opens the database of a URL and brings it to this release's schema.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        if is_postgres(url) {
            Ok(Self::Postgres(postgres::open(url).await?))
        } else {
            Ok(Self::Sqlite(sqlite::open(url).await?))
        }
    }

    /// Begins a transaction on the rows of one tenant.
    pub(super) async fn tenant(
        &self,
        tenant: TenantId,
        purpose: Purpose,
    ) -> Result<TenantTx, StoreError> {
        self.begin(OneTenant(tenant), purpose).await
    }

    /// Begins a transaction of the control plane.
    pub(super) async fn control(&self, purpose: Purpose) -> Result<ControlTx, StoreError> {
        self.begin(Installation, purpose).await
    }

    pub(super) async fn begin<S: Scope>(
        &self,
        scope: S,
        purpose: Purpose,
    ) -> Result<Tx<S>, StoreError> {
        match self {
            Self::Sqlite(database) => database.begin(scope, purpose).await,
            Self::Postgres(database) => database.begin(scope, purpose).await,
        }
    }

    /// Tells other processes at the commit that the directory has changed.
    pub(super) async fn announce<S>(&self, tx: &mut Tx<S>) -> Result<(), StoreError> {
        match self {
            // There is no other process.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(_) => postgres::announce(tx).await,
        }
    }

    /// Does `work`, unless the server is away or goes away meanwhile.
    pub(super) async fn unless_away<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Sqlite(_) => work.await,
            Self::Postgres(database) => database.outlook().unless_away(work).await,
        }
    }

    /// Looks out for the server until dropped; `None` where there is none.
    pub(super) fn keep_lookout(&self) -> Option<Lookout> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(database) => Some(database.keep_lookout()),
        }
    }

    /// Where other processes' changes are announced; `None` where there are none.
    pub(super) fn notices(&self) -> Option<Notices> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(database) => Some(database.notices()),
        }
    }

    /// Tries to claim the database for the dispatcher of this process.
    pub(super) async fn claim(&self) -> Result<Claimed, StoreError> {
        match self {
            // Owned by this process as a whole.
            Self::Sqlite(_) => Ok(Claimed::Yes(None)),
            Self::Postgres(database) => Ok(match database.claim_dispatch().await? {
                Some(claim) => Claimed::Yes(Some(claim)),
                None => Claimed::ByAnother,
            }),
        }
    }

    /// Who makes partitions; `None` where there are none.
    pub(super) fn schema_owner(&self) -> Option<SchemaOwner> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(database) => Some(SchemaOwner(database.clone())),
        }
    }

    /// A PostgreSQL as it is, without a migration; `None` while it is empty.
    pub(super) async fn inspect(url: &str) -> Result<Option<Self>, StoreError> {
        Ok(postgres::inspect(url).await?.map(Self::Postgres))
    }

    /// Whether the database itself keeps tenants apart.
    pub(super) fn has_row_security(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// The same database, with one connection for all tenants.
    #[cfg(test)]
    pub(super) fn over_one_connection(&self) -> Self {
        match self {
            Self::Sqlite(_) => self.clone(),
            Self::Postgres(database) => Self::Postgres(database.over_one_connection()),
        }
    }

    /// Ends every connection after its running statement.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
            Self::Postgres(database) => database.close().await,
        }
    }
}
