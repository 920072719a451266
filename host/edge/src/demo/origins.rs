//! Demo origins: one for each region, answering with JSON of what they received.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::declare::Declarations;

/// Largest body that an origin reads to count it, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Starts an origin on every upstream address of every declared region.
///
/// # Errors
/// An address that is taken, or not a loopback address.
pub async fn start(declared: &Declarations) -> Result<()> {
    let mut addresses = BTreeMap::new();
    for region in declared.groups.values().flat_map(|group| &group.regions) {
        for addr in region.backends.values().flat_map(|backend| &backend.endpoints) {
            addresses.entry(*addr).or_insert(&region.name);
        }
    }
    for (addr, region) in addresses {
        serve(addr, Arc::clone(region))
            .await
            .with_context(|| format!("demo origin of {region}: {addr} cannot be used"))?;
    }
    Ok(())
}

/// Serves one origin until the runtime ends. Port 0 works; the address comes back.
///
/// # Errors
/// As the system says.
pub async fn serve(addr: SocketAddr, region: Arc<str>) -> Result<SocketAddr> {
    anyhow::ensure!(addr.ip().is_loopback(), "demo origins listen on loopback only");
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    let app = Router::new().fallback(echo).with_state(region);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "demo origin stopped");
        }
    });
    Ok(bound)
}

async fn echo(State(region): State<Arc<str>>, request: Request<Body>) -> Json<Value> {
    let (head, body) = request.into_parts();
    let mut headers = Map::new();
    for name in head.headers.keys() {
        let values: Vec<_> = head
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    let body_bytes = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => json!(body.len()),
        Err(error) => json!(error.to_string()),
    };
    Json(json!({
        "region": &*region,
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", |path| path.as_str()),
        "headers": headers,
        "body_bytes": body_bytes,
    }))
}
