//! Plugins and versions as text.

use serde_json::Value;

use crate::commands::table::{Table, items, sheet};

/// A plugin, and below it its versions.
pub(super) fn plugin(json: &Value) -> String {
    let head = sheet(
        json,
        &[
            ("name", "/name"),
            ("policy", "/policy"),
            ("enabled", "/enabled"),
            ("active version", "/active_version"),
            ("order", "/order"),
            ("on failure", "/on_failure"),
            ("created", "/created_at"),
        ],
    );
    let versions = json.get("versions").and_then(Value::as_array).map(Vec::as_slice);
    let columns = [
        ("VERSION", "/number"),
        ("STATE", "/state"),
        ("BYTES", "/size_bytes"),
        ("SHA-256", "/sha256"),
        ("CREATED", "/created_at"),
        ("BY", "/created_by"),
    ];
    format!("{head}\n{}", Table::of(versions.unwrap_or_default(), &columns).text())
}

/// The plugins of a scope.
pub(super) fn list(page: &Value) -> String {
    let columns = [
        ("NAME", "/name"),
        ("ENABLED", "/enabled"),
        ("ACTIVE", "/active_version"),
        ("ORDER", "/order"),
        ("CREATED", "/created_at"),
    ];
    Table::of(items(page), &columns).text()
}

/// A version that was just uploaded, with what its probe said.
pub(super) fn version(json: &Value) -> String {
    let head = sheet(
        json,
        &[
            ("version", "/number"),
            ("state", "/state"),
            ("sha256", "/sha256"),
            ("bytes", "/size_bytes"),
            ("hooks", "/hooks"),
        ],
    );
    let lines = json.get("log").and_then(Value::as_array).into_iter().flatten();
    let log =
        lines.filter_map(Value::as_str).map(|line| format!("  {}", crate::client::plain(line)));
    format!("{head}\n{}", log.collect::<Vec<_>>().join("\n"))
}
