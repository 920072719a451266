//! `GET /admin/tenants?limit=&cursor=&slug=&status=`: tenants in the order of creation.
//!
//! Invariant: a client that follows `next_cursor` sees every tenant that was there when
//! it began exactly once, whatever is created meanwhile.

use axum::{
    extract::{Query, State},
    http::Uri,
    response::Response,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::tenant::TenantId;
use serde::Serialize;
use serde_json::{Map, Value};

use super::view::TenantView;
use crate::{
    api::{Api, auth::Admin, fields::Fields, json, problem::ApiError, rules},
    store::TenantFilter,
};

/// Tenants of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 50;
/// Tenants of the longest page: about 200 KB of JSON.
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Serialize)]
struct Page<'a> {
    items: Vec<TenantView<'a>>,
    next_cursor: Option<String>,
}

struct Asked {
    filter: TenantFilter,
    after: Option<TenantId>,
    limit: u32,
}

pub(in crate::api) async fn list(
    _: Admin,
    State(api): State<Api>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = read(&uri)?;
    let page = api.store.tenants(&asked.filter, asked.after, asked.limit).await?;
    let catalog = api.catalog.borrow();
    Ok(json(Page {
        items: page.tenants.iter().map(|stored| TenantView::of(stored, &catalog)).collect(),
        next_cursor: page.next_after.map(cursor),
    }))
}

fn read(uri: &Uri) -> Result<Asked, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| ApiError::field("query", "must be name=value pairs"))?;
    let mut members = Map::new();
    for (name, value) in pairs {
        if members.insert(name.clone(), Value::String(value)).is_some() {
            return Err(ApiError::field(name, "is given twice"));
        }
    }
    let mut fields = Fields::new(members);
    let slug = fields.optional("slug", |value| rules::text(value).map(str::to_owned));
    let status = fields.optional("status", rules::status);
    let after = fields.optional("cursor", |value| {
        position(rules::text(value)?).ok_or_else(|| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| {
        let limit = rules::text(value)?.parse().ok();
        limit
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| format!("must be a whole number from 1 to {LIMIT_MAX}"))
    });
    fields.finish()?;
    let filter = TenantFilter { slug, status };
    Ok(Asked { filter, after, limit: limit.unwrap_or(LIMIT_DEFAULT) })
}

fn cursor(after: TenantId) -> String {
    URL_SAFE_NO_PAD.encode(after.0.as_bytes())
}

fn position(cursor: &str) -> Option<TenantId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    uuid::Uuid::from_slice(&bytes).ok().map(TenantId)
}
