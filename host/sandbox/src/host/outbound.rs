//! `leanvibe:policy/outbound`: HTTP to the origins that the policy's declaration lists.
//!
//! Here the request is checked and counted; whoever implements [`model::outbound::Outbound`]
//! checks origin and addresses. Invariant: no call leaves without `CDN-Loop`, and none is made
//! for a request that came from a call of this edge.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{
    headers::{FRAMING, HOP_BY_HOP},
    outbound::{CDN_ID, Fetch, Fetched, OutboundError},
};

use crate::{
    bindings::leanvibe::policy::{
        outbound::{Error, FetchRequest, FetchResponse, Host},
        types::Content,
    },
    limits::Capability,
    state::State,
};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

impl From<OutboundError> for Error {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Denied => Self::AccessDenied,
            OutboundError::Invalid(_) => Self::InvalidRequest,
            OutboundError::Timeout => Self::Timeout,
            OutboundError::Connection => Self::ConnectionFailed,
            OutboundError::TooLarge => Self::TooLarge,
        }
    }
}

impl Host for State {
    async fn fetch(
        &mut self,
        request: FetchRequest,
    ) -> wasmtime::Result<Result<FetchResponse, Error>> {
        self.charge()?;
        let call = match self.call_of(request) {
            Ok(call) => call,
            Err(error) => return Ok(Err(error)),
        };
        let Some(outbound) = self.context.services.outbound.clone() else {
            return Ok(Err(Error::AccessDenied));
        };
        Ok(match outbound.fetch(call).await {
            Ok(answer) if self.budget.outbound(answer.body.len()) => Ok(response(answer)),
            Ok(_) => Err(Error::TooLarge),
            Err(error) => Err(error.into()),
        })
    }
}

impl State {
    /// The call that a request is, counted.
    fn call_of(&mut self, request: FetchRequest) -> Result<Fetch, Error> {
        let context = &self.context;
        if !context.grants.has(Capability::Outbound) || context.origins.is_empty() {
            return Err(Error::AccessDenied);
        }
        let call = self.call.as_ref().ok_or(Error::AccessDenied)?;
        let trail = trail(&call.exchange.request.headers)?;
        let mut headers = fields(request.headers)?;
        headers.insert(CDN_LOOP, trail);
        let method: Method = request.method.parse().map_err(|_| Error::InvalidRequest)?;
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Error::InvalidRequest);
        }
        let body = match request.body {
            Content::Empty => Bytes::new(),
            Content::Text(text) => text.into(),
            Content::Bytes(bytes) => bytes.into(),
        };
        if !self.budget.outbound_call(body.len()) {
            return Err(Error::BudgetExceeded);
        }
        let most_ms = context.limits.outbound_ms;
        Ok(Fetch {
            origins: context.origins.clone(),
            method,
            url: request.url,
            headers,
            body,
            timeout_ms: u64::from(request.timeout_ms.unwrap_or(most_ms).min(most_ms)),
            answer_bytes_max: self.budget.outbound_bytes,
        })
    }
}

/// What the policy set, without what is not its own.
fn fields(listed: Vec<(String, String)>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in listed {
        let name: HeaderName = name.parse().map_err(|_| Error::InvalidRequest)?;
        let owned = |names: &[&str]| names.contains(&name.as_str());
        if owned(&HOP_BY_HOP) || owned(&FRAMING) || name == CDN_LOOP || name == http::header::HOST {
            return Err(Error::InvalidRequest);
        }
        let value = HeaderValue::try_from(value).map_err(|_| Error::InvalidRequest)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// `CDN-Loop` of the call: the request's, and this edge behind it.
fn trail(request: &HeaderMap) -> Result<HeaderValue, Error> {
    let mut trail = String::new();
    for value in request.get_all(CDN_LOOP) {
        let value = value.to_str().map_err(|_| Error::InvalidRequest)?;
        let ids = value.split(',').map(|id| id.split(';').next().unwrap_or_default().trim());
        if ids.into_iter().any(|id| id.eq_ignore_ascii_case(CDN_ID)) {
            let advice = "the request comes from a call of this edge: a loop".to_owned();
            return Err(Error::Other(Some(advice)));
        }
        trail.push_str(value);
        trail.push_str(", ");
    }
    trail.push_str(CDN_ID);
    HeaderValue::try_from(trail).map_err(|_| Error::InvalidRequest)
}

fn response(answer: Fetched) -> FetchResponse {
    let headers = answer.headers.iter();
    FetchResponse {
        status: answer.status.as_u16(),
        headers: headers.map(|(name, value)| (name.to_string(), value.as_bytes().into())).collect(),
        body: answer.body.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CDN_LOOP, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_call_for_a_request_of_another_network_carries_its_trail_and_a_loop_is_refused() {
        assert_eq!(trail(&HeaderMap::new()).expect("a field"), CDN_ID);
        let behind = trail(&field("other; v=1, leanvibe-edges")).expect("a field");
        assert_eq!(behind, "other; v=1, leanvibe-edges, leanvibe-edge");
        for looped in ["leanvibe-edge", "a, LeanVibe-Edge;x=1", "leanvibe-edge , b"] {
            assert!(matches!(trail(&field(looped)), Err(Error::Other(_))), "{looped}");
        }
    }

    #[test]
    fn a_policy_writes_no_field_of_one_hop_and_none_that_is_the_hosts() {
        for name in
            ["Connection", "te", "Transfer-Encoding", "content-length", "HOST", "cdn-loop", "a b"]
        {
            let refused = fields(vec![(name.into(), "x".into())]);
            assert!(matches!(refused, Err(Error::InvalidRequest)), "{name}");
        }
        assert!(fields(vec![("x-ok".into(), "a\r\nb: c".into())]).is_err());
        let kept = fields(vec![("x-ok".into(), "a".into()), ("x-ok".into(), "b".into())]);
        assert_eq!(kept.expect("fields").len(), 2);
    }
}
