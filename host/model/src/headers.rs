//! Which header fields belong to whom: the rules for clients, policies and upstreams.
//!
//! Called per header of a request and per edit of a policy. Invariant: one list decides
//! for both, so a policy can never do what a client may not.

/// RFC 9110 7.6.1: fields of one hop, never forwarded. (`te: trailers` is the proxy's
/// own decision.)
pub const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "trailer",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
];

/// Fields that tell the upstream who the request belongs to: set by the edge, taken
/// from any client.
pub const IDENTITY: [&str; 6] = [
    "x-tenant-id",
    "x-tenant-slug",
    "x-tenant-plan",
    "x-tenant-region",
    "x-tenant-subject",
    "x-request-id",
];

/// Fields about the path of the message that the edge writes itself.
pub const FORWARDING: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "via",
    "traceparent",
];

/// Fields that frame or address the message.
pub const FRAMING: [&str; 4] = ["content-length", "host", "expect", "http2-settings"];

/// Whether the edge owns the field, so that no policy may write it. `name` is lower case.
#[must_use]
pub fn is_host_owned(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
        || IDENTITY.contains(&name)
        || FORWARDING.contains(&name)
        || FRAMING.contains(&name)
        || name.starts_with("x-tenant-")
        || name.starts_with("ratelimit")
        || name == "date"
}

/// Whether a client's field is dropped before anyone reads it: the edge's identity
/// fields, and twins that some servers read as the same name (`x_tenant_id`).
#[must_use]
pub fn is_stripped_from_client(name: &str) -> bool {
    IDENTITY.contains(&name) || name.starts_with("x-tenant-") || name.contains('_')
}
