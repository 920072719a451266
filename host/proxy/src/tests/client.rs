//! A client that writes exactly the bytes it is told to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Bound of every wait: a hung test fails instead.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
    /// The body ended as its framing said it would.
    pub(super) complete: bool,
}

impl Answer {
    /// All values of a field, joined.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The code of a problem body; also checks what every problem has.
    pub(super) fn code(&self) -> String {
        assert_eq!(self.field("content-type").as_deref(), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("https://")));
        assert_eq!(problem["request_id"], self.field("x-request-id").expect("an id"));
        problem["code"].as_str().expect("a code").to_owned()
    }
}

impl Client {
    pub(super) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the edge listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the edge reads");
    }

    /// Writes and does not mind when the edge has closed already.
    pub(super) fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Writes until nobody takes a byte for a while, `max` at most; how many were taken.
    pub(super) fn write_until_stuck(&mut self, max: usize) -> usize {
        let stream = self.stream.get_mut();
        stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let piece = [b'x'; 65_536];
        let mut taken = 0;
        while taken < max {
            match stream.write(&piece) {
                Ok(count) => taken += count,
                Err(_) => break,
            }
        }
        taken
    }

    pub(super) fn hang_up(self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    /// The next answer, or `None` when the edge closed.
    pub(super) fn read(&mut self) -> Option<Answer> {
        self.read_for("GET")
    }

    pub(super) fn read_for(&mut self, method: &str) -> Option<Answer> {
        let status_line = self.line()?;
        let status: u16 = status_line.split(' ').nth(1)?.parse().expect("a status");
        let mut fields = Vec::new();
        loop {
            let line = self.line().expect("a whole head");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a field");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer =
            Answer { status, fields, body: Vec::new(), trailers: String::new(), complete: true };
        if status == 100 {
            return Some(answer);
        }
        let bodiless = method == "HEAD" || status == 204 || status == 304;
        if bodiless {
        } else if answer.field("transfer-encoding").is_some() {
            answer.complete = self.chunks(&mut answer.body, &mut answer.trailers).is_some();
        } else if let Some(length) = answer.field("content-length") {
            let length: u64 = length.parse().expect("a length");
            let read = self.stream.by_ref().take(length).read_to_end(&mut answer.body);
            answer.complete = read.is_ok_and(|read| read as u64 == length);
        } else {
            answer.complete = self.stream.read_to_end(&mut answer.body).is_ok();
        }
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("waiting for a line: {error}"),
        }
        let line = String::from_utf8(line).expect("ASCII");
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn chunks(&mut self, body: &mut Vec<u8>, trailers: &mut String) -> Option<()> {
        loop {
            let size = u64::from_str_radix(&self.line()?, 16).ok()?;
            if size == 0 {
                break;
            }
            let read = self.stream.by_ref().take(size).read_to_end(body).ok()?;
            (read as u64 == size).then_some(())?;
            self.line()?;
        }
        loop {
            match self.line()?.as_str() {
                "" => return Some(()),
                line => {
                    trailers.push_str(line);
                    trailers.push('\n');
                }
            }
        }
    }

    /// Whether the edge closes without another byte.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
pub(super) fn exchange(to: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect(to);
    client.write(bytes);
    client.read().expect("an answer")
}
