//! Tokens of this API: `/tenants/{tenant_id}/tokens`, and the operator's own under
//! `/admin/tokens`.
//!
//! Invariant: nobody issues, rotates or revokes a token that may do more than the caller
//! itself; a service token names its scopes.

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use model::{
    access::{Right, Rights, Role},
    clock::UnixMs,
    tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{
    Api,
    body::{Document, MaybeDocument},
    caller::Caller,
    fields::{Fields, Ruled},
    json,
    page::{self, Asked, Page},
    path::{TenantPath, TokenPath},
    problem::ApiError,
    rules,
};
use crate::store::{IssuedToken, NewToken, TokenError, TokenRecord};

/// Longest name of a token, in characters: a label, not a text.
const NAME_CHARS_MAX: usize = 100;
/// How long a rotated token lives on unless asked otherwise, in seconds: a day covers a
/// deployment that goes wrong once.
const OVERLAP_S_DEFAULT: u64 = 86_400;
/// Longest overlap of a rotation, in seconds: a month; beyond it both are simply tokens.
const OVERLAP_S_MAX: u64 = 30 * 86_400;

/// What a token is issued from.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(super) struct NewTokenBody {
    /// `parent-admin`, `tenant-admin` or `service` for a tenant; `admin` for the operator.
    role: Role,
    /// Required for `service`, otherwise all of the role's.
    scopes: Option<Vec<Right>>,
    /// A name for people.
    #[schemars(length(min = 1, max = 100))]
    name: String,
    /// RFC 3339; none lives until it is revoked.
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
}

/// How a token is rotated.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `rotate` reads")]
pub(super) struct Rotation {
    /// Seconds that the old token lives on; a day unless given.
    #[schemars(range(max = 2_592_000))]
    overlap_s: Option<u64>,
    /// End of the new token's life, RFC 3339; the same length of life unless given.
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
}

/// A token without its text.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenView {
    id: String,
    role: &'static str,
    /// What it may do at most.
    scopes: Vec<&'static str>,
    name: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    /// To the minute.
    last_used_at: Option<String>,
    /// The token that it replaced.
    rotated_from: Option<String>,
}

/// A new token: the only answer that holds its text.
#[derive(Serialize, JsonSchema)]
pub(super) struct IssuedTokenView {
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

/// Tokens, oldest first.
pub(super) type TokenList = Page<TokenView>;

impl TokenView {
    fn new(record: TokenRecord) -> Self {
        let at_most = record.role.rights_at_most();
        let rights = record.scopes.map_or(at_most, |scopes| scopes.and(at_most));
        Self {
            id: record.id.into(),
            role: record.role.as_str(),
            scopes: rights.iter().map(Right::scope).collect(),
            name: record.name,
            created_at: record.created_at.rfc3339(),
            expires_at: record.expires_at.map(UnixMs::rfc3339),
            revoked_at: record.revoked_at.map(UnixMs::rfc3339),
            last_used_at: record.last_used_at.map(UnixMs::rfc3339),
            rotated_from: record.rotated_from.map(String::from),
        }
    }
}

pub(super) async fn issue(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    document: Document,
) -> Result<Response, ApiError> {
    issue_for(&caller, &api, Some(tenant), document).await
}

pub(super) async fn issue_platform(
    caller: Caller,
    State(api): State<Api>,
    document: Document,
) -> Result<Response, ApiError> {
    issue_for(&caller, &api, None, document).await
}

async fn issue_for(
    caller: &Caller,
    api: &Api,
    tenant: Option<TenantId>,
    document: Document,
) -> Result<Response, ApiError> {
    let new = read(api, tenant, document)?;
    not_beyond(caller, tenant, new.role, new.scopes)?;
    created(api.store.issue_token(caller.actor(), new).await?)
}

fn read(api: &Api, tenant: Option<TenantId>, document: Document) -> Result<NewToken, ApiError> {
    let mut fields = Fields::new(document.members);
    let role = fields.required("role", |value| role(value, tenant.is_some()));
    let name = fields.required("name", name);
    let expires_at = fields.optional("expires_at", |value| rules::future(value, api.clock.now()));
    let scopes = fields.items("scopes", Right::ALL.len(), |value| scope(value, role));
    if role == Some(Role::Service) && scopes.as_ref().is_none_or(Vec::is_empty) {
        fields.reject("scopes", "a service token names its scopes, for example usage:report");
    }
    let (Some(role), Some(name)) = (role, name) else { return Err(fields.refuse()) };
    fields.finish()?;
    let scopes = scopes.filter(|scopes| !scopes.is_empty()).map(|scopes| Rights::of(&scopes));
    Ok(NewToken { tenant, role, scopes, name, expires_at })
}

/// Refuses a token that can do what the caller cannot.
fn not_beyond(
    caller: &Caller,
    tenant: Option<TenantId>,
    role: Role,
    scopes: Option<Rights>,
) -> Result<(), ApiError> {
    match caller.lacks(tenant, role, scopes) {
        None => Ok(()),
        Some(right) => Err(ApiError::Forbidden(right)),
    }
}

/// Refuses to touch a token that is not there, or that can do what the caller cannot.
async fn within_reach(
    caller: &Caller,
    api: &Api,
    tenant: Option<TenantId>,
    token: &str,
) -> Result<(), ApiError> {
    let tokens = api.store.tokens(tenant).await?;
    let held = tokens.iter().find(|held| *held.id == *token).ok_or(ApiError::NotFound)?;
    not_beyond(caller, tenant, held.role, held.scopes)
}

pub(super) async fn list(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    list_of(&api, Some(tenant), &uri).await
}

pub(super) async fn list_platform(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    list_of(&api, None, &uri).await
}

async fn list_of(api: &Api, tenant: Option<TenantId>, uri: &Uri) -> Result<Response, ApiError> {
    let asked = Asked::read(uri)?;
    let records = api.store.tokens(tenant).await?;
    let page = asked.cut(records, |token| page::in_time(token.created_at, &token.id));
    Ok(json(page.map(TokenView::new)))
}

pub(super) async fn rotate(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    TokenPath(token): TokenPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    rotate_of(&caller, &api, Some(tenant), &token, document).await
}

pub(super) async fn rotate_platform(
    caller: Caller,
    State(api): State<Api>,
    TokenPath(token): TokenPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    rotate_of(&caller, &api, None, &token, document).await
}

async fn rotate_of(
    caller: &Caller,
    api: &Api,
    tenant: Option<TenantId>,
    token: &str,
    document: Option<Document>,
) -> Result<Response, ApiError> {
    let now = api.clock.now();
    let mut fields = Fields::new(document.map(|document| document.members).unwrap_or_default());
    let overlap_s = fields.optional("overlap_s", |value| {
        value
            .as_u64()
            .filter(|seconds| *seconds <= OVERLAP_S_MAX)
            .ok_or_else(|| format!("must be a whole number of seconds from 0 to {OVERLAP_S_MAX}"))
    });
    let expires_at = fields.optional("expires_at", |value| rules::future(value, now));
    fields.finish()?;
    within_reach(caller, api, tenant, token).await?;
    let old_until = now.plus_ms(overlap_s.unwrap_or(OVERLAP_S_DEFAULT) * 1_000);
    let issued =
        api.store.rotate_token(caller.actor(), tenant, token, old_until, expires_at).await?;
    created(issued)
}

pub(super) async fn revoke(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    TokenPath(token): TokenPath,
) -> Result<StatusCode, ApiError> {
    within_reach(&caller, &api, Some(tenant), &token).await?;
    api.store.revoke_token(caller.actor(), Some(tenant), &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn revoke_platform(
    caller: Caller,
    State(api): State<Api>,
    TokenPath(token): TokenPath,
) -> Result<StatusCode, ApiError> {
    within_reach(&caller, &api, None, &token).await?;
    api.store.revoke_token(caller.actor(), None, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn created(issued: IssuedToken) -> Result<Response, ApiError> {
    let token = issued.text.expose().to_owned();
    let answer = json(IssuedTokenView { token, view: TokenView::new(issued.record) });
    Ok((StatusCode::CREATED, answer).into_response())
}

fn role(value: &Value, of_tenant: bool) -> Ruled<Role> {
    let allowed = Role::ALL.into_iter().filter(|role| (*role == Role::Admin) != of_tenant);
    let name = rules::text(value)?;
    let names: Vec<_> = allowed.clone().map(Role::as_str).collect();
    Role::from_name(name)
        .filter(|role| allowed.clone().any(|allowed| allowed == *role))
        .ok_or_else(|| format!("must be one of: {}", names.join(", ")))
}

fn scope(value: &Value, role: Option<Role>) -> Ruled<Right> {
    let at_most = role.map_or(Rights::ALL, Role::rights_at_most);
    let right = Right::from_scope(rules::text(value)?).filter(|right| at_most.contains(*right));
    right.ok_or_else(|| {
        let allowed: Vec<_> = at_most.iter().map(Right::scope).collect();
        format!("must be one of: {}", allowed.join(", "))
    })
}

fn name(value: &Value) -> Ruled<String> {
    let name = rules::name(value)?;
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("must have 1 to {NAME_CHARS_MAX} characters"));
    }
    Ok(name)
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NotFound => Self::NotFound,
            TokenError::Dead => Self::TokenDead,
            TokenError::TooMany => Self::TooMany(error.to_string()),
            TokenError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
