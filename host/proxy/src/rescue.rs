//! Why a request gets no answer from its upstream, and what it gets instead.
//!
//! One table from reason to response. Invariant: the match has no `_`, so a new reason
//! does not compile until it has its row; a detail never names a backend, an address or
//! a version.

use http::StatusCode;
use model::{problem, tenant::NotAdmitted};

use crate::session::RETRY_AFTER_S;

/// What is wrong with a message that has no, or more than one, reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    RequestLine,
    Version,
    LineEnd,
    FieldName,
    FieldValue,
    Folding,
    ContentLength,
    TransferEncoding,
    BothLengths,
    Chunk,
    Trailer,
    Target,
    Path,
}

impl Flaw {
    const fn detail(self) -> &'static str {
        match self {
            Self::RequestLine => "The request line is malformed.",
            Self::Version => "The protocol version is not HTTP/1.0 or HTTP/1.1.",
            Self::LineEnd => "A line does not end in CRLF.",
            Self::FieldName => "A field name is malformed.",
            Self::FieldValue => "A field value holds a forbidden byte.",
            Self::Folding => "A field is folded over several lines.",
            Self::ContentLength => "Content-Length is malformed or repeated.",
            Self::TransferEncoding => "Transfer-Encoding is not exactly one `chunked`.",
            Self::BothLengths => "Transfer-Encoding and Content-Length exclude each other.",
            Self::Chunk => "The chunked body is malformed.",
            Self::Trailer => "The trailer section is malformed.",
            Self::Target => "The request target is malformed.",
            Self::Path => "The path has an ambiguous or forbidden form.",
        }
    }
}

/// Why the edge answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Malformed(Flaw),
    HostInvalid,
    Misdirected,
    UriTooLong,
    HeadTooLarge,
    MethodNotAllowed,
    ExpectationFailed,
    BodyTooLarge,
    BodyTimeout,
    BodyAborted,
    NoSnapshot,
    Overloaded,
    UnknownHost,
    NoRoute,
    Unauthenticated,
    KeysUnavailable,
    TenantMismatch,
    NotAdmitted(NotAdmitted),
    RateExceeded,
    QuotaExhausted,
    QuotaSoft,
    QuotaUnavailable,
    StorageExceeded,
    CountExceeded,
    RoomUnknown,
    /// Of a body on its way; the hold knows why.
    RoomRefused,
    SessionsFull,
    SessionsUnavailable,
    SessionLost,
    PolicyUnavailable,
    UpstreamBusy,
    ConnectFailed,
    ConnectTimeout,
    UpstreamClosed,
    UpstreamGarbage,
    FirstByteTimeout,
    TotalTimeout,
    Internal,
}

/// Who a failure is charged to in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    Downstream,
    Upstream,
    Plugin,
    Us,
}

impl Blame {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Plugin => "plugin",
            Self::Us => "us",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) blame: Blame,
    /// Whether the connection can carry no further request.
    pub(crate) close: bool,
    pub(crate) retry_after_s: Option<u64>,
}

const fn row(status: StatusCode, code: &'static str, title: &'static str, blame: Blame) -> Row {
    Row { status, code, title, blame, close: false, retry_after_s: None }
}

impl Row {
    const fn closes(mut self) -> Self {
        self.close = true;
        self
    }

    const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl Reason {
    /// The table.
    pub(crate) const fn row(self) -> Row {
        use Blame::{Downstream, Plugin, Upstream, Us};
        type S = StatusCode;
        match self {
            Self::Malformed(_) => {
                row(S::BAD_REQUEST, "malformed-request", "Malformed request", Downstream).closes()
            }
            Self::HostInvalid => {
                row(S::BAD_REQUEST, "host-invalid", "Invalid host", Downstream).closes()
            }
            Self::Misdirected => row(
                S::MISDIRECTED_REQUEST,
                "misdirected-request",
                "Misdirected request",
                Downstream,
            ),
            Self::UriTooLong => {
                row(S::URI_TOO_LONG, "uri-too-long", "URI too long", Downstream).closes()
            }
            Self::HeadTooLarge => row(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "Request head too large",
                Downstream,
            )
            .closes(),
            Self::MethodNotAllowed => {
                row(S::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", Downstream)
                    .closes()
            }
            Self::ExpectationFailed => {
                row(S::EXPECTATION_FAILED, "expectation-failed", "Expectation failed", Downstream)
                    .closes()
            }
            Self::BodyTooLarge => {
                row(S::PAYLOAD_TOO_LARGE, "body-too-large", "Request body too large", Downstream)
                    .closes()
            }
            Self::BodyTimeout => {
                row(S::REQUEST_TIMEOUT, "body-timeout", "Request body too slow", Downstream)
                    .closes()
            }
            Self::BodyAborted => {
                row(S::BAD_REQUEST, "body-aborted", "Request body incomplete", Downstream).closes()
            }
            Self::NoSnapshot => reduced("Not ready", Us),
            Self::Overloaded => reduced("Overloaded", Us).closes(),
            Self::UnknownHost => row(S::NOT_FOUND, "not-found", "Not found", Downstream),
            Self::NoRoute => row(S::NOT_FOUND, "not-found", "Not found", Downstream),
            Self::Unauthenticated => {
                row(S::UNAUTHORIZED, "unauthenticated", "Authentication required", Downstream)
            }
            Self::KeysUnavailable => reduced("Token keys temporarily unknown", Us),
            Self::TenantMismatch => row(
                S::FORBIDDEN,
                "tenant-mismatch",
                "Host and token name different tenants",
                Downstream,
            ),
            Self::NotAdmitted(why) => not_admitted(why),
            Self::RateExceeded => {
                row(S::TOO_MANY_REQUESTS, "rate-exceeded", "Request rate exceeded", Downstream)
            }
            Self::QuotaExhausted => {
                row(S::TOO_MANY_REQUESTS, "quota-exceeded", "Quota exceeded", Downstream)
            }
            Self::QuotaSoft => {
                row(S::TOO_MANY_REQUESTS, "quota-exceeded", "Quota exceeded", Downstream)
                    .retry_after(1)
            }
            Self::QuotaUnavailable => reduced("Quota temporarily unknown", Us),
            Self::StorageExceeded => {
                row(S::PAYLOAD_TOO_LARGE, "quota-exceeded", "Storage quota exceeded", Downstream)
                    .closes()
            }
            Self::CountExceeded => {
                row(S::FORBIDDEN, "quota-exceeded", "Quota exceeded", Downstream)
            }
            Self::RoomUnknown | Self::RoomRefused => {
                reduced("Quota temporarily unknown", Us).closes()
            }
            Self::SessionsFull => {
                row(S::TOO_MANY_REQUESTS, "quota-exceeded", "Quota exceeded", Downstream)
                    .retry_after(RETRY_AFTER_S)
            }
            Self::SessionsUnavailable => reduced("Sessions temporarily unknown", Us),
            Self::SessionLost => reduced("The session could not be kept", Us),
            Self::PolicyUnavailable => {
                row(S::SERVICE_UNAVAILABLE, "policy-unavailable", "A policy failed", Plugin)
                    .retry_after(1)
            }
            Self::UpstreamBusy => reduced("The service is busy", Upstream),
            Self::ConnectFailed | Self::UpstreamClosed | Self::UpstreamGarbage => {
                row(S::BAD_GATEWAY, "bad-gateway", "The service did not answer properly", Upstream)
            }
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::TotalTimeout => row(
                S::GATEWAY_TIMEOUT,
                "gateway-timeout",
                "The service did not answer in time",
                Upstream,
            ),
            Self::Internal => row(S::INTERNAL_SERVER_ERROR, "internal", "Internal error", Us),
        }
    }

    /// The text for the client about this occurrence.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Malformed(flaw) => flaw.detail(),
            Self::HostInvalid => "The request names no host, several, or a malformed one.",
            Self::Misdirected => "This connection was not opened for the host of the request.",
            Self::UnknownHost => "No tenant is served under this host.",
            Self::NoRoute => "No route matches this method and path.",
            Self::Unauthenticated => "A valid bearer token is required.",
            Self::PolicyUnavailable => "A policy of this service could not decide.",
            Self::UriTooLong
            | Self::HeadTooLarge
            | Self::MethodNotAllowed
            | Self::ExpectationFailed
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyAborted
            | Self::NoSnapshot
            | Self::Overloaded
            | Self::KeysUnavailable
            | Self::TenantMismatch
            | Self::NotAdmitted(_)
            | Self::RateExceeded
            | Self::QuotaExhausted
            | Self::QuotaSoft
            | Self::QuotaUnavailable
            | Self::StorageExceeded
            | Self::CountExceeded
            | Self::RoomUnknown
            | Self::RoomRefused
            | Self::SessionsFull
            | Self::SessionsUnavailable
            | Self::SessionLost
            | Self::UpstreamBusy
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamClosed
            | Self::UpstreamGarbage
            | Self::FirstByteTimeout
            | Self::TotalTimeout
            | Self::Internal => "",
        }
    }

    /// The word in logs: finer than the public code where operators need it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown-host",
            Self::NoRoute => "no-route",
            Self::NoSnapshot => "no-snapshot",
            Self::Overloaded => "overloaded",
            Self::KeysUnavailable => "keys-unavailable",
            Self::QuotaSoft => "quota-soft",
            Self::QuotaUnavailable => "quota-unavailable",
            Self::StorageExceeded => "storage-exceeded",
            Self::CountExceeded => "count-exceeded",
            Self::RoomUnknown | Self::RoomRefused => "room-unknown",
            Self::SessionsFull => "sessions-full",
            Self::SessionsUnavailable => "sessions-unavailable",
            Self::SessionLost => "session-lost",
            Self::UpstreamBusy => "upstream-busy",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamGarbage => "upstream-garbage",
            Self::FirstByteTimeout => "first-byte-timeout",
            Self::TotalTimeout => "total-timeout",
            Self::Malformed(_)
            | Self::HostInvalid
            | Self::Misdirected
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::MethodNotAllowed
            | Self::ExpectationFailed
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyAborted
            | Self::Unauthenticated
            | Self::TenantMismatch
            | Self::NotAdmitted(_)
            | Self::RateExceeded
            | Self::QuotaExhausted
            | Self::PolicyUnavailable
            | Self::Internal => self.row().code,
        }
    }

    /// The problem body.
    pub(crate) fn problem(self) -> problem::Problem {
        let row = self.row();
        let problem =
            problem::Problem::new(row.status.as_u16(), row.code, row.title).detail(self.detail());
        let problem = match row.code {
            REDUCED => problem.of_type(problem::TEMPORARY_REDUCED_CAPACITY),
            _ => problem,
        };
        match row.retry_after_s {
            Some(seconds) => problem.with("retry_after", seconds),
            None => problem,
        }
    }
}

const REDUCED: &str = "temporary-reduced-capacity";

const fn reduced(title: &'static str, blame: Blame) -> Row {
    row(StatusCode::SERVICE_UNAVAILABLE, REDUCED, title, blame).retry_after(1)
}

const fn not_admitted(why: NotAdmitted) -> Row {
    use Blame::Downstream;
    type S = StatusCode;
    match why {
        NotAdmitted::Provisioning => reduced("The tenant is being provisioned", Blame::Us),
        NotAdmitted::TrialExpired => {
            row(S::FORBIDDEN, "trial-expired", "The trial has expired", Downstream)
        }
        NotAdmitted::PaymentRequired => {
            row(S::PAYMENT_REQUIRED, "payment-required", "Payment required", Downstream)
        }
        NotAdmitted::Suspended => {
            row(S::FORBIDDEN, "tenant-suspended", "The tenant is suspended", Downstream)
        }
        NotAdmitted::Erased => row(S::GONE, "tenant-erased", "The tenant was erased", Downstream),
    }
}
