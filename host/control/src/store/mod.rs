//! The durable state of the control plane, and the directory that follows from it.
//!
//! [`Store::open`] is called once per process; API handlers, the command line and the
//! demo seeder share the `Arc`. One connection writes, a few read. SQL rows stop here:
//! what leaves are the nouns of `model` and small records.
//!
//! Invariant: a committed change is published before its caller is answered, whoever
//! hung up meanwhile. To add a table, add a migration and a file.

mod error;
mod open;

use std::{fs::File, sync::Arc};

use model::clock::Clock;
use sqlx::SqlitePool;

pub use self::error::StoreError;

/// An open database of this process alone.
#[derive(Debug)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    clock: Arc<dyn Clock>,
    _lock: File,
}

impl Store {
    /// Opens the database of `sqlite://PATH`, creating folder and file, and brings it to
    /// this release's schema. Called once at start-up.
    ///
    /// # Errors
    /// One line that says what is wrong with the URL, the file or its owner.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let opened = open::open(url).await?;
        Ok(Arc::new(Self {
            writer: opened.writer,
            reader: opened.reader,
            clock,
            _lock: opened.lock,
        }))
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
