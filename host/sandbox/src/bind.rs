//! A version with its configuration: the policy that the proxy calls.
//!
//! Binding runs `configure` once, under the limits of a call, so that a configuration
//! that the plugin rejects never becomes live. Invariant: a [`Binding`] that exists has
//! accepted its configuration.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use model::{
    policy::{
        BodyDecision, Decision, HookFuture, Hooks, Plugin, PolicyExchange, PolicyFailure,
        ResponseDecision,
    },
    rate::Rate,
};
use serde_json::{Map, Value};

use crate::{
    Sandbox,
    call::within,
    error::LoadError,
    failure::classify,
    flags::Flags,
    hook::{RequestBodyHook, RequestHook, ResponseHook},
    instance::{Live, NotStarted},
    limits::{Grants, Instances, Limits},
    state::Context,
    text::quoted,
    version::Version,
};

/// What makes a policy of a version.
#[derive(Clone, Debug)]
pub struct BindingSpec {
    /// Name of the policy: its folder in `policies/`. Also names its key-value data.
    pub policy: Arc<str>,
    /// Configuration, secrets resolved; an object or null.
    pub config: Value,
    /// What it may do beyond the message.
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// Fresh or reused instances.
    pub instances: Instances,
    /// The flags that it may evaluate.
    pub flags: Arc<Flags>,
    /// The limits that it may count under, by name.
    pub rate_limits: Arc<BTreeMap<Box<str>, Rate>>,
    /// The origins that it may call, as URLs without a path.
    pub origins: Arc<[Box<str>]>,
}

/// A policy ready to run.
pub(crate) struct Binding {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) version: Arc<Version>,
    pub(crate) context: Arc<Context>,
    pub(crate) instances: Instances,
    /// Distinguishes bindings, so that instances are never kept for another.
    pub(crate) id: u64,
}

impl Sandbox {
    /// Binds a version to a configuration: starts an instance and runs `configure`.
    /// Takes up to `limits.wall_ms`.
    ///
    /// # Errors
    /// What the plugin says against the configuration, or why it does not start.
    pub fn bind(
        self: &Arc<Self>,
        version: &Arc<Version>,
        spec: BindingSpec,
    ) -> impl Future<Output = Result<Arc<dyn Plugin>, LoadError>> + Send + use<> {
        let (sandbox, version) = (Arc::clone(self), Arc::clone(version));
        async move {
            let instances = spec.instances;
            let context = Arc::new(sandbox.context(spec)?);
            let started = Live::start(sandbox.engine(), &version, &context);
            match within(context.limits.wall_ms, started).await {
                None => Err(LoadError::Start(PolicyFailure::Deadline)),
                Some(Err(NotStarted::Rejected(text))) => Err(LoadError::Rejected(quoted(&text))),
                Some(Err(NotStarted::Failed(error))) => Err(LoadError::Start(classify(&error))),
                Some(Ok(_)) => {
                    let id = sandbox.bindings.fetch_add(1, Ordering::Relaxed);
                    let binding = Binding { sandbox, version, context, instances, id };
                    Ok(Arc::new(binding) as Arc<dyn Plugin>)
                }
            }
        }
    }

    fn context(&self, spec: BindingSpec) -> Result<Context, LoadError> {
        let config = match spec.config {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => return Err(LoadError::Rejected("the configuration is not an object".into())),
        };
        Ok(Context {
            services: Arc::clone(self.services()),
            policy: spec.policy,
            config_json: serde_json::to_string(&config).unwrap_or_default().into(),
            config,
            grants: spec.grants,
            limits: spec.limits,
            flags: spec.flags,
            rate_limits: spec.rate_limits,
            origins: spec.origins,
        })
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("policy", &self.context.policy)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if matches!(self.instances, Instances::Reuse { .. }) {
            self.sandbox.seats.retire(self.id);
        }
    }
}

impl Plugin for Binding {
    fn hooks(&self) -> Hooks {
        self.version.hooks()
    }

    fn on_request(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, Decision> {
        if !self.hooks().request {
            return Box::pin(std::future::ready((exchange, Ok(Decision::Continue))));
        }
        Box::pin(self.call(exchange, RequestHook))
    }

    fn on_request_body(
        &self,
        exchange: Box<PolicyExchange>,
        body: Bytes,
    ) -> HookFuture<'_, BodyDecision> {
        if !self.hooks().request_body {
            return Box::pin(std::future::ready((exchange, Ok(BodyDecision::Continue))));
        }
        if body.len() > self.context.limits.body_bytes {
            let text = format!("the body has more than {} bytes", self.context.limits.body_bytes);
            let failure = PolicyFailure::BrokenRule(text);
            return Box::pin(std::future::ready((exchange, Err(failure))));
        }
        Box::pin(self.call(exchange, RequestBodyHook(body)))
    }

    fn on_response(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, ResponseDecision> {
        if !self.hooks().response {
            return Box::pin(std::future::ready((exchange, Ok(ResponseDecision::Continue))));
        }
        Box::pin(self.call(exchange, ResponseHook))
    }
}
