//! Who is told things: a webhook's receiver and a mail server, on loopback.
//!
//! Both take down what arrives before they answer, and leave whoever tells something for
//! the first time without an answer: what was sent is there, and its sender cannot know.
//! Only the second time it is acknowledged.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// A webhook as it arrived.
#[derive(Clone, Debug)]
pub struct Delivered {
    headers: HeaderMap,
    pub body: String,
    /// Whether it was answered; the sender may be dead by then.
    pub acknowledged: bool,
}

impl Delivered {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("text")
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }
}

type Deliveries = Arc<Mutex<Vec<Delivered>>>;

/// A webhook's receiver.
#[derive(Debug)]
pub struct WebhookReceiver {
    addr: SocketAddr,
    deliveries: Deliveries,
}

impl WebhookReceiver {
    pub async fn start() -> Self {
        let (listener, addr) = listen().await;
        let deliveries = Deliveries::default();
        let app = Router::new().fallback(receive).with_state(Arc::clone(&deliveries));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { addr, deliveries }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    /// Everything that arrived so far.
    pub fn deliveries(&self) -> Vec<Delivered> {
        self.deliveries.lock().expect("no panic").clone()
    }
}

async fn receive(
    State(deliveries): State<Deliveries>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let body = String::from_utf8(body.to_vec()).expect("text");
    if !take(&deliveries, Delivered { headers, body, acknowledged: false }) {
        std::future::pending::<()>().await;
    }
    StatusCode::OK
}

/// Takes a delivery down; whether it is acknowledged.
fn take(deliveries: &Deliveries, mut delivered: Delivered) -> bool {
    let mut deliveries = deliveries.lock().expect("no panic");
    let acknowledged = deliveries.iter().any(|held| held.id() == delivered.id());
    delivered.acknowledged = acknowledged;
    deliveries.push(delivered);
    acknowledged
}

/// A mail as the server took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    pub to: String,
    /// Headers, an empty line, the text.
    pub data: String,
    pub acknowledged: bool,
}

impl Mail {
    /// A header's value.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let (head, _) = self.data.split_once("\r\n\r\n").expect("a head");
        let prefix = format!("{name}: ");
        let line = head.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    }

    pub fn id(&self) -> &str {
        self.header("Message-ID")
    }
}

type Mails = Arc<Mutex<Vec<Mail>>>;

/// A mail server that keeps what it takes.
#[derive(Debug)]
pub struct MailSink {
    addr: SocketAddr,
    mails: Mails,
}

impl MailSink {
    pub async fn start() -> Self {
        let (listener, addr) = listen().await;
        let mails = Mails::default();
        let accepted = Arc::clone(&mails);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(dialogue(stream, Arc::clone(&accepted)));
            }
        });
        Self { addr, mails }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.addr)
    }

    /// Everything that was taken so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().expect("no panic").clone()
    }
}

/// RFC 5321, as much as a client needs that has nothing to hide.
async fn dialogue(stream: TcpStream, mails: Mails) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut to = String::new();
    writer.write_all(b"220 sink\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let reply = match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-sink\r\n250 8BITMIME",
            "MAIL" => "250 OK",
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).expect("an address").to_owned();
                "250 OK"
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                let mut data = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    data.push_str(line.strip_prefix('.').unwrap_or(&line));
                    data.push_str("\r\n");
                }
                if !keep(&mails, Mail { to: to.clone(), data, acknowledged: false }) {
                    std::future::pending::<()>().await;
                }
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "502 unknown",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}

/// Takes a mail down; whether it is acknowledged.
fn keep(mails: &Mails, mut mail: Mail) -> bool {
    let mut mails = mails.lock().expect("no panic");
    let acknowledged = mails.iter().any(|held| held.id() == mail.id());
    mail.acknowledged = acknowledged;
    mails.push(mail);
    acknowledged
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    (listener, addr)
}
