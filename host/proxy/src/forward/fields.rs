//! The fields that the edge itself writes on a message.
//!
//! Called once per forwarded request and once per forwarded response. Invariant: a
//! client's or a policy's word never ends up in one of these, except what a trusted proxy
//! said about its own client.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, TE, TRAILER, VIA},
};
use model::{headers::HOP_BY_HOP, policy::RequestHead, region::Region, snapshot::TenantEntry};
use smallvec::SmallVec;

use crate::{
    connection::text,
    exchange::Exchange,
    request::{Client, named_by_connection},
    tenant::Caller,
};

const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
const TENANT_SLUG: HeaderName = HeaderName::from_static("x-tenant-slug");
const TENANT_PLAN: HeaderName = HeaderName::from_static("x-tenant-plan");
const TENANT_REGION: HeaderName = HeaderName::from_static("x-tenant-region");
const TENANT_SUBJECT: HeaderName = HeaderName::from_static("x-tenant-subject");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The edge's name in `Via`.
const VIA_H1: HeaderValue = HeaderValue::from_static("1.1 leanvibe-edge");
const VIA_H2: HeaderValue = HeaderValue::from_static("2.0 leanvibe-edge");

/// A tenant's identity as field values, made once per snapshot and worker.
pub(crate) struct Badge {
    id: HeaderValue,
    slug: HeaderValue,
    plan: HeaderValue,
    home: HeaderValue,
}

impl Badge {
    pub(crate) fn of(entry: &TenantEntry) -> Self {
        Self {
            id: text(format_args!("{}", entry.id())),
            slug: text(format_args!("{}", entry.record.tenant.slug)),
            plan: text(format_args!("{}", entry.plan.name)),
            home: text(format_args!("{}", entry.home.name)),
        }
    }
}

/// Completes a request's fields.
pub(crate) fn write_request(
    exchange: &Exchange,
    caller: &Caller,
    region: &Arc<Region>,
    head: &mut RequestHead,
    client: &Client,
    trailers: bool,
) {
    let host = HeaderValue::from_str(&head.authority);
    let host = host.unwrap_or_else(|_| HeaderValue::from_static(""));
    let headers = &mut head.headers;
    headers.reserve(16);
    headers.insert(HOST, host.clone());
    trail(exchange, client, host, headers);
    identity(exchange, caller, region, headers);
    headers.insert(REQUEST_ID, exchange.id.clone());
    headers.insert(TRACEPARENT, traceparent(exchange, client.traceparent.as_ref()));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

fn trail(exchange: &Exchange, client: &Client, host: HeaderValue, headers: &mut HeaderMap) {
    let connection = &exchange.connection;
    let trail = client.trail.as_deref();
    let before = |name: &HeaderName| trail.and_then(|trail| trail.get(name)).cloned();
    let for_ = joined(trail, &FORWARDED_FOR, &connection.forwarded_for);
    headers.insert(FORWARDED_FOR, for_);
    headers.insert(FORWARDED, joined(trail, &FORWARDED, &connection.forwarded));
    let proto = before(&FORWARDED_PROTO).unwrap_or(HeaderValue::from_static(connection.scheme));
    headers.insert(FORWARDED_PROTO, proto);
    headers.insert(FORWARDED_HOST, before(&FORWARDED_HOST).unwrap_or(host));
    for hop in &client.via {
        headers.append(VIA, hop.clone());
    }
    headers.append(VIA, via(client.version));
}

fn joined(trail: Option<&HeaderMap>, name: &HeaderName, ours: &HeaderValue) -> HeaderValue {
    let Some(trail) = trail else { return ours.clone() };
    let hops: Vec<&str> =
        trail.get_all(name).iter().chain([ours]).filter_map(|hop| hop.to_str().ok()).collect();
    text(format_args!("{}", hops.join(", ")))
}

fn via(version: Version) -> HeaderValue {
    if version == Version::HTTP_2 { VIA_H2 } else { VIA_H1 }
}

fn identity(exchange: &Exchange, caller: &Caller, region: &Arc<Region>, headers: &mut HeaderMap) {
    let badge = exchange.pinned.badge(&caller.entry);
    headers.insert(TENANT_ID, badge.id.clone());
    headers.insert(TENANT_SLUG, badge.slug.clone());
    headers.insert(TENANT_PLAN, badge.plan.clone());
    let region = match Arc::ptr_eq(region, &caller.entry.home) {
        true => badge.home.clone(),
        false => text(format_args!("{}", region.name)),
    };
    headers.insert(TENANT_REGION, region);
    let subject = caller.token.as_ref().and_then(|token| token.subject_value.clone());
    subject.map(|subject| headers.insert(TENANT_SUBJECT, subject));
}

/// W3C Trace Context: the caller's trace with a span of ours, or a new trace.
fn traceparent(exchange: &Exchange, caller: Option<&HeaderValue>) -> HeaderValue {
    let mut random = [0; 24];
    exchange.worker.random(&mut random);
    let (trace, span) = random.split_at(16);
    let mut out = Vec::with_capacity(TRACEPARENT_LEN);
    let flags = match caller.and_then(continued) {
        Some((trace, flags)) => {
            out.extend_from_slice(b"00-");
            out.extend_from_slice(trace);
            flags
        }
        None => {
            out.extend_from_slice(b"00-");
            hex(trace, &mut out);
            b"00"
        }
    };
    out.push(b'-');
    hex(span, &mut out);
    out.push(b'-');
    out.extend_from_slice(flags);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(out))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

const TRACEPARENT_LEN: usize = 55;

/// Trace id and flags of a valid `traceparent`.
fn continued(value: &HeaderValue) -> Option<(&[u8], &[u8])> {
    let bytes = value.as_bytes();
    let lower_hex = |part: &&[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &&[u8]| part.iter().any(|byte| *byte != b'0');
    let mut parts = bytes.split(|byte| *byte == b'-');
    let version = parts.next().filter(|part| part.len() == 2).filter(lower_hex)?;
    let trace = parts.next().filter(|part| part.len() == 32).filter(lower_hex).filter(nonzero)?;
    parts.next().filter(|part| part.len() == 16).filter(lower_hex).filter(nonzero)?;
    let flags = parts.next().filter(|part| part.len() == 2).filter(lower_hex)?;
    // Version 00 has exactly four parts; ff is forbidden.
    let complete = version != b"ff" && (version != b"00" || parts.next().is_none());
    complete.then_some((trace, flags))
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        }
    }
}

/// Reduces a response's fields to those of the whole way; hyper frames it anew.
pub(crate) fn strip_response(method: &Method, status: StatusCode, headers: &mut HeaderMap) {
    named_by_connection(headers);
    let hop: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| **name != TRAILER && HOP_BY_HOP.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in hop {
        headers.remove(name);
    }
    // With no body to measure, the length is what the upstream says it would be.
    if *method != Method::HEAD && status != StatusCode::NOT_MODIFIED {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Adds the edge's own fields to any response.
pub(crate) fn write_response(exchange: &Exchange, headers: &mut HeaderMap) {
    headers.append(VIA, VIA_H1);
    headers.insert(REQUEST_ID, exchange.id.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_continued() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        let value = HeaderValue::try_from(&good).expect("a value");
        assert_eq!(continued(&value), Some((trace.as_bytes(), &b"01"[..])));
        for bad in [
            "".to_owned(),
            format!("{good}-x"),
            format!("ff-{trace}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            format!("00-{trace}-b7ad6b7169203331-1"),
        ] {
            let value = HeaderValue::try_from(&bad).expect("a value");
            assert_eq!(continued(&value), None, "{bad}");
        }
    }
}
