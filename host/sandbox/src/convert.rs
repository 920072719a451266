//! Between the types of the contract and those of `model`; nothing of WIT goes further.
//!
//! Called once per hook with what the guest decided. Invariant: a decision that comes out
//! of here keeps every rule of the host, however the guest made it.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use model::policy::{BodyDecision, Decision, LocalResponse, ResponseDecision, Target};

use crate::{
    bindings::{
        exports::leanvibe::policy::{request_body_hook, request_hook, response_hook},
        leanvibe::policy::types as wit,
    },
    edits::{Refusal, checked_name, checked_status, checked_value},
    limits::Limits,
};

/// Bytes of a region's or backend's name. None in `policies/` is longer.
const TARGET_BYTES_MAX: usize = 128;

/// A decision that the host does not carry out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenRule(pub(crate) String);

impl From<Refusal> for wit::EditError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Syntax => Self::InvalidSyntax,
            Refusal::Forbidden => Self::Forbidden,
            Refusal::Size => Self::SizeExceeded,
        }
    }
}

/// What a request hook returned.
pub(crate) fn decision(
    decision: request_hook::Decision,
    limits: &Limits,
) -> Result<Decision, BrokenRule> {
    Ok(match decision {
        request_hook::Decision::Continue => Decision::Continue,
        request_hook::Decision::Route(to) => Decision::Route(target(to)?),
        request_hook::Decision::Respond(response) => Decision::Respond(local(response, limits)?),
    })
}

/// What a request-body hook returned.
pub(crate) fn body_decision(
    decision: request_body_hook::BodyDecision,
    limits: &Limits,
) -> Result<BodyDecision, BrokenRule> {
    use request_body_hook::BodyDecision as Guest;
    Ok(match decision {
        Guest::Continue => BodyDecision::Continue,
        Guest::Replace(content) => BodyDecision::Replace(body(content, limits.body_bytes)?),
        Guest::Route(to) => BodyDecision::Route(target(to)?),
        Guest::Respond(response) => BodyDecision::Respond(local(response, limits)?),
    })
}

/// What a response hook returned.
pub(crate) fn response_decision(
    decision: response_hook::ResponseDecision,
    limits: &Limits,
) -> Result<ResponseDecision, BrokenRule> {
    Ok(match decision {
        response_hook::ResponseDecision::Continue => ResponseDecision::Continue,
        response_hook::ResponseDecision::Respond(response) => {
            ResponseDecision::Respond(local(response, limits)?)
        }
    })
}

fn target(target: wit::Target) -> Result<Target, BrokenRule> {
    let (name, make): (String, fn(Box<str>) -> Target) = match target {
        wit::Target::Region(name) => (name, Target::Region),
        wit::Target::Backend(name) => (name, Target::Backend),
    };
    if name.is_empty() || name.len() > TARGET_BYTES_MAX {
        return Err(BrokenRule("a target's name has 1 to 128 bytes".into()));
    }
    Ok(make(name.into()))
}

fn local(response: wit::LocalResponse, limits: &Limits) -> Result<LocalResponse, BrokenRule> {
    let status = checked_status(response.status)
        .map_err(|_| BrokenRule(format!("status {} is not within 200–599", response.status)))?;
    let body = body(response.body, limits.response_body_bytes)?;
    let bodiless = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    if bodiless && !body.is_empty() {
        return Err(BrokenRule(format!("a response with status {status} has no body")));
    }
    Ok(LocalResponse { status, headers: fields(response.headers, limits)?, body })
}

fn fields(fields: Vec<(String, String)>, limits: &Limits) -> Result<HeaderMap, BrokenRule> {
    if fields.len() > limits.fields {
        return Err(BrokenRule(format!("a response has at most {} fields", limits.fields)));
    }
    if fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        > limits.edit_bytes
    {
        return Err(BrokenRule(format!("fields have at most {} bytes", limits.edit_bytes)));
    }
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let broken = |refusal| BrokenRule(format!("field {name:?} {refusal}"));
        let value = checked_value(value.as_bytes()).map_err(broken)?;
        let name = checked_name(&name).map_err(broken)?;
        headers.try_append(name, value).map_err(|_| BrokenRule("too many fields".into()))?;
    }
    Ok(headers)
}

fn body(content: wit::Content, max: usize) -> Result<Bytes, BrokenRule> {
    let bytes = match content {
        wit::Content::Empty => Bytes::new(),
        wit::Content::Text(text) => text.into(),
        wit::Content::Bytes(bytes) => bytes.into(),
    };
    if bytes.len() > max {
        return Err(BrokenRule(format!("a body has at most {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(status: u16, fields: &[(&str, &str)], body: &str) -> Result<Decision, BrokenRule> {
        let headers =
            fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let response =
            wit::LocalResponse { status, headers, body: wit::Content::Text(body.to_owned()) };
        decision(request_hook::Decision::Respond(response), &Limits::default())
    }

    #[test]
    fn a_sound_response_passes() {
        let decision = respond(418, &[("X-Why", "tea"), ("x-why", "pot")], "short and stout");
        let Ok(Decision::Respond(response)) = decision else { panic!("{decision:?}") };
        assert_eq!(response.status, 418);
        assert_eq!(response.headers.get_all("x-why").iter().count(), 2);
        assert_eq!(response.body, "short and stout");
    }

    #[test]
    fn a_response_that_breaks_a_rule_is_refused_by_name() {
        let long = "x".repeat(200_000);
        let many = vec![("x-a", "1"); 101];
        for (status, fields, body, reason) in [
            (99, &[][..], "", "status 99"),
            (101, &[], "", "status 101"),
            (1000, &[], "", "status 1000"),
            (204, &[], "x", "no body"),
            (200, &[("content-length", "5")], "", "\"content-length\" belongs"),
            (200, &[("Transfer-Encoding", "chunked")], "", "belongs"),
            (200, &[("x-a", "1\r\nset-cookie: b")], "", "not valid"),
            (200, &[("x a", "1")], "", "not valid"),
            (200, &many, "", "at most 100 fields"),
            (200, &[("x-a", &long[..20_000])], "", "at most 16384 bytes"),
            (200, &[], &long, "at most 131072 bytes"),
        ] {
            let error = respond(status, fields, body).expect_err("refused").0;
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_target_needs_a_name() {
        for name in [String::new(), "r".repeat(129)] {
            let to = request_hook::Decision::Route(wit::Target::Region(name));
            assert!(decision(to, &Limits::default()).is_err());
        }
    }
}
