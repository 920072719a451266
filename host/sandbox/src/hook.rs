//! The three hooks of the port, each with its function in the guest and its decision.
//!
//! A new hook is one more implementation of [`Hook`]. Invariant: what a hook returns has
//! been checked by `convert.rs` before the proxy sees it.

use std::future::Future;

use bytes::Bytes;
use model::policy::{BodyDecision, Decision, ResponseDecision};

use crate::{
    bindings::exports::leanvibe::policy::{request_body_hook, request_hook, response_hook},
    convert::{self, BrokenRule},
    edits::Phase,
    instance::Live,
    limits::Limits,
};

/// What a guest's hook function returns.
type Returned<T> = wasmtime::Result<Result<T, String>>;

/// One hook.
pub(crate) trait Hook {
    /// The decision as the contract has it.
    type Raw;
    /// The decision as the port has it.
    type Decision;
    /// What it may edit.
    const PHASE: Phase;
    /// Bytes that the guest may hand over, beyond those of every host call.
    fn extra_bytes(&self, _limits: &Limits) -> usize {
        0
    }
    /// Calls the guest.
    fn call(&self, live: &mut Live) -> impl Future<Output = Returned<Self::Raw>>;
    /// Checks what it decided.
    fn check(raw: Self::Raw, limits: &Limits) -> Result<Self::Decision, BrokenRule>;
}

/// The instance lacks a hook that its version has; cannot happen.
fn missing() -> wasmtime::Error {
    wasmtime::Error::msg("the instance has no such hook")
}

/// `request-hook`.
pub(crate) struct RequestHook;

impl Hook for RequestHook {
    type Raw = request_hook::Decision;
    type Decision = Decision;
    const PHASE: Phase = Phase::Request;

    async fn call(&self, live: &mut Live) -> Returned<Self::Raw> {
        live.request.as_ref().ok_or_else(missing)?.call_on_request(&mut live.store).await
    }

    fn check(raw: Self::Raw, limits: &Limits) -> Result<Decision, BrokenRule> {
        convert::decision(raw, limits)
    }
}

/// `request-body-hook`, with the body.
pub(crate) struct RequestBodyHook(pub(crate) Bytes);

impl Hook for RequestBodyHook {
    type Raw = request_body_hook::BodyDecision;
    type Decision = BodyDecision;
    const PHASE: Phase = Phase::Request;

    /// A new body crosses in one piece.
    fn extra_bytes(&self, limits: &Limits) -> usize {
        limits.body_bytes
    }

    async fn call(&self, live: &mut Live) -> Returned<Self::Raw> {
        let hook = live.request_body.as_ref().ok_or_else(missing)?;
        hook.call_on_request_body(&mut live.store, &self.0).await
    }

    fn check(raw: Self::Raw, limits: &Limits) -> Result<BodyDecision, BrokenRule> {
        convert::body_decision(raw, limits)
    }
}

/// `response-hook`.
pub(crate) struct ResponseHook;

impl Hook for ResponseHook {
    type Raw = response_hook::ResponseDecision;
    type Decision = ResponseDecision;
    const PHASE: Phase = Phase::Response;

    async fn call(&self, live: &mut Live) -> Returned<Self::Raw> {
        live.response.as_ref().ok_or_else(missing)?.call_on_response(&mut live.store).await
    }

    fn check(raw: Self::Raw, limits: &Limits) -> Result<ResponseDecision, BrokenRule> {
        convert::response_decision(raw, limits)
    }
}
