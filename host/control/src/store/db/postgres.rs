//! PostgreSQL: version, roles, migrations, pools, transactions, notifications.
//!
//! The login of the URL only opens connections; every statement runs as one of the roles
//! of `roles.rs`, which the connection takes from its first moment. Tenants' statements
//! and the control plane's have pools of their own. Invariant: a transaction starts on a
//! connection whose tenant context was found empty, under the expected role; any other
//! connection is closed.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{
    APPLIED, Purpose, Scope,
    outlook::{Lookout, Outlook},
    owner, roles,
    roles::{APPLICATION, CONTROL, OWNER},
    statement::sql,
    transaction::{Connection, Tx},
};
use crate::store::StoreError;

/// The schema of all tables.
pub(super) const SCHEMA: &str = "edge";
/// Where a changed directory is announced.
const CHANNEL: &str = "edge_directory";
/// Connections for statements of tenants: API calls are short and few run at a time.
const TENANT_CONNECTIONS: u32 = 8;
/// Connections for the control plane's own: one changes, one loads, two list, two look
/// tokens up.
const CONTROL_CONNECTIONS: u32 = 6;
/// Connections for quota accounts: one opens tranches, one takes reports, two to spare, so
/// that neither lists nor changes of the directory keep a tenant waiting for tokens.
const QUOTA_CONNECTIONS: u32 = 4;
/// How long a caller waits for a connection of a server that answers, in ms: all of them are
/// busy; beyond it the answer is 503. A server that does not answer is `outlook.rs`' business.
const ACQUIRE_TIMEOUT_MS: u64 = 5_000;
/// How long a statement waits for a lock, in ms: longer than a queue of changes.
const LOCK_TIMEOUT_MS: u32 = 5_000;
/// Longest statement, in ms: the directory of 100,000 tenants takes a tenth of it.
const STATEMENT_TIMEOUT_MS: u32 = 30_000;
/// How long a transaction may wait for its client, in ms: a process that stands still in
/// the middle of a change holds up all others for no longer.
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// How often the server looks whether the client of a running statement is still there, in
/// ms: the locks of a cancelled transaction are held up to this long.
const CLIENT_CHECK_MS: u32 = 500;
/// Advisory lock of whoever migrates: "migr".
const MIGRATION_LOCK: i64 = 0x6d69_6772;
/// Advisory lock of whoever changes the directory: "dire".
const CHANGE_LOCK: i64 = 0x6469_7265;

/// Advisory lock of the one process that dispatches quotas: "disp".
const DISPATCH_LOCK: i64 = 0x6469_7370;

/// Settings of the connection that holds it: never ended for being idle, and ended within a
/// minute (30 s, then 3 probes of 10 s) of the loss of its machine, so that the next may start.
const CLAIM_SETTINGS: [(&str, u32); 4] = [
    ("idle_session_timeout", 0),
    ("tcp_keepalives_idle", 30),
    ("tcp_keepalives_interval", 10),
    ("tcp_keepalives_count", 3),
];

/// What brings a database to this release's schema.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// A migrated database.
#[derive(Clone, Debug)]
pub(in crate::store) struct Database {
    tenant: PgPool,
    control: PgPool,
    quota: PgPool,
    listener: PgPool,
    owner: PgPool,
    outlook: Outlook,
}

/// Brings the database to this release's schema, one process at a time, and opens it.
pub(super) async fn open(url: &str) -> Result<Database, StoreError> {
    let login = login(url)?;
    let mut bootstrap = connect(&login).await?;
    check_version(&mut bootstrap).await?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut bootstrap).await?;
    roles::ensure(&mut bootstrap, login.get_username()).await?;
    let missing: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NULL")
        .bind(SCHEMA)
        .fetch_one(&mut bootstrap)
        .await?;
    if missing {
        sqlx::query("CREATE SCHEMA edge AUTHORIZATION schema_owner")
            .execute(&mut bootstrap)
            .await?;
    }
    let mut owner =
        login.clone().options([("role", OWNER), ("search_path", SCHEMA)]).connect().await?;
    MIGRATIONS.run(&mut owner).await?;
    owner.close().await?;
    bootstrap.close().await?;
    Ok(Database::of(&login))
}

/// The database as it is, without a migration; `None` while it has no schema of ours.
pub(super) async fn inspect(url: &str) -> Result<Option<Database>, StoreError> {
    let login = login(url)?;
    let mut connection = connect(&login).await?;
    check_version(&mut connection).await?;
    let there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(SCHEMA)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(there.then(|| Database::of(&login)))
}

async fn connect(login: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    login.connect().await.map_err(|error| StoreError::Unreachable {
        server: format!("{}:{}", login.get_host(), login.get_port()),
        reason: error.to_string(),
    })
}

/// The numbers of the applied migrations, none where there is no schema yet.
pub(super) async fn applied(url: &str) -> Result<Vec<i64>, StoreError> {
    let login = login(url)?;
    let mut connection = connect(&login).await?;
    check_version(&mut connection).await?;
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{SCHEMA}._sqlx_migrations"))
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    if !migrated {
        return Ok(Vec::new());
    }
    let mut owner = login.options([("role", OWNER), ("search_path", SCHEMA)]).connect().await?;
    let applied = sqlx::query_scalar(APPLIED).fetch_all(&mut owner).await?;
    owner.close().await?;
    Ok(applied)
}

/// The parts of a URL. Its text may hold a password, so no error repeats it.
fn login(url: &str) -> Result<PgConnectOptions, StoreError> {
    let login = PgConnectOptions::from_str(url)
        .map_err(|error| StoreError::PostgresUrl(error.to_string()))?;
    Ok(login.application_name("leanvibe-edge").disable_statement_logging())
}

/// Refuses versions without the fix of CVE-2025-8713, by which statistics told of rows
/// that row-level security hides.
async fn check_version(connection: &mut PgConnection) -> Result<(), StoreError> {
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(connection)
        .await?;
    if supported(version) { Ok(()) } else { Err(StoreError::PostgresVersion(version)) }
}

/// Whether a `server_version_num` is at least 15.14, 16.10, 17.6 or 18.
const fn supported(version: i32) -> bool {
    match version / 10_000 {
        ..15 => false,
        15 => version >= 150_014,
        16 => version >= 160_010,
        17 => version >= 170_006,
        18.. => true,
    }
}

/// Connections that run as `role`, opened on demand.
fn pool(login: &PgConnectOptions, role: &str, connections: u32) -> PgPool {
    let timeouts = [
        ("lock_timeout", LOCK_TIMEOUT_MS),
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", IDLE_TIMEOUT_MS),
        ("client_connection_check_interval", CLIENT_CHECK_MS),
    ];
    let options =
        login.clone().options([("role", role), ("search_path", SCHEMA)]).options(timeouts);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(ACQUIRE_TIMEOUT_MS))
        // The first statement of a transaction tells whether the connection is alive.
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

impl Database {
    fn of(login: &PgConnectOptions) -> Self {
        Self {
            tenant: pool(login, APPLICATION, TENANT_CONNECTIONS),
            control: pool(login, CONTROL, CONTROL_CONNECTIONS),
            quota: pool(login, CONTROL, QUOTA_CONNECTIONS),
            listener: pool(login, CONTROL, 1),
            owner: owner::pool(login),
            outlook: Outlook::default(),
        }
    }

    /// Connections of the schema's owner.
    pub(super) fn owner(&self) -> &PgPool {
        &self.owner
    }

    /// Whether the server answers.
    pub(super) fn outlook(&self) -> &Outlook {
        &self.outlook
    }

    /// Looks out for the server until dropped.
    pub(super) fn keep_lookout(&self) -> Lookout {
        self.outlook.keep((*self.listener.connect_options()).clone())
    }

    /// A transaction on the first connection that is alive and clean.
    pub(super) async fn begin<S: Scope>(
        &self,
        scope: S,
        purpose: Purpose,
    ) -> Result<Tx<S>, StoreError> {
        if purpose == Purpose::Account {
            return self.begin_on(scope, purpose, None).await;
        }
        let begun = self.begin_on(scope, purpose, Some(&self.outlook));
        self.outlook.unless_away(begun).await
    }

    async fn begin_on<S: Scope>(
        &self,
        scope: S,
        purpose: Purpose,
        outlook: Option<&Outlook>,
    ) -> Result<Tx<S>, StoreError> {
        let (pool, role) = match scope.tenant() {
            Some(_) => (&self.tenant, APPLICATION),
            None if purpose == Purpose::Account => (&self.quota, CONTROL),
            None => (&self.control, CONTROL),
        };
        let mut attempts = 0;
        let mut tx = loop {
            let connection = Connection::Postgres(pool.acquire().await?);
            let mut tx = Tx::begun(connection, scope, outlook.cloned());
            match enter(&mut tx, role, purpose).await {
                Ok(()) => break tx,
                Err(error) if attempts > pool.options().get_max_connections() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a connection to PostgreSQL was discarded");
                    outlook.into_iter().for_each(Outlook::doubt);
                }
            }
            attempts += 1;
        };
        if purpose == Purpose::Change {
            sql("SELECT pg_advisory_xact_lock($1)").bind(CHANGE_LOCK).execute(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Where other processes' changes are announced.
    pub(super) fn notices(&self) -> Notices {
        Notices(self.listener.clone(), self.outlook.clone())
    }

    /// Claims the database for one dispatcher; `None` while another process has it.
    pub(super) async fn claim_dispatch(&self) -> Result<Option<Claim>, StoreError> {
        self.claim(DISPATCH_LOCK).await
    }

    /// Takes an advisory lock until the claim is dropped; `None` while another has it.
    pub(super) async fn claim(&self, lock: i64) -> Result<Option<Claim>, StoreError> {
        let options = (*self.listener.connect_options()).clone().options(CLAIM_SETTINGS);
        let mut connection = options.connect().await?;
        let claimed: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(lock)
            .fetch_one(&mut connection)
            .await?;
        Ok(claimed.then_some(Claim { _connection: connection }))
    }

    #[cfg(test)]
    pub(super) fn over_one_connection(&self) -> Self {
        let options = (*self.tenant.connect_options()).clone();
        let tenant = self.tenant.options().clone().max_connections(1).connect_lazy_with(options);
        Self { tenant, ..self.clone() }
    }

    /// Open connections for statements of tenants.
    #[cfg(test)]
    pub(in crate::store) fn tenant_connections(&self) -> u32 {
        self.tenant.size()
    }

    pub(super) async fn close(&self) {
        self.owner.close().await;
        self.listener.close().await;
        self.quota.close().await;
        self.control.close().await;
        self.tenant.close().await;
    }
}

/// Begins, and sets the tenant context until the end of the transaction. The context is
/// looked at first: one that a former borrower left behind is a bug that must not leak.
async fn enter<S: Scope>(
    tx: &mut Tx<S>,
    role: &'static str,
    purpose: Purpose,
) -> Result<(), StoreError> {
    tx.run(match purpose {
        Purpose::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        // Locked before the first look, so that the snapshot is not older than the parts.
        // Finding the part is cheaper when a statement starts than when it is planned anew.
        Purpose::ReadData => {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL plan_cache_mode = force_generic_plan;
             LOCK TABLE ONLY tenant_data IN ACCESS SHARE MODE"
        }
        Purpose::Change | Purpose::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        // A tranche that is handed out must not be forgotten by a crash.
        Purpose::Account => {
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on"
        }
    })
    .await?;
    let context = tx.scope().tenant().map(|tenant| tenant.to_string()).unwrap_or_default();
    let (left, acting, _): (Option<String>, String, String) =
        sql("WITH found AS MATERIALIZED (SELECT current_setting('app.tenant_id', true) AS context)
         SELECT context, current_user::text, set_config('app.tenant_id', $1, true) FROM found")
        .bind(context)
        .one(tx)
        .await?;
    if left.is_some_and(|left| !left.is_empty()) || acting != role {
        return Err(StoreError::UncleanConnection);
    }
    Ok(())
}

/// Announces at the commit that the directory has changed.
pub(super) async fn announce<S>(tx: &mut Tx<S>) -> Result<(), StoreError> {
    sql("SELECT pg_notify($1, '')").bind(CHANNEL).execute(tx).await.map(drop)
}

/// A claim of the database, for as long as its connection lives.
#[derive(Debug)]
pub(in crate::store) struct Claim {
    _connection: PgConnection,
}

/// Announcements of changes, from any process.
#[derive(Clone, Debug)]
pub(in crate::store) struct Notices(PgPool, Outlook);

/// A connection that hears them.
pub(in crate::store) struct Listening(PgListener);

impl Notices {
    /// Listens from now on.
    pub(in crate::store) async fn listen(&self) -> Result<Listening, StoreError> {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.0).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Listening(listener))
        };
        self.1.unless_away(listening).await
    }
}

impl Listening {
    /// Waits for an announcement, or for `patience` to end; both mean: look.
    pub(in crate::store) async fn heard(&mut self, patience: Duration) -> Result<(), StoreError> {
        match tokio::time::timeout(patience, self.0.try_recv()).await {
            Err(_) => {}
            Ok(Ok(Some(_))) => while self.0.next_buffered().is_some() {},
            Ok(Ok(None)) => return Err(StoreError::NoticesLost),
            Ok(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_with_the_fix_are_supported() {
        for old in [90_624, 140_019, 150_013, 160_009, 170_005] {
            assert!(!supported(old), "{old}");
        }
        for good in [150_014, 150_018, 160_010, 170_006, 180_000] {
            assert!(supported(good), "{good}");
        }
    }

    #[test]
    fn a_password_is_in_no_error() {
        let refused = login("postgres://edge:hunter2@[/x").expect_err("a bad URL");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
}
