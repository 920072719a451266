//! A database of the release before: its levels are there afterwards, storage in bytes.

use std::borrow::Cow;

use model::{
    quota::{BYTES_PER_MB, Metric},
    tenant::TenantId,
};
use sqlx::{
    ConnectOptions, Connection, PgConnection, SqliteConnection, migrate::Migrator,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use uuid::Uuid;

use crate::testing::{Backend, Database, on_both};

on_both![levels_of_the_release_before_are_kept_and_storage_becomes_bytes];

/// The migrations of `all` before the one called `usage`.
fn before_usage(mut all: Migrator) -> Migrator {
    let usage = all.iter().find(|migration| migration.description == "usage");
    let usage = usage.expect("the migration").version;
    let earlier = all.iter().filter(|migration| migration.version < usage).cloned();
    all.migrations = Cow::Owned(earlier.collect());
    all
}

const TENANT: &str = "INSERT INTO tenant (id, slug, organization_name, display_name, admin_email,
        plan, data_residency, status, created_at, version)
    VALUES ($1, 'one', 'One', 'One', 'a@b.example', 'team', 'eu', 'active', 0, 1)";
const LEVELS: &str = "INSERT INTO tenant_gauge (tenant_id, metric, value, updated_at)
    VALUES ($1, 'storage', 8500, 0), ($1, 'users', 45, 0)";

async fn sqlite(url: &str, tenant: Uuid) {
    let path = url.strip_prefix("sqlite://").expect("a path");
    let folder = std::path::Path::new(path).parent().expect("a folder");
    std::fs::create_dir(folder).expect("a folder");
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut raw: SqliteConnection = options.connect().await.expect("a connection");
    before_usage(sqlx::migrate!("migrations/sqlite")).run(&mut raw).await.expect("migrations");
    for statement in [TENANT, LEVELS] {
        sqlx::query(statement).bind(tenant).execute(&mut raw).await.expect("a row");
    }
    raw.close().await.expect("closed");
}

async fn postgres(url: &str, tenant: Uuid) {
    // Any store makes the roles, which are the cluster's.
    Backend::Postgres.database().open().await.close().await;
    services::postgres().superuser(url, "CREATE SCHEMA edge AUTHORIZATION schema_owner");
    let login: PgConnectOptions = url.parse().expect("a URL");
    let role = |role| login.clone().options([("role", role), ("search_path", "edge")]);
    let mut owner: PgConnection = role("schema_owner").connect().await.expect("a connection");
    before_usage(sqlx::migrate!("migrations/postgres")).run(&mut owner).await.expect("migrations");
    owner.close().await.expect("closed");
    let insert = |statement: &str| {
        let statement = statement.replace("$1", &format!("'{tenant}'"));
        services::postgres().superuser(url, &format!("SET search_path = edge; {statement}"));
    };
    insert(TENANT);
    insert(LEVELS);
}

async fn levels_of_the_release_before_are_kept_and_storage_becomes_bytes(on: Backend) {
    let database = on.database();
    let tenant = Uuid::from_u128(7);
    match &database {
        Database::Sqlite(_) => sqlite(&database.url(), tenant).await,
        Database::Postgres(url) => postgres(url, tenant).await,
    }
    let levels = database.open().await.levels(TenantId(tenant)).await.expect("levels");
    assert_eq!(levels[&Metric::Storage], 8_500 * BYTES_PER_MB);
    assert_eq!(levels[&Metric::Users], 45);
}
