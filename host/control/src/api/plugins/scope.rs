//! Which plugin a path names, whoever's it is. Invariant: a name that cannot be one, and a
//! tenant or plan that is not there, are answered like an unknown plugin: 404.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use model::plugin::{PluginName, PluginScope, PluginTerms};

use super::terms_of;
use crate::{
    api::{Api, caller::TENANT_PARAMETER, problem::ApiError},
    store::{StoredPlugin, StoredVersion},
};

/// Hex digits that name a version at least.
const DIGITS_MIN: usize = 12;

/// The scope of the path, and what it may upload.
pub(super) struct OfScope(pub(super) PluginScope, pub(super) PluginTerms);

/// A plugin of the path; not yet looked up.
pub(super) struct OfPlugin {
    pub(super) scope: PluginScope,
    pub(super) terms: PluginTerms,
    pub(super) name: PluginName,
}

/// A version of the path; not yet looked up.
pub(super) struct OfVersion {
    plugin: OfPlugin,
    version: String,
}

impl OfPlugin {
    pub(super) async fn find(&self, api: &Api) -> Result<StoredPlugin, ApiError> {
        api.store.plugin(&self.scope, &self.name).await?.ok_or(ApiError::NotFound)
    }
}

impl OfVersion {
    pub(super) async fn find(&self, api: &Api) -> Result<(StoredPlugin, StoredVersion), ApiError> {
        let plugin = self.plugin.find(api).await?;
        let version = named(&plugin, &self.version).cloned().ok_or(ApiError::NotFound)?;
        Ok((plugin, version))
    }
}

/// The version of a number, or of the first digits of its digest; the newest where several
/// have the same component.
pub(super) fn named<'a>(plugin: &'a StoredPlugin, text: &str) -> Option<&'a StoredVersion> {
    let by_digest = || {
        let digits = text.len() >= DIGITS_MIN;
        let mut versions = plugin.versions.iter().filter(move |_| digits);
        versions.find(|version| version.component.to_string().starts_with(text))
    };
    let by_number = text.parse().ok().and_then(|number| plugin.version(number));
    by_number.or_else(by_digest)
}

impl FromRequestParts<Api> for OfScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let tenant = param(parts, api, TENANT_PARAMETER).await?;
        let scope = match (tenant, param(parts, api, "plan").await?) {
            (Some(tenant), _) => {
                PluginScope::Tenant(tenant.parse().map_err(|_| ApiError::NotFound)?)
            }
            (None, Some(plan)) => PluginScope::Plan(plan.into()),
            (None, None) => PluginScope::Platform,
        };
        let terms = terms_of(api, &scope)?;
        Ok(Self(scope, terms))
    }
}

impl FromRequestParts<Api> for OfPlugin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let OfScope(scope, terms) = OfScope::from_request_parts(parts, api).await?;
        let name = param(parts, api, "plugin").await?.ok_or(ApiError::NotFound)?;
        let name = name.parse().map_err(|_| ApiError::NotFound)?;
        Ok(Self { scope, terms, name })
    }
}

impl FromRequestParts<Api> for OfVersion {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let plugin = OfPlugin::from_request_parts(parts, api).await?;
        let version = param(parts, api, "version").await?.ok_or(ApiError::NotFound)?;
        Ok(Self { plugin, version })
    }
}

async fn param(parts: &mut Parts, api: &Api, name: &str) -> Result<Option<String>, ApiError> {
    let params =
        RawPathParams::from_request_parts(parts, api).await.map_err(|_| ApiError::NotFound)?;
    let found = params.iter().find(|(param, _)| *param == name);
    Ok(found.map(|(_, value)| value.to_owned()))
}
