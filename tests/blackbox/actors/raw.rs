//! Bytes in, bytes out: for what no HTTP client would send.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest that a raw client waits for the next byte.
const SILENCE: Duration = Duration::from_secs(15);

/// A raw connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.expect("a connection") }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have closed already: what it answered is still to be read.
        let _closed = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads until `part` was seen, or the connection ends.
    pub async fn read_until(&mut self, part: &str) -> String {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if String::from_utf8_lossy(&seen).contains(part) {
                break;
            }
            match tokio::time::timeout(SILENCE, self.stream.read(&mut chunk)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(n)) => seen.extend_from_slice(&chunk[..n]),
                Err(_) => panic!("silence; so far: {:?}", String::from_utf8_lossy(&seen)),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads to the end of the connection; panics when it stays open in silence.
    pub async fn read_to_end(&mut self) -> String {
        self.read_until("\u{0}never\u{0}").await
    }
}

/// Writes and reads to the end of the connection.
pub async fn raw_exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut client = RawClient::connect(addr).await;
    client.write(bytes).await;
    client.read_to_end().await
}
