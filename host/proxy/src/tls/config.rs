//! What the operator decides about TLS: addresses, certificates, who must show one.
//!
//! Plain data of `[edge.tls]`; files are read by [`super::material`]. Invariant: nothing
//! here weakens a default: the oldest version is TLS 1.2 and there is no early data.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::material::Material;

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Addresses that speak TLS: HTTP/2 and HTTP/1.1, as ALPN agrees; port 0 takes a free
    /// one. None by default.
    pub listen: Vec<SocketAddr>,
    /// The certificates; the server name (SNI) of a client chooses among them.
    pub certificate: Vec<CertificateConfig>,
    /// Hosts whose clients have to show a certificate.
    pub client_auth: Vec<ClientAuthConfig>,
    /// The oldest version that is spoken (`1.2`).
    pub min_version: MinVersion,
    /// Milliseconds for a whole handshake (5,000): slow handshakes.
    pub handshake_timeout_ms: u64,
    /// Handshakes at once per worker (256): a flood of them leaves a worker time for the
    /// connections that it has; what is above waits in the backlog.
    pub handshakes_max: usize,
    /// Milliseconds between looks at the files (5,000): a renewed certificate is in force
    /// after so long, without a restart; SIGHUP looks at once.
    pub reload_interval_ms: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            certificate: Vec::new(),
            client_auth: Vec::new(),
            min_version: MinVersion::default(),
            handshake_timeout_ms: 5_000,
            handshakes_max: 256,
            reload_interval_ms: 5_000,
        }
    }
}

/// One certificate with its chain and key. It serves the DNS names that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// PEM: the certificate, then its chain.
    pub chain_file: PathBuf,
    /// PEM: its private key (PKCS #8, PKCS #1 or SEC 1).
    pub key_file: PathBuf,
}

/// Hosts that are served only to clients with a certificate of certain authorities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthConfig {
    /// The hosts, as `name` or `*.name`; each needs a certificate of ours, too.
    pub hosts: Vec<String>,
    /// PEM: the authorities.
    pub ca_file: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MinVersion {
    /// RFC 5246, with forward secrecy and AEAD only.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsConfig {
    /// Whether everything, the files too, could be used by a start. Blocks for reading.
    ///
    /// # Errors
    /// What cannot, in one line that names the key or the file.
    pub fn check(&self) -> Result<(), String> {
        if let Some(flaw) = self.flaw() {
            return Err(flaw);
        }
        if self.listen.is_empty() {
            return Ok(());
        }
        Material::check(self).map_err(|error| error.to_string())
    }

    /// The first value that cannot work, with the reason.
    pub(crate) fn flaw(&self) -> Option<String> {
        if self.listen.is_empty() {
            return None;
        }
        if self.certificate.is_empty() {
            return Some("certificate: an address that speaks TLS needs a certificate".into());
        }
        [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("handshakes_max", self.handshakes_max as u64),
            ("reload_interval_ms", self.reload_interval_ms),
        ]
        .iter()
        .find(|(_, value)| *value == 0)
        .map(|(name, _)| format!("{name} may not be 0"))
    }
}
