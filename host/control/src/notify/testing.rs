//! Real receivers for tests: a webhook server and a mail server, on loopback.
//!
//! Invariant: both record what arrived before they answer, so whoever was answered finds it
//! in the record.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// An address on loopback where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("text")
    }
}

#[derive(Debug, Default)]
struct Requests {
    received: Mutex<Vec<Received>>,
    /// What to answer next; success when empty.
    answers: Mutex<VecDeque<(u16, &'static str)>>,
}

/// A webhook's receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    requests: Arc<Requests>,
    task: AbortHandle,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Requests::default());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&requests));
        let serving = async move { axum::serve(listener, router).await.expect("served") };
        let task = tokio::spawn(serving).abort_handle();
        Self { address, requests, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers the next request so.
    pub(crate) fn answer(&self, status: u16, body: &'static str) {
        self.requests.answers.lock().expect("not poisoned").push_back((status, body));
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.requests.received.lock().expect("not poisoned").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(
    State(requests): State<Arc<Requests>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, String); 1], String) {
    let body = String::from_utf8(body.to_vec()).expect("text");
    let received = Received { path: uri.path().to_owned(), headers, body };
    requests.received.lock().expect("not poisoned").push(received);
    let next = requests.answers.lock().expect("not poisoned").pop_front();
    let (status, body) = next.unwrap_or((200, ""));
    let status = StatusCode::from_u16(status).expect("a status");
    // Where a redirect would lead; of no meaning for other answers.
    (status, [("location", "/redirected".to_owned())], body.to_owned())
}

/// A mail as the server took it.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Headers, an empty line, the text.
    pub(crate) data: String,
}

impl Taken {
    /// A header's value, unfolded.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (head, _) = self.data.split_once("\r\n\r\n").expect("a head");
        let unfolded = head.replace("\r\n ", " ");
        let prefix = format!("{name}: ");
        unfolded.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }
}

#[derive(Debug, Default)]
struct Mails {
    taken: Mutex<Vec<Taken>>,
    /// What to answer to the next recipient; taken when empty.
    answers: Mutex<VecDeque<&'static str>>,
}

/// A mail server that keeps what it takes.
#[derive(Debug)]
pub(crate) struct MailSink {
    address: SocketAddr,
    mails: Arc<Mails>,
    task: AbortHandle,
}

impl MailSink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mails = Arc::new(Mails::default());
        let accepted = Arc::clone(&mails);
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(dialogue(stream, Arc::clone(&accepted)));
            }
        };
        Self { address, mails, task: tokio::spawn(accepting).abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Answers the next recipient so.
    pub(crate) fn answer(&self, reply: &'static str) {
        self.mails.answers.lock().expect("not poisoned").push_back(reply);
    }

    pub(crate) fn taken(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.mails.taken.lock().expect("not poisoned")
    }
}

impl Drop for MailSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// RFC 5321, as much as a client needs that has nothing to hide.
async fn dialogue(stream: TcpStream, mails: Arc<Mails>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut mail = Taken { from: String::new(), to: Vec::new(), data: String::new() };
    writer.write_all(b"220 sink\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-sink\r\n250 8BITMIME",
            "MAIL" => {
                mail.from = between(&line);
                "250 OK"
            }
            "RCPT" => {
                mail.to.push(between(&line));
                mails.answers.lock().expect("not poisoned").pop_front().unwrap_or("250 OK")
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    mail.data.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.data.push_str("\r\n");
                }
                mails.taken.lock().expect("not poisoned").push(mail.clone());
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "502 unknown",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}

/// The address of `MAIL FROM:<…>` and `RCPT TO:<…>`.
fn between(line: &str) -> String {
    let (_, rest) = line.split_once('<').expect("an address");
    rest.split_once('>').expect("an address").0.to_owned()
}
