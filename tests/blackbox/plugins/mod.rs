//! Plugins that tenants upload: from the file to live traffic, and back.

mod compiling;
mod edges;
mod lifecycle;
mod refused;

use http_body_util::Full;
use serde_json::Value;

use crate::actors::{ADMIN_TOKEN, Client, Reply, TenantActor};

const BOUNDARY: &str = "b0undary";

/// Sends a form to the control API of an edge.
pub async fn post_form(control: Client, path: &str, parts: &[(&str, &[u8])]) -> Reply {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head =
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let request = Client::request("POST", path, "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Full::new(body.into()));
    control.send(request.expect("a request")).await
}

/// Where a tenant's plugins are.
pub fn plugins_of(tenant: &TenantActor) -> String {
    format!("/api/v1/tenants/{}/plugins", tenant.id)
}

/// Uploads a plugin that decides at once; its view.
pub async fn push(control: Client, tenant: &TenantActor, name: &str, wasm: &[u8]) -> Value {
    let parts: [(&str, &[u8]); 3] =
        [("name", name.as_bytes()), ("component", wasm), ("activate", b"true")];
    post_form(control, &plugins_of(tenant), &parts).await.expect(201).json()
}

/// Uploads the next version, which decides at once; its view.
pub async fn push_next(control: Client, tenant: &TenantActor, name: &str, wasm: &[u8]) -> Value {
    let path = format!("{}/{name}/versions", plugins_of(tenant));
    let parts: [(&str, &[u8]); 2] = [("component", wasm), ("activate", b"true")];
    post_form(control, &path, &parts).await.expect(201).json()
}
