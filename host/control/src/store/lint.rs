//! Checks PostgreSQL's own catalogue against the rules of row-level security.
//!
//! Run by the tests after every migration and by `leanvibe-edge check`. A rule is one query
//! in [`RULES`], which returns an object and what is wrong with it; a tenant table is one with
//! a column `tenant_id`, and the directory's own `tenant`. Invariant: reads the catalogue
//! only, so it can be run at any time and needs no right on a row. To add a rule, add a
//! query to [`RULES`] and a table made wrong to the tests.

use super::{
    Store, StoreError,
    db::{ControlTx, Purpose, sql},
};

/// Something in the database that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFinding {
    /// Stable name of the rule.
    pub rule: &'static str,
    /// The table, role or index.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Tables of the store, partitions apart; `is_tenant` says whether a tenant's rows lie in
/// it, `of_tenants` whether `application_user` may touch it.
macro_rules! with_tables {
    ($query:literal) => {
        concat!(
            "WITH tables AS (
                 SELECT c.oid, c.relname::text AS name, c.relrowsecurity, c.relforcerowsecurity,
                        c.relispartition, c.relowner::regrole::text AS owner, key.attnum AS key,
                        key.attnum IS NOT NULL AS is_tenant,
                        has_any_column_privilege('application_user', c.oid,
                            'SELECT, INSERT, UPDATE')
                            OR has_table_privilege('application_user', c.oid, 'DELETE')
                            AS of_tenants
                 FROM pg_class c
                 LEFT JOIN pg_attribute key ON key.attrelid = c.oid AND NOT key.attisdropped
                     AND key.attname = CASE c.relname WHEN 'tenant' THEN 'id' ELSE 'tenant_id' END
                 WHERE c.relnamespace = 'edge'::regnamespace AND c.relkind IN ('r', 'p')
             )
             ",
            $query
        )
    };
}

/// Rule and query. A query answers (object, detail), all text.
const RULES: &[(&str, &str)] = &[
    (
        "row-security",
        with_tables!(
            "SELECT name, 'row-level security is not enabled' FROM tables
             WHERE is_tenant AND NOT relrowsecurity"
        ),
    ),
    (
        "row-security-forced",
        with_tables!(
            "SELECT name, 'row-level security is not forced, so the owner sees all rows'
             FROM tables WHERE is_tenant AND NOT relforcerowsecurity"
        ),
    ),
    (
        "policy",
        with_tables!(
            "SELECT name, 'has no policy that ties application_user to the tenant of the context'
             FROM tables t
             WHERE is_tenant AND of_tenants AND NOT relispartition AND NOT EXISTS (
                 SELECT FROM pg_policy p
                 WHERE p.polrelid = t.oid AND p.polpermissive AND p.polcmd = '*'
                   AND p.polroles = ARRAY['application_user'::regrole::oid])
             UNION ALL
             SELECT name, 'row-level security without any policy returns nothing, silently'
             FROM tables t
             WHERE is_tenant AND NOT relispartition
               AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t.oid)"
        ),
    ),
    // Policies are ORed: one that does not name the context opens the table.
    (
        "policy-context",
        with_tables!(
            "SELECT name, format('policy %I lets others than control_plane see more than the '
                                 'tenant of the context', p.polname)
             FROM tables t JOIN pg_policy p ON p.polrelid = t.oid
             CROSS JOIN LATERAL (
                 SELECT format('(%I = (NULLIF(current_setting(''app.tenant_id''::text, true), '
                               '''''::text))::uuid)', a.attname) AS expected
                 FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = t.key) e
             WHERE p.polpermissive AND p.polroles <> ARRAY['control_plane'::regrole::oid]
               AND (pg_get_expr(p.polqual, t.oid) IS DISTINCT FROM e.expected
                    AND p.polcmd <> 'a'
                 OR p.polwithcheck IS NOT NULL
                    AND pg_get_expr(p.polwithcheck, t.oid) IS DISTINCT FROM e.expected
                 OR p.polcmd = 'a' AND p.polwithcheck IS NULL)"
        ),
    ),
    (
        "owner",
        with_tables!(
            "SELECT name, 'is owned by ' || owner FROM tables WHERE owner <> 'schema_owner'
             UNION ALL
             SELECT rolname::text, 'is above row-level security, or may log in'
             FROM pg_roles
             WHERE rolname IN ('schema_owner', 'application_user', 'control_plane')
               AND (rolsuper OR rolbypassrls OR rolcanlogin)"
        ),
    ),
    (
        "grants",
        with_tables!(
            "SELECT DISTINCT name, format('%s has %s', CASE a.grantee WHEN 0 THEN 'PUBLIC'
                        ELSE a.grantee::regrole::text END, a.privilege_type)
             FROM tables t JOIN pg_class c ON c.oid = t.oid
             CROSS JOIN LATERAL (
                 SELECT (aclexplode(c.relacl)).grantee, (aclexplode(c.relacl)).privilege_type
                 UNION ALL
                 SELECT x.grantee, x.privilege_type FROM pg_attribute k
                 CROSS JOIN LATERAL aclexplode(k.attacl) x
                 WHERE k.attrelid = c.oid AND NOT k.attisdropped) a
             WHERE a.grantee <> c.relowner
               AND (a.grantee NOT IN ('application_user'::regrole, 'control_plane'::regrole)
                 OR a.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                 OR t.relispartition)"
        ),
    ),
    (
        "index",
        with_tables!(
            "SELECT name, 'has no index that starts with ' || a.attname
             FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = t.key
             WHERE is_tenant AND NOT EXISTS (
                 SELECT FROM pg_index i
                 WHERE i.indrelid = t.oid AND i.indisvalid AND i.indkey[0] = t.key
                   AND i.indpred IS NULL)"
        ),
    ),
    // The directory's slugs and hosts are unique over all tenants, by design. Tables that
    // application_user cannot touch tell it nothing by an error.
    (
        "key",
        with_tables!(
            "SELECT name, format('index %s does not start with tenant_id', i.indexrelid::regclass)
             FROM tables t JOIN pg_index i ON i.indrelid = t.oid
             WHERE is_tenant AND of_tenants AND name <> 'tenant' AND i.indkey[0] <> t.key
               AND NOT (name = 'tenant_domain' AND i.indnatts = 1
                        AND (SELECT a.attname = 'domain' FROM pg_attribute a
                             WHERE a.attrelid = t.oid AND a.attnum = i.indkey[0]))
             UNION ALL
             SELECT name, 'has no primary key' FROM tables t
             WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary)"
        ),
    ),
    (
        "foreign-key",
        with_tables!(
            "SELECT t.name, format('foreign key %I does not carry tenant_id', k.conname)
             FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
             JOIN tables r ON r.oid = k.confrelid
             WHERE t.is_tenant AND r.is_tenant AND t.name <> 'tenant' AND NOT EXISTS (
                 SELECT FROM generate_subscripts(k.conkey, 1) n
                 WHERE k.conkey[n] = t.key AND k.confkey[n] = r.key)"
        ),
    ),
    (
        "leakproof",
        with_tables!(
            "SELECT name, format('%I in index %s is of type %s, which row-level security keeps '
                                 'from being an index condition',
                                 a.attname, i.indexrelid::regclass, a.atttypid::regtype)
             FROM tables t JOIN pg_index i ON i.indrelid = t.oid
             JOIN pg_attribute a ON a.attrelid = i.indexrelid
             WHERE is_tenant AND of_tenants AND a.atttypid NOT IN ('uuid'::regtype,
                 'bigint'::regtype, 'integer'::regtype, 'text'::regtype, 'boolean'::regtype,
                 'timestamptz'::regtype, 'date'::regtype, 'bytea'::regtype)"
        ),
    ),
    // A view or a definer's function acts as its owner, whatever the caller's context.
    (
        "definer",
        "SELECT c.relname::text, 'is a view with the rights of its owner'
         FROM pg_class c
         WHERE c.relnamespace = 'edge'::regnamespace AND (c.relkind = 'm' OR c.relkind = 'v'
           AND NOT COALESCE('security_invoker=true' = ANY (c.reloptions), false))
         UNION ALL
         SELECT p.proname::text, 'is a function with the rights of its owner'
         FROM pg_proc p WHERE p.pronamespace = 'edge'::regnamespace AND p.prosecdef",
    ),
];

impl Store {
    /// What in the database breaks the rules of row-level security; nothing on SQLite,
    /// which has none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn schema_findings(&self) -> Result<Vec<SchemaFinding>, StoreError> {
        if !self.db.has_row_security() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let findings = findings(&mut tx).await;
        tx.end(findings).await
    }
}

async fn findings(tx: &mut ControlTx) -> Result<Vec<SchemaFinding>, StoreError> {
    let mut findings = Vec::new();
    for &(rule, query) in RULES {
        let broken: Vec<(String, String)> = sql(query).all(tx).await?;
        let finding = |(object, detail)| SchemaFinding { rule, object, detail };
        findings.extend(broken.into_iter().map(finding));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests;
