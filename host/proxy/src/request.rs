//! Step 3: one reading of the request, or none.
//!
//! From here on everybody (policies, the upstream, the log) sees the same method, host,
//! path and fields. Invariant: no field of one hop, no field that the edge owns and no
//! spelling twin of one survives, whatever `Connection` says.

use std::{borrow::Cow, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, VIA},
};
use hyper::body::{Body as _, Incoming};
use model::{
    headers::{FORWARDING, FRAMING, HOP_BY_HOP, is_stripped_from_client},
    host::{self, Host},
    policy::RequestHead,
};
use smallvec::SmallVec;

use crate::{
    exchange::Exchange,
    forward::fields::TRACEPARENT,
    path,
    rescue::{Flaw, Reason},
    wire::head::field_value,
};

/// A request with one reading.
pub(crate) struct NormalRequest {
    pub(crate) head: RequestHead,
    /// Length of the host name at the start of the authority; 0 for an address literal.
    name_len: usize,
    pub(crate) body: Incoming,
    pub(crate) client: Client,
    /// `TE: trailers` was said.
    pub(crate) trailers: bool,
}

/// What is known about the client beyond its connection.
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    pub(crate) country: Option<[u8; 2]>,
    pub(crate) scheme: &'static str,
    /// Forwarding fields of a trusted proxy, to be continued.
    pub(crate) trail: Option<Box<HeaderMap>>,
    /// The caller's `traceparent`.
    pub(crate) traceparent: Option<HeaderValue>,
    pub(crate) via: SmallVec<[HeaderValue; 1]>,
    pub(crate) version: Version,
}

impl NormalRequest {
    /// The canonical host name, `None` for an address literal.
    pub(crate) fn host_name(&self) -> Option<&str> {
        self.head.authority.get(..self.name_len).filter(|name| !name.is_empty())
    }
}

/// Step 3 of the walk.
///
/// # Errors
/// The request is ambiguous, malformed or not for a gateway.
pub(crate) fn normalise(
    exchange: &mut Exchange,
    request: Request<Incoming>,
) -> Result<NormalRequest, Reason> {
    let (parts, body) = request.into_parts();
    let limits = exchange.limits();
    if parts.method == Method::CONNECT {
        return Err(Reason::MethodNotAllowed);
    }
    if body.size_hint().lower() > limits.request_body_bytes_max {
        return Err(Reason::BodyTooLarge);
    }
    let target = parts.uri.path_and_query().ok_or(Reason::Malformed(Flaw::Target))?;
    if target.as_str().len() > limits.uri_bytes_max {
        return Err(Reason::UriTooLong);
    }
    if parts.headers.len() > limits.header_fields_max {
        return Err(Reason::HeadTooLarge);
    }
    let path_and_query = path::normalise(target).map_err(Reason::Malformed)?;
    exchange.record.request(&parts.method, &path_and_query);
    let mut headers = parts.headers;
    if parts.version == Version::HTTP_2 {
        h2_fields(&mut headers).map_err(Reason::Malformed)?;
    }
    expectation(&headers)?;
    let forwarded_host =
        exchange.connection.trusted.then(|| headers.get("x-forwarded-host")).flatten();
    let (authority, name_len) = authority(
        parts.version,
        parts.uri.authority().map(|a| a.as_str()),
        &headers,
        forwarded_host,
    )?;
    let name = authority.get(..name_len).unwrap_or_default();
    misdirected(exchange, name, forwarded_host.is_some())?;
    let client = client(exchange, &mut headers, parts.version);
    let trailers = strip(&mut headers);
    Ok(NormalRequest {
        head: RequestHead {
            method: parts.method,
            scheme: client.scheme,
            authority,
            path_and_query,
            headers,
        },
        name_len,
        body,
        client,
        trailers,
    })
}

/// The h2 crate checks names and framing; values get the rule of HTTP/1 here, and cookie
/// crumbs become one field again (RFC 9113 8.2.3).
fn h2_fields(headers: &mut HeaderMap) -> Result<(), Flaw> {
    headers.values().try_for_each(|value| field_value(value.as_bytes()))?;
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> =
            headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let joined = crumbs.join(&b"; "[..]);
        let joined = HeaderValue::from_bytes(&joined).map_err(|_| Flaw::FieldValue)?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

fn expectation(headers: &HeaderMap) -> Result<(), Reason> {
    let mut expectations = headers.get_all(EXPECT).iter();
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Reason::ExpectationFailed),
    }
}

/// The canonical authority and the length of the name in it.
fn authority(
    version: Version,
    target: Option<&str>,
    headers: &HeaderMap,
    forwarded_host: Option<&HeaderValue>,
) -> Result<(Box<str>, usize), Reason> {
    // `Host` may be absent only where the version has no such rule (RFC 9112 3.2).
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Reason::HostInvalid);
    }
    let host = host.map(as_text).transpose()?;
    let stated = match (target, host) {
        (Some(target), Some(host)) => {
            if canonical(target)?.0 != canonical(host)?.0 {
                return Err(Reason::HostInvalid);
            }
            target
        }
        (Some(target), None) if version == Version::HTTP_2 => target,
        (None, Some(host)) => host,
        (Some(_) | None, None) => return Err(Reason::HostInvalid),
    };
    let stated = forwarded_host.map(as_text).transpose()?.unwrap_or(stated);
    let (text, name_len) = canonical(stated)?;
    Ok((text.into(), name_len))
}

/// RFC 9110 15.5.20: under TLS a connection serves the host that it was opened for, so
/// that neither a certificate nor a client's certificate speaks for another host. A trusted
/// proxy may name a host of its own, except one that asks for client certificates.
fn misdirected(exchange: &Exchange, name: &str, by_proxy: bool) -> Result<(), Reason> {
    let opened_for = exchange.connection.server_name.as_deref();
    let free = opened_for.is_none() || by_proxy;
    if opened_for == Some(name) {
        return Ok(());
    }
    let guarded = exchange.worker.tls.as_ref().is_some_and(|tls| tls.is_guarded(name));
    if free && !guarded { Ok(()) } else { Err(Reason::Misdirected) }
}

fn as_text(value: &HeaderValue) -> Result<&str, Reason> {
    value.to_str().map_err(|_| Reason::HostInvalid)
}

/// `name[:port]` in its one spelling, and the length of the name.
fn canonical(text: &str) -> Result<(Cow<'_, str>, usize), Reason> {
    let host = host::parse_authority(text).map_err(|_| Reason::HostInvalid)?;
    let Host::Name(name) = host else {
        return Ok((Cow::Borrowed(text), 0));
    };
    let name_len = name.len();
    if text.starts_with(&*name) && matches!(text.as_bytes().get(name_len), None | Some(b':')) {
        return Ok((Cow::Borrowed(text), name_len));
    }
    match text.rsplit_once(':') {
        Some((_, port)) => Ok((Cow::Owned(format!("{name}:{port}")), name_len)),
        None => Ok((Cow::Owned(name.into_owned()), name_len)),
    }
}

/// Reads what a trusted proxy says about its client, takes every forwarding field away.
fn client(exchange: &mut Exchange, headers: &mut HeaderMap, version: Version) -> Client {
    let connection = &exchange.connection;
    let mut client = Client {
        ip: connection.peer,
        country: None,
        scheme: connection.scheme,
        trail: None,
        traceparent: headers.remove(TRACEPARENT),
        via: headers.get_all(VIA).iter().cloned().collect(),
        version,
    };
    if connection.trusted {
        if let Some(id) = headers.get("x-request-id").filter(|id| is_request_id(id)) {
            exchange.id = id.clone();
        }
        let config = &exchange.worker.config;
        let country = config.client_country_header.as_ref().and_then(|name| headers.get(name));
        client.country = country.and_then(country_code);
        match headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
            Some(b"https") => client.scheme = "https",
            Some(b"http") => client.scheme = "http",
            _ => {}
        }
        client.ip = trusted_client_ip(headers, connection.peer, |ip| config.trusts(ip));
        let mut trail = Box::new(HeaderMap::new());
        for name in ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host"] {
            let name = HeaderName::from_static(name);
            for value in headers.get_all(&name) {
                trail.append(name.clone(), value.clone());
            }
        }
        client.trail = Some(trail);
    }
    client
}

/// 1–128 visible characters: it goes to logs and upstreams.
fn is_request_id(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn country_code(value: &HeaderValue) -> Option<[u8; 2]> {
    let code: [u8; 2] = value.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_alphabetic).then(|| code.map(|c| c.to_ascii_uppercase()))
}

/// The nearest address that is no trusted proxy; garbage ends the search.
fn trusted_client_ip(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    let lines: SmallVec<[&HeaderValue; 2]> = headers.get_all("x-forwarded-for").iter().collect();
    let hops =
        lines.iter().rev().filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    for hop in hops {
        let Ok(ip) = hop.trim().parse::<IpAddr>() else { break };
        client = ip.to_canonical();
        if !trusts(client) {
            break;
        }
    }
    client
}

/// Takes away what must not go on; true when the client accepts trailers.
fn strip(headers: &mut HeaderMap) -> bool {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    named_by_connection(headers);
    let doomed: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            (HOP_BY_HOP.contains(&text) && **name != TRAILER)
                || FRAMING.contains(&text)
                || FORWARDING.contains(&text)
                || is_stripped_from_client(text)
        })
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
    trailers
}

/// RFC 9110 7.6.1: fields that `Connection` names belong to this hop. What the edge adds
/// is added later, so a client cannot name it away; `Host` and the like go by their own
/// rules.
pub(crate) fn named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
        // The usual two name no field.
        .filter(|option| !["keep-alive", "close"].contains(option))
        .filter_map(|name| HeaderName::try_from(name).ok())
        .filter(|name| !matches!(*name, HOST | CONTENT_LENGTH | TE | TRAILER))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_authority_has_one_spelling() {
        for (host, want, name) in [
            ("acme.localhost:8080", "acme.localhost:8080", "acme.localhost"),
            ("ACME.localhost.:8080", "acme.localhost:8080", "acme.localhost"),
            ("acme.localhost.", "acme.localhost", "acme.localhost"),
            ("[::1]:80", "[::1]:80", ""),
        ] {
            let (text, len) = canonical(host).expect(host);
            assert_eq!((&*text, &text[..len]), (want, name));
        }
    }

    #[test]
    fn two_statements_of_the_host_must_agree() {
        let agreed =
            authority(Version::HTTP_11, Some("a.test"), &map(&[("host", "A.test.")]), None);
        assert_eq!(agreed, Ok(("a.test".into(), 6)));
        for (target, headers) in [
            (None, map(&[])),
            (Some("a.test"), map(&[])),
            (None, map(&[("host", "a"), ("host", "a")])),
            (Some("a.test"), map(&[("host", "b.test")])),
            (Some("a.test:1"), map(&[("host", "a.test:2")])),
            (None, map(&[("host", "a, b")])),
            (None, map(&[("host", "u@a")])),
        ] {
            assert_eq!(
                authority(Version::HTTP_11, target, &headers, None),
                Err(Reason::HostInvalid)
            );
        }
    }

    #[test]
    fn what_belongs_to_one_hop_or_to_the_edge_is_taken_away() {
        let mut headers = map(&[
            ("connection", "x-mine, keep-alive, authorization"),
            ("x-mine", "1"),
            ("authorization", "Bearer t"),
            ("x_tenant_id", "evil"),
            ("x-tenant-id", "evil"),
            ("x-tenant-anything", "evil"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("accept", "*/*"),
        ]);
        assert!(strip(&mut headers));
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }

    #[test]
    fn the_nearest_stranger_is_the_client() {
        let headers =
            map(&[("x-forwarded-for", "9.9.9.9, 1.2.3.4"), ("x-forwarded-for", "10.0.0.2")]);
        let trusts = |ip: IpAddr| ip.to_string().starts_with("10.");
        let peer = "10.0.0.1".parse().expect("an address");
        assert_eq!(trusted_client_ip(&headers, peer, trusts).to_string(), "1.2.3.4");
        let garbage = map(&[("x-forwarded-for", "1.2.3.4, unknown")]);
        assert_eq!(trusted_client_ip(&garbage, peer, trusts), peer);
    }
}
