//! The owner of the schema at work: partitions are made, filled, swapped and dropped as
//! `schema_owner`, through a small pool of their own. PostgreSQL only.
//!
//! Migrations aside, `partitions/` is its only user. The role is under row-level security
//! like everybody (FORCE), and sees rows only of parts that are being moved, by policies
//! that the move makes and ends. Invariant: whatever changes the form of the tree holds the
//! root alone while it does, waits for it [`LOCK_TIMEOUT_MS`] at most, and then takes
//! [`RESTRUCTURE_MS_MAX`] at most.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Scope,
    postgres::{Claim, Database, SCHEMA},
    roles::OWNER,
    statement::sql,
    transaction::{Connection, Tx},
};
use crate::store::StoreError;

/// One step at a time, and a manager that was cancelled may still be rolling back.
const CONNECTIONS: u32 = 2;
/// How long an unused connection stays, in s: the manager comes once an hour.
const IDLE_S: u64 = 60;
/// How long a step waits for a connection, in ms.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;
/// How long a step waits for a lock, in ms: everybody who comes after it waits as long.
const LOCK_TIMEOUT_MS: u32 = 500;
/// How long one change of the tree may take once it has the lock, in ms: beyond it the
/// change is undone, so that nobody ever waits a second for it.
pub(super) const RESTRUCTURE_MS_MAX: u32 = 900;
/// Longest step that keeps nobody waiting, in ms: the checksum of 100 GB on a slow disk.
const STATEMENT_TIMEOUT_MS: u32 = 3_600_000;
/// How long a step may wait for its process, in ms.
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// How often the server looks whether the client of a running step is still there, in ms.
const CLIENT_CHECK_MS: u32 = 500;
/// Advisory lock of the one process that manages partitions: "part".
const MANAGER_LOCK: i64 = 0x7061_7274;

/// The scope of the schema's owner: the tables themselves.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Schema;

/// A transaction of the schema's owner.
pub(in crate::store) type SchemaTx = Tx<Schema>;

impl Scope for Schema {
    fn tenant(self) -> Option<model::tenant::TenantId> {
        None
    }
}

impl SchemaTx {
    /// Goes on as `control_plane` to the end of the transaction: for the audit entry of what
    /// it did.
    pub(in crate::store) async fn become_control(&mut self) -> Result<(), StoreError> {
        self.run("SET LOCAL ROLE control_plane").await
    }
}

/// How a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Step {
    /// Keeps nobody waiting.
    Beside,
    /// As `Beside`, and sees one committed state throughout.
    Snapshot,
    /// Changes the form of the tree, alone with it.
    Restructure,
}

impl Step {
    const fn begin(self) -> &'static str {
        match self {
            Self::Beside => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            Self::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE",
            // A reader that has looked at the tree, but not yet taken its rows, holds the root.
            Self::Restructure => {
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
                 LOCK TABLE ONLY tenant_data IN ACCESS EXCLUSIVE MODE"
            }
        }
    }
}

/// The owner's pool, and its claim to be the only manager.
#[derive(Clone, Debug)]
pub(in crate::store) struct SchemaOwner(pub(super) Database);

impl SchemaOwner {
    /// Claims the partitions for this process; `None` while another one has them.
    pub(in crate::store) async fn claim(&self) -> Result<Option<Claim>, StoreError> {
        self.0.claim(MANAGER_LOCK).await
    }

    /// Begins a step.
    pub(in crate::store) async fn begin(&self, step: Step) -> Result<SchemaTx, StoreError> {
        let connection = self.0.owner().acquire().await?;
        let mut tx = Tx::begun(Connection::Postgres(connection), Schema, None);
        tx.run(step.begin()).await?;
        let (acting,): (String,) = sql("SELECT current_user::text").one(&mut tx).await?;
        if acting != OWNER {
            return Err(StoreError::UncleanConnection);
        }
        if step == Step::Restructure {
            sql("SELECT set_config('statement_timeout', $1, true)")
                .bind(RESTRUCTURE_MS_MAX.to_string())
                .execute(&mut tx)
                .await?;
        }
        Ok(tx)
    }
}

/// Connections that run as the owner, opened on demand and soon closed.
pub(super) fn pool(login: &PgConnectOptions) -> PgPool {
    let settings = [
        ("lock_timeout", LOCK_TIMEOUT_MS),
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", IDLE_TIMEOUT_MS),
        ("client_connection_check_interval", CLIENT_CHECK_MS),
    ];
    let options =
        login.clone().options([("role", OWNER), ("search_path", SCHEMA)]).options(settings);
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .idle_timeout(Duration::from_secs(IDLE_S))
        .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
        .connect_lazy_with(options)
}
