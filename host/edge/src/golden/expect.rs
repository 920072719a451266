//! What must come out of a golden case, and the comparison.

use std::collections::BTreeMap;

use http::HeaderMap;
use model::policy::{
    BodyDecision, Decision, LocalResponse, PolicyExchange, PolicyFailure, ResponseDecision, Target,
};
use serde::Deserialize;

/// `[expect]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    decision: Kind,
    region: Option<String>,
    backend: Option<String>,
    status: Option<u16>,
    /// Of the forwarded request; of the answer when the decision is `respond`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Names that must not be there, on the same message.
    #[serde(default)]
    absent: Vec<String>,
    path: Option<String>,
    #[serde(default)]
    body_contains: Vec<String>,
    /// Of the response after the response hook.
    #[serde(default)]
    response_headers: BTreeMap<String, String>,
    error_contains: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Continue,
    Replace,
    Route,
    Respond,
    Failure,
}

impl Expect {
    /// Keys that say nothing about the decision expected: a case that checks less than it
    /// seems to is refused.
    pub(super) fn misplaced(&self, response_hook: bool) -> Vec<&'static str> {
        use Kind::{Continue, Failure, Replace, Respond, Route};
        let is = |kinds: &[Kind]| kinds.contains(&self.decision);
        let passes = is(&[Continue, Replace, Route]) && !response_hook;
        let checks = [
            ("region", self.region.is_some(), is(&[Route])),
            ("backend", self.backend.is_some(), is(&[Route])),
            ("status", self.status.is_some(), is(&[Respond]) || response_hook),
            ("headers", !self.headers.is_empty(), passes || is(&[Respond])),
            ("absent", !self.absent.is_empty(), !is(&[Failure])),
            ("path", self.path.is_some(), passes),
            ("body_contains", !self.body_contains.is_empty(), is(&[Respond, Replace])),
            ("response_headers", !self.response_headers.is_empty(), response_hook),
            ("error_contains", self.error_contains.is_some(), is(&[Failure])),
        ];
        let wrong = checks.into_iter().filter(|(_, given, applies)| *given && !applies);
        wrong.map(|(key, ..)| key).collect()
    }

    pub(super) fn check_bind_failure(&self, error: &str) -> Result<(), String> {
        self.kind(Kind::Failure, &format!("the policy could not be bound: {error}"))?;
        self.error(error)
    }

    pub(super) fn check_request(
        &self,
        exchange: &PolicyExchange,
        decision: Result<Decision, PolicyFailure>,
    ) -> Result<(), String> {
        match decision {
            Ok(Decision::Continue) => self.forwarded(Kind::Continue, exchange),
            Ok(Decision::Route(target)) => self.routed(&target, exchange),
            Ok(Decision::Respond(response)) => self.answered(&response),
            Err(failure) => self.failed(&failure),
        }
    }

    pub(super) fn check_body(
        &self,
        exchange: &PolicyExchange,
        decision: Result<BodyDecision, PolicyFailure>,
    ) -> Result<(), String> {
        match decision {
            Ok(BodyDecision::Continue) => self.forwarded(Kind::Continue, exchange),
            Ok(BodyDecision::Replace(body)) => {
                self.forwarded(Kind::Replace, exchange)?;
                self.body(&body)
            }
            Ok(BodyDecision::Route(target)) => self.routed(&target, exchange),
            Ok(BodyDecision::Respond(response)) => self.answered(&response),
            Err(failure) => self.failed(&failure),
        }
    }

    pub(super) fn check_response(
        &self,
        exchange: &PolicyExchange,
        decision: Result<ResponseDecision, PolicyFailure>,
    ) -> Result<(), String> {
        match decision {
            Ok(ResponseDecision::Continue) => {
                self.kind(Kind::Continue, "the policy let the response pass")?;
                let response = exchange.response.as_ref().ok_or("the response is gone")?;
                equal("status", self.status.as_ref(), &response.status.as_u16())?;
                headers_hold(&self.response_headers, &self.absent, &response.headers)
            }
            Ok(ResponseDecision::Respond(response)) => self.answered(&response),
            Err(failure) => self.failed(&failure),
        }
    }

    fn kind(&self, got: Kind, what: &str) -> Result<(), String> {
        if self.decision == got {
            Ok(())
        } else {
            Err(format!("expected {:?}, but {what}", self.decision))
        }
    }

    fn forwarded(&self, kind: Kind, exchange: &PolicyExchange) -> Result<(), String> {
        self.kind(kind, "the request went on")?;
        equal("path", self.path.as_deref(), exchange.request.path_and_query.as_str())?;
        headers_hold(&self.headers, &self.absent, &exchange.request.headers)
    }

    fn routed(&self, target: &Target, exchange: &PolicyExchange) -> Result<(), String> {
        self.forwarded(Kind::Route, exchange)?;
        let (region, backend) = match target {
            Target::Region(name) => (Some(&**name), None),
            Target::Backend(name) => (None, Some(&**name)),
        };
        if self.region.as_deref() != region || self.backend.as_deref() != backend {
            return Err(format!("routed to {target:?}"));
        }
        Ok(())
    }

    fn answered(&self, response: &LocalResponse) -> Result<(), String> {
        let body = String::from_utf8_lossy(&response.body);
        self.kind(Kind::Respond, &format!("the policy answered {}: {body}", response.status))?;
        equal("status", self.status.as_ref(), &response.status.as_u16())?;
        headers_hold(&self.headers, &self.absent, &response.headers)?;
        self.body(&response.body)
    }

    fn failed(&self, failure: &PolicyFailure) -> Result<(), String> {
        self.kind(Kind::Failure, &format!("the policy failed: {failure}"))?;
        self.error(&failure.to_string())
    }

    fn error(&self, text: &str) -> Result<(), String> {
        match &self.error_contains {
            Some(part) if !text.contains(part) => Err(format!("`{part}` is not in `{text}`")),
            _ => Ok(()),
        }
    }

    fn body(&self, body: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(body);
        match self.body_contains.iter().find(|part| !text.contains(part.as_str())) {
            Some(part) => Err(format!("`{part}` is not in the body `{text}`")),
            None => Ok(()),
        }
    }
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    want: Option<&T>,
    got: &T,
) -> Result<(), String> {
    match want {
        Some(want) if want != got => Err(format!("{what} is {got:?}, expected {want:?}")),
        _ => Ok(()),
    }
}

fn headers_hold(
    want: &BTreeMap<String, String>,
    absent: &[String],
    got: &HeaderMap,
) -> Result<(), String> {
    for (name, value) in want {
        let values: Vec<_> =
            got.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        if values.len() != 1 || values.first().is_none_or(|got| got != value) {
            return Err(format!("header {name} is {values:?}, expected {value:?}"));
        }
    }
    match absent.iter().find(|name| got.contains_key(name.as_str())) {
        Some(name) => Err(format!("header {name} is there")),
        None => Ok(()),
    }
}
