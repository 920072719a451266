//! `plugin.toml`: a plugin as its author describes it, and the form of its config.
//!
//! Read by the author's commands, and where a version is uploaded. Invariant: what is read
//! here is what the author asks for; what a plan allows is decided elsewhere, and can only
//! be less.

mod document;
mod name;
mod schema;

pub use self::{
    document::{Build, Hook, Language, MANIFEST_BYTES_MAX, Manifest, ManifestProblem},
    name::{MetricName, NameError, Origin, PluginName},
    schema::{ConfigSchema, SchemaProblem},
};
