//! Who calls: an extractor, so that a handler's signature is its permission.
//!
//! Every handler under `/api/v1` takes an [`Admin`] first. Invariant: every failure has
//! one answer, and tokens are compared in constant time.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{Api, problem::ApiError};

/// Proof that the request carries the admin token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(());

impl FromRequestParts<Api> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        bearer(&parts.headers)
            .filter(|token| api.admin_token.verifies(token))
            .map(|_| Self(()))
            .ok_or(ApiError::Unauthenticated)
    }
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

    use crate::testing::{Backend, Control, on_both};

    const PATHS: [(&str, &str); 11] = [
        ("GET", "/api/v1/admin/tenants"),
        ("POST", "/api/v1/admin/tenants"),
        ("GET", "/api/v1/admin/tenants/1"),
        ("PATCH", "/api/v1/admin/tenants/1"),
        ("POST", "/api/v1/admin/tenants/1/suspend"),
        ("POST", "/api/v1/admin/tenants/1/resume"),
        ("GET", "/api/v1/admin/tenants/1/keys"),
        ("POST", "/api/v1/admin/tenants/1/keys"),
        ("DELETE", "/api/v1/admin/tenants/1/keys/1"),
        ("GET", "/api/v1/admin/policies"),
        ("GET", "/v1/tenants/1/usage"),
    ];

    on_both![
        every_endpoint_refuses_every_wrong_token_in_the_same_words,
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
        for (method, path) in PATHS {
            for with in wrong {
                let request = with(Request::builder().method(method).uri(path));
                let answer = control.send(request.body(Body::from("{")).expect("a request")).await;
                assert_eq!(answer.status, 401, "{method} {path}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"leanvibe-edge\"");
                bodies.insert(answer.text);
            }
        }
        assert_eq!(bodies.len(), 1);
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
