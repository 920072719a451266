//! Who calls, and whether they may: every endpoint of the API passes through here.
//!
//! [`authorize`] is laid over each endpoint by `endpoint.rs`, before its body is read, and
//! leaves a [`Caller`] for the handler. Invariant: every failure of a token has one answer;
//! a tenant outside the caller's scope is answered like one that is not there (404), a
//! missing right inside it with 403. Tokens are compared in constant time.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, RawPathParams, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::Response,
};
use model::{
    access::{Relation, Right, Rights, Role},
    key,
    tenant::TenantId,
};

use super::{
    Api,
    once::{self, IDEMPOTENCY_KEY},
    problem::ApiError,
};
use crate::store::{Actor, Attempt, TokenRecord};

/// Tokens that are looked up at once: a third of the control plane's connections.
pub(super) const LOOKUPS_MAX: usize = 2;
/// The name of a path's parameter that is the tenant which the request is about.
pub(super) const TENANT_PARAMETER: &str = "tenant_id";

/// Proof that the request may be made, and by whom.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    actor: Actor,
    role: Role,
    /// Whose token it is; `None` for the operator.
    tenant: Option<TenantId>,
    scopes: Rights,
}

impl Caller {
    fn operator() -> Self {
        Self { actor: Actor::Operator, role: Role::Admin, tenant: None, scopes: Rights::ALL }
    }

    fn of(token: TokenRecord) -> Self {
        Self {
            actor: Actor::Token(token.id),
            role: token.role,
            tenant: token.tenant,
            scopes: token.scopes.unwrap_or(Rights::ALL),
        }
    }

    /// The same caller, whose changes are those of `attempt` and happen once.
    pub(super) fn once(self, attempt: Arc<Attempt>) -> Self {
        Self { actor: Actor::Once(Box::new(self.actor), attempt), ..self }
    }

    /// For the audit chain.
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whose token it is; `None` for the operator, who is bound to no tenant.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// What it may do about a tenant; `None` when it may not even know of it.
    pub(crate) fn rights_on(&self, api: &Api, id: TenantId) -> Option<Rights> {
        let relation = match self.tenant {
            None => Relation::Own,
            Some(own) if own == id => Relation::Own,
            Some(own) if api.store.is_in_subtree(own, id) => Relation::Below,
            Some(_) => return None,
        };
        let rights = self.role.rights(relation).and(self.scopes);
        let knows = !self.role.rights(relation).is_empty();
        knows.then_some(rights)
    }

    /// Refuses what it may not do about a tenant.
    pub(crate) fn must(&self, api: &Api, right: Right, id: TenantId) -> Result<(), ApiError> {
        match self.rights_on(api, id) {
            None => Err(ApiError::NotFound),
            Some(rights) if rights.contains(right) => Ok(()),
            Some(_) => Err(ApiError::Forbidden(right)),
        }
    }

    /// Whether it is bound to no tenant.
    pub(crate) fn is_operator(&self) -> bool {
        self.tenant.is_none()
    }

    /// The first right that a token of this role and scopes for `tenant` would have and this
    /// caller lacks: on that tenant or below it. Nobody gives, renews or takes away more
    /// than it has.
    pub(crate) fn lacks(
        &self,
        tenant: Option<TenantId>,
        role: Role,
        scopes: Option<Rights>,
    ) -> Option<Right> {
        let scopes = scopes.unwrap_or(Rights::ALL);
        let own = self.tenant.is_none() || self.tenant == tenant;
        [Relation::Own, Relation::Below].into_iter().find_map(|relation| {
            // Whatever lies below another tenant of the subtree lies below the caller's too.
            let mine = if own { relation } else { Relation::Below };
            let gives = if own { self.role.gives() } else { Rights::NONE };
            let held = self.role.rights(mine).or(gives).and(self.scopes);
            role.rights(relation).and(scopes).without(held).iter().next()
        })
    }

    /// Everything it may do about some tenant or other.
    pub(crate) fn rights(&self) -> Rights {
        self.role.rights_at_most().and(self.scopes)
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Unauthenticated)
    }
}

/// What an endpoint asks of its callers.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) api: Api,
    pub(super) right: Right,
    /// Whether the path names the tenant.
    pub(super) of_tenant: bool,
    /// Request headers that the endpoint honours.
    pub(super) headers: Vec<&'static str>,
}

/// Headers by which a client relies on something: where it is not there, it is told.
const RELIED_ON: [&str; 2] = ["If-Match", IDEMPOTENCY_KEY];

/// Lets a request on, with its [`Caller`], or refuses it.
pub(super) async fn authorize(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let caller = authenticate(&guard.api, &parts.headers).await?;
    let mut about = None;
    if guard.of_tenant {
        let tenant = tenant_of(&mut parts).await.ok_or(ApiError::NotFound)?;
        caller.must(&guard.api, guard.right, tenant)?;
        about = Some(tenant);
    } else if !caller.rights().contains(guard.right) {
        return Err(ApiError::Forbidden(guard.right));
    }
    let creates = parts.method == Method::POST;
    for name in RELIED_ON {
        let honoured = guard.headers.contains(&name) || (creates && name == IDEMPOTENCY_KEY);
        if parts.headers.contains_key(name) && !honoured {
            return Err(ApiError::HeaderNotHonoured(name));
        }
    }
    if creates {
        return once::run(guard.api, caller, about, (parts, body), next).await;
    }
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

async fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers).ok_or(ApiError::Unauthenticated)?;
    if api.admin_token.verifies(token) {
        return Ok(Caller::operator());
    }
    let presented = key::parse_token(token).ok_or(ApiError::Unauthenticated)?;
    // However many strangers ask at once, most of the store's connections stay free.
    let _turn = api.lookups.acquire().await;
    let verified = api.store.verify_token(&presented).await?;
    verified.map(Caller::of).ok_or(ApiError::Unauthenticated)
}

async fn tenant_of(parts: &mut Parts) -> Option<TenantId> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, value) = params.iter().find(|(name, _)| *name == TENANT_PARAMETER)?;
    value.parse().ok()
}

/// The bearer token of the only `Authorization` field.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Request, request::Builder},
    };

    use crate::{
        api::endpoints,
        testing::{Backend, Control, acme, on_both},
    };

    on_both![
        every_endpoint_refuses_every_wrong_token_in_the_same_words,
        a_header_that_is_not_honoured_is_refused_before_anything_is_done,
        the_scheme_is_read_in_any_case,
    ];

    async fn every_endpoint_refuses_every_wrong_token_in_the_same_words(on: Backend) {
        let control = Control::start(on).await;
        let wrong: [&dyn Fn(Builder) -> Builder; 6] = [
            &|request| request,
            &|request| request.header("authorization", "Bearer admin-toke"),
            &|request| request.header("authorization", "Bearer "),
            &|request| request.header("authorization", "Basic admin-token"),
            &|request| request.header("authorization", "admin-token"),
            &|request| {
                request
                    .header("authorization", "Bearer admin-token")
                    .header("authorization", "Bearer other")
            },
        ];
        let mut bodies = std::collections::BTreeSet::new();
        let guarded = endpoints().into_iter().filter(|endpoint| endpoint.right.is_some());
        for endpoint in guarded {
            let (method, path) = (endpoint.method.as_str(), format!("/v1{}", endpoint.path));
            let path = path.replace(['{', '}'], "");
            for with in wrong {
                let request = with(Request::builder().method(method).uri(&path));
                let answer = control.send(request.body(Body::from("{")).expect("a request")).await;
                assert_eq!(answer.status, 401, "{method} {path}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"leanvibe-edge\"");
                bodies.insert(answer.text);
            }
        }
        assert_eq!(bodies.len(), 1);
    }

    async fn a_header_that_is_not_honoured_is_refused_before_anything_is_done(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let id = tenant["id"].as_str().expect("an id");
        let kind = ("content-type", "application/json");
        let levels = format!("/api/v1/tenants/{id}/usage/levels");
        for field in [("if-match", "\"1\""), ("idempotency-key", "1")] {
            let answer = control.with(("PUT", &levels), &[kind, field], "{}").await;
            assert_eq!((answer.status, &answer.json["code"]), (400, &"header-not-honoured".into()));
        }
    }

    async fn the_scheme_is_read_in_any_case(on: Backend) {
        let control = Control::start(on).await;
        let request = Request::get("/api/v1/admin/tenants")
            .header("authorization", "bearer  admin-token")
            .body(Body::empty())
            .expect("a request");
        assert_eq!(control.send(request).await.status, 200);
    }
}
