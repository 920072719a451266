//! Why a plugin was not loaded or bound: the author's or the operator's fault.
//!
//! Shown to whoever published the plugin, so every text is one line that names the
//! reason. Invariant: nothing here describes a failed call of a running policy; that is
//! [`model::policy::PolicyFailure`].

use model::policy::PolicyFailure;

/// Why bytes did not become a [`crate::Version`], or a version did not become a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not a component, nor a core module that can be made one.
    #[error("the file {0}")]
    NotWasm(String),
    /// Larger than the cap on the file.
    #[error("the file has {size} bytes; at most {max} are accepted")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The cap, in bytes.
        max: usize,
    },
    /// Breaks the rules of WebAssembly, or uses a proposal that is switched off.
    #[error("invalid component: {0}")]
    Invalid(String),
    /// Valid, but larger in some part than the compiler is let to see.
    #[error("too complex: {what} is {found}; at most {max} is accepted")]
    TooComplex {
        /// Which count.
        what: &'static str,
        /// As found; counting stops at the first excess.
        found: u64,
        /// The cap.
        max: u64,
    },
    /// A core module whose component type does not fit it.
    #[error("the module does not fit its component type: {0}")]
    Lift(String),
    /// An import that no policy gets.
    #[error("imports {name}: {why}")]
    ForbiddenImport {
        /// The import as the component spells it.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A function of a later version of the contract.
    #[error("needs the function {function} of {interface}, which this host does not have")]
    UnknownFunction {
        /// Interface with version.
        interface: String,
        /// Function.
        function: String,
    },
    /// No hook is exported, so it could never run.
    #[error(
        "exports no hook; export one of request-hook, request-body-hook, response-hook of \
         leanvibe:policy@0.1"
    )]
    NoHook,
    /// A hook or an import has another type than the contract says.
    #[error("{0}")]
    TypeMismatch(String),
    /// The compiler refused it.
    #[error("does not compile: {0}")]
    Compile(String),
    /// Its `configure` returned `err`: the text is the plugin's own.
    #[error("the plugin rejects its configuration: {0}")]
    Rejected(String),
    /// It did not get through its start functions or `configure`.
    #[error("does not start: {0}")]
    Start(#[source] PolicyFailure),
}

impl LoadError {
    /// A stable short name of the reason, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotWasm(_) => "plugin-not-wasm",
            Self::TooLarge { .. } => "plugin-too-large",
            Self::Invalid(_) => "plugin-invalid",
            Self::TooComplex { .. } => "plugin-too-complex",
            Self::Lift(_) => "plugin-type-mismatch",
            Self::ForbiddenImport { .. } => "plugin-forbidden-import",
            Self::UnknownFunction { .. } => "plugin-unknown-function",
            Self::NoHook => "plugin-no-hook",
            Self::TypeMismatch(_) => "plugin-type-mismatch",
            Self::Compile(_) => "plugin-does-not-compile",
            Self::Rejected(_) => "plugin-rejects-config",
            Self::Start(_) => "plugin-does-not-start",
        }
    }
}

/// The runtime could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine refused its settings, or the machine the address space they need.
    #[error("the plugin engine does not start: {0}")]
    Engine(String),
    /// The contract did not link; a fault of this program.
    #[error("the policy contract does not link: {0}")]
    Contract(String),
    /// No thread for the epoch ticker.
    #[error("no thread for the epoch ticker: {0}")]
    Ticker(#[from] std::io::Error),
}
