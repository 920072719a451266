//! The port between the proxy and the sandbox: what a policy sees, edits and decides.
//!
//! A chain is walked by the proxy, one [`Plugin`] call per hook. The exchange is moved
//! into the call and comes back with the accepted edits applied; a failed call brings it
//! back unedited. Invariant: every edit has passed [`crate::headers`] and the limits
//! before it reaches the exchange.

use std::{fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{clock::UnixMs, gate::QuotaStatus, snapshot::TenantEntry};

/// What a failure of a policy (trap, deadline, `err`, broken rule) means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The request is refused with 503 `policy-unavailable`.
    #[default]
    Closed,
    /// The request goes on as if the policy were absent.
    Open,
}

/// Which hooks a plugin exports. An absent hook costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `request-hook`.
    pub request: bool,
    /// `request-body-hook`: the body is buffered.
    pub request_body: bool,
    /// `response-hook`.
    pub response: bool,
}

/// How the tenant was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvedBy {
    /// `<slug>.<base domain>`.
    Subdomain,
    /// A domain of the tenant's own.
    CustomDomain,
    /// A verified token on a shared host.
    Token,
}

/// The request as policies see it, normalised. It becomes the forwarded request.
#[derive(Debug)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// `http` or `https`, as the client used it.
    pub scheme: &'static str,
    /// Canonical host, with the port when there was one.
    pub authority: Box<str>,
    /// Normalised path and query.
    pub path_and_query: PathAndQuery,
    /// End-to-end fields only; credentials of the edge already removed.
    pub headers: HeaderMap,
}

/// The response as policies see it.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// End-to-end fields.
    pub headers: HeaderMap,
    /// Region and backend that served it; `None` for a response made here.
    pub served_by: Option<(Arc<str>, Box<str>)>,
}

/// One exchange as its policies see it.
pub struct PolicyExchange {
    /// The request; in a response hook as it was forwarded.
    pub request: RequestHead,
    /// The response, in response hooks only.
    pub response: Option<ResponseHead>,
    /// Whose request it is.
    pub tenant: Arc<TenantEntry>,
    /// How that was found.
    pub resolved_by: ResolvedBy,
    /// Subject of the verified token.
    pub subject: Option<Box<str>>,
    /// Allowlisted claims of the verified token.
    pub claims: Arc<Map<String, Value>>,
    /// The quotas this request counts against.
    pub quotas: smallvec::SmallVec<[QuotaStatus; 2]>,
    /// Trusted client address.
    pub client_ip: IpAddr,
    /// ISO 3166-1 alpha-2, from the configured source.
    pub client_country: Option<[u8; 2]>,
    /// Request id, as sent in `X-Request-Id`.
    pub id: Box<str>,
    /// Arrival.
    pub received_at: UnixMs,
}

impl fmt::Debug for PolicyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyExchange").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where a policy asks an accepted request to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A region by name.
    Region(Box<str>),
    /// A backend (upstream pool) of the region that is chosen anyway.
    Backend(Box<str>),
}

/// A response that a policy wrote; checked by the host.
#[derive(Clone, Debug)]
pub struct LocalResponse {
    /// 200–599.
    pub status: StatusCode,
    /// Checked fields.
    pub headers: HeaderMap,
    /// Whole body.
    pub body: Bytes,
}

/// What a request hook decided.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Go on, with the edits made.
    Continue,
    /// Go on and ask for this target. The last one of a chain counts.
    Route(Target),
    /// Answer now.
    Respond(LocalResponse),
}

/// What a request-body hook decided.
#[derive(Clone, Debug)]
pub enum BodyDecision {
    /// The body goes on as it came.
    Continue,
    /// This one goes on instead.
    Replace(Bytes),
    /// Go on and ask for this target.
    Route(Target),
    /// Answer now.
    Respond(LocalResponse),
}

/// What a response hook decided.
#[derive(Clone, Debug)]
pub enum ResponseDecision {
    /// Send it, with the edits made.
    Continue,
    /// Send this instead.
    Respond(LocalResponse),
}

/// Why a call of a policy failed. The texts are for the log and the tenant, not for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFailure {
    /// The guest trapped.
    #[error("trap: {0}")]
    Trap(String),
    /// CPU deadline or wall clock passed.
    #[error("deadline exceeded")]
    Deadline,
    /// The hook returned `err`.
    #[error("the policy reported: {0}")]
    Reported(String),
    /// The decision breaks a rule of the host.
    #[error("broken rule: {0}")]
    BrokenRule(String),
    /// No instance slot was free.
    #[error("no instance slot was free")]
    NoSlot,
}

impl PolicyFailure {
    /// The `outcome` label of metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline => "deadline",
            Self::Reported(_) => "reported",
            Self::BrokenRule(_) => "broken_rule",
            Self::NoSlot => "no_slot",
        }
    }
}

/// Outcome of one hook call: the exchange comes back either way. Not `Send`: a call
/// stays on the worker that started it.
pub type HookFuture<'a, D> =
    Pin<Box<dyn Future<Output = (Box<PolicyExchange>, Result<D, PolicyFailure>)> + 'a>>;

/// A loaded, validated plugin version with its config: one link of a chain, ready to
/// run. Dropping the future cancels the call and discards the instance.
pub trait Plugin: Send + Sync + fmt::Debug {
    /// What it exports.
    fn hooks(&self) -> Hooks;
    /// The request hook; `continue` when it has none.
    fn on_request(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, Decision>;
    /// The request-body hook.
    fn on_request_body(
        &self,
        exchange: Box<PolicyExchange>,
        body: Bytes,
    ) -> HookFuture<'_, BodyDecision>;
    /// The response hook.
    fn on_response(&self, exchange: Box<PolicyExchange>) -> HookFuture<'_, ResponseDecision>;
}

/// A policy in a chain.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of its folder in `policies/`.
    pub name: Arc<str>,
    /// First 12 hex digits of the component's SHA-256.
    pub version: Arc<str>,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// The code.
    pub plugin: Arc<dyn Plugin>,
}

/// The policies that run for a tenant, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    policies: Vec<Policy>,
    hooks: Hooks,
}

impl Chain {
    /// A chain of policies already in order.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        let hooks = policies.iter().map(|policy| policy.plugin.hooks()).fold(
            Hooks::default(),
            |any, one| Hooks {
                request: any.request || one.request,
                request_body: any.request_body || one.request_body,
                response: any.response || one.response,
            },
        );
        Self { policies, hooks }
    }

    /// The links.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Whether both run the same code under the same rules, so that one may stand for the
    /// other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Policy, &Policy)| {
            a.name == b.name && a.on_failure == b.on_failure && Arc::ptr_eq(&a.plugin, &b.plugin)
        };
        self.policies.len() == other.policies.len()
            && self.policies.iter().zip(&other.policies).all(same)
    }

    /// Which hooks any link has.
    #[must_use]
    pub const fn hooks(&self) -> Hooks {
        self.hooks
    }
}
