//! The control API on `api.<base domain>` of the data plane.
//!
//! Requests come from worker threads and are answered on the program's own runtime, by the
//! same router as on the control listener. Invariant: nothing but the versioned API is
//! reachable here: no health, no metrics.

use std::sync::OnceLock;

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use model::{BoxFuture, problem};
use proxy::{LocalBody, LocalService};
use tokio::runtime::Handle;
use tower::ServiceExt as _;

/// The API's two spellings.
const PREFIXES: [&str; 2] = ["/api/v1", "/v1"];

/// The API as the data plane calls it.
#[derive(Debug)]
pub struct ApiHost {
    runtime: Handle,
    /// Set once everything that may fail has started.
    router: OnceLock<Router>,
}

impl ApiHost {
    /// Closed: every request is told to come back.
    #[must_use]
    pub fn closed(runtime: Handle) -> Self {
        Self { runtime, router: OnceLock::new() }
    }

    /// Opens it.
    pub fn open(&self, router: Router) {
        let _opened_twice = self.router.set(router).is_err();
    }
}

impl LocalService for ApiHost {
    fn serves(&self, path: &str) -> bool {
        PREFIXES.iter().any(|prefix| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn call(&self, request: Request<LocalBody>) -> BoxFuture<'static, Response<LocalBody>> {
        let Some(router) = self.router.get().cloned() else {
            return Box::pin(async { refusal(StatusCode::SERVICE_UNAVAILABLE) });
        };
        let answer = self.runtime.spawn(router.oneshot(request.map(Body::new)));
        Box::pin(async move {
            match answer.await {
                Ok(Ok(answer)) => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
                Ok(Err(never)) => match never {},
                Err(died) => {
                    tracing::error!(%died, "a request of the control API died");
                    refusal(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        })
    }
}

/// What is said when there is no router, or it died.
fn refusal(status: StatusCode) -> Response<LocalBody> {
    let problem = match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            let code = "temporary-reduced-capacity";
            problem::Problem::new(status.as_u16(), code, "Not ready")
                .of_type(problem::TEMPORARY_REDUCED_CAPACITY)
                .with("retry_after", 1)
        }
        _ => problem::Problem::new(status.as_u16(), "internal", "Internal error"),
    };
    let body = Full::from(problem.to_json()).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let kind = http::HeaderValue::from_static(problem::CONTENT_TYPE);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_versioned_api_is_served_and_only_once_it_is_open() {
        let api = ApiHost::closed(Handle::current());
        for (path, ours) in [
            ("/v1", true),
            ("/v1/", true),
            ("/api/v1/openapi.json", true),
            ("/api/v1", true),
            ("/metrics", false),
            ("/livez", false),
            ("/readyz", false),
            ("/", false),
            ("/v1x", false),
            ("/v10/tenants", false),
            ("/api", false),
            ("/api/v2", false),
            ("//v1", false),
        ] {
            assert_eq!(api.serves(path), ours, "{path}");
        }
        let ask = || api.call(Request::new(Full::default().map_err(|e| match e {}).boxed_unsync()));
        assert_eq!(ask().await.status(), 503);
        api.open(Router::new().fallback(async || StatusCode::IM_A_TEAPOT));
        assert_eq!(ask().await.status(), 418);
        let dies = Router::new().fallback(async || -> StatusCode { panic!("it dies") });
        let api = ApiHost::closed(Handle::current());
        api.open(dies);
        let request = Request::new(Full::default().map_err(|e| match e {}).boxed_unsync());
        assert_eq!(api.call(request).await.status(), 500);
    }
}
