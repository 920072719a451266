//! Feature flags for OpenFeature clients, on the tenants' own hosts: the OpenFeature Remote
//! Evaluation Protocol.
//!
//! `POST /ofrep/v1/evaluate/flags/{key}` evaluates one flag, without the key all of them. It
//! lies between resolving the tenant and the route (steps 4 and 5): who may ask is decided
//! as for any request of the tenant, its rate counts, and nothing is forwarded, so that no
//! token is charged and no policy runs. Where no flag is declared the path is the backend's.
//! Invariant: the tenant in the context is the one that the host resolved.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use model::{
    clock::UnixMs,
    flags::{self, FlagAnswer, FlagFault, FlagSet},
    policy::LocalResponse,
    route::{Pattern, Route},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    exchange::Exchange, policy, rate, request::NormalRequest, response::Stop, tenant::Caller,
};

/// Where all flags are evaluated; `/` and a key below it is one of them.
const PATH: &str = "/ofrep/v1/evaluate/flags";
/// Label of these requests in metrics and logs.
const ROUTE: &str = "ofrep";
/// Bytes of a request body (64 KiB): a context has some hundred.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Flags that are evaluated before others on the worker have their turn (64): a fraction of
/// a millisecond.
const FLAGS_AT_ONCE: usize = 64;
/// Hex digits of an entity tag (32): 128 bits of a SHA-256.
const TAG_DIGITS: usize = 32;

/// The OpenFeature codes that the request itself can have.
const PARSE_ERROR: &str = "PARSE_ERROR";
const INVALID_CONTEXT: &str = "INVALID_CONTEXT";
const FLAG_NOT_FOUND: &str = "FLAG_NOT_FOUND";

/// Gives the request back when it is not for the flags, and ends the walk when it is.
///
/// # Errors
/// The evaluation, or why there is none.
pub(crate) async fn divert(
    exchange: &mut Exchange,
    caller: &Caller,
    request: NormalRequest,
) -> Result<NormalRequest, Stop> {
    let Some(wanted) = wanted(exchange, request.head.path_and_query.path()) else {
        return Ok(request);
    };
    // Boxed: rare beside what the other requests need.
    let answer = Box::pin(serve(exchange, caller, wanted, request)).await?;
    Err(Stop::Answer(Box::new(answer)))
}

/// What is to be evaluated.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    One(String),
}

fn wanted(exchange: &Exchange, path: &str) -> Option<Wanted> {
    let rest = path.strip_prefix(PATH)?;
    let on = exchange.worker.config.ofrep;
    let has_flags = || exchange.snapshot().flags.as_ref().is_some_and(|set| !set.is_empty());
    if !on || !has_flags() {
        return None;
    }
    parse(rest)
}

fn parse(rest: &str) -> Option<Wanted> {
    if rest.is_empty() {
        return Some(Wanted::All);
    }
    rest.strip_prefix('/').map(|key| Wanted::One(decoded(key).into_owned()))
}

/// Undoes percent-encoding; what is none, or no text, stays as it is and names no flag.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = text.as_bytes().iter();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let pair = (*byte == b'%').then(|| (digit(ahead.next()), digit(ahead.next())));
        let code = match pair {
            Some((Some(high), Some(low))) => u8::try_from(high * 16 + low).ok(),
            Some(_) | None => None,
        };
        if code.is_some() {
            bytes = ahead;
        }
        out.push(code.unwrap_or(*byte));
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

async fn serve(
    exchange: &mut Exchange,
    caller: &Caller,
    wanted: Wanted,
    request: NormalRequest,
) -> Result<LocalResponse, Stop> {
    exchange.record.route(&route());
    rate::admit(exchange, &caller.entry).await?;
    let NormalRequest { head, body, client, .. } = request;
    if head.method != Method::POST {
        return Ok(not_allowed());
    }
    let body = policy::whole(exchange, body, BODY_BYTES_MAX).await?;
    let extra = match context_of(&body) {
        Ok(extra) => extra,
        Err(fault) => return Ok(refused(&wanted, &fault)),
    };
    let subject = caller.token.as_ref().and_then(|token| token.subject.as_deref());
    let own = flags::context(&caller.entry, subject, client.ip, client.country);
    let context = flags::with_extra(own, extra);
    let now = exchange.worker.now();
    // Pinned with the exchange: all are of one version of the file.
    let Some(set) = exchange.snapshot().flags.clone() else { return Ok(not_allowed()) };
    Ok(match wanted {
        Wanted::One(key) => one(&key, set.answer(&key, &context, now)),
        Wanted::All => {
            let evaluated = exchange.in_time(all(&*set, &context, now)).await?;
            tagged(evaluated, &head.headers)
        }
    })
}

fn route() -> std::sync::Arc<Route> {
    std::sync::Arc::new(Route {
        name: ROUTE.into(),
        methods: Vec::new(),
        path: Pattern::everything(),
        tags: Vec::new(),
        timeout_ms: None,
        meters: Vec::new(),
        reserves: Vec::new(),
        session: None,
    })
}

/// The client's part of the context. No body is an empty one.
fn context_of(body: &[u8]) -> Result<Map<String, Value>, FlagFault> {
    let fault = |code, detail: &str| FlagFault { code, detail: detail.to_owned() };
    if body.is_empty() {
        return Ok(Map::new());
    }
    let request: Value = serde_json::from_slice(body)
        .map_err(|error| fault(PARSE_ERROR, &format!("the body is not JSON: {error}")))?;
    let Value::Object(mut request) = request else {
        return Err(fault(PARSE_ERROR, "the body is not an object"));
    };
    let context = match request.remove("context") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context,
        Some(_) => return Err(fault(INVALID_CONTEXT, "`context` is not an object")),
    };
    match context.get("targetingKey") {
        None | Some(Value::String(_)) => Ok(context),
        Some(_) => Err(fault(INVALID_CONTEXT, "`context.targetingKey` is not a string")),
    }
}

/// One flag's answer.
fn one(key: &str, answer: FlagAnswer) -> LocalResponse {
    let status = match &answer.fault {
        None => StatusCode::OK,
        Some(fault) if fault.code == FLAG_NOT_FOUND => StatusCode::NOT_FOUND,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    respond(status, item(key, answer).to_string())
}

/// Every flag's answer, a flag that fails beside the others.
async fn all(set: &dyn FlagSet, context: &Map<String, Value>, now: UnixMs) -> String {
    let mut items = Vec::new();
    for (done, key) in set.keys().into_iter().enumerate() {
        if done % FLAGS_AT_ONCE == FLAGS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        items.push(item(key, set.answer(key, context, now)));
    }
    json!({ "flags": items }).to_string()
}

fn item(key: &str, answer: FlagAnswer) -> Value {
    if let Some(fault) = answer.fault {
        return failure(key, &fault);
    }
    let mut item = Map::new();
    item.insert("key".into(), key.into());
    item.insert("reason".into(), answer.reason.into());
    // Neither where the client's own default holds.
    item.extend(answer.value.map(|value| ("value".to_owned(), value)));
    item.extend(answer.variant.map(|variant| ("variant".to_owned(), variant.into())));
    item.insert("metadata".into(), answer.metadata.into());
    Value::Object(item)
}

fn failure(key: &str, fault: &FlagFault) -> Value {
    json!({ "key": key, "errorCode": fault.code, "errorDetails": fault.detail })
}

fn refused(wanted: &Wanted, fault: &FlagFault) -> LocalResponse {
    let body = match wanted {
        Wanted::One(key) => failure(key, fault),
        Wanted::All => json!({ "errorCode": fault.code, "errorDetails": fault.detail }),
    };
    respond(StatusCode::BAD_REQUEST, body.to_string())
}

fn not_allowed() -> LocalResponse {
    let body = json!({ "errorDetails": "flags are evaluated with POST" });
    let mut answer = respond(StatusCode::METHOD_NOT_ALLOWED, body.to_string());
    answer.headers.insert(ALLOW, HeaderValue::from_static("POST"));
    answer
}

/// The flags with their entity tag, or 304 where the client has just these.
fn tagged(body: String, request: &HeaderMap) -> LocalResponse {
    let digest = format!("{:x}", Sha256::digest(&body));
    let tag = format!("\"{}\"", digest.get(..TAG_DIGITS).unwrap_or(&digest));
    let mut answer = if has(request, &tag) {
        LocalResponse {
            status: StatusCode::NOT_MODIFIED,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    } else {
        respond(StatusCode::OK, body)
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        answer.headers.insert(ETAG, tag);
    }
    answer
}

/// Whether `If-None-Match` names the tag (RFC 9110 13.1.2: weak comparison).
fn has(request: &HeaderMap, tag: &str) -> bool {
    let listed = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
}

fn respond(status: StatusCode, body: String) -> LocalResponse {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // It is one caller's answer.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    LocalResponse { status, headers, body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_follows_the_path_decoded_once() {
        for (rest, want) in [
            ("", Some(Wanted::All)),
            ("/theme", Some(Wanted::One("theme".into()))),
            ("/a%2Fb", Some(Wanted::One("a/b".into()))),
            ("/%2525", Some(Wanted::One("%25".into()))),
            ("/%e2%82%ac", Some(Wanted::One("\u{20ac}".into()))),
            ("/%ff", Some(Wanted::One("%ff".into()))),
            ("/50%", Some(Wanted::One("50%".into()))),
            ("/", Some(Wanted::One(String::new()))),
            ("s", None),
            ("-more/theme", None),
        ] {
            assert_eq!(parse(rest), want, "{rest}");
        }
    }

    #[test]
    fn a_body_has_a_context_or_a_named_fault() {
        for body in ["", "{}", r#"{"context":null}"#, r#"{"context":{}}"#] {
            assert_eq!(context_of(body.as_bytes()), Ok(Map::new()), "{body}");
        }
        for (body, code) in [
            ("{", PARSE_ERROR),
            ("[]", PARSE_ERROR),
            ("\u{0}", PARSE_ERROR),
            (r#"{"context":[]}"#, INVALID_CONTEXT),
            (r#"{"context":{"targetingKey":1}}"#, INVALID_CONTEXT),
        ] {
            assert_eq!(context_of(body.as_bytes()).expect_err(body).code, code, "{body}");
        }
    }

    #[test]
    fn a_tag_is_compared_weakly_and_in_any_list() {
        for (field, want) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(field));
            assert_eq!(has(&headers, "\"a\""), want, "{field}");
        }
    }
}
