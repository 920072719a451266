//! The guide's document of alert settings, read and checked.
//!
//! Invariant: what passes can be told: every address has the shape of one, every URL may be
//! called as far as its text tells, and every warning lies below its critical threshold,
//! inherited or not.

use model::{problem::FieldError, quota::Metric};
use schemars::JsonSchema;
use serde_json::Value;

use crate::{
    api::{
        body::Document,
        fields::{Fields, Ruled},
        problem::ApiError,
        rules,
    },
    notify::{AllowedNetworks, WebhookUrl},
    store::{AlertRule, AlertSettings, Channel, Threshold},
};

/// Recipients of a rule: a team, not a list to mail to.
const RECIPIENTS_MAX: usize = 20;

/// What a tenant wants to be told; replaces what was put before.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `settings` reads")]
pub(in crate::api) struct AlertsBody {
    quota_alerts: QuotaAlertsBody,
    /// What a metric does not say itself. Changes of plan and status are told to the
    /// channels named here.
    defaults: Option<AlertRuleBody>,
}

/// The metrics that are watched.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `settings` reads")]
pub(super) struct QuotaAlertsBody {
    api_calls: Option<AlertRuleBody>,
    storage: Option<AlertRuleBody>,
    users: Option<AlertRuleBody>,
    projects: Option<AlertRuleBody>,
    ai_requests: Option<AlertRuleBody>,
    concurrent_sessions: Option<AlertRuleBody>,
}

/// When something is told, and to whom.
#[derive(JsonSchema)]
#[schemars(rename = "AlertRule")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `rule` reads")]
pub(super) struct AlertRuleBody {
    /// Percent of the quota, at most two decimals; 80 unless given here or in defaults.
    #[schemars(range(min = 0.01, max = 100))]
    warning_threshold: Option<f64>,
    /// Percent of the quota, above the warning; 95 unless given here or in defaults.
    #[schemars(range(min = 0.01, max = 100))]
    critical_threshold: Option<f64>,
    /// `["email"]` unless given here or in defaults; an empty list records events only.
    notification_channels: Option<Vec<ChannelName>>,
    /// Where mail goes; to the tenant's `admin_email` unless given here or in defaults.
    #[schemars(length(min = 1, max = 20))]
    recipients: Option<Vec<String>>,
    /// Where webhooks go: `https://`.
    webhook_url: Option<String>,
    /// Must be false: nothing is declared ephemeral in this release.
    auto_cleanup_enabled: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "documents the names of store::Channel")]
enum ChannelName {
    Email,
    Webhook,
}

pub(super) fn settings(
    document: Document,
    allowed: &AllowedNetworks,
) -> Result<AlertSettings, ApiError> {
    let mut fields = Fields::new(document.members);
    if !fields.has("quota_alerts") {
        fields.reject("quota_alerts", "is required; {} ends all alerts");
    }
    let quota_alerts = nested(&mut fields, "quota_alerts", |metrics| {
        let of = |metric: &Metric| {
            let rule = nested(metrics, metric.as_str(), |fields| rule(fields, allowed))?;
            Some((*metric, rule))
        };
        Metric::ALL.iter().filter_map(of).collect()
    });
    let defaults = nested(&mut fields, "defaults", |fields| rule(fields, allowed));
    fields.finish()?;
    let settings = AlertSettings { quota_alerts: quota_alerts.unwrap_or_default(), defaults };
    in_order(&settings)?;
    Ok(settings)
}

/// Reads an object within an object; its faults are named by their path.
fn nested<T>(fields: &mut Fields, name: &str, read: impl FnOnce(&mut Fields) -> T) -> Option<T> {
    let members = match fields.take(name)? {
        Value::Null => return None,
        Value::Object(members) => members,
        _ => {
            fields.reject(name, "must be an object");
            return None;
        }
    };
    let mut inner = Fields::new(members);
    let value = read(&mut inner);
    if let ApiError::Invalid(faults) = inner.refuse() {
        for fault in faults {
            fields.reject(format!("{name}.{}", fault.field), fault.detail);
        }
    }
    Some(value)
}

fn rule(fields: &mut Fields, allowed: &AllowedNetworks) -> AlertRule {
    let warning_threshold = fields.optional("warning_threshold", threshold);
    let critical_threshold = fields.optional("critical_threshold", threshold);
    let notification_channels = list(fields, "notification_channels", channel);
    let recipients = list(fields, "recipients", rules::email);
    if recipients.as_ref().is_some_and(Vec::is_empty) {
        fields.reject("recipients", "must name somebody; leave it out to inherit");
    }
    let webhook_url = fields.optional("webhook_url", |value| {
        let url = WebhookUrl::parse(rules::text(value)?, allowed);
        url.map(|url| url.as_str().to_owned()).map_err(|error| error.to_string())
    });
    let auto_cleanup_enabled = fields.optional("auto_cleanup_enabled", cleanup);
    AlertRule {
        warning_threshold,
        critical_threshold,
        notification_channels,
        recipients,
        webhook_url,
        auto_cleanup_enabled,
    }
}

/// A list that is inherited when it is absent or `null`.
fn list<T>(fields: &mut Fields, name: &str, rule: fn(&Value) -> Ruled<T>) -> Option<Vec<T>> {
    if !fields.has(name) {
        fields.take(name);
        return None;
    }
    fields.items(name, RECIPIENTS_MAX, rule)
}

fn threshold(value: &Value) -> Ruled<Threshold> {
    let percent = value.as_f64().ok_or_else(|| "must be a number".to_owned())?;
    Threshold::try_from(percent).map_err(|error| error.to_string())
}

fn channel(value: &Value) -> Ruled<Channel> {
    Channel::from_name(rules::text(value)?)
        .ok_or_else(|| format!("must be one of: {}", Channel::ALL.map(Channel::as_str).join(", ")))
}

fn cleanup(value: &Value) -> Ruled<bool> {
    match value {
        Value::Bool(false) => Ok(false),
        Value::Bool(true) => Err("must be false: a clean-up deletes only what a tenant has \
            declared ephemeral, and nothing can be declared so in this release"
            .to_owned()),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Refuses a warning that is not below its critical threshold.
fn in_order(settings: &AlertSettings) -> Result<(), ApiError> {
    let fault = |metric: &Metric| {
        let [warning, critical] = settings.thresholds(*metric)?;
        (warning >= critical).then(|| FieldError {
            field: format!("quota_alerts.{}.warning_threshold", metric.as_str()),
            detail: format!(
                "must be below critical_threshold: it is {warning}, that is {critical}"
            ),
        })
    };
    let faults: Vec<_> = settings.quota_alerts.keys().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(ApiError::Invalid(faults)) }
}
