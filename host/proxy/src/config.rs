//! What the operator decides about the data plane: addresses, limits, trust.
//!
//! Plain data that the edge's TOML embeds; checked by serde (unknown keys are refused) and
//! by [`crate::Proxy::start`]. Invariant: every limit has a unit in its name, a default
//! and a reason here.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

pub use crate::{
    tenant::issuer::{IssuerConfig, JwtConfig, KeyConfig},
    tls::{CertificateConfig, ClientAuthConfig, MinVersion, TlsConfig},
    upstream::UpstreamsConfig,
};

/// The data plane as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Addresses for HTTP/1.1 and HTTP/2 (prior knowledge) in clear text; port 0 takes a
    /// free one.
    pub listen: Vec<SocketAddr>,
    /// Addresses under TLS, and what they need.
    pub tls: TlsConfig,
    /// Worker threads; by default one for each CPU that affinity and cgroup leave us.
    pub workers: Option<usize>,
    /// Whose tokens name a tenant.
    pub jwt: JwtConfig,
    /// Bounds.
    pub limits: Limits,
    /// When endpoints are ejected and requests tried again.
    pub upstreams: UpstreamsConfig,
    /// Whom metrics show by name.
    pub metrics: MetricsConfig,
    /// Whether feature flags are evaluated for OpenFeature clients on tenants' hosts (true).
    pub ofrep: bool,
    /// A field in which a trusted proxy says the client's country (ISO 3166-1 alpha-2).
    #[serde(deserialize_with = "field_name")]
    pub client_country_header: Option<HeaderName>,
    /// Peers whose `X-Forwarded-*`, `Forwarded`, `Via` and `X-Request-Id` are believed.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            tls: TlsConfig::default(),
            workers: None,
            jwt: JwtConfig::default(),
            limits: Limits::default(),
            upstreams: UpstreamsConfig::default(),
            metrics: MetricsConfig::default(),
            ofrep: true,
            client_country_header: None,
            trusted_proxies: Vec::new(),
        }
    }
}

impl ProxyConfig {
    /// Whether a peer's word about the client is taken.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// Whom the metrics show by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Tenants with the most traffic that have series of their own (100); the others are
    /// counted together as `other`. At most 1,000: a page has to stay readable.
    pub tenant_top_k: usize,
    /// Slugs of tenants that have series of their own whatever their traffic, at most
    /// 1,000.
    pub pinned_tenants: Vec<String>,
}

/// Tenants by name at most (1,000), elected and pinned each.
const SHOWN_CEILING: usize = 1_000;

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { tenant_top_k: 100, pinned_tenants: Vec::new() }
    }
}

impl MetricsConfig {
    /// The first value that cannot work, with the reason.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        if self.tenant_top_k > SHOWN_CEILING {
            return Some(format!("metrics.tenant_top_k may be at most {SHOWN_CEILING}"));
        }
        (self.pinned_tenants.len() > SHOWN_CEILING)
            .then(|| format!("metrics.pinned_tenants may be at most {SHOWN_CEILING}"))
    }
}

/// Bounds of the data plane. Counts are per worker unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at once (20,000): beyond it, accepting pauses.
    pub connections_max: usize,
    /// Exchanges at once (10,000): beyond it, 503 before any work.
    pub exchanges_max: usize,
    /// Bytes of an HTTP/1 request head (16,384): equal to HTTP/2.
    pub h1_head_bytes_max: usize,
    /// Fields of a request, each cookie crumb counted (100): hyper's own HTTP/1 bound.
    pub header_fields_max: usize,
    /// Bytes of a request target (8,192): RFC 9110 asks for 8,000 at least.
    pub uri_bytes_max: usize,
    /// Bytes of chunk extensions in one body (4,096): nobody uses them.
    pub chunk_ext_bytes_max: usize,
    /// Bytes that hyper buffers per HTTP/1 connection and direction (65,536, at least
    /// 16,384): bounds memory under backpressure.
    pub h1_buffer_bytes_max: usize,
    /// Milliseconds for a request head, and an idle kept-alive connection's life (30,000):
    /// slowloris.
    pub head_timeout_ms: u64,
    /// Milliseconds without a byte of a request body that is awaited (30,000).
    pub body_idle_timeout_ms: u64,
    /// Milliseconds in which a client takes not one byte of a response (30,000).
    pub write_stall_timeout_ms: u64,
    /// Bytes of unread body thrown away so that a refusal reaches its client (65,536).
    pub unread_body_drain_bytes_max: usize,
    /// Milliseconds for the same (2,000).
    pub linger_timeout_ms: u64,
    /// Bytes of a request body (1 GiB): a bound where the route has none.
    pub request_body_bytes_max: u64,
    /// Bytes of a request body that a policy asked to see whole (1 MiB).
    pub policy_body_bytes_max: usize,
    /// Streams per HTTP/2 connection (100): caps the work one client can start.
    pub h2_streams_max: u32,
    /// Bytes of unread body per HTTP/2 stream (65,536).
    pub h2_stream_window_bytes: u32,
    /// Bytes of unread body per HTTP/2 connection (1 MiB).
    pub h2_conn_window_bytes: u32,
    /// Bytes of an HTTP/2 header list (16,384): HPACK expansion.
    pub h2_header_list_bytes_max: u32,
    /// Streams per HTTP/2 connection that may end in an error of the client's making (64):
    /// MadeYouReset.
    pub h2_local_error_resets_max: usize,
    /// Bytes of response per HTTP/2 stream waiting for window (65,536): stalled readers.
    pub h2_send_buffer_bytes_max: usize,
    /// Milliseconds between pings on HTTP/2 connections (20,000): dead peers.
    pub h2_ping_interval_ms: u64,
    /// Milliseconds to connect to an upstream endpoint (2,000): then 504.
    pub connect_timeout_ms: u64,
    /// Milliseconds from the last byte of the request to the response's head (30,000):
    /// then 504.
    pub first_byte_timeout_ms: u64,
    /// Milliseconds without a byte of a response body that is awaited (30,000).
    pub upstream_idle_timeout_ms: u64,
    /// Milliseconds for a whole exchange, unless its route says otherwise (300,000).
    pub total_timeout_ms: u64,
    /// Connections to one upstream endpoint at once (1,024): beyond it, 503.
    pub upstream_connections_max: usize,
    /// Idle connections kept per endpoint (128).
    pub upstream_idle_max: usize,
    /// Milliseconds an idle upstream connection is kept (30,000): below the usual 60–75 s
    /// of servers, so that we close first.
    pub upstream_idle_keep_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            exchanges_max: 10_000,
            h1_head_bytes_max: 16_384,
            header_fields_max: 100,
            uri_bytes_max: 8_192,
            chunk_ext_bytes_max: 4_096,
            h1_buffer_bytes_max: 65_536,
            head_timeout_ms: 30_000,
            body_idle_timeout_ms: 30_000,
            write_stall_timeout_ms: 30_000,
            unread_body_drain_bytes_max: 65_536,
            linger_timeout_ms: 2_000,
            request_body_bytes_max: 1 << 30,
            policy_body_bytes_max: 1 << 20,
            h2_streams_max: 100,
            h2_stream_window_bytes: 65_536,
            h2_conn_window_bytes: 1 << 20,
            h2_header_list_bytes_max: 16_384,
            h2_local_error_resets_max: 64,
            h2_send_buffer_bytes_max: 65_536,
            h2_ping_interval_ms: 20_000,
            connect_timeout_ms: 2_000,
            first_byte_timeout_ms: 30_000,
            upstream_idle_timeout_ms: 30_000,
            total_timeout_ms: 300_000,
            upstream_connections_max: 1_024,
            upstream_idle_max: 128,
            upstream_idle_keep_ms: 30_000,
        }
    }
}

/// What hyper accepts as the smallest buffer, and a whole head beside it.
const H1_BUFFER_FLOOR: usize = 16_384;
/// hyper parses this many fields on the stack; more would cost an allocation per head.
const HEADER_FIELDS_CEILING: usize = 100;

impl Limits {
    /// The first value that cannot work, with the reason.
    pub(crate) fn flaw(&self) -> Option<String> {
        if self.h1_buffer_bytes_max < H1_BUFFER_FLOOR.max(self.h1_head_bytes_max) {
            return Some(format!(
                "h1_buffer_bytes_max must be at least {H1_BUFFER_FLOOR} and hold a whole head"
            ));
        }
        if self.header_fields_max > HEADER_FIELDS_CEILING {
            return Some(format!("header_fields_max may be at most {HEADER_FIELDS_CEILING}"));
        }
        let zero = [
            ("connections_max", self.connections_max),
            ("exchanges_max", self.exchanges_max),
            ("header_fields_max", self.header_fields_max),
            ("upstream_connections_max", self.upstream_connections_max),
        ];
        zero.iter().find(|(_, value)| *value == 0).map(|(name, _)| format!("{name} may not be 0"))
    }
}

/// Reads a header field name, for a config that embeds one.
///
/// # Errors
/// No field name.
pub fn field_name<'de, D: Deserializer<'de>>(input: D) -> Result<Option<HeaderName>, D::Error> {
    let text = Option::<String>::deserialize(input)?;
    text.map(|text| HeaderName::try_from(text.as_str()).map_err(D::Error::custom)).transpose()
}

/// Reads networks (`10.0.0.0/8`) and bare addresses (`10.0.0.1`), for a config that embeds
/// them.
///
/// # Errors
/// An item that is neither.
pub fn networks<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
            D::Error::custom(format_args!("{text:?} is neither an address nor a network"))
        })
    };
    Vec::<String>::deserialize(input)?.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        let parse = |text| serde_json::from_str::<ProxyConfig>(text);
        assert!(parse(r#"{"lisen": []}"#).is_err());
        assert!(parse(r#"{"limits": {"h2_streams": 1}}"#).is_err());
        assert!(parse(r#"{"trusted_proxies": ["10.0.0.0/33"]}"#).is_err());
        assert!(parse(r#"{"client_country_header": "a b"}"#).is_err());
        let config = parse(
            r#"{"trusted_proxies": ["10.0.0.0/8", "::1"], "client_country_header": "CF-IPCountry"}"#,
        )
        .expect("a config");
        assert!(config.trusts("10.1.2.3".parse().expect("an address")));
        assert!(!config.trusts("11.1.2.3".parse().expect("an address")));
        assert_eq!(config.client_country_header, Some(HeaderName::from_static("cf-ipcountry")));
    }

    #[test]
    fn the_defaults_have_no_flaw() {
        assert_eq!(Limits::default().flaw(), None);
        let tight = Limits { h1_buffer_bytes_max: 8_192, ..Limits::default() };
        assert!(tight.flaw().is_some());
    }
}
