//! Mail by SMTP: one message to one recipient.
//!
//! Every recipient has a delivery of its own, so that a bad address keeps nobody else from
//! being told. Invariant: the same event to the same recipient is the same message, byte
//! for byte, whenever it is sent: `Message-ID` and `Date` are the event's.

use std::time::{Duration, UNIX_EPOCH};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp,
};
use model::clock::UnixMs;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Failure, Notice, SmtpConfig, cause};

/// How long a whole SMTP dialogue may take, in ms: some slow commands.
const TIMEOUT_MS: u64 = 30_000;
/// Replies about the login (RFC 4954), which is not the recipient's fault.
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

/// One mail.
#[derive(Clone, Debug)]
pub(crate) struct Mail<'a> {
    pub(crate) event: Uuid,
    pub(crate) occurred_at: UnixMs,
    pub(crate) to: &'a str,
    pub(crate) notice: Notice,
}

/// Sends mail, if there is a server for it.
#[derive(Clone, Debug)]
pub(crate) struct Mailer(Option<Server>);

#[derive(Clone, Debug)]
struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    pub(crate) fn new(config: Option<&SmtpConfig>) -> Self {
        let server = |config: &SmtpConfig| Server {
            transport: config.transport(),
            from: config.from().clone(),
        };
        Self(config.map(server))
    }

    /// Sends a mail; done when the server has taken it.
    pub(crate) async fn send(&self, mail: Mail<'_>) -> Result<(), Failure> {
        let server = self.0.as_ref().ok_or_else(|| {
            Failure::lasting("no SMTP server is configured: set control.smtp.url")
        })?;
        let message = server.message(mail)?;
        let sending = server.transport.send(message);
        match tokio::time::timeout(Duration::from_millis(TIMEOUT_MS), sending).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Failure::again("the mail server did not answer in time")),
        }
    }
}

impl Server {
    fn message(&self, mail: Mail<'_>) -> Result<Message, Failure> {
        let to: Address = mail.to.parse().map_err(|_| {
            Failure::lasting("the recipient is no address that mail can be sent to")
        })?;
        let id = message_id(mail.event, mail.to, self.from.email.domain());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.notice.subject)
            .date(UNIX_EPOCH + Duration::from_millis(mail.occurred_at.0))
            .message_id(Some(id))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.notice.text)
            .map_err(|error| Failure::lasting(format!("the mail cannot be written: {error}")))
    }
}

/// Tells a redelivery from a new event, and the copies of two recipients apart.
fn message_id(event: Uuid, to: &str, domain: &str) -> String {
    let digest = Sha256::digest(to.as_bytes());
    let recipient: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("<{event}.{recipient}@{domain}>")
}

/// What a failed dialogue means. What the server said is told; where it stands is the
/// operator's affair.
fn refused(error: &smtp::Error) -> Failure {
    let said = cause(error);
    let code = error.status().map(u16::from).unwrap_or_default();
    if LOGIN_REFUSED.contains(&code) {
        tracing::warn!(error = %said, "the mail server does not accept the login");
        return Failure::again("the mail server does not accept this installation's login");
    }
    if error.is_permanent() {
        return Failure::lasting(format!("the mail server refused: {said}"));
    }
    if error.is_transient() {
        return Failure::again(format!("the mail server refused for now: {said}"));
    }
    tracing::warn!(error = %said, "the mail server cannot be used");
    Failure::again("the mail server cannot be reached")
}

/// Keeps auto-responders from answering (RFC 3834).
#[derive(Clone, Copy, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests;
