//! The signed heads: `/tenants/{tenant_id}/audit/heads`, `/admin/audit/heads`, and the public
//! key at `/audit/key`.
//!
//! Whoever keeps a head, or the public key alone, can tell when a chain was changed or cut
//! afterwards; `leanvibe-edge audit verify --public-key` does. Invariant: a head is answered
//! as it was signed.

use axum::{extract::State, http::Uri, response::Response};
use model::{audit::AuditHead, clock::UnixMs, tenant::TenantId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::{
    Api, json,
    page::{Asked, cursor},
    path::TenantPath,
    problem::ApiError,
};

/// Signed heads.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditHeadPage")]
pub(in crate::api) struct HeadPage {
    #[schemars(with = "Vec<AuditHeadShape>")]
    items: Vec<AuditHead>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "AuditHead")]
#[expect(dead_code, reason = "documents model::audit::AuditHead")]
struct AuditHeadShape {
    /// The tenant's id, or the nil UUID for the platform's chain.
    chain: uuid::Uuid,
    /// Number of the last entry.
    seq: u64,
    /// Hash of the last entry.
    hash: String,
    /// Milliseconds since 1970, UTC.
    at_ms: u64,
    /// Ed25519, 32 bytes in base64.
    public_key: String,
    /// Of the compact JSON list `["leanvibe-audit-head-1", chain, seq, hash, at_ms]`.
    signature: String,
}

/// The key that heads are signed with from now on.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AuditKey")]
pub(in crate::api) struct KeyView<'a> {
    algorithm: &'static str,
    /// 32 bytes in base64.
    public_key: &'a str,
}

pub(in crate::api) async fn of_tenant(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    let before = match &asked.after {
        Some(at) => Some(UnixMs(at.parse().map_err(|_| refused())?)),
        None => None,
    };
    let heads = api.store.audit_heads(Some(tenant), before, one_more(&asked)).await?;
    Ok(page(heads, &asked, |head| head.at_ms.to_string()))
}

pub(in crate::api) async fn of_all(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let after: Option<TenantId> = match &asked.after {
        Some(chain) => Some(chain.parse().map_err(|_| refused())?),
        None => None,
    };
    let heads = api.store.latest_heads(after, one_more(&asked)).await?;
    Ok(page(heads, &asked, |head| head.chain.to_string()))
}

pub(in crate::api) async fn key(State(api): State<Api>) -> Result<Response, ApiError> {
    let public_key = api.store.head_key().ok_or(ApiError::NotFound)?;
    Ok(json(KeyView { algorithm: "Ed25519", public_key }))
}

fn refused() -> ApiError {
    ApiError::field("cursor", "must be a next_cursor given here")
}

/// One more than is shown says whether there is another page.
fn one_more(asked: &Asked) -> u32 {
    u32::try_from(asked.limit + 1).unwrap_or(u32::MAX)
}

fn page(
    mut heads: Vec<AuditHead>,
    asked: &Asked,
    place: impl Fn(&AuditHead) -> String,
) -> Response {
    let more = heads.len() > asked.limit;
    heads.truncate(asked.limit);
    let next_cursor = heads.last().filter(|_| more).map(|last| cursor(&place(last)));
    json(HeadPage { items: heads, next_cursor })
}
