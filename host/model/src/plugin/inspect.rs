//! The port by which the control plane has the edge look at a plugin before it counts.
//!
//! Implemented over the sandbox, and by fakes in tests of the control plane. Invariant:
//! whoever answers `Ok` has compiled the component, started it with its config and run it
//! on sample requests, all within the limits of a call.

use std::fmt;

use bytes::Bytes;

use super::{Manifest, PluginName, PluginRecord, PluginScope, PluginSettings, PluginTerms};
use crate::{BoxFuture, problem::FieldError};

/// A version that somebody wants to add.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// For whose requests.
    pub scope: PluginScope,
    /// Of which plugin.
    pub name: PluginName,
    /// The file as it came.
    pub component: Bytes,
    /// Its manifest.
    pub manifest: Manifest,
    /// How the plugin is set, or would be.
    pub settings: PluginSettings,
    /// Ed25519 signature of the file.
    pub signature: Option<Vec<u8>>,
    /// What the plan allows.
    pub terms: PluginTerms,
}

/// A candidate that may become a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The hooks that it exports: `request-hook`.
    pub hooks: Vec<&'static str>,
    /// Bytes of its largest memory at the start of an instance.
    pub memory_bytes: u64,
    /// How the probe went.
    pub probe: Rehearsed,
}

/// What a version did when it was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// A line a sample request, and what the plugin logged meanwhile; bounded.
    pub log: Vec<String>,
}

/// Why a candidate was refused: shown to its author as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status: 413, 422 or 429.
    pub status: u16,
    /// Stable short code: `plugin-forbidden-import`.
    pub code: &'static str,
    /// What is wrong, in a sentence that an author understands.
    pub detail: String,
    /// The fields at fault, if it is fields.
    pub errors: Vec<FieldError>,
    /// What the plugin logged before it was refused.
    pub log: Vec<String>,
}

impl Refusal {
    /// A refusal for what the component is.
    #[must_use]
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { status: 422, code, detail: detail.into(), errors: Vec::new(), log: Vec::new() }
    }
}

/// Looks at plugins. Slow: an answer takes as long as compiling does.
pub trait Inspector: Send + Sync + fmt::Debug {
    /// Validates, compiles and tries a candidate. One candidate of a scope at a time.
    fn admit(&self, candidate: Candidate) -> BoxFuture<'static, Result<Admitted, Refusal>>;

    /// Loads and tries a version that was admitted before, with these settings; it then
    /// needs no compiling when it becomes active.
    fn rehearse(
        &self,
        record: PluginRecord,
        terms: PluginTerms,
    ) -> BoxFuture<'static, Result<Rehearsed, Refusal>>;
}
