//! What an author of plugins does on the own machine: a new project, its build, its check,
//! its golden cases, and an edge of its own to try it on.
//!
//! The commands of `plugin` are thin shells over this. Invariant: nothing here talks to any
//! machine but this one, or installs anything; a tool that is missing is named, with the
//! line that installs it. To add a language, give it a folder in `plugins/templates`, an
//! entry in `template.rs` and a file in `build/`.

pub mod asks;
pub mod build;
pub mod check;
pub mod edge;
pub mod output;
pub mod project;
pub mod stage;
pub mod template;
mod tools;
pub mod watch;

pub use self::{project::Project, stage::Stage};
