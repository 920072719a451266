//! From bytes to machine code, in a process that does nothing else.
//!
//! Whoever compiles what strangers wrote runs this in a child process under limits: a slow
//! or greedy compilation is no fault that wasmtime would count as its own. Invariant: what
//! comes out has passed `prescan.rs` and runs on a [`crate::Sandbox`] of the same settings.

use std::fmt;

use wasmtime::Engine;

use crate::{
    config::SandboxConfig,
    contract::Contract,
    engine,
    error::{LoadError, SandboxError},
    load::{as_component, compile_error},
};

/// Compiles for a [`crate::Sandbox`] elsewhere.
pub struct Compiler {
    engine: Engine,
    contract: Contract,
    config: SandboxConfig,
}

impl Compiler {
    /// For sandboxes of these settings. Reserves no address space.
    ///
    /// # Errors
    /// The engine refuses its settings.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let engine = engine::build_for_compiling(&config)?;
        Ok(Self { engine, contract: Contract::parse()?, config })
    }

    /// Checks and compiles a component, or a core module with a `component-type` section.
    /// Takes 20 ms per 14 KiB.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let component = as_component(bytes, &self.config.component, &self.contract)?;
        self.engine.precompile_component(&component).map_err(compile_error)
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}
