//! SQLite: URL, folder, lock, pools, migrations, transactions.
//!
//! One connection writes, a few read. Invariant: one process owns a database, by an
//! exclusive lock on the file beside it, which the system releases however the process
//! ends; so a write transaction excludes every other.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection as _, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    APPLIED, Purpose, Scope,
    transaction::{Connection, Tx},
};
use crate::store::StoreError;

/// How long a statement waits for another connection's lock, in ms: longer than any write
/// of ours, so that only a foreign writer can exhaust it.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// How long a caller waits for a connection, in ms: beyond it the answer is 503.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;
/// Connections that read. Reads are short; more would only contend for two cores.
const READERS: u32 = 4;
/// Access of a new database: keys and secrets are in it.
const FILE_MODE: u32 = 0o600;

/// What brings a database to this release's schema.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// An opened, migrated database.
#[derive(Clone, Debug)]
pub(in crate::store) struct Database {
    /// The only connection that writes; a transaction on it excludes every other.
    writer: SqlitePool,
    /// Connections that see what was committed and cannot write.
    reader: SqlitePool,
    _lock: Arc<File>,
}

impl Database {
    pub(super) async fn begin<S: Scope>(
        &self,
        scope: S,
        purpose: Purpose,
    ) -> Result<Tx<S>, StoreError> {
        let (pool, begin) = match purpose {
            Purpose::Read | Purpose::ReadData => (&self.reader, "BEGIN"),
            Purpose::Change | Purpose::Write | Purpose::Account => {
                (&self.writer, "BEGIN IMMEDIATE")
            }
        };
        let mut tx = Tx::begun(Connection::Sqlite(pool.acquire().await?), scope, None);
        tx.run(begin).await?;
        Ok(tx)
    }

    pub(super) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Opens `sqlite://PATH`, creating folder and file.
pub(super) async fn open(url: &str) -> Result<Database, StoreError> {
    let path = path_of(url)?;
    let lock = own(&path)?;
    let writing = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .disable_statement_logging();
    let reading = writing.clone().read_only(true);
    let writer = pool(1).connect_with(writing).await.map_err(|error| unusable(&path, error))?;
    MIGRATIONS.run(&writer).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => unusable(&path, error),
        other => StoreError::Schema(other),
    })?;
    let reader =
        pool(READERS).connect_with(reading).await.map_err(|error| unusable(&path, error))?;
    Ok(Database { writer, reader, _lock: Arc::new(lock) })
}

/// The numbers of the applied migrations, none where there is no file yet; another process
/// may own the database.
pub(super) async fn applied(url: &str) -> Result<Vec<i64>, StoreError> {
    let path = path_of(url)?;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let failed = |error| unusable(&path, error);
    let mut reader = SqliteConnectOptions::new()
        .filename(&path)
        .read_only(true)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    let migrated: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = $1)")
            .bind("_sqlx_migrations")
            .fetch_one(&mut reader)
            .await
            .map_err(failed)?;
    let applied = match migrated {
        true => sqlx::query_scalar(APPLIED).fetch_all(&mut reader).await.map_err(failed)?,
        false => Vec::new(),
    };
    reader.close().await?;
    Ok(applied)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() && !path.contains('?') && path != ":memory:" => {
            Ok(PathBuf::from(path))
        }
        _ => Err(StoreError::Url(url.to_owned())),
    }
}

/// Makes folder and file, and takes the lock that says "mine".
fn own(path: &Path) -> Result<File, StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { path, source }
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let open = |path: &Path| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(failed(path))
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let lock = open(&beside)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { path: path.to_owned() });
        }
        Err(TryLockError::Error(source)) => {
            return Err(StoreError::File { path: beside, source });
        }
    }
    open(path)?;
    Ok(lock)
}

/// SQLite's own words in one line, without the driver's.
fn unusable(path: &Path, error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => {
            StoreError::Corrupt { path: path.to_owned(), reason: error.message().to_owned() }
        }
        other => StoreError::Database(other),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

    use model::clock::ManualClock;
    use sqlx::{Connection, SqliteConnection};

    use crate::{
        Store, StoreError,
        testing::{Backend, Database},
    };

    fn folder() -> Database {
        Backend::Sqlite.database()
    }

    fn path(database: &Database) -> PathBuf {
        let url = database.url();
        PathBuf::from(url.strip_prefix("sqlite://").expect("a path"))
    }

    async fn refusal(url: &str) -> StoreError {
        Store::open(url, Arc::new(ManualClock::default())).await.expect_err("a refusal")
    }

    #[tokio::test]
    async fn folder_and_file_are_made_for_their_owner_alone() {
        let folder = folder();
        let _store = folder.open().await;
        for name in ["edge.db", "edge.db-wal", "edge.db.lock"] {
            let file = std::fs::metadata(path(&folder).with_file_name(name)).expect(name);
            assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn a_second_owner_is_refused_until_the_first_is_gone() {
        let folder = folder();
        let first = folder.open().await;
        let refused = refusal(&folder.url()).await;
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
        assert!(!refused.to_string().contains('\n'));
        first.close().await;
        drop(first);
        folder.open().await;
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_in_one_line() {
        let folder = folder();
        let path = path(&folder);
        std::fs::create_dir(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, "not a database, but long enough ".repeat(64)).expect("a file");
        let refused = refusal(&folder.url()).await;
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
        assert!(refused.to_string().contains("edge.db"));
        assert!(!refused.to_string().contains('\n'));
    }

    #[tokio::test]
    async fn a_truncated_database_is_refused_in_one_line() {
        let folder = folder();
        let store = folder.open().await;
        store.close().await;
        drop(store);
        let path = path(&folder);
        // A log that was left (the last to close was a reader) would heal the file.
        let mut raw = SqliteConnection::connect(&folder.url()).await.expect("a connection");
        let merge = "PRAGMA wal_checkpoint(TRUNCATE)";
        sqlx::query(merge).execute(&mut raw).await.expect("the log is merged");
        raw.close().await.expect("closed");
        let bytes = std::fs::read(&path).expect("bytes");
        std::fs::write(&path, &bytes[..bytes.len() / 3]).expect("a file");
        let refused = refusal(&folder.url()).await;
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    }

    #[tokio::test]
    async fn a_url_of_another_kind_says_what_is_expected() {
        for url in ["", "edge.db", "mysql://x", "sqlite://", "sqlite://:memory:", "sqlite://a?b=c"]
        {
            assert!(matches!(refusal(url).await, StoreError::Url(_)), "{url}");
        }
    }

    #[tokio::test]
    async fn a_database_of_a_later_release_is_refused() {
        let folder = folder();
        let store = folder.open().await;
        store.close().await;
        drop(store);
        let mut raw = SqliteConnection::connect(&folder.url()).await.expect("a connection");
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', TRUE, x'00', 0)",
        )
        .execute(&mut raw)
        .await
        .expect("a later migration");
        raw.close().await.expect("an end");
        let refused = refusal(&folder.url()).await;
        assert!(matches!(refused, StoreError::Schema(_)), "{refused:?}");
    }
}
