//! The proxy as a whole, over real sockets: raw clients, a recording origin, a gate and
//! plugins that do as they are told.
//!
//! [`world`] starts everything; each file below tests one side of the contract. Waiting is
//! by reading a socket (with a generous bound), never by a bare sleep.

mod client;
mod origin;
mod world;

mod drain;
mod forwarding;
mod framing;
mod h2;
mod jwks;
mod levels;
mod local;
mod policies;
mod quotas;
mod rates;
mod records;
mod sessions;
mod storage;
mod tenants;
mod tls;
mod upstreams;
