//! A plugin version: validated, compiled, linked, immutable.
//!
//! Made by [`crate::Sandbox::load`], shared by every binding of the same bytes.
//! Invariant: its imports and hooks have the types of the contract.

use std::fmt;

use model::policy::Hooks;
use wasmtime::component::InstancePre;

use crate::{
    bindings::exports::leanvibe::policy::{
        lifecycle, request_body_hook, request_hook, response_hook,
    },
    state::State,
};

/// Hex digits of the digest that name a version to people.
const SHORT_DIGITS: usize = 12;

/// Where the exported hooks are; found once, so that a call looks nothing up by name.
#[derive(Clone, Default)]
pub(crate) struct Exports {
    pub(crate) lifecycle: Option<lifecycle::GuestIndices>,
    pub(crate) request: Option<request_hook::GuestIndices>,
    pub(crate) request_body: Option<request_body_hook::GuestIndices>,
    pub(crate) response: Option<response_hook::GuestIndices>,
}

impl Exports {
    /// The hooks of the port; `lifecycle` is none of them.
    pub(crate) const fn hooks(&self) -> Hooks {
        Hooks {
            request: self.request.is_some(),
            request_body: self.request_body.is_some(),
            response: self.response.is_some(),
        }
    }
}

/// A loaded version of a plugin.
pub struct Version {
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
    pub(crate) digest: String,
    pub(crate) bytes: usize,
    pub(crate) memory_bytes: u64,
}

impl Version {
    /// SHA-256 of the bytes it was loaded from, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The first 12 hex digits of the digest: how people and metrics call the version.
    #[must_use]
    pub fn short_digest(&self) -> &str {
        self.digest.get(..SHORT_DIGITS).unwrap_or(&self.digest)
    }

    /// The hooks that it exports.
    #[must_use]
    pub const fn hooks(&self) -> Hooks {
        self.exports.hooks()
    }

    /// Bytes of the file it was loaded from.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of its largest memory when an instance starts. Above what a slot keeps
    /// resident, a fresh instance per request costs more.
    #[must_use]
    pub const fn initial_memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("digest", &self.short_digest())
            .field("hooks", &self.hooks())
            .finish_non_exhaustive()
    }
}
