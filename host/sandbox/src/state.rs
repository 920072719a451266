//! What a store carries: the binding it runs for and, during a hook, the exchange.
//!
//! Host functions work on it. Invariant: the exchange is in the store exactly while a
//! hook runs; it is taken back out however the hook ended.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    clock::Clock, limiter::Limiter, outbound::Outbound, policy::PolicyExchange, rate::Rate,
};
use serde_json::{Map, Value};
use wasmtime::{StoreLimits, StoreLimitsBuilder};

use crate::{
    budget::{Budget, OutsideHook},
    config::SandboxConfig,
    edits::{Edits, Phase},
    flags::Flags,
    keyvalue::Data,
    limits::{Grants, Limits},
    metrics::PolicyMetrics,
};

/// Core instances, memories and tables that the components of a store may have; the pool
/// bounds them per component already.
const STORE_ITEMS_MAX: usize = 1_000;

/// What host functions of every policy share.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) config: SandboxConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keyvalue: Data,
    pub(crate) limiter: Option<Arc<dyn Limiter>>,
    pub(crate) outbound: Option<Arc<dyn Outbound>>,
    pub(crate) metrics: Arc<PolicyMetrics>,
}

/// What host functions know of the policy they serve. Immutable, one per binding.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) services: Arc<Services>,
    pub(crate) policy: Arc<str>,
    pub(crate) config: Map<String, Value>,
    pub(crate) config_json: Box<str>,
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) flags: Arc<Flags>,
    pub(crate) rate_limits: Arc<BTreeMap<Box<str>, Rate>>,
    pub(crate) origins: Arc<[Box<str>]>,
}

/// The hook call in progress.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) exchange: Box<PolicyExchange>,
    pub(crate) phase: Phase,
    pub(crate) edits: Edits,
}

/// Data of a store.
pub(crate) struct State {
    pub(crate) context: Arc<Context>,
    pub(crate) budget: Budget,
    pub(crate) call: Option<Call>,
    pub(crate) resources: StoreLimits,
}

impl State {
    /// The state of a new instance, outside any hook.
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let services = &context.services;
        let resources = StoreLimitsBuilder::new()
            .memory_size(context.limits.memory_bytes)
            .table_elements(services.config.table_elements_max)
            .instances(STORE_ITEMS_MAX)
            .memories(STORE_ITEMS_MAX)
            .tables(STORE_ITEMS_MAX)
            .build();
        let budget = Budget::of(&context.limits, services.config.tick_ms);
        Self { context, budget, call: None, resources }
    }

    /// Puts the exchange in and refills nothing: a fresh instance's start counts too.
    pub(crate) fn begin(&mut self, exchange: Box<PolicyExchange>, phase: Phase) {
        self.call = Some(Call { exchange, phase, edits: Edits::default() });
    }

    /// The full allowance for another call of a kept instance.
    pub(crate) fn refill(&mut self) {
        self.budget = Budget::of(&self.context.limits, self.context.services.config.tick_ms);
    }

    /// Counts a host call that needs no message.
    pub(crate) fn charge(&mut self) -> wasmtime::Result<()> {
        self.budget.host_call().map_err(wasmtime::Error::new)
    }

    /// Counts a host call and gives the hook in progress; traps outside one.
    pub(crate) fn hook(&mut self, interface: &'static str) -> wasmtime::Result<&mut Call> {
        self.charge()?;
        self.call.as_mut().ok_or_else(|| wasmtime::Error::new(OutsideHook(interface, "a hook")))
    }
}

impl Call {
    /// Ends the hook: the exchange, with its edits made or dropped.
    pub(crate) fn finish(self, accepted: bool) -> Box<PolicyExchange> {
        let Self { mut exchange, phase, edits, .. } = self;
        if accepted {
            match (phase, &mut exchange.response) {
                (Phase::Request, _) => {
                    edits.fields.apply(&mut exchange.request.headers);
                    if let Some(path) = edits.path {
                        exchange.request.path_and_query = path;
                    }
                }
                (Phase::Response, Some(response)) => {
                    edits.fields.apply(&mut response.headers);
                    response.status = edits.status.unwrap_or(response.status);
                }
                (Phase::Response, None) => {}
            }
        }
        exchange
    }
}
