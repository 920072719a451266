//! The data plane: HTTP in, tenant, quota, policies, HTTP out.
//!
//! [`Proxy::start`] binds and starts one thread per worker; each request then walks the
//! twelve steps of [`handle`], one file per step: `server`, `exchange`, `request`,
//! `tenant`, `route`, `quota`, `policy`, `upstream`, `forward`, `policy`, `response` with
//! `rescue`, `record`. To add a step, write its file, give it one call in `handle`, and
//! give each of its failures a row in `rescue`.
//!
//! Invariant: a request is judged and forwarded in one reading, under one snapshot, on
//! one thread; only `response` writes responses and only `record` records.

pub mod config;
mod connection;
mod exchange;
mod forward;
mod handle;
mod level;
mod local;
mod ofrep;
mod path;
mod policy;
mod pool;
mod quota;
mod rate;
mod record;
mod request;
mod rescue;
mod reserve;
mod response;
mod route;
mod server;
mod session;
mod start;
mod tenant;
mod timer;
mod tls;
mod upstream;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

pub use ipnet::IpNet;

pub use self::{
    config::{
        CertificateConfig, ClientAuthConfig, JwtConfig, Limits, MetricsConfig, MinVersion,
        ProxyConfig, TlsConfig, UpstreamsConfig, field_name, networks,
    },
    local::{LocalBody, LocalService},
    start::{Ports, Proxy, Running, StartError},
    tls::{LoadError as TlsError, MaterialError},
    upstream::HealthConfig,
};
