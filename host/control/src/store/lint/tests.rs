use std::collections::BTreeSet;

use crate::{
    Store,
    testing::{Backend, Database},
};

/// A table without fault.
const GOOD: &str = "
    CREATE TABLE note (
        tenant_id uuid NOT NULL REFERENCES tenant (id),
        id        uuid NOT NULL,
        text      text NOT NULL,
        PRIMARY KEY (tenant_id, id)
    );
    ALTER TABLE note ENABLE ROW LEVEL SECURITY;
    ALTER TABLE note FORCE ROW LEVEL SECURITY;
    CREATE POLICY one_tenant ON note TO application_user
        USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
        WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
    GRANT SELECT, INSERT, UPDATE, DELETE ON note TO application_user;";

/// What is wrong with the good table after `change`, by rule.
async fn broken_by(changes: &[(&str, &[&'static str])]) {
    let database = Backend::Postgres.database();
    let store = database.open().await;
    let Database::Postgres(url) = &database else { panic!("PostgreSQL") };
    for (change, expected) in changes {
        let statements = format!(
            "SET ROLE schema_owner; SET search_path = edge; DROP TABLE IF EXISTS note CASCADE;
             {GOOD} {change};"
        );
        services::postgres().superuser(url, &statements);
        let findings = store.schema_findings().await.expect("findings");
        let rules: BTreeSet<_> = findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, expected.iter().copied().collect(), "{change}: {findings:?}");
    }
}

#[tokio::test]
async fn the_migrated_schema_has_no_fault() {
    let store = Backend::Postgres.database().open().await;
    assert_eq!(store.schema_findings().await.expect("findings"), []);
}

#[tokio::test]
async fn a_database_is_inspected_as_it_is() {
    let database = Backend::Postgres.database();
    let (url, Database::Postgres(plain)) = (database.url(), &database) else {
        panic!("PostgreSQL")
    };
    let inspected = async || Store::inspect_schema(&url).await.expect("an answer");
    assert_eq!(inspected().await, None, "no release was here");
    let there = "SELECT to_regnamespace('edge') IS NOT NULL";
    assert_eq!(services::postgres().superuser(plain, there), "f", "looking makes nothing");
    database.open().await.close().await;
    assert_eq!(inspected().await, Some(Vec::new()));
    let open = "ALTER TABLE edge.tenant_data_h8_5_rest DISABLE ROW LEVEL SECURITY";
    services::postgres().superuser(plain, open);
    let findings = inspected().await.expect("findings");
    let objects: Vec<_> =
        findings.iter().map(|finding| (finding.rule, finding.object.as_str())).collect();
    assert_eq!(objects, [("row-security", "tenant_data_h8_5_rest")]);
    assert_eq!(Store::inspect_schema("sqlite:///nowhere/edge.db").await.expect("an answer"), None);
}

#[tokio::test]
async fn a_table_without_its_walls_is_found() {
    broken_by(&[
        ("", &[]),
        ("ALTER TABLE note DISABLE ROW LEVEL SECURITY", &["row-security"]),
        ("ALTER TABLE note NO FORCE ROW LEVEL SECURITY", &["row-security-forced"]),
        ("DROP POLICY one_tenant ON note", &["policy"]),
        ("CREATE POLICY all_tenants ON note TO control_plane USING (true)", &[]),
        ("CREATE POLICY open ON note USING (true)", &["policy-context"]),
        ("CREATE POLICY open ON note FOR SELECT TO application_user USING (true)", &[
            "policy-context",
        ]),
        ("ALTER POLICY one_tenant ON note WITH CHECK (true)", &["policy-context"]),
        ("ALTER POLICY one_tenant ON note USING (tenant_id::text = current_setting('app.tenant_id'))", &[
            "policy-context",
        ]),
        ("RESET ROLE; ALTER TABLE note OWNER TO application_user", &["owner"]),
    ])
    .await;
}

#[tokio::test]
async fn wrong_grants_are_found() {
    broken_by(&[
        ("GRANT SELECT ON note TO PUBLIC", &["grants"]),
        ("GRANT SELECT (text) ON note TO edge", &["grants"]),
        ("GRANT TRUNCATE ON note TO application_user", &["grants"]),
        ("GRANT REFERENCES ON note TO control_plane", &["grants"]),
    ])
    .await;
}

#[tokio::test]
async fn keys_and_indexes_that_tell_of_others_are_found() {
    broken_by(&[
        ("ALTER TABLE note DROP CONSTRAINT note_pkey, ADD PRIMARY KEY (id, tenant_id)", &[
            "index", "key",
        ]),
        ("ALTER TABLE note DROP CONSTRAINT note_pkey", &["index", "key"]),
        ("CREATE UNIQUE INDEX note_text ON note (text)", &["key"]),
        ("CREATE INDEX note_text ON note (text)", &["key"]),
        ("CREATE INDEX note_text ON note (tenant_id, text)", &[]),
        ("ALTER TABLE note ADD price numeric; CREATE INDEX note_price ON note (tenant_id, price)", &[
            "leakproof",
        ]),
        (
            "CREATE TABLE reply (tenant_id uuid, id uuid, note uuid, note_tenant uuid,
                PRIMARY KEY (tenant_id, id),
                FOREIGN KEY (note_tenant, note) REFERENCES note (tenant_id, id));
             ALTER TABLE reply ENABLE ROW LEVEL SECURITY;
             ALTER TABLE reply FORCE ROW LEVEL SECURITY;
             CREATE POLICY all_tenants ON reply TO control_plane USING (true)",
            &["foreign-key"],
        ),
        ("DROP TABLE reply", &[]),
    ])
    .await;
}

#[tokio::test]
async fn a_partition_is_a_table_of_its_own() {
    let partitioned = "
        DROP TABLE note;
        CREATE TABLE note (tenant_id uuid NOT NULL, id uuid NOT NULL,
            PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
        CREATE TABLE note_0 PARTITION OF note FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        ALTER TABLE note ENABLE ROW LEVEL SECURITY;
        ALTER TABLE note FORCE ROW LEVEL SECURITY;
        CREATE POLICY one_tenant ON note TO application_user
            USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
        GRANT SELECT ON note TO application_user";
    let walls = format!(
        "{partitioned}; ALTER TABLE note_0 ENABLE ROW LEVEL SECURITY;
         ALTER TABLE note_0 FORCE ROW LEVEL SECURITY"
    );
    let granted = format!("{walls}; GRANT SELECT ON note_0 TO application_user");
    let owner = "CREATE POLICY moving ON note_0 TO schema_owner USING (true)";
    let moved = format!("{walls}; {owner}; ALTER TABLE note DETACH PARTITION note_0");
    broken_by(&[
        (partitioned, &["row-security", "row-security-forced"]),
        (&walls, &[]),
        (&format!("{partitioned}; ALTER TABLE note_0 ENABLE ROW LEVEL SECURITY"), &[
            "row-security-forced",
        ]),
        (&granted, &["grants"]),
        (&format!("{walls}; GRANT SELECT (id) ON note_0 TO control_plane"), &["grants"]),
        (&format!("{walls}; CREATE POLICY open ON note_0 USING (true)"), &["policy-context"]),
        (&format!("{walls}; CREATE INDEX note_0_id ON note_0 (id)"), &["key"]),
        (&format!("{walls}; CREATE INDEX note_0_kind ON note_0 (tenant_id, (id::text::bytea::text::jsonb))"), &[
            "leakproof",
        ]),
        (&format!("{walls}; {owner}"), &[]),
        (&format!("{moved}; DROP TABLE note_0"), &[]),
    ])
    .await;
}

#[tokio::test]
async fn a_policy_of_the_owner_is_for_tables_of_nobody_else() {
    let owner = "CREATE POLICY moving ON note TO schema_owner USING (true)";
    broken_by(&[
        (owner, &["policy-context"]),
        (
            &format!(
                "{owner}; DROP POLICY one_tenant ON note; REVOKE ALL ON note FROM application_user"
            ),
            &[],
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_made_later_is_nobody_elses_either() {
    let grant = |what: &str| {
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE schema_owner {what} TO application_user")
    };
    let undo = "ALTER DEFAULT PRIVILEGES FOR ROLE schema_owner REVOKE SELECT ON TABLES
        FROM application_user";
    broken_by(&[
        (&grant("IN SCHEMA edge GRANT SELECT ON TABLES"), &["default-privileges"]),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE schema_owner IN SCHEMA edge
          REVOKE SELECT ON TABLES FROM application_user",
            &[],
        ),
        (&grant("GRANT SELECT ON TABLES"), &["default-privileges"]),
        (undo, &[]),
    ])
    .await;
}

#[tokio::test]
async fn rights_beside_tables_are_found() {
    broken_by(&[
        ("GRANT CREATE ON SCHEMA edge TO application_user", &["schema"]),
        ("REVOKE CREATE ON SCHEMA edge FROM application_user", &[]),
        ("GRANT USAGE ON SCHEMA edge TO PUBLIC", &["schema"]),
        ("REVOKE USAGE ON SCHEMA edge FROM PUBLIC", &[]),
        ("CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO edge", &["grants-beside"]),
        ("DROP SEQUENCE numbers", &[]),
        ("CREATE FUNCTION one() RETURNS bigint LANGUAGE sql AS 'SELECT 1'", &["grants-beside"]),
        ("REVOKE ALL ON FUNCTION one() FROM PUBLIC", &[]),
    ])
    .await;
}

#[tokio::test]
async fn what_acts_as_its_owner_is_found() {
    broken_by(&[
        ("CREATE VIEW notes AS SELECT * FROM note", &["definer"]),
        ("CREATE VIEW notes WITH (security_invoker = true) AS SELECT * FROM note", &[]),
        (
            "CREATE FUNCTION notes() RETURNS bigint LANGUAGE sql SECURITY DEFINER
             AS 'SELECT count(*) FROM note'; REVOKE ALL ON FUNCTION notes() FROM PUBLIC",
            &["definer"],
        ),
        ("DROP FUNCTION notes()", &[]),
        (
            "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             AS 'BEGIN RETURN NULL; END'; REVOKE ALL ON FUNCTION told() FROM PUBLIC",
            &["definer"],
        ),
        ("ALTER FUNCTION told() SET search_path = edge, pg_temp", &[]),
    ])
    .await;
}
