//! Certificates, keys and authorities from files into what a handshake needs.
//!
//! Called at start and whenever a file changed; blocks for reading. Invariant: either all
//! of it is usable or the caller keeps what it had: a table is never half new.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, DnsName, PrivateKeyDer, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use super::{
    config::{CertificateConfig, ClientAuthConfig, MinVersion, TlsConfig},
    names::Names,
};

/// Why files cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// It cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{file}: {reason}")]
    Content {
        /// Which.
        file: String,
        /// What is wrong, and what belongs there.
        reason: String,
    },
}

fn content(file: &Path, reason: impl std::fmt::Display) -> MaterialError {
    MaterialError::Content { file: file.display().to_string(), reason: reason.to_string() }
}

/// A certificate as the metrics show it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Its first name.
    pub(crate) name: String,
    /// Unix seconds.
    pub(crate) not_after_s: i64,
}

/// All that handshakes are made with, from one reading of the files.
pub(crate) struct Material {
    base: Arc<ServerConfig>,
    guarded: Names<Arc<ServerConfig>>,
    pub(crate) shown: Vec<Shown>,
}

impl Material {
    /// Reads every file. Tickets of `tickets` stay good over a reload; those of hosts that
    /// ask for client certificates are made anew, because an authority may be gone.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(crate) fn read(
        config: &TlsConfig,
        tickets: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, MaterialError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut keys, mut shown) = (Names::default(), Vec::new());
        for one in &config.certificate {
            let (key, names, not_after_s) = certificate(one, &provider)?;
            shown.push(Shown { name: names.first().cloned().unwrap_or_default(), not_after_s });
            for name in &names {
                if !keys.add(name, Arc::clone(&key)) {
                    let reason = format!("{name} has a certificate already; remove one");
                    return Err(content(&one.chain_file, reason));
                }
            }
        }
        let maker = Maker { provider, keys: Arc::new(BySni(keys)), min: config.min_version };
        let mut guarded = Names::default();
        for one in &config.client_auth {
            let server = Arc::new(maker.guarded(one)?);
            for host in &one.hosts {
                let host = host.to_ascii_lowercase();
                if !maker.keys.0.covers(&host) {
                    let reason = format!("{host} asks for client certificates and has none itself");
                    return Err(content(&one.ca_file, reason));
                }
                if !guarded.add(&host, Arc::clone(&server)) {
                    return Err(content(&one.ca_file, format!("{host} is named twice")));
                }
            }
        }
        Ok(Self { base: Arc::new(maker.open(tickets)?), guarded, shown })
    }

    /// Whether a start could use the files.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub(crate) fn check(config: &TlsConfig) -> Result<(), MaterialError> {
        let tickets = aws_lc_rs::Ticketer::new();
        let tickets = tickets.map_err(|error| content(Path::new("session tickets"), error))?;
        Self::read(config, &tickets).map(drop)
    }

    /// What a client that asks for `name` is served with.
    pub(crate) fn server(&self, name: Option<&str>) -> Arc<ServerConfig> {
        let guarded = name.and_then(|name| self.guarded.find(name));
        Arc::clone(guarded.unwrap_or(&self.base))
    }

    /// Whether clients of a host have to show a certificate.
    pub(crate) fn is_guarded(&self, host: &str) -> bool {
        !self.guarded.is_empty() && self.guarded.find(host).is_some()
    }
}

struct Maker {
    provider: Arc<CryptoProvider>,
    keys: Arc<BySni>,
    min: MinVersion,
}

static ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEW: &[&SupportedProtocolVersion] = &[&TLS13];

impl Maker {
    fn builder(
        &self,
    ) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error> {
        let versions = match self.min {
            MinVersion::Tls12 => ALL,
            MinVersion::Tls13 => NEW,
        };
        ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
    }

    fn open(&self, tickets: &Arc<dyn ProducesTickets>) -> Result<ServerConfig, MaterialError> {
        let builder = self.builder().map_err(|error| content(Path::new("TLS"), error))?;
        let server = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&self.keys) as _);
        Ok(finish(server, Arc::clone(tickets)))
    }

    fn guarded(&self, config: &ClientAuthConfig) -> Result<ServerConfig, MaterialError> {
        let file = &config.ca_file;
        let mut roots = RootCertStore::empty();
        for authority in certificates(file)? {
            roots.add(authority).map_err(|error| content(file, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| content(file, error))?;
        let builder = self.builder().map_err(|error| content(file, error))?;
        let server = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.keys) as _);
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| content(file, error))?;
        Ok(finish(server, tickets))
    }
}

/// ALPN; stateless tickets, one for each handshake, under keys that rotate; no early data.
fn finish(mut server: ServerConfig, tickets: Arc<dyn ProducesTickets>) -> ServerConfig {
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = tickets;
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    server
}

#[derive(Debug)]
struct BySni(Names<Arc<CertifiedKey>>);

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.find(hello.server_name()?).cloned()
    }
}

type Certificate = (Arc<CertifiedKey>, Vec<String>, i64);

fn certificate(
    config: &CertificateConfig,
    provider: &CryptoProvider,
) -> Result<Certificate, MaterialError> {
    let (chain_file, key_file) = (&config.chain_file, &config.key_file);
    let chain = certificates(chain_file)?;
    let (names, not_after_s) = match chain.first() {
        Some(leaf) => names(leaf).map_err(|reason| content(chain_file, reason))?,
        None => return Err(content(chain_file, "no certificate in it; PEM belongs there")),
    };
    let key = read(key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        content(key_file, format!("no private key in it ({error}); PEM belongs there"))
    })?;
    let key = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| content(key_file, format!("{error}; is it the certificate's key?")))?;
    Ok((Arc::new(key), names, not_after_s))
}

/// The DNS names of a certificate, lower case, and the Unix second of its end.
fn names(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf)
        .map_err(|error| format!("malformed certificate: {error}"))?;
    let alternative = leaf.subject_alternative_name().map_err(|error| error.to_string())?;
    let general = alternative.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
    let mut names = Vec::new();
    for name in general {
        let GeneralName::DNSName(name) = name else { continue };
        // NUL and the like are no letters of a name.
        let bare = name.strip_prefix("*.").unwrap_or(name);
        DnsName::try_from(bare).map_err(|_| format!("{name:?} is no DNS name"))?;
        names.push(name.to_ascii_lowercase());
    }
    if names.is_empty() {
        return Err("it names no host: subjectAltName needs DNS names".into());
    }
    Ok((names, leaf.validity().not_after.timestamp()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        .map_err(|error| content(file, format!("no certificates ({error}); PEM belongs there")))
}

fn read(file: &Path) -> Result<Vec<u8>, MaterialError> {
    fs::read(file)
        .map_err(|source| MaterialError::Read { file: file.display().to_string(), source })
}
