//! A fake upstream that records every request it gets, and misbehaves on request.
//!
//! The request header `x-origin-do` says how: `status=503`, `delay=MS`, `hang`, `reset`
//! (closes without an answer), `header=name:value`. Several are separated by `;`.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    /// One header as text; empty when absent.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .unwrap_or_default()
    }
}

/// A running origin.
#[derive(Clone, Debug)]
pub struct Origin {
    pub addr: SocketAddr,
    pub region: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: Arc<tokio::task::AbortHandle>,
}

impl Origin {
    pub async fn start(region: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let state = (region.to_owned(), Arc::clone(&received));
        let app = Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the origin serves");
        });
        Self { addr, region: region.to_owned(), received, task: Arc::new(task.abort_handle()) }
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// How many requests arrived.
    pub fn arrivals(&self) -> usize {
        self.received.lock().expect("no panic").len()
    }

    /// The last one.
    #[track_caller]
    pub fn last(&self) -> Received {
        self.received().pop().unwrap_or_else(|| panic!("nothing arrived in {}", self.region))
    }

    /// Stops listening; connections in the kernel's queue are reset.
    pub fn stop(&self) {
        self.task.abort();
    }
}

type Shared = (String, Arc<Mutex<Vec<Received>>>);

async fn answer(State((region, received)): State<Shared>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let wishes = head
        .headers
        .get("x-origin-do")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let record = Received {
        method: head.method.to_string(),
        path: path.clone(),
        headers: head.headers,
        body,
    };
    let answer = json!({"region": region, "path": path, "body_bytes": record.body.len()});
    received.lock().expect("no panic").push(record);
    let mut response = Json(answer).into_response();
    for wish in wishes.split(';').map(str::trim).filter(|wish| !wish.is_empty()) {
        let (what, value) = wish.split_once('=').unwrap_or((wish, ""));
        match what {
            "status" => *response.status_mut() = value.parse().expect("a status"),
            "delay" => tokio::time::sleep(Duration::from_millis(value.parse().expect("ms"))).await,
            "hang" => std::future::pending().await,
            // A panic in the handler drops the connection without an answer.
            "reset" => panic!("reset, as asked"),
            "header" => {
                let (name, value) = value.split_once(':').expect("name:value");
                let name: HeaderName = name.parse().expect("a name");
                response.headers_mut().append(name, value.parse().expect("a value"));
            }
            other => panic!("no such wish: {other}"),
        }
    }
    response
}
