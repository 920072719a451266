//! The canonical form of a request's host, from which the tenant follows.
//!
//! Called on every request. Invariant: one spelling in, one out: lower case, A-labels,
//! no port, no trailing dot.

use std::{borrow::Cow, net::IpAddr};

/// Why an authority names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Empty, too long, or with a character that no host has.
    #[error("is not a host name")]
    Malformed,
    /// The port is no number of 1–65535.
    #[error("has an invalid port")]
    Port,
    /// `user@host`.
    #[error("may not carry user information")]
    UserInfo,
}

/// A host without port. IP literals resolve to no tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A DNS name, canonical.
    Name(Cow<'a, str>),
    /// An address literal.
    Address(IpAddr),
}

/// Parses `host[:port]` as it stands in `Host` or `:authority`. Does not allocate when
/// the name is lower-case ASCII already.
///
/// # Errors
/// What is wrong with it; the answer is 400 `host-invalid`.
pub fn parse_authority(text: &str) -> Result<Host<'_>, HostError> {
    if text.contains('@') {
        return Err(HostError::UserInfo);
    }
    if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']').ok_or(HostError::Malformed)?;
        check_port(port.strip_prefix(':').or_else(|| port.is_empty().then_some("80")))?;
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| HostError::Malformed)?;
        return Ok(Host::Address(address.into()));
    }
    let name = match text.split_once(':') {
        Some((name, port)) => {
            check_port(Some(port))?;
            name
        }
        None => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 {
        return Err(HostError::Malformed);
    }
    if let Ok(address) = name.parse::<std::net::Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    canonical_name(name).map(Host::Name)
}

fn canonical_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let well_formed = |name: &str| {
        name.split('.')
            .all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(plain))
    };
    if well_formed(name) {
        return Ok(Cow::Borrowed(name));
    }
    let ascii = if name.is_ascii() {
        name.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_strict(name).map_err(|_| HostError::Malformed)?
    };
    if well_formed(&ascii) { Ok(Cow::Owned(ascii)) } else { Err(HostError::Malformed) }
}

fn check_port(port: Option<&str>) -> Result<(), HostError> {
    let port = port.ok_or(HostError::Malformed)?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(()),
        _ => Err(HostError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_canonical_form() {
        for spelling in
            ["acme.localhost", "ACME.localhost:8080", "acme.LOCALHOST.", "Acme.localhost.:1"]
        {
            assert_eq!(
                parse_authority(spelling),
                Ok(Host::Name("acme.localhost".into())),
                "{spelling}"
            );
        }
        assert_eq!(
            parse_authority("bücher.example"),
            Ok(Host::Name("xn--bcher-kva.example".into()))
        );
        assert!(matches!(parse_authority("[::1]:80"), Ok(Host::Address(_))));
        assert!(matches!(parse_authority("127.0.0.1"), Ok(Host::Address(_))));
    }

    #[test]
    fn malformed_hosts_are_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "a\0.b",
            "user@a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "[::1",
            "[fe80::1%25eth0]",
            "a,b",
            "a/b",
            "a..",
            "a:1:2",
        ] {
            assert!(parse_authority(bad).is_err(), "{bad:?}");
        }
    }
}
