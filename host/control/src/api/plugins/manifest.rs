//! Reads a manifest, and names everything that is wrong with it.

use model::{
    plugin::{Budget, InstancesWish, Manifest},
    policy::OnFailure,
};
use serde_json::{Map, Value};

use crate::api::{
    fields::{Fields, Ruled},
    rules,
};

/// Items of a list of a manifest.
const ITEMS_MAX: usize = 64;
/// Characters of a description or an item.
const TEXT_CHARS_MAX: usize = 200;
/// Bytes of a config's schema, as JSON: people read it.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// The manifest of an object; its faults are remembered in `fields`.
pub(super) fn read(fields: &mut Fields, members: Map<String, Value>) -> Manifest {
    let mut inner = Fields::new(members);
    let manifest = Manifest {
        description: inner.optional("description", text).unwrap_or_default(),
        capabilities: inner.items("capabilities", ITEMS_MAX, text).unwrap_or_default(),
        origins: inner.items("origins", ITEMS_MAX, origin).unwrap_or_default(),
        metrics: inner.items("metrics", ITEMS_MAX, text).unwrap_or_default(),
        config_schema: inner.optional("config_schema", schema),
        on_failure: inner.optional("on_failure", on_failure).unwrap_or_default(),
        instances: inner.optional("instances", instances).unwrap_or_default(),
        limits: limits(&mut inner),
    };
    fields.absorb("manifest", inner);
    manifest
}

fn text(value: &Value) -> Ruled<String> {
    let text = rules::text(value)?;
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err(format!("may have at most {TEXT_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// `https://host[:port]` and nothing more.
fn origin(value: &Value) -> Ruled<String> {
    let text = text(value)?;
    let wrong = || "must be an origin like https://api.example.com".to_owned();
    let uri: axum::http::Uri = text.parse().map_err(|_| wrong())?;
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let web = matches!(uri.scheme_str(), Some("https" | "http"));
    let host = uri.host().is_some() && !text.ends_with('/') && !text.contains('@');
    if bare && web && host { Ok(text) } else { Err(wrong()) }
}

fn schema(value: &Value) -> Ruled<Value> {
    match value {
        Value::Object(_) if value.to_string().len() <= SCHEMA_BYTES_MAX => Ok(value.clone()),
        Value::Object(_) => Err(format!("may have at most {SCHEMA_BYTES_MAX} bytes as JSON")),
        _ => Err("must be an object: a JSON Schema".to_owned()),
    }
}

/// `closed` or `open`.
pub(super) fn on_failure(value: &Value) -> Ruled<OnFailure> {
    serde_json::from_value(value.clone()).map_err(|_| "must be closed or open".to_owned())
}

fn instances(value: &Value) -> Ruled<InstancesWish> {
    serde_json::from_value(value.clone()).map_err(|_| "must be fresh or reuse".to_owned())
}

fn limits(fields: &mut Fields) -> Budget {
    let members = fields.optional("limits", |value| match value {
        Value::Object(members) => Ok(members.clone()),
        _ => Err("must be an object".to_owned()),
    });
    let mut inner = Fields::new(members.unwrap_or_default());
    let mut budget = Budget::default();
    for key in Budget::KEYS {
        let value = inner.optional(key, |value| rules::number(value, 0, u64::from(u32::MAX)));
        if let Some(slot) = budget.key_mut(key) {
            *slot = value;
        }
    }
    fields.absorb("limits", inner);
    budget
}
