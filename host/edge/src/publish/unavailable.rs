//! A policy that could not be bound for one tenant: every call fails with the reason, so
//! that the tenant's on-failure rule decides and nobody else is touched.

use bytes::Bytes;
use model::policy::{
    BodyDecision, Decision, HookFuture, Hooks, Plugin, PolicyExchange, PolicyFailure,
    ResponseDecision,
};

/// Stands in for the plugin.
#[derive(Debug)]
pub(super) struct Unavailable {
    /// Why, for the log.
    pub reason: String,
}

impl Unavailable {
    fn fails<D: 'static>(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, D> {
        let failure = PolicyFailure::Reported(self.reason.clone());
        Box::pin(std::future::ready((exchange, Err(failure))))
    }
}

impl Plugin for Unavailable {
    fn hooks(&self) -> Hooks {
        Hooks { request: true, ..Hooks::default() }
    }

    fn on_request(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, Decision> {
        self.fails(exchange)
    }

    fn on_request_body(
        &self,
        exchange: Box<PolicyExchange>,
        _body: Bytes,
    ) -> HookFuture<'_, BodyDecision> {
        self.fails(exchange)
    }

    fn on_response(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, ResponseDecision> {
        self.fails(exchange)
    }
}
