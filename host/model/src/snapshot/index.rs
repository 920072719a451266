//! The tenants of a snapshot, by everything that a request may name them by.
//!
//! Invariant: whatever leads to a tenant leads to the entry that its id leads to.

use std::sync::Arc;

use super::TenantEntry;
use crate::{
    key::ApiKey,
    shards::{Keyed, Shards},
    tenant::TenantId,
};

/// A tenant that is served, with its keys.
#[derive(Clone, Debug)]
pub struct Served {
    /// The tenant.
    pub entry: Arc<TenantEntry>,
    /// Its live keys.
    pub keys: Arc<[Arc<ApiKey>]>,
}

impl Keyed for Served {
    type Key = TenantId;
    fn key(&self) -> &TenantId {
        &self.entry.record.tenant.id
    }
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry) && Arc::ptr_eq(&self.keys, &other.keys)
    }
}

#[derive(Clone)]
struct BySlug(Arc<TenantEntry>);

impl Keyed for BySlug {
    type Key = str;
    fn key(&self) -> &str {
        self.0.record.tenant.slug.as_str()
    }
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Clone)]
struct ByDomain(Arc<str>, Arc<TenantEntry>);

impl Keyed for ByDomain {
    type Key = str;
    fn key(&self) -> &str {
        &self.0
    }
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.1, &other.1)
    }
}

impl Keyed for Arc<ApiKey> {
    type Key = str;
    fn key(&self) -> &str {
        &self.id
    }
    fn is_same(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

/// The index.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    by_id: Shards<Served>,
    by_slug: Shards<BySlug>,
    by_domain: Shards<ByDomain>,
    keys: Shards<Arc<ApiKey>>,
}

impl Index {
    /// Puts in a tenant that is not there.
    pub(super) fn insert(&mut self, served: Served) {
        for domain in &served.entry.record.tenant.custom_domains {
            let domain = ByDomain(domain.as_str().into(), Arc::clone(&served.entry));
            self.by_domain.insert(domain);
        }
        served.keys.iter().for_each(|key| self.keys.insert(Arc::clone(key)));
        self.by_slug.insert(BySlug(Arc::clone(&served.entry)));
        self.by_id.insert(served);
    }

    /// Takes a tenant out, if it is there.
    pub(super) fn remove(&mut self, id: TenantId) {
        let Some(served) = self.by_id.remove(&id) else { return };
        let tenant = &served.entry.record.tenant;
        self.by_slug.remove(tenant.slug.as_str());
        for domain in &tenant.custom_domains {
            self.by_domain.remove(domain.as_str());
        }
        for key in served.keys.iter() {
            self.keys.remove(&key.id);
        }
    }

    pub(super) fn tenant(&self, id: TenantId) -> Option<&Arc<TenantEntry>> {
        self.by_id.find(&id).map(|served| &served.entry)
    }

    pub(super) fn slug(&self, slug: &str) -> Option<&Arc<TenantEntry>> {
        self.by_slug.find(slug).map(|found| &found.0)
    }

    pub(super) fn domain(&self, domain: &str) -> Option<&Arc<TenantEntry>> {
        // Most installations have none, and every request asks.
        let domains = Some(&self.by_domain).filter(|domains| !domains.is_empty())?;
        domains.find(domain).map(|found| &found.1)
    }

    pub(super) fn key(&self, id: &str) -> Option<&Arc<ApiKey>> {
        self.keys.find(id)
    }

    pub(super) const fn len(&self) -> usize {
        self.by_id.len()
    }
}
