//! Step 4: whose request this is.
//!
//! Host first, then the bearer token, then the tenant's status (`tenancy.md` 1.4):
//! - an unknown host, and an address literal, is 404;
//! - on `api.<base domain>` a token is required and decides alone (what is no credential
//!   of a tenant there may have left the walk for the control API before: [`crate::local`]);
//! - on a tenant's own host a bearer token is optional, but one that is present must
//!   verify (401) and name the same tenant (403). Other authorization schemes are the
//!   tenant's own business there and pass through;
//! - API keys end here; JWTs go on to the upstream.
//!
//! The one wait is for an issuer's published keys, and it is bounded. Invariant: every
//! cause of a 401 has the same answer.

pub(crate) mod issuer;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod key;
mod rsa;

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use model::{
    policy::ResolvedBy,
    snapshot::{HostMatch, TenantEntry},
    tenant::TenantId,
};

use crate::{exchange::Exchange, request::NormalRequest, rescue::Reason};

/// A tenant whose requests are admitted, and what the token said.
pub(crate) struct Caller {
    pub(crate) entry: Arc<TenantEntry>,
    pub(crate) resolved_by: ResolvedBy,
    /// Facts of a verified JWT.
    pub(crate) token: Option<Arc<jwt::Verified>>,
}

/// Step 4 of the walk.
///
/// # Errors
/// Nobody's host, no valid token, two tenants, or one that is not admitted.
pub(crate) async fn resolve(
    exchange: &mut Exchange,
    request: &mut NormalRequest,
) -> Result<Caller, Reason> {
    let snapshot = Arc::clone(exchange.snapshot());
    if snapshot.base_domain.is_empty() {
        return Err(Reason::NoSnapshot);
    }
    let by_host = match request.host_name().map(|name| snapshot.host(name)) {
        Some(HostMatch::Subdomain(entry)) => Some((entry, ResolvedBy::Subdomain)),
        Some(HostMatch::CustomDomain(entry)) => Some((entry, ResolvedBy::CustomDomain)),
        Some(HostMatch::Shared) => None,
        Some(HostMatch::Unknown) | None => return Err(Reason::UnknownHost),
    };
    let token = authenticate(exchange, &mut request.head.headers).await?;
    let caller = agree(&snapshot, by_host, token)?;
    exchange.record.tenant(&caller.entry);
    caller.entry.admission(exchange.received_at).map_err(Reason::NotAdmitted)?;
    Ok(caller)
}

/// Who a token speaks for.
enum Token {
    Key(TenantId),
    Jwt(Arc<jwt::Verified>),
}

async fn authenticate(
    exchange: &Exchange,
    headers: &mut HeaderMap,
) -> Result<Option<Token>, Reason> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let Some(bearer) = first.and_then(|value| bearer(value.as_bytes())) else {
        return if second.is_none() { Ok(None) } else { Err(Reason::Unauthenticated) };
    };
    let token = std::str::from_utf8(bearer).map_err(|_| Reason::Unauthenticated)?;
    if second.is_some() {
        return Err(Reason::Unauthenticated);
    }
    if model::key::looks_like_key(token) {
        let tenant = key::verify(exchange.snapshot(), token, exchange.received_at)
            .ok_or(Reason::Unauthenticated)?;
        headers.remove(AUTHORIZATION);
        return Ok(Some(Token::Key(tenant)));
    }
    Ok(Some(Token::Jwt(verified(exchange, token).await?)))
}

/// The facts of a JWT. Waits for its issuer's keys where they may have changed, but not
/// long: 503 while nobody can say, 401 once the keys are known and none fits.
async fn verified(exchange: &Exchange, token: &str) -> Result<Arc<jwt::Verified>, Reason> {
    let worker = &exchange.worker;
    let verify = || worker.tokens.verify(&worker.issuers, token, exchange.received_at);
    let remote = match verify() {
        jwt::Verdict::Valid(verified) => return Ok(verified),
        jwt::Verdict::Invalid => return Err(Reason::Unauthenticated),
        jwt::Verdict::KeyUnknown(remote) => remote,
    };
    if let Some(fetch) = remote.ask() {
        let fetched = remote.fetched(fetch);
        exchange.within(jwks::KEY_WAIT_MS, Reason::KeysUnavailable, fetched).await?;
    }
    match verify() {
        jwt::Verdict::Valid(verified) => Ok(verified),
        jwt::Verdict::KeyUnknown(remote) if remote.set().is_none() => Err(Reason::KeysUnavailable),
        jwt::Verdict::Invalid | jwt::Verdict::KeyUnknown(_) => Err(Reason::Unauthenticated),
    }
}

/// Whether a request carries a credential of the data plane: an API key, or what looks like
/// a JWT. Says nothing about its worth.
pub(crate) fn speaks_for_a_tenant(headers: &HeaderMap) -> bool {
    let token = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    token.and_then(|token| std::str::from_utf8(token).ok()).is_some_and(|token| {
        // `eyJ` is base64url of `{"`.
        let is_jwt = token.starts_with("eyJ") && token.matches('.').count() == 2;
        model::key::looks_like_key(token) || is_jwt
    })
}

/// The credentials of `Bearer`; the scheme's name has no case (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked(6)?;
    let ends = matches!(credentials.first(), None | Some(b' '));
    (ends && scheme.eq_ignore_ascii_case(b"bearer")).then(|| credentials.trim_ascii())
}

fn agree(
    snapshot: &model::snapshot::Snapshot,
    by_host: Option<(&Arc<TenantEntry>, ResolvedBy)>,
    token: Option<Token>,
) -> Result<Caller, Reason> {
    let named = match &token {
        Some(Token::Key(id)) => Some(snapshot.tenant(*id).ok_or(Reason::Unauthenticated)?),
        Some(Token::Jwt(verified)) => {
            Some(verified.tenant_in(snapshot).ok_or(Reason::Unauthenticated)?)
        }
        None => None,
    };
    let (entry, resolved_by) = match (by_host, named) {
        (Some((host, _)), Some(token)) if host.id() != token.id() => {
            return Err(Reason::TenantMismatch);
        }
        (Some(found), _) => found,
        (None, Some(token)) => (token, ResolvedBy::Token),
        (None, None) => return Err(Reason::Unauthenticated),
    };
    let token = match token {
        Some(Token::Jwt(verified)) => Some(verified),
        Some(Token::Key(_)) | None => None,
    };
    Ok(Caller { entry: Arc::clone(entry), resolved_by, token })
}
