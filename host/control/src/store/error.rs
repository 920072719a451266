//! Why the store cannot answer: one line each, for the log and the operator.
//!
//! Invariant: none of these texts reaches an API client; the API answers with its own.

use std::path::PathBuf;

/// A failure of the store itself; never the fault of a request.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is none of the known forms.
    #[error("{0:?} is no store URL: expected sqlite://PATH or postgres://LOGIN@HOST/DATABASE")]
    Url(String),
    /// The URL is PostgreSQL's, but malformed; it is not repeated, as it may hold a password.
    #[error("the store's URL is malformed: {0}: expected postgres://LOGIN@HOST/DATABASE")]
    PostgresUrl(String),
    /// No connection to PostgreSQL.
    #[error("cannot connect to PostgreSQL at {server}: {reason}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// The driver's words.
        reason: String,
    },
    /// PostgreSQL does not answer: neither a statement nor a new connection.
    #[error("PostgreSQL does not answer")]
    Away,
    /// The server is too old: a `server_version_num`.
    #[error("PostgreSQL {} is too old or lacks the fix of CVE-2025-8713: update to 15.14, 16.10, \
        17.6 or later", version(*.0))]
    PostgresVersion(i32),
    /// The login can neither act as the roles nor make them.
    #[error(
        "{login:?} may not act as the roles of the store ({reason}): give it CREATEROLE, or \
        run as a superuser: CREATE ROLE schema_owner; CREATE ROLE application_user; \
        CREATE ROLE control_plane; GRANT schema_owner, application_user, control_plane \
        TO {login:?}"
    )]
    Roles {
        /// The login of the URL.
        login: String,
        /// PostgreSQL's words.
        reason: String,
    },
    /// A role of the store has an attribute that puts it above row-level security.
    #[error(
        "the role {0} must be NOSUPERUSER NOBYPASSRLS NOLOGIN: run ALTER ROLE {0} \
        NOSUPERUSER NOBYPASSRLS NOLOGIN"
    )]
    UnsafeRole(String),
    /// A connection came with a tenant's context, or under another role; it was closed.
    #[error("a connection was not clean")]
    UncleanConnection,
    /// The connection that hears of other processes' changes ended.
    #[error("the connection that listens for changes ended")]
    NoticesLost,
    /// A statement of the transaction failed before, so nothing of it was kept.
    #[error("the transaction had failed")]
    Failed,
    /// The folder or a file in it cannot be created or opened.
    #[error("cannot open {}: {source}", path.display())]
    File {
        /// The folder, the database or its lock file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process owns the database.
    #[error("{} is in use by another process, and a SQLite database has one", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Another process dispatches quotas on the same PostgreSQL.
    #[error(
        "another edge process dispatches the quotas of this database: several edges on one \
        PostgreSQL need a shared dispatcher: set quota.url to a Redis that all of them reach"
    )]
    Dispatched,
    /// A holder of quotas that was ended asks for tokens of its own.
    #[error("the holder {0} was ended: it has to register anew")]
    HolderEnded(uuid::Uuid),
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
    /// The database has a migration that this release does not know.
    #[error(
        "the database has migration {0} of a later release: run that release, or restore a \
        backup from before it"
    )]
    LaterRelease(i64),
    /// A statement failed: disk full, locked, closed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A stored value that this release cannot read.
    #[error("a stored value is not readable: {0}")]
    Decode(String),
    /// The store was opened without keys, so it can neither write nor read secrets.
    #[error("the store was opened without keys, which secrets need")]
    NoKeys,
    /// Something is sealed under a key that this process does not have.
    #[error(
        "secrets in the database are sealed under the key {key}, which this process does not \
        have: give every process of one database the same keys (data.keys_dir), and keep old \
        keys in secrets.key"
    )]
    UnknownKey {
        /// The key's id.
        key: String,
    },
    /// A sealed value was changed, or belongs elsewhere.
    #[error("a sealed value does not open: {0}")]
    Unsealable(String),
    /// The request's idempotency key took effect in another request meanwhile.
    #[error("the idempotency key is used")]
    KeyUsed,
    /// The system gave no randomness.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
    /// The task that made the change died.
    #[error("the change was abandoned: {0}")]
    Abandoned(#[from] tokio::task::JoinError),
}

/// A `server_version_num` as people write it.
fn version(number: i32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}
