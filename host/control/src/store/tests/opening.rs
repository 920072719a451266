use std::sync::Arc;

use model::clock::ManualClock;
use services::{Postgres, postgres};

use crate::store::{Store, StoreError};

async fn open(url: &str) -> Result<Arc<Store>, StoreError> {
    Store::open(url, Arc::new(ManualClock::default())).await
}

async fn refusal(url: &str) -> String {
    let refused = open(url).await.expect_err("a refusal").to_string();
    assert!(!refused.contains('\n'), "{refused}");
    refused
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_the_password() {
    let refused = refusal("postgres://edge:hunter2@127.0.0.1:1/edge").await;
    assert!(refused.starts_with("cannot connect to PostgreSQL at 127.0.0.1:1:"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn a_login_that_may_make_no_roles_is_told_what_to_run_and_then_served() {
    let cluster = Postgres::start();
    let url = cluster.database();
    let database = url.rsplit('/').next().expect("a name");
    let setup = format!("CREATE ROLE plain LOGIN; ALTER DATABASE {database} OWNER TO plain");
    cluster.superuser(&url, &setup);
    let plain = url.replace("edge@", "plain@");
    let refused = refusal(&plain).await;
    let (_, advice) = refused.split_once("run as a superuser: ").expect("advice");
    cluster.superuser(&url, advice);
    open(&plain).await.expect("a store");
}

#[tokio::test]
async fn a_role_above_row_level_security_is_refused() {
    let cluster = Postgres::start();
    let url = cluster.database();
    open(&url).await.expect("a store").close().await;
    cluster.superuser(&url, "ALTER ROLE application_user BYPASSRLS");
    let refused = refusal(&url).await;
    let (_, advice) = refused.split_once("run ").expect("advice");
    cluster.superuser(&url, advice);
    open(&url).await.expect("a store");
}

#[tokio::test]
async fn a_login_above_row_level_security_does_not_act_as_itself() {
    let url = postgres().database().replace("edge@", "postgres@");
    let store = open(&url).await.expect("a store");
    assert_eq!(store.schema_findings().await.expect("findings"), []);
    let tables = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables \
                  WHERE schemaname = 'edge'";
    assert_eq!(postgres().superuser(&url, tables), "schema_owner");
}

#[tokio::test]
async fn a_database_of_a_later_release_is_refused() {
    let url = postgres().database();
    open(&url).await.expect("a store").close().await;
    postgres().superuser(
        &url,
        "INSERT INTO edge._sqlx_migrations (version, description, success, checksum,
             execution_time) VALUES (9999, 'later', true, '', 0)",
    );
    let refused = refusal(&url).await;
    assert!(refused.contains("this release's schema"), "{refused}");
}
