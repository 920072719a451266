//! Requests before they are mutated, and the pieces that mutation puts in.

/// Names of methods; the last ones are known to few.
pub const METHODS: &[&str] =
    &["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PROPFIND"];

/// Fields that a mutation adds, or puts in another's place.
pub const FIELDS: &[&str] = &[
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked;a=b",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding",
    "Transfer_Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "TE: trailers, chunked",
    "Content-Length: 0",
    "Content-Length: 1",
    "Content-Length: 44",
    "Content-Length: 010",
    "Content-Length: +5",
    "Content-Length: -1",
    "Content-Length: 5, 5",
    "Content-Length: 0x10",
    "Content-Length: 18446744073709551617",
    "Content-Length:",
    "Content_Length: 7",
    " Content-Length: 7",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length, transfer-encoding, host",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Trailer: Content-Length",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Host: acme.localhost",
    "Host: other.localhost",
    "Host: acme.localhost:80",
    "X-Forwarded-Host: other.localhost",
    "Forwarded: host=other.localhost",
    "X-HTTP-Method-Override: DELETE",
    "Cookie: a=1",
    "Cookie: b=2; c=3",
    "X-A: 1\r\n 2",
    "X-A: \u{85}",
    "X-A: a\0b",
    "X-A: \u{7f}",
    "X\u{e9}: 1",
    ": nameless",
    "Accept-Encoding: gzip",
    "Range: bytes=0-,0-,0-",
];

/// Targets; `{}` becomes the mark of the mutant.
pub const TARGETS: &[&str] = &[
    "/{}",
    "/{}/",
    "/a/../{}",
    "/a//{}",
    "/{};x=y",
    "/{}?a=b&c=%0d%0a",
    "/{}?q=GET%20/%20HTTP/1.1",
    "/{}#fragment",
    "/%2e%2e/{}",
    "/{}%00",
    "/{}%0a",
    "/{}\\x",
    "/{} HTTP/1.1",
    "//{}",
    "http://acme.localhost/{}",
    "http://other.localhost/{}",
    "http://acme.localhost@other.localhost/{}",
    "acme.localhost:80",
    "*",
    "{}",
];

/// Ends of lines, of which one is right.
pub const ENDS: &[&str] = &["\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", " \r\n", "\0\r\n", ""];

/// Sizes of chunks, as they may be written.
pub const SIZES: &[&str] = &[
    "0",
    "00",
    "5",
    "05",
    "0x5",
    "5;a=b",
    "5 ",
    " 5",
    "5\t",
    "+5",
    "-0",
    "G",
    "",
    "fffffffffffffffff",
    "5;a=\"\r\n\"",
    "5;\n",
    "2c",
    "2C",
];

/// A whole request that a body carries: where framing has two readings, it becomes one.
pub fn smuggled(mark: &str) -> String {
    format!("GET /smuggled/{mark} HTTP/1.1\r\nHost: acme.localhost\r\n\r\n")
}

/// Well-formed requests of every kind of framing, each with the mark in its target.
pub fn requests(mark: &str) -> Vec<String> {
    let host = "Host: acme.localhost\r\n";
    let inner = smuggled(mark);
    let (length, hex) = (inner.len(), format!("{:x}", inner.len()));
    vec![
        format!("GET /{mark} HTTP/1.1\r\n{host}\r\n"),
        format!(
            "GET /{mark}?a=b HTTP/1.1\r\n{host}Accept: */*\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n"
        ),
        format!("HEAD /{mark} HTTP/1.1\r\n{host}\r\n"),
        format!("DELETE /{mark} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"),
        format!("OPTIONS /{mark} HTTP/1.1\r\n{host}Connection: x-a\r\nX-A: 1\r\n\r\n"),
        format!("GET http://acme.localhost/{mark} HTTP/1.1\r\n{host}\r\n"),
        format!("GET /{mark} HTTP/1.0\r\n{host}Connection: keep-alive\r\n\r\n"),
        format!("POST /{mark} HTTP/1.0\r\n{host}Content-Length: {length}\r\n\r\n{inner}"),
        format!("POST /{mark} HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n{inner}"),
        format!("PUT /{mark} HTTP/1.1\r\n{host}Content-Length: 5\r\nX-A: b\r\n\r\nhello"),
        format!("GET /{mark} HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello"),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{hex}\r\n{inner}\r\n0\r\n\r\n"
        ),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
        ),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
        ),
        format!(
            "PATCH /{mark} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n"
        ),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
        ),
        format!(
            "GET /{mark} HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{inner}"
        ),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
        ),
        format!(
            "POST /{mark} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\nGET /{mark}/second HTTP/1.1\r\n{host}\r\n"
        ),
    ]
}
