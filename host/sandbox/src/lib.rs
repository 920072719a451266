//! The plugin runtime: Wasm components under limits, one call per hook.
//!
//! [`Sandbox::load`] turns bytes into a [`Version`], [`Sandbox::bind`] a version and a
//! configuration into a [`model::policy::Plugin`], which the proxy calls. Versions are
//! immutable and shared; instances belong to one tenant.
//!
//! ```text
//! bytes ── load: prescan, compile, link, check ──▶ Version ── bind: configure ──▶ Plugin
//!                                                        on_request: seat, instance, guest
//! ```
//!
//! Invariant: nothing a guest does costs more than one call: its memory, computing time,
//! and every byte it hands over are bounded, and an instance that failed is never used
//! again. To add a host function, declare it in `wit/` and give it to its file in
//! `host/`; to add a hook, implement `hook::Hook`.

mod bind;
mod bindings;
mod budget;
mod call;
mod compiler;
mod config;
mod contract;
mod convert;
mod edits;
mod engine;
mod error;
mod failure;
pub mod flags;
mod hook;
mod host;
mod instance;
mod keyvalue;
pub mod lift;
mod limits;
mod load;
mod metrics;
mod precompiled;
mod prescan;
mod sandbox;
mod seats;
mod state;
mod text;
mod ticker;
mod types;
mod version;

pub use self::{
    bind::BindingSpec,
    compiler::Compiler,
    config::{ComponentCaps, KeyvalueConfig, SandboxConfig},
    error::{LoadError, SandboxError},
    limits::{Capability, Grants, Instances, Limits, UnknownCapability},
    metrics::MetricsCollector,
    precompiled::{ArtefactKey, Fingerprint, Verified},
    sandbox::{Sandbox, SandboxPorts},
    version::Version,
};
