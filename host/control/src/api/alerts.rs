//! `/tenants/{tenant_id}/alerts`: what a tenant wants to be told, and what it was told.
//!
//! A tenant without settings is told nothing: mail that nobody asked for is a nuisance.
//! Invariant: a secret is in the one answer that made it, and in no other.

mod events;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use model::{clock::UnixMs, quota::Metric};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) use self::{
    events::{EventsQuery, EventsView, list},
    read::AlertsBody,
};
use super::{
    Api,
    body::{Document, MaybeDocument},
    caller::Caller,
    fields::Fields,
    json,
    path::TenantPath,
    problem::ApiError,
    tenants::{patch::expected_version, view::etag},
};
use crate::store::{AlertRule, StoredAlerts};

/// Alert settings as stored, and the state of what they use.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Alerts")]
pub(super) struct AlertsView {
    #[schemars(with = "read::QuotaAlertsBody")]
    quota_alerts: BTreeMap<Metric, AlertRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<read::AlertRuleBody>")]
    defaults: Option<AlertRule>,
    /// The secrets that webhooks are signed with, newest first.
    webhook_secrets: Vec<WebhookSecretView>,
    /// Endpoints that answered 410 Gone: nothing is sent there until the settings are put
    /// again.
    disabled_webhooks: Vec<DisabledWebhookView>,
    /// What is likely not meant so.
    warnings: Vec<String>,
    /// The first webhook's secret: only in the answer to the PUT that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
}

/// A live secret, without its text.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WebhookSecret")]
struct WebhookSecretView {
    created_at: String,
    /// When it ceases to sign; `null` for the newest.
    expires_at: Option<String>,
}

/// An endpoint that wants nothing any more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DisabledWebhook")]
struct DisabledWebhookView {
    url: String,
    since: String,
}

/// How a secret is rotated: there is nothing to choose.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookSecretRotation {}

/// A new secret: the only answer that holds its text.
#[derive(Serialize, JsonSchema)]
pub(super) struct NewWebhookSecret {
    /// `whsec_` and 32 bytes in base64, as the Standard Webhooks libraries take it.
    webhook_secret: String,
    created_at: String,
    /// Until when deliveries are signed by the one before too.
    previous_expires_at: Option<String>,
}

impl AlertsView {
    fn new(stored: StoredAlerts, webhook_secret: Option<String>) -> Self {
        let warning = |metric: Metric| {
            format!(
                "quota_alerts.{}: the channel webhook has no webhook_url, so nothing is sent by \
                 it: set it here or in defaults",
                metric.as_str()
            )
        };
        let warnings = stored.settings.without_url().into_iter().map(warning).collect();
        let secret = |secret: crate::store::SecretRecord| WebhookSecretView {
            created_at: secret.created_at.rfc3339(),
            expires_at: secret.expires_at.map(UnixMs::rfc3339),
        };
        let gone =
            |(url, since): (String, UnixMs)| DisabledWebhookView { url, since: since.rfc3339() };
        Self {
            quota_alerts: stored.settings.quota_alerts,
            defaults: stored.settings.defaults,
            webhook_secrets: stored.secrets.into_iter().map(secret).collect(),
            disabled_webhooks: stored.gone.into_iter().map(gone).collect(),
            warnings,
            webhook_secret,
        }
    }
}

pub(super) async fn read(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
) -> Result<Response, ApiError> {
    let stored = api.store.alerts(tenant).await?;
    Ok((etag(stored.version), json(AlertsView::new(stored, None))).into_response())
}

pub(super) async fn put(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let settings = read::settings(document, &api.notify.webhook_allow_networks)?;
    let version = expected_version(&headers)?;
    let put = api.store.put_alerts(caller.actor(), tenant, settings, version).await?;
    let secret = put.secret.map(|secret| secret.expose().to_owned());
    let tag = etag(put.stored.version);
    Ok((tag, json(AlertsView::new(put.stored, secret))).into_response())
}

pub(super) async fn rotate_secret(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    Fields::new(document.map(|document| document.members).unwrap_or_default()).finish()?;
    let made = api.store.rotate_webhook_secret(caller.actor(), tenant).await?;
    let answer = json(NewWebhookSecret {
        webhook_secret: made.text.expose().to_owned(),
        created_at: made.created_at.rfc3339(),
        previous_expires_at: made.previous_expires_at.map(UnixMs::rfc3339),
    });
    Ok((StatusCode::CREATED, answer).into_response())
}
