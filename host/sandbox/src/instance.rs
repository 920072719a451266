//! A live instance: a store, the component in it, and its hooks.
//!
//! Made per call or taken from the idle ones. Invariant: `configure` returned `ok` before
//! a [`Live`] exists, and everything since the store was made counted against one
//! budget.

use std::sync::Arc;

use wasmtime::{Engine, Store, StoreContextMut, UpdateDeadline, component::Instance};

use crate::{
    bindings::exports::leanvibe::policy::{request_body_hook, request_hook, response_hook},
    state::{Context, State},
    version::Version,
};

/// Component-model handles of one store. The contract has no resources of its own.
const HANDLES_MAX: usize = 1_000;

/// An instance that is ready for hook calls.
pub(crate) struct Live {
    pub(crate) store: Store<State>,
    pub(crate) request: Option<request_hook::Guest>,
    pub(crate) request_body: Option<request_body_hook::Guest>,
    pub(crate) response: Option<response_hook::Guest>,
    /// Hook calls that it served.
    pub(crate) served: u32,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("served", &self.served).finish_non_exhaustive()
    }
}

/// Why an instance did not come to life.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// It trapped, ran into a limit, or there was no slot.
    Failed(wasmtime::Error),
    /// `configure` returned `err`.
    Rejected(String),
}

impl From<wasmtime::Error> for NotStarted {
    fn from(error: wasmtime::Error) -> Self {
        Self::Failed(error)
    }
}

impl Live {
    /// Instantiates, runs the start functions and `configure`.
    pub(crate) async fn start(
        engine: &Engine,
        version: &Version,
        context: &Arc<Context>,
    ) -> Result<Self, NotStarted> {
        let mut store = new_store(engine, context)?;
        let instance = version.pre.instantiate_async(&mut store).await?;
        if let Some(lifecycle) = &version.exports.lifecycle {
            let lifecycle = lifecycle.load(&mut store, &instance)?;
            let configured = lifecycle.call_configure(&mut store, &context.config_json).await?;
            configured.map_err(NotStarted::Rejected)?;
        }
        Self::with_hooks(store, &instance, version).map_err(NotStarted::Failed)
    }

    fn with_hooks(
        mut store: Store<State>,
        instance: &Instance,
        version: &Version,
    ) -> wasmtime::Result<Self> {
        let exports = &version.exports;
        let request = exports.request.as_ref();
        let request = request.map(|hook| hook.load(&mut store, instance)).transpose()?;
        let request_body = exports.request_body.as_ref();
        let request_body = request_body.map(|hook| hook.load(&mut store, instance)).transpose()?;
        let response = exports.response.as_ref();
        let response = response.map(|hook| hook.load(&mut store, instance)).transpose()?;
        Ok(Self { store, request, request_body, response, served: 0 })
    }
}

fn new_store(engine: &Engine, context: &Arc<Context>) -> wasmtime::Result<Store<State>> {
    let hostcall_bytes = context.services.config.hostcall_bytes;
    let mut store = Store::try_new(engine, State::new(Arc::clone(context)))?;
    store.limiter(|state| &mut state.resources);
    store.set_hostcall_fuel(hostcall_bytes);
    store.set_max_component_handles(HANDLES_MAX);
    store.epoch_deadline_callback(tick);
    store.set_epoch_deadline(1);
    Ok(store)
}

/// Runs when a tick falls into guest code: gives the worker back, or stops the guest.
fn tick(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    store.data_mut().budget.tick().map_err(wasmtime::Error::new)?;
    Ok(UpdateDeadline::Yield(1))
}
