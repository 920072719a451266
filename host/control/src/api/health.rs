//! `/livez`, `/readyz` and `/metrics`, open to whoever reaches the listener.
//!
//! Invariant: liveness says only that the process answers; nothing of a tenant's business
//! state is mixed into either.

mod checks;
pub(super) mod tenant;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Api, json};

/// Media type of the Prometheus text format.
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the edge serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// Yes.
    Ready,
    /// No longer: exchanges in flight finish, and nothing new should be sent here.
    Draining,
}

impl Readiness {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
}

pub(super) async fn live() -> Response {
    json(Health { status: "live" })
}

pub(super) async fn ready(State(api): State<Api>) -> Response {
    let readiness = *api.ready.borrow();
    let health = json(Health { status: readiness.as_str() });
    match readiness {
        Readiness::Ready => health,
        Readiness::Starting | Readiness::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, health).into_response()
        }
    }
}

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], (api.metrics)()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};

    use super::Readiness;
    use crate::testing::{Backend, Control};

    #[tokio::test]
    async fn health_and_metrics_need_no_token() {
        let control = Control::start(Backend::Sqlite).await;
        let get = async |path: &str| {
            control.send(Request::get(path).body(Body::empty()).expect("a request")).await
        };
        assert_eq!(get("/livez").await.status, 200);
        assert_eq!(get("/readyz").await.status, 200);
        for (readiness, status) in
            [(Readiness::Starting, "starting"), (Readiness::Draining, "draining")]
        {
            control.ready.send_replace(readiness);
            let answer = get("/readyz").await;
            assert_eq!((answer.status, &answer.json["status"]), (503, &status.into()));
        }
        assert_eq!(get("/livez").await.status, 200);
        let metrics = get("/metrics").await;
        assert_eq!(metrics.text, "edge_up 1\n");
        assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    }
}
