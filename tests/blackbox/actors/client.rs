//! A plain HTTP client: one connection a request, HTTP/1.1 or h2c.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One header as text; empty when absent.
    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .unwrap_or_default()
    }

    /// Fails with the body when the status is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "body: {}", self.text());
        self
    }

    /// The problem's stable code.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends to one address.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub addr: SocketAddr,
}

impl Client {
    pub fn request(method: &str, path: &str, host: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header("host", host)
    }

    /// Over HTTP/1.1.
    pub async fn send(self, request: Request<Full<Bytes>>) -> Reply {
        self.try_send(request).await.expect("an answer")
    }

    pub async fn try_send(self, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let stream = TcpStream::connect(self.addr).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        collect(sender.send_request(request).await?).await
    }

    /// Over HTTP/2 with prior knowledge; the `host` header becomes the authority.
    pub async fn send_h2(self, mut request: Request<Full<Bytes>>) -> Reply {
        let stream = TcpStream::connect(self.addr).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
        tokio::spawn(connection);
        let host = request.headers_mut().remove("host").expect("a host");
        let authority = host.to_str().expect("text");
        *request.uri_mut() = format!("http://{authority}{}", request.uri()).parse().expect("a URI");
        collect(sender.send_request(request).await.expect("an answer")).await.expect("a body")
    }
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<Reply> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply { status: head.status, headers: head.headers, body })
}
