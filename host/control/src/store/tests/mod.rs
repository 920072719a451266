//! What only PostgreSQL can promise: walls between tenants, and several processes at once.

mod away;
mod isolation;
mod opening;
mod several;

use std::sync::Arc;

use model::{
    secret::Secret,
    tenant::{Tenant, TenantId},
};

use super::{Actor, NewTenant, Store};
use crate::testing::{Backend, Database};

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    }
}

/// A tenant with three secrets.
async fn tenant(store: &Arc<Store>, slug: &str) -> Tenant {
    let tenant = store.create_tenant(&Actor::Program, new(slug)).await.expect("a tenant");
    for name in ["a", "b", "c"] {
        store
            .put_secret(&Actor::Program, tenant.id, name, Secret::new(slug))
            .await
            .expect("a secret");
    }
    tenant
}

/// A database with the tenants `one` and `two`.
async fn two_tenants() -> (Database, Arc<Store>, [TenantId; 2]) {
    let database = Backend::Postgres.database();
    let store = database.open().await;
    let ids = [tenant(&store, "one").await.id, tenant(&store, "two").await.id];
    (database, store, ids)
}
