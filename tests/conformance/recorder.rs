//! An origin that records every byte, and reads by the narrowest grammar that a proxy may
//! write: one line end, one framing, nothing folded, nothing extended.
//!
//! Invariant: what it cannot read is a fault of the edge, and is kept as such; it repairs
//! nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// One request as it stands in a connection.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `METHOD TARGET`.
    pub line: String,
    /// All its bytes.
    pub wire: Vec<u8>,
}

/// Everything that arrived.
#[derive(Debug, Default)]
pub struct Record {
    pub requests: Vec<Recorded>,
    /// What a connection ended with: a request that never became whole.
    pub unfinished: Vec<Vec<u8>>,
    /// Why something could not be read, with its bytes.
    pub faults: Vec<String>,
}

/// The running origin.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub addr: SocketAddr,
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let recorder = Self { addr, record: Arc::default() };
        let record = Arc::clone(&recorder.record);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&record)));
            }
        });
        recorder
    }

    /// What was recorded so far; it starts anew.
    pub fn take(&self) -> Record {
        std::mem::take(&mut self.record.lock().expect("no panic"))
    }
}

async fn serve(mut stream: TcpStream, record: Arc<Mutex<Record>>) {
    let mut wire = Vec::new();
    loop {
        match read(&wire) {
            Ok(Some((end, line))) => {
                let answer =
                    format!("HTTP/1.1 200 OK\r\nx-seen: {line}\r\ncontent-length: 0\r\n\r\n");
                let rest = wire.split_off(end);
                let whole = Recorded { line, wire: std::mem::replace(&mut wire, rest) };
                record.lock().expect("no panic").requests.push(whole);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
            Ok(None) => match stream.read_buf(&mut wire).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            },
            Err(why) => {
                let shown = String::from_utf8_lossy(&wire).into_owned();
                record.lock().expect("no panic").faults.push(format!("{why}: {shown:?}"));
                return;
            }
        }
    }
    if !wire.is_empty() {
        record.lock().expect("no panic").unfinished.push(wire);
    }
}

/// The end of the first request and its `METHOD TARGET`; `None` while more must come.
fn read(wire: &[u8]) -> Result<Option<(usize, String)>, &'static str> {
    let Some(end) = wire.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&wire[..end]).map_err(|_| "a head that is not UTF-8")?;
    let mut lines = head.split("\r\n");
    let line = request_line(lines.next().unwrap_or_default())?;
    let (mut length, mut chunked) = (None, false);
    for field in lines {
        let (name, value) = field.split_once(": ").ok_or("a field without its colon")?;
        if name.is_empty() || !name.bytes().all(token) {
            return Err("a name that is no token");
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err("a control character in a value");
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_none() => length = Some(decimal(value)?),
            "content-length" => return Err("two lengths"),
            "transfer-encoding" if value == "chunked" && !chunked => chunked = true,
            "transfer-encoding" => return Err("a coding that is not chunked alone"),
            _ => {}
        }
    }
    let body = end + 4;
    let end = match (length, chunked) {
        (Some(_), true) => return Err("two framings"),
        (Some(length), false) => Some(body + length).filter(|end| *end <= wire.len()),
        (None, true) => chunks(wire, body)?,
        (None, false) => Some(body),
    };
    Ok(end.map(|end| (end, line)))
}

fn request_line(line: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return Err("a request line of other than three parts, or of another version");
    };
    if method.is_empty() || !method.bytes().all(token) {
        return Err("a method that is no token");
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a target that is not in origin form");
    }
    Ok(format!("{method} {target}"))
}

/// RFC 9110, 5.6.2.
fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn decimal(text: &str) -> Result<usize, &'static str> {
    let canonical = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err("a length that is not canonical");
    }
    text.parse().map_err(|_| "a length beyond any memory")
}

/// The end of a chunked body, trailers included.
fn chunks(wire: &[u8], mut at: usize) -> Result<Option<usize>, &'static str> {
    loop {
        let Some(line) = line_at(wire, at) else { return Ok(None) };
        let hex = std::str::from_utf8(&wire[at..line]).map_err(|_| "a chunk size in no letters")?;
        if hex.is_empty() || hex.len() > 8 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a chunk size that is not bare hexadecimal");
        }
        let size = usize::from_str_radix(hex, 16).map_err(|_| "a chunk size")?;
        at = line + 2;
        if size == 0 {
            return trailers(wire, at);
        }
        match wire.get(at + size..at + size + 2) {
            Some(b"\r\n") => at += size + 2,
            Some(_) => return Err("a chunk without its line end"),
            None => return Ok(None),
        }
    }
}

fn trailers(wire: &[u8], mut at: usize) -> Result<Option<usize>, &'static str> {
    while let Some(line) = line_at(wire, at) {
        if line == at {
            return Ok(Some(at + 2));
        }
        at = line + 2;
    }
    Ok(None)
}

/// Where the line at `at` ends, before its line end.
fn line_at(wire: &[u8], at: usize) -> Option<usize> {
    wire.get(at..)?.windows(2).position(|part| part == b"\r\n").map(|n| at + n)
}

#[test]
fn it_reads_what_is_canonical_and_nothing_else() {
    let get = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET";
    assert_eq!(read(get), Ok(Some((28, "GET /a".into()))));
    assert_eq!(read(&get[..20]), Ok(None));
    let post =
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n";
    assert_eq!(read(post), Ok(Some((post.len(), "POST /".into()))));
    for broken in [
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: 01\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        "GET / HTTP/1.1\r\na : b\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ] {
        assert!(read(broken.as_bytes()).is_err(), "{broken:?}");
    }
}
