//! What the operator says about notices: `[control.smtp]` and the networks of webhooks.
//!
//! Invariant: the password of the mail server is in no `Debug` and in no error.

use control::notify::{AllowedNetworks, NotifyConfig, SmtpConfig, SmtpConfigError};
use serde::Deserialize;

use super::ControlSection;

/// `[control.smtp]`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpSection {
    /// `smtp://[USER:PASSWORD@]HOST[:PORT]` or `smtps://…`; without one, mail fails and says
    /// so.
    pub url: Option<String>,
    /// The sender of notices.
    pub from: Option<String>,
}

/// The URL may hold a password.
impl std::fmt::Debug for SmtpSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.as_ref().map(|_| "[redacted]");
        f.debug_struct("SmtpSection").field("url", &url).field("from", &self.from).finish()
    }
}

impl ControlSection {
    /// Where notices may go, and through what.
    ///
    /// # Errors
    /// The key that is wrong or missing, and why.
    pub fn notify(&self) -> Result<NotifyConfig, (&'static str, String)> {
        let smtp = match (&self.smtp.url, &self.smtp.from) {
            (None, None) => None,
            (None, Some(_)) => return Err(("control.smtp.url", "goes with a sender".to_owned())),
            (Some(_), None) => {
                return Err(("control.smtp.from", "is required with a server".to_owned()));
            }
            (Some(url), Some(from)) => {
                let key = |error: &SmtpConfigError| match error {
                    SmtpConfigError::Url => "control.smtp.url",
                    SmtpConfigError::From => "control.smtp.from",
                };
                let server = SmtpConfig::new(url, from);
                Some(server.map_err(|error| (key(&error), error.to_string()))?)
            }
        };
        let webhook_allow_networks = AllowedNetworks::new(self.webhook_allow_networks.clone());
        Ok(NotifyConfig { smtp, webhook_allow_networks })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    #[test]
    fn a_mail_server_has_a_url_and_a_sender() {
        let smtp = |lines: &str| load(&format!("[control.smtp]\n{lines}"), &[]);
        let (url, from) = ("url = \"smtp://u:hunter2@h:587\"", "from = \"a@b.example\"");
        let config = smtp(&format!("{url}\n{from}")).expect("a config");
        assert!(config.control.notify().expect("channels").smtp.is_some());
        assert!(!format!("{config:?}").contains("hunter2"));
        for (lines, key) in [
            (url.to_owned(), "control.smtp.from"),
            (from.to_owned(), "control.smtp.url"),
            (format!("url = \"http://u:hunter2@h\"\n{from}"), "control.smtp.url"),
            (format!("{url}\nfrom = \"nobody\""), "control.smtp.from"),
        ] {
            let refused = smtp(&lines).expect_err(key).to_string();
            assert!(refused.contains(&format!(": {key}: ")), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
