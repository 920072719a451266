//! Why the store cannot answer: one line each, for the log and the operator.
//!
//! Invariant: none of these texts reaches an API client; the API answers with its own.

use std::path::PathBuf;

/// A failure of the store itself; never the fault of a request.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names a database that this build has no driver for.
    #[error("PostgreSQL is not supported by this build yet: set [store] url to sqlite://PATH")]
    PostgresUnsupported,
    /// The URL is none of the known forms.
    #[error("{0:?} is no store URL: expected sqlite://PATH")]
    Url(String),
    /// The folder or a file in it cannot be created or opened.
    #[error("cannot open {}: {source}", path.display())]
    File {
        /// The folder, the database or its lock file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process owns the database.
    #[error("{} is in use by another process; several edges need PostgreSQL", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The file is no database, or is damaged.
    #[error("{} is not a usable SQLite database: {reason}", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// A migration failed, or the database was written by a later release.
    #[error("cannot bring the database to this release's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// A statement failed: disk full, locked, closed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A stored value that this release cannot read.
    #[error("a stored value is not readable: {0}")]
    Decode(String),
    /// The system gave no randomness.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
    /// The task that made the change died.
    #[error("the change was abandoned: {0}")]
    Abandoned(#[from] tokio::task::JoinError),
}
