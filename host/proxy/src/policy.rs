//! Steps 7 and 10: what the tenant's policies say about request and response.
//!
//! The exchange is moved through the chain, hook by hook; nothing happens and nothing is
//! allocated when no policy has the hook. Invariant: a failure, a broken rule included,
//! ends in the policy's own on-failure rule and in nothing else; a target outside the
//! tenant's residency group is a broken rule.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use model::policy::{
    BodyDecision, Decision, OnFailure, Policy, PolicyExchange, PolicyFailure, RequestHead,
    ResponseDecision, ResponseHead, Target,
};

use crate::{
    exchange::Exchange,
    forward::Payload,
    path, quota,
    request::{Client, NormalRequest},
    rescue::Reason,
    response::Stop,
    tenant::Caller,
    upstream,
};

/// A request that its policies let through.
pub(crate) struct Judged {
    pub(crate) head: RequestHead,
    pub(crate) payload: Payload,
    pub(crate) client: Client,
    pub(crate) trailers: bool,
    pub(crate) target: Option<Target>,
    /// For the response hooks, when there are any.
    pub(crate) kept: Option<Box<PolicyExchange>>,
}

/// Step 7 of the walk.
///
/// # Errors
/// A policy's own answer, its failure, or a body that is too large to look at.
pub(crate) async fn on_request(
    exchange: &mut Exchange,
    caller: &Caller,
    request: NormalRequest,
) -> Result<Judged, Stop> {
    let NormalRequest { head, body, client, trailers, .. } = request;
    let payload = Payload::from(body);
    let hooks = caller.entry.chain.hooks();
    if !(hooks.request || hooks.request_body || hooks.response) {
        return Ok(Judged { head, payload, client, trailers, target: None, kept: None });
    }
    let mut walk = Walk { exchange, caller, target: None };
    let mut seen = walk.open(head, &client);
    if hooks.request {
        seen = walk.requests(seen).await?;
    }
    let mut payload = payload;
    if hooks.request_body {
        (seen, payload) = walk.bodies(seen, payload).await?;
    }
    let target = walk.target;
    let (head, kept) = part(seen, hooks.response);
    Ok(Judged { head, payload, client, trailers, target, kept })
}

/// One chain on one exchange.
struct Walk<'a> {
    exchange: &'a mut Exchange,
    caller: &'a Caller,
    target: Option<Target>,
}

impl Walk<'_> {
    fn open(&self, request: RequestHead, client: &Client) -> Box<PolicyExchange> {
        let token = self.caller.token.as_deref();
        Box::new(PolicyExchange {
            request,
            response: None,
            tenant: self.caller.entry.clone(),
            resolved_by: self.caller.resolved_by,
            subject: token.and_then(|token| token.subject.clone()),
            claims: token.map(|token| token.claims.clone()).unwrap_or_default(),
            quotas: quota::standing(self.exchange, &self.caller.entry),
            client_ip: client.ip,
            client_country: client.country,
            id: self.exchange.id_text().into(),
            received_at: self.exchange.received_at,
        })
    }

    async fn requests(
        &mut self,
        mut seen: Box<PolicyExchange>,
    ) -> Result<Box<PolicyExchange>, Stop> {
        let chain = self.caller.entry.chain.clone();
        for policy in chain.policies().iter().filter(|policy| policy.plugin.hooks().request) {
            let path_before = seen.request.path_and_query.clone();
            let (back, decision) = self.exchange.in_time(policy.plugin.on_request(seen)).await?;
            seen = back;
            let decision = match decision {
                Ok(Decision::Respond(answer)) => {
                    self.exchange.record.policy(policy, "respond");
                    return Err(Stop::Answer(Box::new(answer)));
                }
                Ok(Decision::Continue) => keep_path_normal(&mut seen),
                Ok(Decision::Route(target)) => {
                    keep_path_normal(&mut seen).and_then(|()| self.aim(target))
                }
                Err(failure) => Err(failure),
            };
            if decision.is_err() {
                seen.request.path_and_query = path_before;
            }
            self.settle(policy, decision)?;
        }
        Ok(seen)
    }

    async fn bodies(
        &mut self,
        mut seen: Box<PolicyExchange>,
        payload: Payload,
    ) -> Result<(Box<PolicyExchange>, Payload), Stop> {
        let mut body = match payload {
            Payload::Whole(body) => body,
            Payload::Stream(incoming) => {
                let max = self.exchange.limits().policy_body_bytes_max;
                whole(self.exchange, incoming, max).await?
            }
        };
        let chain = self.caller.entry.chain.clone();
        for policy in chain.policies().iter().filter(|policy| policy.plugin.hooks().request_body) {
            let call = policy.plugin.on_request_body(seen, body.clone());
            let (back, decision) = self.exchange.in_time(call).await?;
            seen = back;
            let decision = match decision {
                Ok(BodyDecision::Respond(answer)) => {
                    self.exchange.record.policy(policy, "respond");
                    return Err(Stop::Answer(Box::new(answer)));
                }
                Ok(BodyDecision::Continue) => Ok(()),
                Ok(BodyDecision::Replace(other)) => {
                    body = other;
                    Ok(())
                }
                Ok(BodyDecision::Route(target)) => self.aim(target),
                Err(failure) => Err(failure),
            };
            self.settle(policy, decision)?;
        }
        Ok((seen, Payload::Whole(body)))
    }

    /// The host's own rule: a target is one of the tenant's, or nothing.
    fn aim(&mut self, target: Target) -> Result<(), PolicyFailure> {
        match upstream::resolve(&self.caller.entry, Some(&target)) {
            Some(_) => {
                self.target = Some(target);
                Ok(())
            }
            None => Err(PolicyFailure::BrokenRule(format!("{target:?} is not the tenant's"))),
        }
    }

    fn settle(&mut self, policy: &Policy, outcome: Result<(), PolicyFailure>) -> Result<(), Stop> {
        judge(self.exchange, policy, outcome)
    }
}

/// The whole body, of `max` bytes at most. Asking for it is what makes a client with
/// `Expect: 100-continue` send it.
///
/// # Errors
/// It is larger, late or cut off.
pub(crate) async fn whole(
    exchange: &Exchange,
    mut incoming: Incoming,
    max: usize,
) -> Result<Bytes, Stop> {
    let idle_ms = exchange.limits().body_idle_timeout_ms;
    if incoming.size_hint().lower() > max as u64 {
        return Err(Reason::BodyTooLarge.into());
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = exchange.within(idle_ms, Reason::BodyTimeout, incoming.frame()).await?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|_| exchange.connection.body_failure())?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(Reason::BodyTooLarge.into());
        }
        whole.extend_from_slice(&data);
    }
}

/// A path that a policy wrote obeys the rules of a client's.
fn keep_path_normal(seen: &mut PolicyExchange) -> Result<(), PolicyFailure> {
    let normal = path::normalise(&seen.request.path_and_query)
        .map_err(|_| PolicyFailure::BrokenRule("the path has no normal form".to_owned()))?;
    seen.request.path_and_query = normal;
    Ok(())
}

/// Records an outcome and applies the on-failure rule.
fn judge(
    exchange: &mut Exchange,
    policy: &Policy,
    outcome: Result<(), PolicyFailure>,
) -> Result<(), Stop> {
    let failure = match outcome {
        Ok(()) => {
            exchange.record.policy(policy, "continue");
            return Ok(());
        }
        Err(failure) => failure,
    };
    exchange.record.policy(policy, failure.label());
    tracing::warn!(
        policy = %policy.name,
        version = %policy.version,
        request_id = exchange.id_text(),
        on_failure = ?policy.on_failure,
        failure = %failure,
        "a policy failed"
    );
    match policy.on_failure {
        OnFailure::Open => Ok(()),
        OnFailure::Closed => Err(Reason::PolicyUnavailable.into()),
    }
}

/// The head to forward and, for response hooks, an exchange that still shows it.
fn part(seen: Box<PolicyExchange>, keep: bool) -> (RequestHead, Option<Box<PolicyExchange>>) {
    if !keep {
        return (seen.request, None);
    }
    let request = &seen.request;
    let copy = RequestHead {
        method: request.method.clone(),
        scheme: request.scheme,
        authority: request.authority.clone(),
        path_and_query: request.path_and_query.clone(),
        headers: request.headers.clone(),
    };
    (copy, Some(seen))
}

/// Step 10 of the walk: response hooks, in reverse order.
///
/// # Errors
/// A policy's answer in place of the upstream's, or its failure.
pub(crate) async fn on_response(
    exchange: &mut Exchange,
    caller: &Caller,
    kept: Option<Box<PolicyExchange>>,
    response: ResponseHead,
) -> Result<ResponseHead, Stop> {
    let Some(mut seen) = kept else { return Ok(response) };
    seen.response = Some(response);
    let chain = caller.entry.chain.clone();
    for policy in chain.policies().iter().rev().filter(|policy| policy.plugin.hooks().response) {
        let (back, decision) = exchange.in_time(policy.plugin.on_response(seen)).await?;
        seen = back;
        let outcome = match decision {
            Ok(ResponseDecision::Continue) => Ok(()),
            Ok(ResponseDecision::Respond(answer)) => {
                exchange.record.policy(policy, "respond");
                return Err(Stop::Answer(Box::new(answer)));
            }
            Err(failure) => Err(failure),
        };
        judge(exchange, policy, outcome)?;
    }
    // A plugin returns the exchange it was given; one that lost the response is broken.
    seen.response.ok_or(Stop::Reason(Reason::PolicyUnavailable))
}
