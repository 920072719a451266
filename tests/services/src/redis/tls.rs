//! Certificates of a test's own authority.
//!
//! One authority per test process. Invariant: its key never leaves the process.

use std::{path::Path, sync::OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A server certificate for loopback and what signed it, as PEM.
pub(super) struct Tls {
    ca: String,
    certificate: String,
    key: String,
}

impl Tls {
    /// The certificate of this test process.
    pub(super) fn of_process() -> &'static Self {
        static SHARED: OnceLock<Tls> = OnceLock::new();
        SHARED.get_or_init(|| Self::issue().expect("a certificate"))
    }

    fn issue() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's own authority");
        let ca_key = KeyPair::generate()?;
        let ca = params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?.pem();
        Ok(Self { ca, certificate, key: key.serialize_pem() })
    }

    /// PEM of the authority.
    pub(super) fn ca(&self) -> &str {
        &self.ca
    }

    /// Writes the three files that [`Self::config`] names.
    pub(super) fn write(&self, folder: &Path) {
        let files =
            [("ca.pem", &self.ca), ("server.pem", &self.certificate), ("server.key", &self.key)];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a file");
        }
    }

    /// Lines of the config; the server runs in the folder of the files.
    pub(super) fn config(port: u16) -> [String; 8] {
        [
            "port 0".to_owned(),
            format!("tls-port {port}"),
            "tls-cert-file server.pem".to_owned(),
            "tls-key-file server.key".to_owned(),
            "tls-ca-cert-file ca.pem".to_owned(),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
            "tls-cluster yes".to_owned(),
        ]
    }
}
