//! Everything that an API request can be refused with, and the one table to answers.
//!
//! Invariant: a request's own faults never become a 5xx, and no text of the store, the
//! system or another tenant reaches a client.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{
    access::Right,
    problem::{self, FieldError, Problem},
};

use crate::store::{ChangeError, CreateError, InvalidTransition, StoreError};

/// `Retry-After` of a passing failure of the store or the quota authority, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// Why a request was refused. A new reason does not compile until it has an answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No token, or a wrong one.
    Unauthenticated,
    /// The token lacks a right.
    Forbidden(Right),
    /// No such tenant or key.
    NotFound,
    /// No such path.
    NoSuchPath,
    /// The path has no such method.
    NoSuchMethod,
    /// The body is not JSON.
    MalformedJson(serde_json::Error),
    /// The body is JSON, but no object.
    NotAnObject,
    /// The body says that it is something else than JSON.
    MediaType,
    /// The body is longer than it may be.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The body broke off.
    BodyBroken,
    /// Fields are wrong: all of them.
    Invalid(Vec<FieldError>),
    /// The slug belongs to another tenant, or did.
    SlugTaken(String),
    /// The domain belongs to another tenant.
    DomainTaken(String),
    /// The status may not change so.
    Transition(InvalidTransition),
    /// A token that no longer lives cannot be rotated.
    TokenDead,
    /// There are as many as there may be.
    TooMany(String),
    /// Something stands against it.
    Conflict(Conflict),
    /// A part of the tenants' data is being moved: its move's number.
    MoveRunning(i64),
    /// The tenant has a part of its own.
    AlreadyIsolated,
    /// `If-Match` names another version.
    VersionMismatch,
    /// The client relies on a header that this endpoint does not honour.
    HeaderNotHonoured(&'static str),
    /// The `Idempotency-Key` was used for another request.
    KeyReused,
    /// SQLite cannot do it.
    NeedsPostgresql(Capability),
    /// No database can do it in this release.
    NeedsRelease(Capability),
    /// A claim found no room under its quota.
    QuotaExceeded(Box<Problem>),
    /// A plugin was not admitted.
    Plugin(Box<Problem>),
    /// The quota authority did not answer.
    UsageUnavailable,
    /// The store failed; logged here.
    Store(StoreError),
}

/// What stands against a request that is valid in itself.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    /// Stable short code.
    pub(crate) code: &'static str,
    /// The same text for every occurrence.
    pub(crate) title: &'static str,
    /// What it is here, and what to do about it.
    pub(crate) detail: String,
}

/// Something that only PostgreSQL offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability {
    /// Stable name.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) detail: &'static str,
    /// What can be done instead, today.
    pub(crate) alternatives: &'static [&'static str],
}

impl Capability {
    fn missing(self, problem: Problem) -> Problem {
        problem
            .detail(self.detail)
            .with("capability", self.name)
            .with("alternatives", self.alternatives)
    }
}

impl ApiError {
    /// One wrong field.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    fn problem(self) -> Problem {
        match self {
            Self::Unauthenticated => {
                Problem::new(401, "unauthenticated", "A valid token is required")
            }
            Self::Forbidden(right) => Problem::new(403, "forbidden", "The token may not do this")
                .detail(format!(
                    "It lacks the right {:?}, by its role or its scopes.",
                    right.scope()
                ))
                .with("scope", right.scope()),
            Self::NotFound => Problem::new(404, "not-found", "Not found")
                .detail("There is no such tenant, or no such thing of it."),
            Self::NoSuchPath => {
                Problem::new(404, "not-found", "Not found").detail("There is no such path.")
            }
            Self::NoSuchMethod => Problem::new(405, "method-not-allowed", "Method not allowed"),
            Self::MalformedJson(error) => Problem::new(400, "malformed-json", "Malformed JSON")
                .detail(error.to_string())
                .with("line", error.line())
                .with("column", error.column()),
            Self::NotAnObject => Problem::new(400, "malformed-json", "Malformed JSON")
                .detail("The body must be a JSON object."),
            Self::MediaType => {
                Problem::new(415, "unsupported-media-type", "Unsupported media type")
                    .detail("Send the body as application/json.")
            }
            Self::BodyTooLarge => Problem::new(413, "body-too-large", "Body too large")
                .with("body_bytes_max", super::body::BODY_BYTES_MAX),
            Self::BodyTooSlow => Problem::new(408, "body-timeout", "The body did not arrive"),
            Self::BodyBroken => Problem::new(400, "body-broken", "The body broke off"),
            Self::Invalid(errors) => {
                let mut problem = Problem::new(422, "validation", "The request is not valid");
                problem.errors = errors;
                problem
            }
            Self::SlugTaken(slug) => Problem::new(409, "slug-taken", "The slug is taken")
                .detail(format!("Another tenant has or had the slug {slug:?}.")),
            Self::DomainTaken(domain) => Problem::new(409, "domain-taken", "The domain is taken")
                .detail(format!("Another tenant has the domain {domain:?}.")),
            Self::Transition(refused) => transition(&refused),
            Self::Conflict(Conflict { code, title, detail }) => {
                Problem::new(409, code, title).detail(detail)
            }
            Self::TokenDead => Problem::new(409, "token-dead", "The token no longer lives")
                .detail("It is revoked or expired; issue a new one."),
            Self::TooMany(detail) => {
                Problem::new(409, "too-many", "There are too many").detail(detail)
            }
            Self::MoveRunning(id) => {
                Problem::new(409, "partition-move-running", "A part is being moved")
                    .detail("One part is split or isolated at a time; try again when it is done.")
                    .with("move_id", id)
            }
            Self::AlreadyIsolated => {
                Problem::new(409, "already-isolated", "The tenant has a part of its own")
            }
            Self::VersionMismatch => {
                Problem::new(412, "version-mismatch", "It has changed meanwhile")
                    .detail("If-Match names another version than there is; read it again.")
            }
            Self::HeaderNotHonoured(name) => {
                Problem::new(400, "header-not-honoured", "A header is not honoured here")
                    .detail(format!("This endpoint does not honour {name}; send it without."))
                    .with("header", name)
            }
            Self::KeyReused => {
                Problem::new(422, "idempotency-key-reused", "The idempotency key is used")
                    .detail("The Idempotency-Key was sent with another request before.")
            }
            Self::NeedsPostgresql(capability) => capability
                .missing(Problem::new(501, "needs-postgresql", "This needs PostgreSQL"))
                .with("needs", "postgresql"),
            Self::NeedsRelease(capability) => capability
                .missing(Problem::new(501, "needs-release", "This needs a later release"))
                .with("needs", "release"),
            Self::QuotaExceeded(problem) | Self::Plugin(problem) => *problem,
            Self::Store(StoreError::Away) => Self::UsageUnavailable.problem().detail(
                "The database does not answer. Tenants are served as they were; nothing can be \
                 changed or looked up until it is back.",
            ),
            Self::UsageUnavailable | Self::Store(_) => {
                Problem::new(503, "temporary-reduced-capacity", "Temporarily unavailable")
                    .of_type(problem::TEMPORARY_REDUCED_CAPACITY)
                    .with("retry_after", RETRY_AFTER_S)
            }
        }
    }
}

fn transition(refused: &InvalidTransition) -> Problem {
    let allowed: Vec<_> = refused.allowed.iter().map(|status| status.as_str()).collect();
    Problem::new(409, "invalid-transition", "The status may not change so")
        .detail(format!("{refused}; allowed: {}.", list(&allowed)))
        .with("from", refused.from.as_str())
        .with("allowed", allowed)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match &self {
            // Said once by the look-out, and then by every answer; or no failure of the store.
            Self::Store(StoreError::Away | StoreError::KeyUsed) => {}
            Self::Store(error) => tracing::error!(%error, "the store failed"),
            _ => {}
        }
        let problem = self.problem();
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, problem.to_json()).into_response();
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"leanvibe-edge\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::SlugTaken(slug) => Self::SlugTaken(slug.into()),
            CreateError::ParentUnknown | CreateError::TooDeep => {
                Self::field("parent_tenant_id", error.to_string())
            }
            CreateError::ResidencyMissing => Self::field("data_residency", error.to_string()),
            CreateError::TooMany(_) => Self::TooMany(error.to_string()),
            CreateError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound => Self::NotFound,
            ChangeError::VersionMismatch { .. } => Self::VersionMismatch,
            ChangeError::Transition(refused) => Self::Transition(refused),
            ChangeError::DomainTaken(domain) => Self::DomainTaken(domain),
            ChangeError::TooMany { field, .. } => Self::field(field, error.to_string()),
            ChangeError::Anchor(refused) => Self::field("quota_anchor_day", refused.to_string()),
            ChangeError::TooManyKeys => Self::TooMany(error.to_string()),
            ChangeError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Backend, Control, acme, on_both, path_of};

    on_both![
        an_unknown_path_is_404_and_a_wrong_method_405_as_problems,
        a_failing_store_is_a_503_that_says_nothing_about_it,
    ];

    async fn an_unknown_path_is_404_and_a_wrong_method_405_as_problems(on: Backend) {
        let control = Control::start(on).await;
        for path in ["/", "/api/v1", "/api/v1/admin/tenants/", "/api/v2/admin/tenants", "/v1/x"] {
            let answer = control.get(path).await;
            assert_eq!((answer.status, &answer.json["code"]), (404, &"not-found".into()), "{path}");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
        for (method, path, allowed) in [
            ("PUT", "/api/v1/admin/tenants", "GET,HEAD,POST"),
            ("DELETE", "/v1/admin/tenants/1", "GET,HEAD,PATCH"),
            ("POST", "/livez", "GET,HEAD"),
        ] {
            let answer = control.with((method, path), &[], "").await;
            assert_eq!((answer.status, &answer.json["code"]), (405, &"method-not-allowed".into()));
            assert_eq!(answer.headers["allow"], allowed);
        }
    }

    async fn a_failing_store_is_a_503_that_says_nothing_about_it(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.store.close().await;
        for answer in [
            control.get(&path_of(&tenant)).await,
            control.json("POST", "/api/v1/admin/tenants", &acme()).await,
        ] {
            assert_eq!((answer.status, &answer.json["retry_after"]), (503, &1.into()));
            assert_eq!(answer.headers["retry-after"], "1");
            assert!(!answer.text.to_lowercase().contains("pool"), "{}", answer.text);
        }
    }
}
