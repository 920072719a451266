//! An upstream that records every byte and behaves as the request's path says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

/// What the origin saw of one request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) connection: usize,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
}

impl Seen {
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(super) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("")
    }
}

/// A running origin; its threads end with the test process.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The connections that ended.
    ended: Arc<Mutex<Vec<usize>>>,
    /// Lets a request on `/hold` go on.
    pub(super) release: mpsc::Sender<()>,
}

impl Origin {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (release, held) = mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        let log = Arc::clone(&seen);
        let ended = Arc::<Mutex<Vec<usize>>>::default();
        let book = Arc::clone(&ended);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (log, held) = (Arc::clone(&log), Arc::clone(&held));
                let book = Arc::clone(&book);
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                thread::spawn(move || {
                    serve(connection, stream, &log, &held);
                    book.lock().expect("the book").push(connection);
                });
            }
        });
        Self { address, seen, ended, release }
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the log").clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen().pop().expect("the origin saw a request")
    }

    /// Waits until a request's body has come in.
    pub(super) fn await_body(&self, request: usize, body: &[u8]) {
        for _ in 0..2_000 {
            if self.seen().get(request).is_some_and(|seen| seen.body == body) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the origin saw {:?}", self.seen().get(request));
    }

    /// Waits until the connection of a request has ended.
    pub(super) fn await_end(&self, request: usize) {
        let connection = self.seen()[request].connection;
        for _ in 0..2_000 {
            if self.ended.lock().expect("the book").contains(&connection) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("connection {connection} goes on");
    }

    /// Waits until so many requests have begun.
    pub(super) fn await_requests(&self, count: usize) {
        for _ in 0..2_000 {
            if self.seen().len() >= count {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the origin saw {} requests, not {count}", self.seen().len());
    }
}

fn serve(
    connection: usize,
    stream: TcpStream,
    log: &Mutex<Vec<Seen>>,
    held: &Mutex<mpsc::Receiver<()>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut stream = stream;
    loop {
        let head = read_head(&mut reader)?;
        let seen =
            Seen { connection, head: head.clone(), body: Vec::new(), trailers: String::new() };
        let index = {
            let mut log = log.lock().expect("the log");
            log.push(seen.clone());
            log.len() - 1
        };
        let path = seen.target().split('?').next().unwrap_or("").to_owned();
        if !before_the_body(&path, &mut stream)? {
            return None;
        }
        let (body, trailers) = read_body(&mut reader, &seen)?;
        {
            let mut log = log.lock().expect("the log");
            log[index].body.clone_from(&body);
            log[index].trailers = trailers;
        }
        if path.ends_with("/hold") {
            held.lock().expect("the holder").recv().ok()?;
        }
        answer(&path, &head, &body, &mut stream)?;
    }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

fn read_body(reader: &mut BufReader<TcpStream>, seen: &Seen) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    let mut trailers = String::new();
    if seen.field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim_end(), 16).ok()?;
            if size == 0 {
                break;
            }
            reader.by_ref().take(size).read_to_end(&mut body).ok()?;
            line.clear();
            reader.read_line(&mut line).ok()?;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim_end().is_empty() {
                break;
            }
            trailers.push_str(&line);
        }
    } else if let Some(length) = seen.field("content-length") {
        let length = length.parse().ok()?;
        let read = reader.by_ref().take(length).read_to_end(&mut body).ok()?;
        (read as u64 == length).then_some(())?;
    }
    Some((body, trailers))
}

/// False when the connection is over before the body was read.
fn before_the_body(path: &str, stream: &mut TcpStream) -> Option<bool> {
    match path {
        // Reads nothing more, for longer than any test.
        "/stall" => {
            thread::sleep(Duration::from_secs(600));
            Some(false)
        }
        "/never" => {
            let mut sink = [0; 1024];
            while stream.read(&mut sink).ok()? > 0 {}
            Some(false)
        }
        "/early" => {
            stream.write_all(b"HTTP/1.1 413 Too\r\ncontent-length: 5\r\n\r\nearly").ok()?;
            Some(true)
        }
        "/stored/early" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").ok()?;
            Some(true)
        }
        _ => Some(true),
    }
}

fn answer(path: &str, head: &str, body: &[u8], stream: &mut TcpStream) -> Option<()> {
    let mut say = |bytes: &str| stream.write_all(bytes.as_bytes()).ok();
    match path {
        "/early" | "/stored/early" => Some(()),
        "/close" | "/stored/close" => None,
        "/garbage" => say("SSH-2.0-OpenSSH_9.2\r\n\r\n").and(None),
        "/half-head" => say("HTTP/1.1 200 OK\r\ncontent-le").and(None),
        "/half-body" => say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").and(None),
        "/half-chunk" => {
            say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe").and(None)
        }
        "/stuck-body" => {
            say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")?;
            let mut sink = [0; 16];
            while stream.read(&mut sink).ok()? > 0 {}
            None
        }
        "/both-framings" => say(
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        "/two-lengths" => {
            say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi")
        }
        "/too-much" => say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n"),
        "/switch" => say("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
        "/continue" => say(
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        ),
        "/old" => say("HTTP/1.0 200 OK\r\n\r\nuntil the end").and(None),
        "/204" => say("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => say("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n"),
        "/head" => say("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"),
        "/trailers" => say(
            "HTTP/1.1 200 OK\r\ntrailer: x-sum, content-length\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nx-sum: 7\r\ncontent-length: 9\r\n\r\n",
        ),
        "/fields" => say(
            "HTTP/1.1 200 OK\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
             via: 1.1 inner\r\nratelimit: \"origin\";r=1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
             x-request-id: theirs\r\ncontent-length: 2\r\n\r\nhi",
        ),
        "/stored/smaller" => {
            say("HTTP/1.1 200 OK\r\nx-storage-delta-bytes: -7\r\ncontent-length: 0\r\n\r\n")
        }
        "/stored/same" => {
            say("HTTP/1.1 200 OK\r\nx-storage-delta-bytes: 0\r\ncontent-length: 0\r\n\r\n")
        }
        "/metered/close" => None,
        "/metered/plain" => say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        "/metered/nonsense" => {
            say("HTTP/1.1 200 OK\r\nx-storage-delta-bytes: much\r\ncontent-length: 0\r\n\r\n")
        }
        "/metered/fields" => {
            say("HTTP/1.1 200 OK\r\nx-storage-delta-bytes: -4096\r\nx-projects-delta: 2\r\n\
             content-length: 0\r\n\r\n")
        }
        "/metered/failed" => {
            say("HTTP/1.1 500 Oh\r\nx-storage-delta-bytes: 1\r\ncontent-length: 0\r\n\r\n")
        }
        "/big" => {
            let megabyte = vec![b'x'; 1 << 20];
            say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 8 << 20))?;
            for _ in 0..8 {
                stream.write_all(&megabyte).ok()?;
            }
            Some(())
        }
        path => {
            let path = path.strip_prefix("/stored").unwrap_or(path);
            let status = path.strip_prefix("/status/").unwrap_or("200");
            let length = head.len() + body.len();
            say(&format!(
                "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nx-from: origin\r\n\r\n{head}"
            ))?;
            stream.write_all(body).ok()
        }
    }
}
