//! The directory as the data plane gets it, read whole at start-up and then kept current
//! one tenant at a time.
//!
//! Invariant: tenants are in the order of their ids; revoked keys are absent.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    directory::{Directory, TenantRecord},
    key::{ApiKey, SecretHash},
    tenant::TenantId,
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{StoreError, rows, rows::Span, secrets};

/// Tenants of a span, with what belongs to them.
pub(super) struct Part {
    pub(super) tenants: Vec<Arc<TenantRecord>>,
    pub(super) keys: Vec<Arc<ApiKey>>,
}

/// Reads a span of tenants with their secrets and live keys.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<Part, StoreError> {
    let mut secrets = secrets::values(connection, span).await?;
    let tenants = rows::tenants(connection, span).await?;
    let tenants = tenants
        .into_iter()
        .map(|tenant| {
            let secrets = secrets.remove(&tenant.id).unwrap_or_else(BTreeMap::new);
            Arc::new(TenantRecord { tenant, secrets })
        })
        .collect();
    Ok(Part { tenants, keys: keys(connection, span).await? })
}

async fn keys(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<Vec<Arc<ApiKey>>, StoreError> {
    let rows: Vec<(String, Uuid, Vec<u8>, Option<i64>)> = sqlx::query_as(
        "SELECT id, tenant, hash, expires_at FROM api_key
         WHERE tenant BETWEEN $1 AND $2 AND revoked_at IS NULL",
    )
    .bind(span.first)
    .bind(span.last)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, tenant, hash, expires_at)| {
            let hash = hash.try_into().map_err(|_| StoreError::Decode(format!("key {id}")))?;
            Ok(Arc::new(ApiKey {
                id: id.into(),
                tenant: TenantId(tenant),
                hash: SecretHash(hash),
                expires_at: expires_at.map(rows::instant),
            }))
        })
        .collect()
}

/// The first directory of a process.
pub(super) fn first(all: Part) -> Directory {
    Directory { version: 1, tenants: all.tenants, keys: all.keys }
}

/// The directory after `tenant` has become what `now_holds` says.
pub(super) fn with(before: &Directory, tenant: TenantId, now_holds: Part) -> Directory {
    let mut tenants = before.tenants.clone();
    for record in now_holds.tenants {
        match tenants.binary_search_by_key(&record.tenant.id, |held| held.tenant.id) {
            Ok(at) => tenants.splice(at..=at, [record]).for_each(drop),
            Err(at) => tenants.insert(at, record),
        }
    }
    let mut keys: Vec<_> = before.keys.iter().filter(|key| key.tenant != tenant).cloned().collect();
    keys.extend(now_holds.keys);
    Directory { version: before.version + 1, tenants, keys }
}

#[cfg(test)]
mod tests {
    use model::{secret::Secret, tenant::Slug};

    use crate::{
        store::{Members, NewTenant, TenantPatch},
        testing::{folder, open},
    };

    fn new(slug: &str) -> NewTenant {
        NewTenant {
            slug: slug.parse::<Slug>().expect("a slug"),
            organization_name: slug.to_owned(),
            display_name: None,
            admin_email: "a@b.example".to_owned(),
            plan: "team".to_owned(),
            data_residency: Some("eu".to_owned()),
            parent: None,
        }
    }

    #[tokio::test]
    async fn a_restart_finds_exactly_what_was_published() {
        let folder = folder();
        let store = open(&folder).await;
        for slug in ["one", "two", "three"] {
            let tenant = store.create_tenant(new(slug)).await.expect("a tenant");
            store.issue_api_key(tenant.id, None).await.expect("a key");
            store.put_secret(tenant.id, "signing", Secret::new(slug)).await.expect("a secret");
            let patch = TenantPatch {
                custom_domains: Some(vec![format!("{slug}.example"), "a.b".replace('b', slug)]),
                attributes: Some(Members::Merge([("k".to_owned(), Some("v".to_owned()))].into())),
                ..TenantPatch::default()
            };
            store.patch_tenant(tenant.id, patch, None).await.expect("a patch");
        }
        let published = store.directory().borrow().clone();
        assert_eq!((published.version, store.tenant_count()), (13, 3));
        store.close().await;
        drop(store);
        let found = open(&folder).await.directory().borrow().clone();
        assert_eq!(found.version, 1);
        assert_eq!(found.tenants.len(), published.tenants.len());
        for (found, published) in found.tenants.iter().zip(&published.tenants) {
            assert_eq!(found.tenant, published.tenant);
            assert_eq!(found.secrets, published.secrets);
        }
        let ids = |keys: &[std::sync::Arc<model::key::ApiKey>]| {
            let mut ids: Vec<_> = keys.iter().map(|key| (key.id.clone(), key.tenant)).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&found.keys), ids(&published.keys));
    }

    #[tokio::test]
    async fn a_change_whose_caller_went_away_is_still_published() {
        let store = open(&folder()).await;
        let mut directory = store.directory();
        let mut creating = Box::pin(store.create_tenant(new("one")));
        // Polled once and dropped: the caller hung up while the change was under way.
        tokio::select! {
            biased;
            _ = &mut creating => panic!("a change takes more than one poll"),
            () = std::future::ready(()) => {}
        }
        drop(creating);
        directory.changed().await.expect("a store");
        assert_eq!(directory.borrow().tenants[0].tenant.slug.as_str(), "one");
    }

    #[tokio::test]
    async fn a_failed_change_publishes_nothing() {
        let store = open(&folder()).await;
        store.create_tenant(new("one")).await.expect("a tenant");
        let version = store.directory().borrow().version;
        store.create_tenant(new("one")).await.expect_err("a taken slug");
        assert_eq!(store.directory().borrow().version, version);
    }
}
