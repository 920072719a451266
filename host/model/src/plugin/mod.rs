//! A plugin as its author describes it: the manifest, and the form of its config.
//!
//! Read by the author's commands and by uploads. Invariant: what is read here is what the
//! author asks for; what a plan allows is decided elsewhere, and can only be less.

pub mod manifest;
pub mod name;
pub mod schema;

pub use self::{
    manifest::{Build, Hook, Language, Manifest, ManifestProblem},
    name::{MetricName, Origin, PluginName},
    schema::ConfigSchema,
};
