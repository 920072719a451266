//! Demo tenants, seeded once into an empty store, and the texts that the guide shows
//! again: kept in the data folder, readable by its owner only.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use control::{Actor, Store, store::NewTenant};
use model::{
    secret::Secret,
    tenant::{Slug, TenantId},
};
use rand::TryRngCore;

/// The tenant whose `policies/tenants/<slug>.toml` refers to a secret, and its name.
const SIGNING_TENANT: &str = "acme-corp";
const SIGNING_SECRET: &str = "request-signing";

const TOKEN_FILE: &str = "admin-token";
const KEYS_FILE: &str = "demo-keys.json";

struct DemoTenant {
    slug: &'static str,
    organization: &'static str,
    plan: &'static str,
    residency: &'static str,
    parent: Option<&'static str>,
}

const TENANTS: [DemoTenant; 6] = [
    tenant("acme-corp", "Acme Corporation", "enterprise", "us"),
    tenant("european-corp", "European Corp Ltd", "enterprise", "eu"),
    tenant("solo-dev", "Solo Dev", "developer", "uk"),
    tenant("global-corp", "Global Corp", "enterprise", "us"),
    DemoTenant {
        parent: Some("global-corp"),
        ..tenant("global-corp-eu", "Global Corp - European Division", "team", "eu")
    },
    tenant("tiny-quota", "Tiny Quota (demo)", "demo", "us"),
];

const fn tenant(
    slug: &'static str,
    organization: &'static str,
    plan: &'static str,
    residency: &'static str,
) -> DemoTenant {
    DemoTenant { slug, organization, plan, residency, parent: None }
}

/// API keys by slug.
pub(super) type Keys = BTreeMap<String, String>;

/// Seeds an empty store, and finishes a seeding that was cut short; gives the keys of the
/// demo tenants. A store with tenants of its own is left alone: no keys.
pub(super) async fn seed(store: &Arc<Store>, data: &Path) -> Result<Keys> {
    let file = data.join(KEYS_FILE);
    let mut keys: Keys = match std::fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| file.display().to_string())?,
        Err(_) if store.tenant_count() > 0 => return Ok(Keys::new()),
        Err(_) => Keys::new(),
    };
    write_keys(&file, &keys)?;
    for demo in &TENANTS {
        if !keys.contains_key(demo.slug) {
            keys.insert(demo.slug.into(), seed_one(store, demo).await?);
            write_keys(&file, &keys)?;
        }
    }
    Ok(keys)
}

/// Makes what is missing of a tenant; gives a new key.
async fn seed_one(store: &Arc<Store>, demo: &DemoTenant) -> Result<String> {
    let id = match id_of(store, demo.slug).await? {
        Some(id) => id,
        None => {
            let parent = match demo.parent {
                Some(parent) => id_of(store, parent).await?,
                None => None,
            };
            let new = NewTenant {
                slug: demo.slug.parse()?,
                organization_name: demo.organization.into(),
                display_name: None,
                admin_email: format!("admin@{}.example", demo.slug),
                plan: demo.plan.into(),
                data_residency: Some(demo.residency.into()),
                home_region: None,
                parent,
                quota_anchor: None,
            };
            store.create_tenant(&Actor::Program, new).await?.id
        }
    };
    if demo.slug == SIGNING_TENANT {
        store.put_secret(&Actor::Program, id, SIGNING_SECRET, Secret::new(random_text()?)).await?;
    }
    Ok(store.issue_api_key(&Actor::Program, id, None).await?.text.expose().to_owned())
}

async fn id_of(store: &Store, slug: &str) -> Result<Option<TenantId>> {
    let slug: Slug = slug.parse()?;
    Ok(store.tenant_by_slug(&slug).await?.map(|stored| stored.tenant.id))
}

fn write_keys(file: &Path, keys: &Keys) -> Result<()> {
    write_private(file, &serde_json::to_string_pretty(keys)?)
}

/// The demo's admin token: made on the first start, kept in the data folder.
pub(super) fn kept_admin_token(data: &Path) -> Result<Secret> {
    let file = data.join(TOKEN_FILE);
    if let Ok(token) = std::fs::read_to_string(&file) {
        return Ok(Secret::new(token.trim()));
    }
    let token = random_text()?;
    write_private(&file, &token)?;
    Ok(Secret::new(token))
}

fn random_text() -> Result<String> {
    let mut bytes = [0_u8; 24];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Written aside and renamed: a start that is cut short leaves no half file.
fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let aside = file.with_extension("tmp");
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600);
    let mut written = open.open(&aside).with_context(|| aside.display().to_string())?;
    written.write_all(text.as_bytes())?;
    std::fs::rename(&aside, file).with_context(|| file.display().to_string())
}
