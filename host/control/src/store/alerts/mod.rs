//! Alerts: what a tenant wants to be told, and the thresholds it has reached.
//!
//! Settings are the API's; [`evaluate`] is a job's. An event of a threshold goes into the
//! outbox, which knows who is told and how that goes. Invariant: one event per tenant,
//! metric, window, threshold and limit version, however many processes evaluate and
//! whichever of them dies.

mod evaluate;
mod pooled;
mod put;
mod secrets;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod usage;
mod watch;

pub use self::{
    evaluate::Evaluated,
    put::{AlertsPut, StoredAlerts},
    secrets::{NewSecret, SECRET_GRACE_MS, SecretRecord},
    settings::{AlertRule, AlertSettings, Channel, Severity, Threshold, ThresholdError},
};
pub(super) use self::{
    secrets::{live as live_secrets, place as secret_place},
    settings::Target,
};

use super::StoreError;

/// Settings as stored.
pub(super) fn parsed(document: &str) -> Result<AlertSettings, StoreError> {
    serde_json::from_str(document)
        .map_err(|error| StoreError::Decode(format!("alert settings: {error}")))
}
