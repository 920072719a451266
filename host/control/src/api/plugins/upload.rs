//! `POST …/plugins` and `POST …/plugins/{plugin}/versions`: a file becomes a version.
//!
//! Invariant: at most [`UPLOADS_MAX`] files are held at once, however many are sent.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::{
    plugin::{Candidate, PluginName, PluginSettings},
    problem::{self, Problem},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    form::{self, Upload},
    refused,
    scope::{OfPlugin, OfScope},
    view::{PluginView, VersionView},
};
use crate::{
    api::{Api, caller::Caller, json, problem::ApiError, rules, tenants::view::etag},
    store::NewVersion,
};

/// Uploads that are read and compiled at once: 128 MiB of files at the most.
pub(in crate::api) const UPLOADS_MAX: usize = 4;
/// When to come back while there are as many, in seconds.
const RETRY_AFTER_S: u64 = 1;

pub(super) async fn create(
    caller: Caller,
    State(api): State<Api>,
    OfScope(scope, terms): OfScope,
    request: Request,
) -> Result<Response, ApiError> {
    let _turn = turn(&api)?;
    let Upload { component, manifest, signature, activate, mut fields } =
        form::read(request, &api, &terms).await?;
    let name = fields.required("name", |value| {
        let name = rules::text(value)?.parse::<PluginName>();
        name.map_err(|error| error.to_string())
    });
    let settings =
        PluginSettings { config: form::config(&mut fields), ..PluginSettings::default() };
    let Some(name) = name else { return Err(fields.refuse()) };
    fields.finish()?;
    if api.store.plugin(&scope, &name).await?.is_some() {
        return Err(crate::store::PluginError::Taken.into());
    }
    let candidate = Candidate {
        scope: scope.clone(),
        name: name.clone(),
        component: component.clone(),
        manifest: manifest.clone(),
        settings: settings.clone(),
        signature,
        terms: terms.clone(),
    };
    let admitted = api.plugins.admit(candidate).await.map_err(refused)?;
    let version = NewVersion { component, manifest, admitted };
    let (by, most) = (caller.actor(), terms.plugins_max);
    let mut plugin = api.store.create_plugin(by, &scope, &name, settings, version, most).await?;
    if let (true, Some(first)) = (activate, plugin.versions.first()) {
        plugin = api.store.activate_plugin(by, &scope, &name, first.number).await?;
    }
    let body = (etag(plugin.version), json(PluginView::of(&plugin)));
    Ok((StatusCode::CREATED, body).into_response())
}

pub(super) async fn add(
    caller: Caller,
    State(api): State<Api>,
    of: OfPlugin,
    request: Request,
) -> Result<Response, ApiError> {
    let _turn = turn(&api)?;
    let held = of.find(&api).await?;
    let Upload { component, manifest, signature, activate, fields } =
        form::read(request, &api, &of.terms).await?;
    fields.finish()?;
    let candidate = Candidate {
        scope: of.scope.clone(),
        name: of.name.clone(),
        component: component.clone(),
        manifest: manifest.clone(),
        settings: held.settings.clone(),
        signature,
        terms: of.terms.clone(),
    };
    let admitted = api.plugins.admit(candidate).await.map_err(refused)?;
    let version = NewVersion { component, manifest, admitted };
    let (by, most) = (caller.actor(), of.terms.versions_max);
    let before = held.versions.first().map(|newest| newest.number);
    let (mut plugin, number) =
        api.store.add_plugin_version(by, &of.scope, &of.name, version, most).await?;
    if activate {
        plugin = api.store.activate_plugin(by, &of.scope, &of.name, number).await?;
    }
    let version = plugin.version(number).ok_or(ApiError::NotFound)?;
    let status = if Some(number) == before { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, json(VersionView::of(version))).into_response())
}

/// A turn to upload; who gets none is told to come back.
fn turn(api: &Api) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&api.uploads).try_acquire_owned().map_err(|_| {
        let problem = Problem::new(503, "temporary-reduced-capacity", "Too many uploads at once")
            .of_type(problem::TEMPORARY_REDUCED_CAPACITY)
            .with("retry_after", RETRY_AFTER_S);
        ApiError::Plugin(Box::new(problem))
    })
}
