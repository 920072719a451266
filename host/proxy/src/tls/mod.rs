//! TLS towards clients: which certificate, which client has to show one, how long.
//!
//! Used by step 1 between accept and the protocol, and by step 3, which refuses a request
//! for a host that its connection was not opened for. One per proxy, shared by the workers,
//! so that a ticket of one is good at the others. Invariant: a client that names no host
//! of ours gets no certificate, and a host that asks for client certificates is served on
//! no other connection than one opened for it.

mod accept;
mod config;
mod material;
mod meters;
mod names;
mod reload;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{crypto::aws_lc_rs, server::ProducesTickets};

use self::material::Material;
pub(crate) use self::{
    accept::{Handshakes, accept},
    meters::Meters,
    reload::{Reload, Stamps, spawn},
};
pub use self::{
    config::{CertificateConfig, ClientAuthConfig, MinVersion, TlsConfig},
    material::MaterialError,
};

/// TLS of one proxy.
pub(crate) struct Tls {
    config: TlsConfig,
    tickets: Arc<dyn ProducesTickets>,
    material: ArcSwap<Material>,
    pub(crate) meters: Meters,
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file that cannot be used; no randomness for the keys of tickets.
    pub(crate) fn load(config: TlsConfig, meters: Meters) -> Result<Arc<Self>, LoadError> {
        // Rotates its keys every six hours and takes those of the rotation before.
        let tickets = aws_lc_rs::Ticketer::new().map_err(LoadError::Tickets)?;
        let material = Material::read(&config, &tickets)?;
        meters.in_force(&material.shown);
        Ok(Arc::new(Self { config, tickets, material: ArcSwap::from_pointee(material), meters }))
    }

    /// Whether clients of a host have to show a certificate.
    pub(crate) fn is_guarded(&self, host: &str) -> bool {
        self.material.load().is_guarded(host)
    }

    fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.config.handshake_timeout_ms)
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Keys of tickets.
    #[error("no keys for session tickets: {0}")]
    Tickets(rustls::Error),
}
