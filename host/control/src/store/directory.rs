//! The directory as the data plane gets it, read whole at start-up and then kept current
//! one tenant at a time.
//!
//! Invariant: tenants are in the order of their ids, keys in that of their tenants; revoked
//! keys are absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use model::{
    directory::{Directory, TenantRecord},
    key::{ApiKey, SecretHash},
    tenant::TenantId,
};
use uuid::Uuid;

use super::{
    StoreError,
    db::{ControlTx, Tx, sql},
    plugins::{self, PluginNews},
    rows,
    rows::Span,
    secrets,
};

/// Changed tenants that are read one by one; more are read as the span that holds them,
/// which costs less than their round trips.
const SINGLY_MAX: usize = 64;

/// Tenants with what belongs to them.
#[derive(Default)]
pub(super) struct Part {
    pub(super) tenants: Vec<Arc<TenantRecord>>,
    pub(super) keys: Vec<Arc<ApiKey>>,
    pub(super) plugins: PluginNews,
}

/// What has changed since a revision.
pub(super) struct News {
    /// The revision that the directory then has.
    pub(super) head: i64,
    /// Whether `part` is the whole directory.
    pub(super) whole: bool,
    pub(super) part: Part,
}

/// What has changed since `known`, if anything; all of it when `known` is 0, or lies
/// beyond the head because the database was restored from a backup.
pub(super) async fn news(tx: &mut ControlTx, known: i64) -> Result<Option<News>, StoreError> {
    let head = head(tx).await?;
    if head == known {
        return Ok(None);
    }
    let whole = known == 0 || head < known;
    let plugins = plugins::news(tx, if whole { 0 } else { known }).await?;
    if whole {
        let part = Part { plugins, ..load(tx, Span::ALL).await? };
        return Ok(Some(News { head, whole, part }));
    }
    let changed: Vec<(Uuid,)> =
        sql("SELECT id FROM tenant WHERE revision > $1 ORDER BY id").bind(known).all(tx).await?;
    let mut part = Part::default();
    if changed.len() <= SINGLY_MAX {
        for (id,) in changed {
            part.add(load(tx, Span::one(TenantId(id))).await?);
        }
    } else if let (Some((first,)), Some((last,))) = (changed.first(), changed.last()) {
        part = load(tx, Span { first: *first, last: *last }).await?;
    }
    part.plugins = plugins;
    Ok(Some(News { head, whole, part }))
}

/// The number of the last change.
pub(super) async fn head(tx: &mut ControlTx) -> Result<i64, StoreError> {
    let (head,) = sql("SELECT revision FROM directory_head").one(tx).await?;
    Ok(head)
}

impl Part {
    fn add(&mut self, other: Self) {
        self.tenants.extend(other.tenants);
        self.keys.extend(other.keys);
    }
}

/// Reads a span of tenants with their secrets and live keys.
async fn load<S>(tx: &mut Tx<S>, span: Span) -> Result<Part, StoreError> {
    let mut secrets = secrets::values(tx, span).await?;
    let tenants = rows::tenants(tx, span).await?;
    let tenants = tenants
        .into_iter()
        .map(|tenant| {
            let secrets = secrets.remove(&tenant.id).unwrap_or_else(BTreeMap::new);
            Arc::new(TenantRecord { tenant, secrets })
        })
        .collect();
    Ok(Part { tenants, keys: keys(tx, span).await?, plugins: PluginNews::default() })
}

async fn keys<S>(tx: &mut Tx<S>, span: Span) -> Result<Vec<Arc<ApiKey>>, StoreError> {
    let rows: Vec<(String, Uuid, Vec<u8>, Option<i64>)> =
        sql("SELECT id, tenant_id, hash, expires_at FROM api_key
         WHERE tenant_id BETWEEN $1 AND $2 AND revoked_at IS NULL")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
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

/// The directory after the tenants of `part` have become what it says.
pub(super) fn with(before: &Directory, mut part: Part) -> Directory {
    let mut after = before.clone();
    after.plugins = plugins::with(&before.plugins, std::mem::take(&mut part.plugins));
    if part.tenants.len() <= SINGLY_MAX {
        splice(&mut after, part);
    } else {
        merge(&mut after, part);
    }
    after
}

/// Replaces a few tenants in place, without looking at the others.
fn splice(directory: &mut Directory, mut part: Part) {
    let Directory { tenants, keys, .. } = directory;
    part.keys.sort_by_key(|key| key.tenant);
    for record in part.tenants {
        let id = record.tenant.id;
        // All keys of a tenant at once: each insertion moves whatever lies behind it.
        let own = range(&part.keys, id, |key| key.tenant);
        keys.splice(range(keys, id, |key| key.tenant), part.keys.drain(own));
        tenants.splice(range(tenants, id, |held| held.tenant.id), [record]);
    }
}

/// Replaces many tenants in one pass.
fn merge(directory: &mut Directory, part: Part) {
    let changed: BTreeSet<TenantId> = part.tenants.iter().map(|record| record.tenant.id).collect();
    directory.tenants.retain(|record| !changed.contains(&record.tenant.id));
    directory.tenants.extend(part.tenants);
    directory.tenants.sort_by_key(|record| record.tenant.id);
    directory.keys.retain(|key| !changed.contains(&key.tenant));
    directory.keys.extend(part.keys);
    directory.keys.sort_by_key(|key| key.tenant);
}

/// Where a tenant's items are, or would be.
fn range<T>(items: &[T], tenant: TenantId, of: impl Fn(&T) -> TenantId) -> Range<usize> {
    let start = items.partition_point(|item| of(item) < tenant);
    let end = items.partition_point(|item| of(item) <= tenant);
    start..end
}

#[cfg(test)]
mod tests {
    use model::{
        clock::UnixMs,
        secret::Secret,
        tenant::{Slug, Status, Tenant},
    };
    use proptest::{collection::btree_set, prelude::*};

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

    fn part(ids: &[u128], keys: usize) -> Part {
        let tenants = ids.iter().map(|id| {
            let tenant = Tenant {
                id: TenantId(Uuid::from_u128(*id)),
                slug: "slug".parse().expect("a slug"),
                organization_name: String::new(),
                display_name: String::new(),
                admin_email: String::new(),
                plan: format!("{id} with {keys}"),
                data_residency: String::new(),
                parent: None,
                status: Status::Active,
                suspend_reason: None,
                trial_ends_at: None,
                grace_ends_at: None,
                custom_domains: Vec::new(),
                quota_overrides: BTreeMap::new(),
                dated_quotas: BTreeMap::new(),
                quota_anchor: Default::default(),
                attributes: BTreeMap::new(),
                created_at: UnixMs(0),
                version: 1,
            };
            Arc::new(TenantRecord { tenant, secrets: BTreeMap::new() })
        });
        let key = |id: &u128, n: usize| ApiKey {
            id: format!("{n} of {keys}").into(),
            tenant: TenantId(Uuid::from_u128(*id)),
            hash: SecretHash([0; 32]),
            expires_at: None,
        };
        let keys = ids.iter().flat_map(|id| (0..keys).map(move |n| Arc::new(key(id, n)))).collect();
        Part { tenants: tenants.collect(), keys, plugins: PluginNews::default() }
    }

    type Named = Vec<(TenantId, String)>;

    fn shape(directory: &Directory) -> (Named, Named) {
        let plan = |held: &Arc<TenantRecord>| (held.tenant.id, held.tenant.plan.clone());
        let key = |held: &Arc<ApiKey>| (held.tenant, held.id.to_string());
        let tenants = directory.tenants.iter().map(plan).collect();
        (tenants, directory.keys.iter().map(key).collect())
    }

    proptest! {
        #[test]
        fn few_changes_in_place_and_many_in_one_pass_lead_to_the_same(
            held in btree_set(0_u128..40, 0..20), held_keys in 0_usize..3,
            changed in btree_set(0_u128..40, 0..20), changed_keys in 0_usize..3,
        ) {
            let [held, changed] = [held, changed].map(|ids| ids.into_iter().collect::<Vec<_>>());
            let mut spliced = with(&Directory::default(), part(&held, held_keys));
            let mut merged = spliced.clone();
            splice(&mut spliced, part(&changed, changed_keys));
            merge(&mut merged, part(&changed, changed_keys));
            let (tenants, keys) = shape(&spliced);
            prop_assert!(tenants.is_sorted() && keys.is_sorted());
            let unchanged = held.iter().filter(|id| !changed.contains(id)).count();
            prop_assert_eq!(tenants.len(), unchanged + changed.len());
            prop_assert_eq!(keys.len(), unchanged * held_keys + changed.len() * changed_keys);
            prop_assert_eq!((tenants, keys), shape(&merged));
        }
    }

    on_both![
        a_restart_finds_exactly_what_was_published,
        a_change_whose_caller_went_away_is_still_published,
        a_failed_change_publishes_nothing,
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
        assert_eq!(directory.borrow().tenants[0].tenant.slug.as_str(), "one");
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
