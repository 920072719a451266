//! The durable state of the control plane, and the directory that follows from it.
//!
//! [`Store::open`] is called once per process; API handlers, the command line and the
//! demo seeder share the `Arc`. One connection writes, a few read. SQL rows stop here:
//! what leaves are the nouns of `model` and small records.
//!
//! Invariant: a committed change is published before its caller is answered, whoever
//! hung up meanwhile. To add a table, add a migration and a file.

mod admin;
mod authority;
mod change;
mod directory;
mod error;
mod gauges;
mod idempotency;
mod keys;
mod lifecycle;
mod open;
mod random;
mod rows;
mod secrets;
mod tenants;

use std::{fs::File, sync::Arc};

use model::{clock::Clock, directory::Directory, tenant::TenantId};
use sqlx::SqlitePool;
use tokio::sync::{Mutex, watch};

pub use self::{
    admin::{AdminToken, AdminTokenError, AdminTokenOutcome, AdminTokenSource},
    authority::QuotaViolation,
    error::StoreError,
    idempotency::{IdempotencyKey, Seen, StoredAnswer},
    keys::{IssuedKey, KeyRecord},
    lifecycle::{GRACE_DAYS, InvalidTransition, StatusChange},
    tenants::{
        Answer, ChangeError, CreateError, Created, Members, NewTenant, Once, StoredTenant,
        TenantFilter, TenantPage, TenantPatch,
    },
};

/// An open database of this process alone.
#[derive(Debug)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    clock: Arc<dyn Clock>,
    directory: watch::Sender<Arc<Directory>>,
    turn: Arc<Mutex<()>>,
    _lock: File,
}

impl Store {
    /// Opens the database of `sqlite://PATH`, creating folder and file, brings it to this
    /// release's schema, and reads the directory. Called once at start-up.
    ///
    /// # Errors
    /// One line that says what is wrong with the URL, the file or its owner.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let open::Opened { writer, reader, lock } = open::open(url).await?;
        let all = directory::load(&mut *reader.acquire().await?, rows::Span::ALL).await?;
        let directory = watch::Sender::new(Arc::new(directory::first(all)));
        let turn = Arc::new(Mutex::new(()));
        Ok(Arc::new(Self { writer, reader, clock, directory, turn, _lock: lock }))
    }

    /// Tenants, keys and secrets as committed; a new value after every change.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.subscribe()
    }

    /// How many tenants there are, tombstones included.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.directory.borrow().tenants.len()
    }

    /// Whether the directory has a tenant of this id.
    #[must_use]
    pub fn knows(&self, id: TenantId) -> bool {
        let directory = self.directory.borrow();
        directory.tenants.binary_search_by_key(&id, |record| record.tenant.id).is_ok()
    }

    /// Ends every connection after its running statement. Called once at the end, so that
    /// the next start finds a database without a log to replay.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// The only connection that writes; a transaction on it excludes every other.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Connections that see what was committed and cannot write.
    pub(crate) fn reader(&self) -> &SqlitePool {
        &self.reader
    }
}
