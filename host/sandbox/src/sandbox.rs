//! The runtime itself: engine, linker, and what all policies share.
//!
//! Built once per process. Invariant: everything per plugin hangs off a [`Version`], and
//! everything per policy off a binding; nothing here grows with either.
//!
//! [`Version`]: crate::Version

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use model::{
    clock::Clock, keyvalue::KeyvalueStore, limiter::Limiter, outbound::Outbound, tenant::TenantId,
};
use wasmtime::{Engine, component::Linker};

use crate::{
    config::SandboxConfig,
    contract::Contract,
    engine,
    error::SandboxError,
    host,
    keyvalue::Data,
    metrics::{MetricsCollector, PolicyMetrics},
    seats::Seats,
    state::{Services, State},
    ticker::Ticker,
};

/// What policies reach through the sandbox. None of it has to be there.
#[derive(Clone, Debug, Default)]
pub struct SandboxPorts {
    /// Counts under the limits that operators name; without it they are unavailable.
    pub limiter: Option<Arc<dyn Limiter>>,
    /// Key-value data that edges share; without it this process keeps it.
    pub keyvalue: Option<Arc<dyn KeyvalueStore>>,
    /// Calls other origins; without it every call is denied.
    pub outbound: Option<Arc<dyn Outbound>>,
}

/// The plugin runtime.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<State>,
    contract: Contract,
    services: Arc<Services>,
    pub(crate) seats: Seats,
    /// Bindings made so far; numbers the next one.
    pub(crate) bindings: AtomicU64,
    _ticker: Ticker,
}

impl Sandbox {
    /// Builds the engine, links the contract and starts the epoch ticker. Reserves address
    /// space, not memory. To a policy that counts under a limit the limiter is unavailable.
    ///
    /// # Errors
    /// When the machine lacks the address space or a thread.
    pub fn new(config: SandboxConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, SandboxError> {
        Self::with_ports(config, clock, SandboxPorts::default())
    }

    /// The same with a limiter for the limits that policies count under.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn with_limiter(
        config: SandboxConfig,
        clock: Arc<dyn Clock>,
        limiter: Option<Arc<dyn Limiter>>,
    ) -> Result<Arc<Self>, SandboxError> {
        Self::with_ports(config, clock, SandboxPorts { limiter, ..SandboxPorts::default() })
    }

    /// The same with all that policies reach outside of it.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn with_ports(
        config: SandboxConfig,
        clock: Arc<dyn Clock>,
        ports: SandboxPorts,
    ) -> Result<Arc<Self>, SandboxError> {
        let engine = engine::build(&config)?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker).map_err(|error| SandboxError::Contract(format!("{error:#}")))?;
        let metrics =
            PolicyMetrics::new(config.metric_series_max, config.metric_series_per_policy_max);
        Ok(Arc::new(Self {
            linker,
            contract: Contract::parse()?,
            seats: Seats::new(&config),
            bindings: AtomicU64::new(0),
            _ticker: Ticker::start(&engine, config.tick_ms)?,
            services: Arc::new(Services {
                keyvalue: Data::new(config.keyvalue.clone(), ports.keyvalue),
                limiter: ports.limiter,
                outbound: ports.outbound,
                metrics: Arc::new(metrics),
                clock,
                config,
            }),
            engine,
        }))
    }

    /// A collector of the policies' metrics and the pool's, to register with Prometheus.
    #[must_use]
    pub fn metrics(&self) -> MetricsCollector {
        MetricsCollector::new(Arc::clone(&self.services.metrics), self.engine.clone())
    }

    /// Forgets what this process keeps for a tenant: key-value data and instances.
    pub fn erase_tenant(&self, tenant: TenantId) {
        if let Some(data) = self.services.keyvalue.here() {
            data.erase(tenant);
        }
        self.seats.erase(tenant);
    }

    /// Plugin instances alive now, idle ones included.
    #[must_use]
    pub fn instances_alive(&self) -> u64 {
        self.engine.pooling_allocator_metrics().map_or(0, |pool| pool.component_instances())
    }

    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) const fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    pub(crate) const fn contract(&self) -> &Contract {
        &self.contract
    }

    pub(crate) const fn services(&self) -> &Arc<Services> {
        &self.services
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}
