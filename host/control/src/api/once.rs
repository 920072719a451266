//! `Idempotency-Key` on every POST: a request that is sent again has one effect and one
//! answer.
//!
//! `caller.rs` hands every POST of a known caller through here. What the handler changes
//! notes the key in its own transaction (`store/idempotency.rs`); the answer is kept after
//! it, also when the client has gone. After draft-ietf-httpapi-idempotency-key-header: the
//! same key with another request is 422, and 409 while there is no answer to repeat. A
//! refusal changed nothing and is not kept. Invariant: no request with a key takes effect
//! twice, in whichever processes and however they end.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use model::{audit::PLATFORM_CHAIN, tenant::TenantId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Api, body,
    caller::Caller,
    problem::{ApiError, Conflict},
};
use crate::store::{Attempt, GivenAnswer, Seen};

/// The header.
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What it does, for the document.
pub(super) const DESCRIPTION: &str = "1 to 255 visible ASCII characters, chosen by the client. \
    For a day, the same request with the same key has one effect and the same answer; another \
    request with the key is 422.";
/// Longest key, in bytes: a UUID or a digest with a prefix.
const KEY_BYTES_MAX: usize = 255;
/// How long a repeated request waits for the first one's answer, in ms: longer than any
/// change takes while the database is well.
const ANSWER_WAIT_MS: u64 = 2_000;
/// How often it looks, in ms.
const ANSWER_LOOK_MS: u64 = 50;
/// Longest answer that is kept, in bytes: far above any answer to a POST.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Header fields that belong to the answer itself.
const KEPT_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CACHE_CONTROL, header::ETAG, header::LOCATION];

/// Runs a POST, once if it says so.
pub(super) async fn run(
    api: Api,
    caller: Caller,
    tenant: Option<TenantId>,
    (mut parts, body): (Parts, Body),
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = key(&parts.headers)? else {
        parts.extensions.insert(caller);
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let request = Request::from_parts(parts, body);
    let (parts, bytes) = body::take(request, &api).await?;
    let attempt = Arc::new(Attempt {
        tenant: tenant.unwrap_or(PLATFORM_CHAIN),
        caller: caller.actor().to_string(),
        key,
        fingerprint: fingerprint(&parts, &bytes),
        id: Uuid::new_v4(),
    });
    if let Some(answer) = earlier(&api, &attempt).await? {
        return Ok(answer);
    }
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request.extensions_mut().insert(caller.once(Arc::clone(&attempt)));
    // A client that hangs up comes back for the answer.
    let running = tokio::spawn(async move {
        let response = next.run(request).await;
        if response.status().is_success() {
            return keep(&api, &attempt, response).await;
        }
        // Another with the same key may have been faster, and this one refused for that.
        match earlier(&api, &attempt).await {
            Ok(None) => response,
            Ok(Some(answer)) => answer,
            Err(error) => error.into_response(),
        }
    });
    running.await.map_err(|died| ApiError::Store(died.into()))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut fields = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let key = field.as_bytes();
    let sane = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    match (sane, fields.next()) {
        (true, None) => Ok(Some(String::from_utf8_lossy(key).into_owned())),
        _ => {
            let detail = format!("must be one field of 1 to {KEY_BYTES_MAX} visible characters");
            Err(ApiError::field(IDEMPOTENCY_KEY, detail))
        }
    }
}

/// What makes two requests the same; the two spellings of a path are one.
fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut digest = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), target.as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// The answer of an earlier request with the key, if there was one.
async fn earlier(api: &Api, attempt: &Attempt) -> Result<Option<Response>, ApiError> {
    for _ in 0..ANSWER_WAIT_MS / ANSWER_LOOK_MS {
        match api.store.seen(attempt).await? {
            Seen::Never => return Ok(None),
            Seen::Otherwise => return Err(ApiError::KeyReused),
            Seen::Answered(answer) => return Ok(Some(replay(answer))),
            Seen::Unanswered => tokio::time::sleep(Duration::from_millis(ANSWER_LOOK_MS)).await,
        }
    }
    Err(ApiError::Conflict(Conflict {
        code: "idempotency-answer-missing",
        title: "The first request has no answer to repeat",
        detail: "A request with this Idempotency-Key took effect and is still being answered, or \
                 its process ended before it was. It is not done again: read what is there."
            .to_owned(),
    }))
}

fn replay(answer: GivenAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Keeps an answer and gives it. One that cannot be kept is given all the same.
async fn keep(api: &Api, attempt: &Attempt, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = match to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "an answer could not be read back");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let headers = KEPT_HEADERS.iter().filter_map(|name| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let answer = GivenAnswer {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Err(error) = api.store.keep_answer(attempt, &answer).await {
        tracing::warn!(%error, "an answer was not kept for requests that repeat this one");
    }
    Response::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests;
