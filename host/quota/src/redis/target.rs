//! Which Redis: the `quota.url` of the config, read once at start.
//!
//! Invariant: the text of a target never shows its password.

use std::fmt;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

/// Servers that dispatch quotas.
#[derive(Clone)]
pub struct RedisTarget {
    servers: Vec<ConnectionInfo>,
    tls: Option<TlsCertificates>,
    cluster: bool,
    fence: RedisFencing,
}

/// What tells one life of a server, and one history of its data, from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisFencing {
    /// `run_id` and `master_replid`, which `INFO` shows.
    #[default]
    Server,
    /// A key that is renewed with every connection, for a server that hides these: whoever
    /// connects ends what was granted before. A failover behind a connection that outlives it
    /// is not seen, so exactness across it is probabilistic.
    Connection,
}

/// Why a URL names no Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is none of the four.
    #[error("must start with redis://, rediss:// (TLS), redis+cluster:// or rediss+cluster://")]
    Scheme,
    /// A host, port, user or database that cannot be read.
    #[error("server {number} ({host}) cannot be read: {reason}")]
    Server {
        /// From 1.
        number: usize,
        /// Without the password.
        host: String,
        /// The reader's words.
        reason: String,
    },
    /// A fence that such servers cannot have.
    #[error("\"connection\" is not for a Cluster: its nodes have to show run_id and master_replid")]
    Fence,
    /// TLS options that do not fit together.
    #[error("{0}")]
    Tls(String),
}

/// Certificates for `rediss://`, PEM.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// Authorities that the server's certificate has to come from; `None`: the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// This edge's own certificate and key, where the server asks for one.
    pub client_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl RedisTarget {
    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DATABASE]`. Several hosts
    /// are a master and its replicas in any order, or entry points of a Cluster.
    ///
    /// # Errors
    /// What is wrong, without the password.
    pub fn parse(url: &str, tls: RedisTls) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let (plain, cluster) = match scheme {
            "redis" | "rediss" => (scheme, false),
            "redis+cluster" => ("redis", true),
            "rediss+cluster" => ("rediss", true),
            _ => return Err(TargetError::Scheme),
        };
        let (login, places) = rest.rsplit_once('@').map_or(("", rest), |(l, p)| (l, p));
        let (hosts, database) = places.split_once('/').unwrap_or((places, ""));
        let at = if login.is_empty() { "" } else { "@" };
        let certificates = certificates(plain == "rediss", tls)?;
        let mut servers = Vec::new();
        for (index, host) in hosts.split(',').enumerate() {
            let text = format!("{plain}://{login}{at}{host}/{database}");
            let server = server(text, certificates.as_ref()).map_err(|reason| {
                TargetError::Server { number: index + 1, host: host.to_owned(), reason }
            })?;
            servers.push(server);
        }
        Ok(Self { servers, tls: certificates, cluster, fence: RedisFencing::Server })
    }

    /// The same under another fence.
    ///
    /// # Errors
    /// A Cluster has no key that all of its nodes have.
    pub fn fenced(self, fence: RedisFencing) -> Result<Self, TargetError> {
        if self.cluster && fence == RedisFencing::Connection {
            return Err(TargetError::Fence);
        }
        Ok(Self { fence, ..self })
    }

    /// What fences it.
    pub(crate) const fn fencing(&self) -> RedisFencing {
        self.fence
    }

    /// Whether the servers are a Cluster.
    pub(crate) const fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// A client for every named server.
    pub(crate) fn clients(&self) -> impl Iterator<Item = redis::RedisResult<Client>> {
        self.servers.iter().map(|server| self.client(server.clone()))
    }

    /// A client for a node that a Cluster told of, with the same login and certificates.
    pub(crate) fn node(&self, host: &str, port: u16) -> Option<redis::RedisResult<Client>> {
        let like = self.servers.first()?;
        let addr = match like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        Some(self.client(like.clone().set_addr(addr)))
    }

    fn client(&self, server: ConnectionInfo) -> redis::RedisResult<Client> {
        match &self.tls {
            Some(tls) => Client::build_with_tls(server, tls.clone()),
            None => Client::open(server),
        }
    }
}

fn server(text: String, tls: Option<&TlsCertificates>) -> Result<ConnectionInfo, String> {
    let reason = |error: redis::RedisError| error.category().to_owned();
    let info = text.into_connection_info().map_err(reason)?;
    // Certificates that cannot be read are told of now, not at the first connection.
    if let Some(tls) = tls {
        Client::build_with_tls(info.clone(), tls.clone()).map_err(|error| error.to_string())?;
    }
    Ok(info)
}

fn certificates(encrypted: bool, tls: RedisTls) -> Result<Option<TlsCertificates>, TargetError> {
    if !encrypted {
        let unused = tls.ca_pem.is_some() || tls.client_pem.is_some();
        let advice = "certificates are set, but the URL is not encrypted: use rediss://";
        return if unused { Err(TargetError::Tls(advice.to_owned())) } else { Ok(None) };
    }
    // Fails when the process has chosen a provider already, which is then used.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client_tls = tls
        .client_pem
        .map(|(client_cert, client_key)| redis::ClientTlsConfig { client_cert, client_key });
    Ok(Some(TlsCertificates { client_tls, root_cert: tls.ca_pem }))
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", server.addr())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RedisTarget, TargetError> {
        RedisTarget::parse(url, RedisTls::default())
    }

    #[test]
    fn one_server_several_and_a_cluster_are_read() {
        for (url, shown, cluster) in [
            ("redis://127.0.0.1", "127.0.0.1:6379", false),
            ("redis://u:p%40ss@10.0.0.1:7000,10.0.0.2/3", "10.0.0.1:7000, 10.0.0.2:6379", false),
            ("redis+cluster://:secret@a:1,b:2", "a:1, b:2", true),
            ("rediss://h:1", "h:1", false),
        ] {
            let target = parse(url).expect(url);
            assert_eq!(target.to_string(), shown);
            assert_eq!(target.is_cluster(), cluster);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_no_password_is_shown() {
        assert_eq!(parse("memcached://x").expect_err("an error"), TargetError::Scheme);
        let error = parse("redis://u:secret@good:1,bad:port").expect_err("an error").to_string();
        assert!(error.contains("server 2 (bad:port)") && !error.contains("secret"), "{error}");
        let tls = RedisTls { ca_pem: Some(Vec::new()), client_pem: None };
        let error = RedisTarget::parse("redis://h", tls).expect_err("an error").to_string();
        assert!(error.contains("rediss://"), "{error}");
    }
}
