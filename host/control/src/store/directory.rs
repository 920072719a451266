//! The directory as the data plane gets it, read whole at start-up and then kept current
//! one tenant at a time.
//!
//! Invariant: revoked keys are absent; a change costs as much as the tenants it changes.

use std::{collections::HashMap, sync::Arc};

use model::{
    directory::{Directory, Listed, TenantRecord},
    key::{ApiKey, SecretHash},
    tenant::{Tenant, TenantId},
};
use uuid::Uuid;

use super::{
    StoreError,
    db::{ControlTx, Tx, sql},
    plugins::{self, PluginNews},
    pools, rows,
    rows::Span,
    sealed::Sealer,
    secrets,
};

/// Changed tenants that are read one by one; more are read as the span that holds them,
/// which costs less than their round trips.
const SINGLY_MAX: usize = 64;

/// What has changed since a revision.
pub(super) struct News {
    /// The revision that the directory then has.
    pub(super) head: i64,
    /// Whether `tenants` are all there are.
    pub(super) whole: bool,
    pub(super) tenants: Vec<Listed>,
    pub(super) plugins: PluginNews,
}

/// What has changed since `known`, if anything; all of it when `known` is 0, or lies
/// beyond the head because the database was restored from a backup.
pub(super) async fn news(
    tx: &mut ControlTx,
    sealer: &Sealer,
    known: i64,
) -> Result<Option<News>, StoreError> {
    let head = head(tx).await?;
    if head == known {
        return Ok(None);
    }
    let whole = known == 0 || head < known;
    let plugins = plugins::news(tx, if whole { 0 } else { known }).await?;
    if whole {
        return Ok(Some(News {
            head,
            whole,
            tenants: load(tx, sealer, Span::ALL).await?,
            plugins,
        }));
    }
    let changed: Vec<(Uuid,)> =
        sql("SELECT id FROM tenant WHERE revision > $1 ORDER BY id").bind(known).all(tx).await?;
    let mut tenants = Vec::new();
    if changed.len() <= SINGLY_MAX {
        for (id,) in changed {
            tenants.extend(load(tx, sealer, Span::one(TenantId(id))).await?);
        }
    } else if let (Some((first,)), Some((last,))) = (changed.first(), changed.last()) {
        tenants = load(tx, sealer, Span { first: *first, last: *last }).await?;
    }
    Ok(Some(News { head, whole, tenants, plugins }))
}

/// The number of the last change.
pub(super) async fn head(tx: &mut ControlTx) -> Result<i64, StoreError> {
    let (head,) = sql("SELECT revision FROM directory_head").one(tx).await?;
    Ok(head)
}

/// Reads a span of tenants with their secrets and live keys.
async fn load<S>(tx: &mut Tx<S>, sealer: &Sealer, span: Span) -> Result<Vec<Listed>, StoreError> {
    let mut secrets = secrets::values(tx, sealer, span).await?;
    let mut places = pools::places(tx, span).await?;
    let tenants = rows::tenants(tx, span).await?;
    let mut keys = keys(tx, span).await?;
    let none: Arc<[Arc<ApiKey>]> = Arc::default();
    let listed = |tenant: Tenant| {
        let keys = keys.remove(&tenant.id).map_or_else(|| Arc::clone(&none), Arc::from);
        let secrets = secrets.remove(&tenant.id).unwrap_or_default();
        let pools = places.remove(&tenant.id).unwrap_or_default();
        Listed { record: Arc::new(TenantRecord { tenant, secrets, pools }), keys }
    };
    Ok(tenants.into_iter().map(listed).collect())
}

/// The live keys of a span of tenants.
async fn keys<S>(
    tx: &mut Tx<S>,
    span: Span,
) -> Result<HashMap<TenantId, Vec<Arc<ApiKey>>>, StoreError> {
    let rows: Vec<(String, Uuid, Vec<u8>, Option<i64>)> =
        sql("SELECT id, tenant_id, hash, expires_at FROM api_key
         WHERE tenant_id BETWEEN $1 AND $2 AND revoked_at IS NULL")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    let mut keys: HashMap<_, Vec<_>> = HashMap::new();
    for (id, tenant, hash, expires_at) in rows {
        let hash = hash.try_into().map_err(|_| StoreError::Decode(format!("key {id}")))?;
        let (tenant, expires_at) = (TenantId(tenant), expires_at.map(rows::instant));
        let key = ApiKey { id: id.into(), tenant, hash: SecretHash(hash), expires_at };
        keys.entry(tenant).or_default().push(Arc::new(key));
    }
    Ok(keys)
}

/// The directory after these tenants have become what `news` says.
pub(super) fn with(before: &Directory, news: News) -> Directory {
    let mut after = if news.whole { Directory::default() } else { before.clone() };
    after.version = u64::try_from(news.head).unwrap_or(0).max(before.version + 1);
    after.plugins = plugins::with(&after.plugins, news.plugins);
    news.tenants.into_iter().for_each(|listed| after.tenants.insert(listed));
    after
}

#[cfg(test)]
mod tests {
    use model::{secret::Secret, tenant::Slug};

    use super::*;
    use crate::{
        store::{Actor, Members, NewTenant, TenantPatch},
        testing::{Backend, on_both},
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
            quota_anchor: None,
        }
    }

    on_both![
        a_restart_finds_exactly_what_was_published,
        a_change_whose_caller_went_away_is_still_published,
        a_failed_change_publishes_nothing,
        no_more_tenants_are_created_than_there_may_be,
    ];

    async fn a_restart_finds_exactly_what_was_published(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        for slug in ["one", "two", "three"] {
            let tenant = store.create_tenant(&Actor::Program, new(slug)).await.expect("a tenant");
            store.issue_api_key(&Actor::Program, tenant.id, None).await.expect("a key");
            store
                .put_secret(&Actor::Program, tenant.id, "signing", Secret::new(slug))
                .await
                .expect("a secret");
            let patch = TenantPatch {
                custom_domains: Some(vec![format!("{slug}.example"), "a.b".replace('b', slug)]),
                attributes: Some(Members::Merge([("k".to_owned(), Some("v".to_owned()))].into())),
                ..TenantPatch::default()
            };
            store.patch_tenant(&Actor::Program, tenant.id, patch, None).await.expect("a patch");
        }
        let published = store.directory().borrow().clone();
        assert_eq!((published.version, store.tenant_count()), (13, 3));
        store.close().await;
        drop(store);
        let found = database.open().await.directory().borrow().clone();
        assert_eq!(found.version, published.version);
        assert_eq!(found.tenants.len(), published.tenants.len());
        for record in found.records() {
            let before = published.record(record.tenant.id).expect("a tenant");
            assert_eq!(record.tenant, before.tenant);
            assert_eq!(record.secrets, before.secrets);
        }
        let ids = |directory: &Directory| {
            let mut ids: Vec<_> =
                directory.keys().map(|key| (key.id.clone(), key.tenant)).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&found), ids(&published));
        assert_eq!(ids(&found).len(), 3);
    }

    async fn a_change_whose_caller_went_away_is_still_published(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        let mut directory = store.directory();
        let mut creating = Box::pin(store.create_tenant(&Actor::Program, new("one")));
        // Polled once and dropped: the caller hung up while the change was under way.
        tokio::select! {
            biased;
            _ = &mut creating => panic!("a change takes more than one poll"),
            () = std::future::ready(()) => {}
        }
        drop(creating);
        directory.changed().await.expect("a store");
        let slugs = |directory: &Directory| {
            directory.records().map(|record| record.tenant.slug.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(slugs(&directory.borrow()), ["one"]);
    }

    async fn no_more_tenants_are_created_than_there_may_be(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        store.set_tenants_max(2);
        for slug in ["one", "two"] {
            store.create_tenant(&Actor::Program, new(slug)).await.expect("room");
        }
        let refused = store.create_tenant(&Actor::Program, new("three")).await;
        let refused = refused.expect_err("no room").to_string();
        assert!(refused.contains("control.tenants_max"), "{refused}");
        store.set_tenants_max(3);
        store.create_tenant(&Actor::Program, new("three")).await.expect("room again");
    }

    async fn a_failed_change_publishes_nothing(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        store.create_tenant(&Actor::Program, new("one")).await.expect("a tenant");
        let version = store.directory().borrow().version;
        store.create_tenant(&Actor::Program, new("one")).await.expect_err("a taken slug");
        assert_eq!(store.directory().borrow().version, version);
    }
}
