//! The plugin runtime.

mod error;
pub mod lift;

pub use error::{LoadError, SandboxError};
