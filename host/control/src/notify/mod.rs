//! The channels by which tenants are told things: webhooks and mail.
//!
//! Called by the delivery job only, never by a request: a channel waits for foreign
//! machines. To add a channel, give it a file here and a member in
//! [`crate::store::Channel`]. Invariant: a channel sends what it is given, once, and says
//! what became of it in words that a tenant may read; trying again is the outbox's.

mod address;
mod config;
mod email;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod webhook;

pub use self::{
    address::AllowedNetworks,
    config::{NotifyConfig, SmtpConfig, SmtpConfigError},
    webhook::{WebhookUrl, WebhookUrlError, guarded, is_closed},
};
pub(crate) use self::{
    email::{Mail, Mailer},
    text::Notice,
    webhook::{Call, SECRET_PREFIX, Webhooks},
};

/// Every channel, under one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    pub(crate) webhooks: Webhooks,
    pub(crate) mailer: Mailer,
}

impl Channels {
    pub(crate) fn new(config: &NotifyConfig) -> Self {
        Self {
            webhooks: Webhooks::new(config.webhook_allow_networks.clone()),
            mailer: Mailer::new(config.smtp.as_ref()),
        }
    }
}

/// Longest reason that is kept and shown, in characters: a line of a log.
const REASON_CHARS_MAX: usize = 300;

/// Why something was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For the tenant: one line, without anything of the machinery behind it.
    pub(crate) reason: String,
    pub(crate) remedy: Remedy,
}

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Trying again later may help.
    Again,
    /// Only a change of the settings helps.
    None,
    /// The receiver wants nothing at this address any more (410).
    Stop,
}

impl Failure {
    fn again(reason: impl AsRef<str>) -> Self {
        Self { reason: one_line(reason.as_ref()), remedy: Remedy::Again }
    }

    fn lasting(reason: impl AsRef<str>) -> Self {
        Self { reason: one_line(reason.as_ref()), remedy: Remedy::None }
    }

    fn stop(reason: impl AsRef<str>) -> Self {
        Self { reason: one_line(reason.as_ref()), remedy: Remedy::Stop }
    }
}

/// Text of a foreign machine as one short line.
fn one_line(text: &str) -> String {
    let flat: String =
        text.chars().map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    let words: Vec<_> = flat.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(REASON_CHARS_MAX).collect()
}

/// The innermost cause of an error: the others only say that something inside failed.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
