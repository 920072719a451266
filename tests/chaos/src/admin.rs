//! The operator: creates tenants and changes limits, by the control API of any edge that
//! answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The token of every edge of the run.
pub const TOKEN: &str = "chaos-admin-token-0123456789abcdef";
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Creates a tenant on the plan of its name; its id.
///
/// # Errors
/// The control API refused, or does not answer.
pub fn create(control: SocketAddr, name: &str) -> Result<String> {
    let body = json!({
        "organization_name": name, "slug": name, "plan": name,
        "admin_email": "chaos@example.com", "data_residency": "here",
    });
    let answer = call(control, "POST", "/api/v1/admin/tenants", &body)?;
    Ok(answer.get("id").and_then(Value::as_str).context("an id")?.to_owned())
}

/// Sets the calls a month of one tenant.
///
/// # Errors
/// The control API refused, or does not answer.
pub fn set_calls(control: SocketAddr, id: &str, calls: u64) -> Result<()> {
    let body = json!({"quota_overrides": {"max_api_calls_per_month": calls}});
    call(control, "PATCH", &format!("/api/v1/admin/tenants/{id}"), &body).map(drop)
}

/// Whether an edge is ready.
#[must_use]
pub fn is_ready(control: SocketAddr) -> bool {
    exchange(control, "GET /readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What the product's own audit finds: accounts that do not add up.
///
/// # Errors
/// The control API refused, or does not answer.
pub fn audit(control: SocketAddr) -> Result<Vec<String>> {
    let answer = call(control, "GET", "/api/v1/admin/quotas/audit", &Value::Null)?;
    let found = answer.get("violations").and_then(Value::as_array).context("violations")?;
    Ok(found.iter().map(Value::to_string).collect())
}

/// The metrics page of an edge.
///
/// # Errors
/// It does not answer.
pub fn metrics(control: SocketAddr) -> Result<String> {
    exchange(control, "GET /metrics", "")
}

fn call(control: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = exchange(control, &format!("{method} {path}"), &body)?;
    ensure!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
    Ok(serde_json::from_str(body)?)
}

fn exchange(addr: SocketAddr, what: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{what} HTTP/1.1\r\nhost: control\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
