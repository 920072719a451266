//! `[plugins]`: how uploaded plugins are compiled, kept and trusted.

use std::path::PathBuf;

use serde::Deserialize;

use crate::plugins::{ChildLimits, Signers, SignersError};

/// `[plugins]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginsSection {
    /// MiB of address space of one compilation. Default 2,048: a Python component of 18.5 MB
    /// is the largest that is meant to pass.
    pub compile_memory_mb: u64,
    /// Seconds of computing of one compilation. Default 60: two megabytes take about two.
    pub compile_cpu_s: u64,
    /// Seconds that one compilation may take on a busy machine. Default 120.
    pub compile_wall_s: u64,
    /// Compilations at once. Default 1: the cores belong to the requests.
    pub compilers: usize,
    /// MiB of machine code kept on disk. Default 1,024: some thousand small plugins.
    pub cache_mb: u64,
    /// Whether only signed plugins are taken.
    pub require_signature: bool,
    /// Ed25519 public keys of the signers, in base64.
    pub public_keys: Vec<String>,
    /// The program that compiles; this one when absent.
    pub compiler: Option<PathBuf>,
}

impl Default for PluginsSection {
    fn default() -> Self {
        Self {
            compile_memory_mb: 2_048,
            compile_cpu_s: 60,
            compile_wall_s: 120,
            compilers: 1,
            cache_mb: 1_024,
            require_signature: false,
            public_keys: Vec::new(),
            compiler: None,
        }
    }
}

impl PluginsSection {
    /// The keys that do not hold, and why.
    pub(super) fn flaws(&self) -> Vec<(&'static str, String)> {
        let positive = [
            ("plugins.compile_memory_mb", self.compile_memory_mb),
            ("plugins.compile_cpu_s", self.compile_cpu_s),
            ("plugins.compile_wall_s", self.compile_wall_s),
            ("plugins.compilers", self.compilers as u64),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        let mut flaws: Vec<_> =
            zero.map(|(key, _)| (key, "must be at least 1".to_owned())).collect();
        if let Err(error) = self.signers() {
            let key = match error {
                SignersError::Key(_) => "plugins.public_keys",
                SignersError::NoKey => "plugins.require_signature",
            };
            flaws.push((key, error.to_string()));
        }
        flaws
    }

    /// Whose plugins are taken.
    pub(crate) fn signers(&self) -> Result<Signers, SignersError> {
        Signers::new(&self.public_keys, self.require_signature)
    }

    /// What one compilation may use.
    pub(crate) fn child_limits(&self) -> ChildLimits {
        ChildLimits {
            memory_bytes: self.compile_memory_mb.saturating_mul(1 << 20),
            cpu_s: self.compile_cpu_s,
            wall_s: self.compile_wall_s,
            program: self.compiler.clone(),
        }
    }

    /// Bytes of machine code kept on disk.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache_mb.saturating_mul(1 << 20)
    }
}
