//! The roles of a PostgreSQL database, which are those of its whole cluster.
//!
//! The login of the store's URL becomes a member of all three and does nothing as itself
//! but this. It needs CREATEROLE once, or somebody runs the statements of
//! [`StoreError::Roles`]. Invariant: none of the roles is above row-level security.

use sqlx::PgConnection;

use crate::store::StoreError;

/// Owns schema and tables; migrations and the manager of partitions run as it, nothing else
/// does.
pub(super) const OWNER: &str = "schema_owner";
/// Statements on the rows of one tenant run as it. Owns nothing.
pub(super) const APPLICATION: &str = "application_user";
/// Cross-tenant statements run as it, by policies of its own. Owns nothing.
pub(super) const CONTROL: &str = "control_plane";

/// Makes the missing roles and memberships. Roles are the cluster's, so another database's
/// start may be making them right now: that is as good.
const ENSURE: &str = "
DO $$
DECLARE
    -- Since 16 the one who makes a role is a member, but may not act as it.
    needed text := CASE WHEN current_setting('server_version_num')::int >= 160000
                   THEN 'SET' ELSE 'MEMBER' END;
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['schema_owner', 'application_user', 'control_plane'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        BEGIN
            IF NOT pg_has_role(session_user, name, needed) THEN
                EXECUTE format('GRANT %I TO %I', name, session_user);
            END IF;
        EXCEPTION WHEN unique_violation THEN NULL;
        END;
    END LOOP;
END $$";

const UNSAFE: &str = "
SELECT rolname::text FROM pg_roles
WHERE rolname IN ('schema_owner', 'application_user', 'control_plane')
  AND (rolsuper OR rolbypassrls OR rolcanlogin)
ORDER BY rolname LIMIT 1";

/// Makes sure that `login` may act as each role, and that none is above the policies.
pub(super) async fn ensure(connection: &mut PgConnection, login: &str) -> Result<(), StoreError> {
    sqlx::raw_sql(ENSURE).execute(&mut *connection).await.map_err(|error| match error {
        sqlx::Error::Database(error) if error.code().as_deref() == Some("42501") => {
            StoreError::Roles { login: login.to_owned(), reason: error.message().to_owned() }
        }
        other => other.into(),
    })?;
    let unsafe_role: Option<String> = sqlx::query_scalar(UNSAFE).fetch_optional(connection).await?;
    unsafe_role.map_or(Ok(()), |role| Err(StoreError::UnsafeRole(role)))
}
