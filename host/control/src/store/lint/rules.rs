//! The rules, each a query over PostgreSQL's catalogue.
//!
//! A query returns an object and what is wrong with it, and nothing where all is well. A
//! tenant table is one with a column `tenant_id`, and the directory's own `tenant`; a part of
//! a table is a table of its own, since a statement may name it. Invariant: every rule has a
//! table made wrong in the tests beside. To add a rule, add both.

/// Tables of the store, parts and what becomes one included; `is_tenant` says whether a tenant's rows lie in
/// it, `of_tenants` whether `application_user` may touch it, `is_granted` whether
/// anybody but its owner may.
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
                            AS of_tenants,
                        EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner)
                            OR EXISTS (SELECT FROM pg_attribute k
                                WHERE k.attrelid = c.oid AND k.attacl IS NOT NULL)
                            AS is_granted
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
pub(super) const RULES: &[(&str, &str)] = &[
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
    // Policies are ORed: one that does not name the context opens the table. The owner may see
    // the parts that it moves, and only tables on which nobody else has a right.
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
               AND NOT (p.polroles = ARRAY['schema_owner'::regrole::oid] AND NOT t.is_granted)
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
             WHERE is_tenant AND (of_tenants OR relispartition) AND name <> 'tenant'
               AND i.indkey[0] <> t.key
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
    // What the index itself would use: if one of its operators may tell of a row by an error
    // or its time, row-level security keeps all of them from being an index condition.
    (
        "leakproof",
        with_tables!(
            "SELECT DISTINCT name, format('%I in index %s is of type %s, which row-level security '
                                          'keeps from being an index condition',
                                          a.attname, i.indexrelid::regclass, a.atttypid::regtype)
             FROM tables t JOIN pg_index i ON i.indrelid = t.oid
             CROSS JOIN LATERAL unnest(i.indclass::oid[]) WITH ORDINALITY AS k (class, n)
             JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum = k.n
             JOIN pg_opclass c ON c.oid = k.class
             JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopmethod = c.opcmethod
                 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
                 AND m.amoppurpose = 's'
             JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_proc p ON p.oid = o.oprcode
             WHERE is_tenant AND (of_tenants OR relispartition) AND NOT p.proleakproof"
        ),
    ),
    // What is made later must not be open from its first moment.
    (
        "default-privileges",
        "SELECT COALESCE(n.nspname::text, 'every schema'),
                format('%s gets %s on what %s makes', CASE a.grantee WHEN 0 THEN 'PUBLIC'
                       ELSE a.grantee::regrole::text END, a.privilege_type,
                       d.defaclrole::regrole)
         FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
         CROSS JOIN LATERAL aclexplode(d.defaclacl) a
         WHERE d.defaclrole = 'schema_owner'::regrole AND a.grantee <> d.defaclrole
           AND (d.defaclnamespace = 0 OR n.nspname = 'edge')
           AND NOT (d.defaclobjtype IN ('f', 'T') AND a.grantee = 0)",
    ),
    (
        "schema",
        "SELECT n.nspname::text, format('%s has %s', CASE a.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE a.grantee::regrole::text END, a.privilege_type)
         FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
         WHERE n.nspname = 'edge' AND a.grantee <> n.nspowner
           AND (a.privilege_type <> 'USAGE'
             OR a.grantee NOT IN ('application_user'::regrole, 'control_plane'::regrole))
         UNION ALL
         SELECT nspname::text, 'is owned by ' || nspowner::regrole::text FROM pg_namespace
         WHERE nspname = 'edge' AND nspowner <> 'schema_owner'::regrole",
    ),
    // Sequences and views are nobody's by a mistake; functions are everybody's by default.
    (
        "grants-beside",
        "SELECT c.relname::text, format('%s has %s', CASE a.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE a.grantee::regrole::text END, a.privilege_type)
         FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
         WHERE c.relnamespace = 'edge'::regnamespace AND c.relkind NOT IN ('r', 'p')
           AND a.grantee <> c.relowner
           AND (a.grantee NOT IN ('application_user'::regrole, 'control_plane'::regrole)
             OR a.privilege_type NOT IN ('SELECT', 'USAGE'))
         UNION ALL
         SELECT p.proname::text, format('may be called by %s', CASE a.grantee WHEN 0 THEN 'PUBLIC'
                    ELSE a.grantee::regrole::text END)
         FROM pg_proc p
         CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'edge'::regnamespace AND a.grantee <> p.proowner
           AND a.grantee NOT IN ('application_user'::regrole, 'control_plane'::regrole)",
    ),
    // A view or a definer's function acts as its owner, whatever the caller's context. A
    // trigger cannot be called, and gets what it writes from the row.
    (
        "definer",
        "SELECT c.relname::text, 'is a view with the rights of its owner'
         FROM pg_class c
         WHERE c.relnamespace = 'edge'::regnamespace AND (c.relkind = 'm' OR c.relkind = 'v'
           AND NOT COALESCE('security_invoker=true' = ANY (c.reloptions), false))
         UNION ALL
         SELECT p.proname::text, 'is a function with the rights of its owner'
         FROM pg_proc p WHERE p.pronamespace = 'edge'::regnamespace AND p.prosecdef
           AND NOT (p.prorettype = 'trigger'::regtype
             AND EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%'))",
    ),
];
