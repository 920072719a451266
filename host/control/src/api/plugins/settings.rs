//! `GET` and `PUT …/plugins/{plugin}/config`: order, on-failure and what `configure` gets.
//!
//! Invariant: settings that the version in force does not accept are not stored.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use model::{
    plugin::{ORDER_DEFAULT, PluginRecord, PluginSettings},
    policy::OnFailure,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{manifest, refused, scope::OfPlugin};
use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::{Fields, Ruled},
        json,
        problem::ApiError,
        tenants::{patch::expected_version, view::etag},
    },
    store::{StoredPlugin, StoredVersion},
};

/// Bytes of a config, as JSON: every instance that starts reads it.
const CONFIG_BYTES_MAX: usize = 64 << 10;
/// The highest order; as low as the highest, negated.
const ORDER_MAX: i64 = 1_000_000;

/// How a plugin is to be set.
#[derive(JsonSchema)]
#[schemars(rename = "PluginConfigBody")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `put` reads")]
pub(super) struct ConfigBody {
    /// What `configure` is called with. `{"secret": "name"}` stands for a secret of the
    /// tenant.
    config: BTreeMap<String, Value>,
    /// Lower runs first; 100 when it is left out.
    order: Option<i32>,
    /// `null` is what the version says.
    on_failure: Option<OnFailure>,
}

/// How a plugin is set.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PluginConfig")]
pub(super) struct ConfigView {
    config: Map<String, Value>,
    order: i32,
    on_failure: Option<OnFailure>,
    /// As in the ETag.
    version: u64,
}

pub(super) async fn read(State(api): State<Api>, of: OfPlugin) -> Result<Response, ApiError> {
    Ok(answer(of.find(&api).await?))
}

pub(super) async fn put(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let expected = expected_version(&headers)?;
    let mut fields = Fields::new(document.members);
    let settings = PluginSettings {
        config: fields.required("config", config).unwrap_or_default(),
        order: fields.optional("order", order).unwrap_or(ORDER_DEFAULT),
        on_failure: fields.optional("on_failure", manifest::on_failure),
    };
    fields.finish()?;
    let held = of.find(&api).await?;
    if let Some(version) = held.active().or_else(|| held.versions.first()) {
        let record = record(&held, version, settings.clone());
        api.plugins.rehearse(record, of.terms).await.map_err(refused)?;
    }
    let set =
        api.store.set_plugin_settings(caller.actor(), &of.scope, &of.name, settings, expected);
    Ok(answer(set.await?))
}

/// A version as it would be published.
pub(super) fn record(
    plugin: &StoredPlugin,
    version: &StoredVersion,
    settings: PluginSettings,
) -> PluginRecord {
    PluginRecord {
        scope: plugin.scope.clone(),
        name: plugin.name.clone(),
        number: version.number,
        component: version.component,
        size: version.size,
        manifest: version.manifest.clone(),
        settings,
    }
}

/// A config: an object that is not too long.
pub(super) fn config(value: &Value) -> Ruled<Map<String, Value>> {
    match value {
        Value::Object(members) if value.to_string().len() <= CONFIG_BYTES_MAX => {
            Ok(members.clone())
        }
        Value::Object(_) => Err(format!("may have at most {CONFIG_BYTES_MAX} bytes as JSON")),
        _ => Err("must be an object".to_owned()),
    }
}

fn order(value: &Value) -> Ruled<i32> {
    let order = value.as_i64().filter(|order| order.abs() <= ORDER_MAX);
    let order = order.and_then(|order| i32::try_from(order).ok());
    order.ok_or_else(|| format!("must be a whole number from -{ORDER_MAX} to {ORDER_MAX}"))
}

fn answer(plugin: StoredPlugin) -> Response {
    let PluginSettings { order, on_failure, config } = plugin.settings;
    let version = plugin.version;
    (etag(version), json(ConfigView { config, order, on_failure, version })).into_response()
}
