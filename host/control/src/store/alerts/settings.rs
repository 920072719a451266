//! What a tenant wants to be told: per metric two thresholds and where to.
//!
//! Read and written as the product guide's document, kept as such. Invariant: a document
//! that came through the API has, for every metric, a warning below its critical threshold,
//! whatever it inherits.

use std::{collections::BTreeMap, fmt};

use model::quota::Metric;
use serde::{Deserialize, Serialize};

/// Basis points of a whole.
const WHOLE: u32 = 10_000;
/// How far a level must fall below a threshold to be alerted about again, in basis points:
/// 5 points of the quota, so that one file more or less is no new alert.
const HYSTERESIS: u32 = 500;

/// A share of a quota: over 0 and up to 100 percent, in steps of 0.01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Threshold(u32);

/// Why a number is no [`Threshold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a percentage over 0 and up to 100, with at most two decimals")]
pub struct ThresholdError;

impl Threshold {
    /// Of a metric that names no warning threshold, and inherits none: 80 %.
    pub const WARNING: Self = Self(8_000);
    /// Of a metric that names no critical threshold, and inherits none: 95 %.
    pub const CRITICAL: Self = Self(9_500);

    /// Whether `used` of `limit` reaches it, inclusively. A quota of 0 is reached by
    /// whatever is used.
    #[must_use]
    pub fn is_reached(self, used: u64, limit: u64) -> bool {
        used > 0 && u128::from(used) * u128::from(WHOLE) >= u128::from(limit) * u128::from(self.0)
    }

    /// Whether `used` of `limit` is so far below it that reaching it again is news: by 5
    /// points, or by half of a threshold below 10 %.
    #[must_use]
    pub fn is_left(self, used: u64, limit: u64) -> bool {
        let line = self.0 - HYSTERESIS.min(self.0 / 2);
        used == 0 || u128::from(used) * u128::from(WHOLE) < u128::from(limit) * u128::from(line)
    }

    /// As a JSON number: whole where it is whole.
    #[must_use]
    pub fn percent(self) -> serde_json::Number {
        let exact = serde_json::Number::from_f64(f64::from(self.0) / 100.0);
        let whole = self.0.is_multiple_of(100).then(|| serde_json::Number::from(self.0 / 100));
        whole.or(exact).unwrap_or_else(|| serde_json::Number::from(self.0 / 100))
    }
}

impl TryFrom<f64> for Threshold {
    type Error = ThresholdError;

    fn try_from(percent: f64) -> Result<Self, ThresholdError> {
        let points = (percent * 100.0).round();
        // What a decimal of two places misses as a binary fraction is far less.
        let exact = (percent * 100.0 - points).abs() < 1e-6;
        if exact && (1.0..=f64::from(WHOLE)).contains(&points) {
            Ok(Self(points as u32))
        } else {
            Err(ThresholdError)
        }
    }
}

impl From<Threshold> for f64 {
    fn from(threshold: Threshold) -> Self {
        Self::from(threshold.0) / 100.0
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percent().fmt(f)
    }
}

/// Which of the two thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The lower one.
    Warning,
    /// The upper one.
    Critical,
}

impl Severity {
    /// Both, the lower one first.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The stable name used in keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A way to tell a tenant something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Mail to recipients.
    Email,
    /// A signed POST to a URL.
    Webhook,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Email, Self::Webhook];

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Webhook => "webhook",
        }
    }

    /// The channel of a name made by [`Channel::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == name)
    }
}

/// What one metric says, or the defaults; what is absent is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertRule {
    /// Percent of the quota at which `quota.warning` is told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_percent")]
    pub warning_threshold: Option<Threshold>,
    /// Percent of the quota at which `quota.critical` is told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_percent")]
    pub critical_threshold: Option<Threshold>,
    /// Ways to tell it; an empty list records events and tells nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_channels: Option<Vec<Channel>>,
    /// Where mail goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Vec<String>>,
    /// Where webhooks go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// The guide's member; only `false` can be stored so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_cleanup_enabled: Option<bool>,
}

fn as_percent<S: serde::Serializer>(
    threshold: &Option<Threshold>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    threshold.map(Threshold::percent).serialize(serializer)
}

/// The guide's document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertSettings {
    /// The metrics that are watched.
    pub quota_alerts: BTreeMap<Metric, AlertRule>,
    /// What they inherit. Events of the tenant itself go to the channels named here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<AlertRule>,
}

/// Somebody who is told of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Target {
    pub(in crate::store) channel: Channel,
    /// An address or a URL; `None` where the settings name the channel and nothing else.
    pub(in crate::store) address: Option<String>,
}

impl AlertSettings {
    /// Both thresholds of a metric, in the order of [`Severity::ALL`]; `None` for one that
    /// is not watched.
    #[must_use]
    pub fn thresholds(&self, metric: Metric) -> Option<[Threshold; 2]> {
        let rule = self.quota_alerts.get(&metric)?;
        let inherited = |of: fn(&AlertRule) -> Option<Threshold>, otherwise| {
            of(rule).or_else(|| self.defaults.as_ref().and_then(of)).unwrap_or(otherwise)
        };
        Some([
            inherited(|rule| rule.warning_threshold, Threshold::WARNING),
            inherited(|rule| rule.critical_threshold, Threshold::CRITICAL),
        ])
    }

    /// Whether anything is to be told by webhook, for which a secret is needed.
    #[must_use]
    pub fn uses_webhooks(&self) -> bool {
        let mut rules = self.quota_alerts.values().chain(&self.defaults);
        rules.any(|rule| {
            let named = rule.notification_channels.iter().flatten();
            rule.webhook_url.is_some() || named.into_iter().any(|way| *way == Channel::Webhook)
        })
    }

    /// Metrics that name the webhook channel, or inherit it, and have no URL for it.
    #[must_use]
    pub fn without_url(&self) -> Vec<Metric> {
        let lost = |rule: &AlertRule| {
            let targets = self.targets(rule, "");
            targets
                .into_iter()
                .any(|target| target.channel == Channel::Webhook && target.address.is_none())
        };
        let rules = self.quota_alerts.iter();
        rules.filter(|(_, rule)| lost(rule)).map(|(metric, _)| *metric).collect()
    }

    /// Who is told about a metric; nobody, when it is not watched.
    pub(in crate::store) fn targets_of(&self, metric: Metric, admin_email: &str) -> Vec<Target> {
        let rule = self.quota_alerts.get(&metric);
        rule.map(|rule| self.targets(rule, admin_email)).unwrap_or_default()
    }

    /// Who is told about the tenant itself: whom the defaults name.
    pub(in crate::store) fn targets_of_tenant(&self, admin_email: &str) -> Vec<Target> {
        let named = self.defaults.as_ref().filter(|rule| rule.notification_channels.is_some());
        named.map(|rule| self.targets(rule, admin_email)).unwrap_or_default()
    }

    fn targets(&self, rule: &AlertRule, admin_email: &str) -> Vec<Target> {
        let defaults = self.defaults.as_ref();
        let channels = rule
            .notification_channels
            .as_ref()
            .or_else(|| defaults?.notification_channels.as_ref());
        let channels = channels.map_or(&[Channel::Email][..], Vec::as_slice);
        let recipients =
            rule.recipients.as_ref().or_else(|| defaults?.recipients.as_ref()).cloned();
        let url = rule.webhook_url.as_ref().or_else(|| defaults?.webhook_url.as_ref());
        let mut targets: Vec<_> = channels
            .iter()
            .flat_map(|channel| {
                match channel {
                    Channel::Email => {
                        let to = recipients.clone().unwrap_or_else(|| vec![admin_email.to_owned()]);
                        to.into_iter().map(Some).collect()
                    }
                    Channel::Webhook => vec![url.cloned()],
                }
                .into_iter()
                .map(|address| Target { channel: *channel, address })
            })
            .collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

#[cfg(test)]
mod tests;
