//! Which version decides: activate, roll back, switch off, remove.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde_json::Value;

use super::{
    refused,
    scope::{OfPlugin, named},
    settings::record,
    view::PluginView,
};
use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::Fields,
        json,
        problem::ApiError,
        tenants::{patch::expected_version, view::etag},
    },
    store::StoredPlugin,
};

/// Which version.
#[derive(JsonSchema)]
#[schemars(rename = "PluginActivation")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `activate` reads")]
pub(super) struct ActivateBody {
    /// Its number, or 12 digits or more of its SHA-256 as a string.
    version: u64,
}

/// The kill switch.
#[derive(JsonSchema)]
#[schemars(rename = "PluginSwitch")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `switch` reads")]
pub(super) struct SwitchBody {
    /// False: it runs for nobody, whatever version is active.
    enabled: bool,
}

pub(super) async fn activate(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
    document: Document,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.members);
    let version = fields.required("version", |value| match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(digits) => Ok(digits.clone()),
        _ => Err("must be a number, or digits of a SHA-256 as a string".to_owned()),
    });
    fields.finish()?;
    let held = of.find(&api).await?;
    let version = version.unwrap_or_default();
    let version = named(&held, &version)
        .ok_or_else(|| ApiError::field("version", "there is no such version"))?;
    // Loaded and tried with the settings of today, so that it is in force at once.
    let record = record(&held, version, held.settings.clone());
    api.plugins.rehearse(record, of.terms).await.map_err(refused)?;
    let active =
        api.store.activate_plugin(caller.actor(), &of.scope, &of.name, version.number).await?;
    Ok(answer(&active))
}

pub(super) async fn roll_back(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
) -> Result<Response, ApiError> {
    // Nothing is asked of the version that comes back: a rollback is never refused for it.
    Ok(answer(&api.store.roll_back_plugin(caller.actor(), &of.scope, &of.name).await?))
}

pub(super) async fn switch(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let expected = expected_version(&headers)?;
    let mut fields = Fields::new(document.members);
    let enabled = fields.required("enabled", |value| {
        value.as_bool().ok_or_else(|| "must be true or false".to_owned())
    });
    fields.finish()?;
    let enabled = enabled.unwrap_or_default();
    let set = api.store.set_plugin_enabled(caller.actor(), &of.scope, &of.name, enabled, expected);
    Ok(answer(&set.await?))
}

pub(super) async fn remove(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
) -> Result<Response, ApiError> {
    api.store.remove_plugin(caller.actor(), &of.scope, &of.name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn answer(plugin: &StoredPlugin) -> Response {
    (etag(plugin.version), json(PluginView::of(plugin))).into_response()
}
