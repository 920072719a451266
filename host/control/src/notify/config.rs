//! What the operator says about the channels: a mail server, and networks for webhooks.
//!
//! Read once at start by whoever starts the delivery job. Invariant: a password is in no
//! error and in no `Debug`.

use std::{fmt, net::IpAddr, time::Duration};

use lettre::{
    AsyncSmtpTransport, Tokio1Executor, message::Mailbox,
    transport::smtp::AsyncSmtpTransportBuilder,
};
use reqwest::Url;

use super::AllowedNetworks;

/// How long one command of an SMTP dialogue may take, in ms: servers that check mail while
/// they take it need some seconds.
const SMTP_TIMEOUT_MS: u64 = 15_000;

/// Where notices may go, and through what.
#[derive(Clone, Debug, Default)]
pub struct NotifyConfig {
    /// The mail server; without one mail fails, and says so.
    pub smtp: Option<SmtpConfig>,
    /// Networks that webhooks may reach beside the public ones.
    pub webhook_allow_networks: AllowedNetworks,
}

/// A mail server and the address that mail comes from.
#[derive(Clone)]
pub struct SmtpConfig {
    server: AsyncSmtpTransportBuilder,
    from: Mailbox,
}

/// Why there is no [`SmtpConfig`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmtpConfigError {
    /// The URL is none that names a mail server; it is not repeated, as it may hold a
    /// password.
    #[error("must be smtp://[USER:PASSWORD@]HOST[:PORT][?tls=required|opportunistic] or smtps://…")]
    Url,
    /// The sender is no address.
    #[error("must be an address like \"LeanVibe <alerts@example.com>\"")]
    From,
}

impl SmtpConfig {
    /// A server by its URL. `smtps://` is TLS from the start. `smtp://` upgrades by
    /// STARTTLS: it must, when the URL has a user and the host is not on loopback; else it
    /// does where the server offers it. `?tls=` says otherwise.
    ///
    /// # Errors
    /// The URL or the sender is malformed.
    pub fn new(url: &str, from: &str) -> Result<Self, SmtpConfigError> {
        let mut url = Url::parse(url).map_err(|_| SmtpConfigError::Url)?;
        if !matches!(url.scheme(), "smtp" | "smtps") {
            return Err(SmtpConfigError::Url);
        }
        if url.scheme() == "smtp" && url.query().is_none() {
            let exposed = !url.username().is_empty() && !is_loopback(&url);
            url.set_query(Some(if exposed { "tls=required" } else { "tls=opportunistic" }));
        }
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str())
            .map_err(|_| SmtpConfigError::Url)?
            .timeout(Some(Duration::from_millis(SMTP_TIMEOUT_MS)));
        let from = from.parse().map_err(|_| SmtpConfigError::From)?;
        Ok(Self { server, from })
    }

    pub(super) fn transport(&self) -> AsyncSmtpTransport<Tokio1Executor> {
        self.server.clone().build()
    }

    pub(super) fn from(&self) -> &Mailbox {
        &self.from
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpConfig").field("from", &self.from).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "LeanVibe <alerts@example.com>";

    #[test]
    fn servers_are_named_by_url() {
        for url in [
            "smtp://localhost",
            "smtp://127.0.0.1:2525",
            "smtp://user:p%40ss@mail.example:587",
            "smtp://mail.example?tls=opportunistic",
            "smtps://user:pass@mail.example",
        ] {
            SmtpConfig::new(url, FROM).expect(url);
        }
        for url in ["", "mail.example:25", "http://mail.example", "smtp://", "smtp://h?tls=maybe"] {
            assert_eq!(SmtpConfig::new(url, FROM).expect_err(url), SmtpConfigError::Url, "{url}");
        }
        for from in ["", "alerts", "a@b\r\nBcc: c@d"] {
            let refused = SmtpConfig::new("smtp://localhost", from).expect_err(from);
            assert_eq!(refused, SmtpConfigError::From);
        }
    }

    #[test]
    fn a_password_goes_out_in_the_clear_on_loopback_only() {
        let shown = |url| format!("{:?}", SmtpConfig::new(url, FROM).expect("a server").server);
        assert!(shown("smtp://u:p@mail.example:25").contains("Required"));
        assert!(shown("smtp://u:p@127.0.0.1:25").contains("Opportunistic"));
        assert!(shown("smtp://u:p@[::1]:25").contains("Opportunistic"));
        assert!(shown("smtp://mail.example:25").contains("Opportunistic"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = SmtpConfig::new("smtp://user:hunter2@localhost", FROM).expect("a server");
        assert!(!format!("{config:?}").contains("hunter2"));
        let refused = SmtpConfig::new("smtq://user:hunter2@localhost", FROM).expect_err("a URL");
        assert!(!refused.to_string().contains("hunter2"));
    }
}
