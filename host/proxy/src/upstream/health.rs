//! The thread that asks endpoints how they are.
//!
//! One per proxy whose config names a path; it asks every endpoint of a pool that was used
//! under the snapshots in force, each on its own connection. Invariant: an answer costs a
//! bounded number of bytes and a bounded time, and no worker waits for it.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use rand::Rng as _;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{oneshot, watch},
    task, time,
};

use super::{endpoint::Endpoint, fleet::Fleet};
use crate::server::{Command, Thread};

/// Percent by which a check may be later than its interval (20): checks of several edges do
/// not stay in step.
const JITTER_PERCENT: u64 = 20;
/// Bytes of `HTTP/1.1 200`: all that a check reads.
const STATUS_BYTES: usize = 12;

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// What is asked for, by GET; 2xx is healthy. Absent: nothing is asked.
    pub path: Option<String>,
    /// Milliseconds between two checks of an endpoint (1,000): a region that is down is left
    /// within seconds.
    pub interval_ms: u64,
    /// Milliseconds for one check, connection included (1,000).
    pub timeout_ms: u64,
    /// Good checks in a row that bring an endpoint back (2).
    pub healthy_after: u32,
    /// Bad checks in a row that take it out (3): fewer would do so for chance.
    pub unhealthy_after: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: None,
            interval_ms: 1_000,
            timeout_ms: 1_000,
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl HealthConfig {
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let visible = |path: &String| path.bytes().all(|byte| byte.is_ascii_graphic());
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/') || !visible(path)) {
            return Some("health.path must start with / and have visible ASCII only");
        }
        if self.interval_ms == 0 || self.timeout_ms == 0 {
            return Some("health.interval_ms and health.timeout_ms may not be 0");
        }
        (self.healthy_after == 0 || self.unhealthy_after == 0)
            .then_some("health.healthy_after and health.unhealthy_after may not be 0")
    }
}

/// Starts the thread; it ends with the first command that is not to serve.
pub(crate) fn spawn(
    config: HealthConfig,
    path: String,
    fleet: Fleet,
    mut commands: watch::Receiver<Command>,
) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    let handle = thread::Builder::new().name("edge-health".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = commands.wait_for(|command| *command != Command::Serve) => {}
                () = check_all(&config, &path, &fleet) => {}
            }
        });
        drop(done);
    })?;
    Ok(Thread { handle, ended })
}

async fn check_all(config: &HealthConfig, path: &str, fleet: &Fleet) {
    loop {
        let jitter_ms = rand::rng().random_range(0..=config.interval_ms * JITTER_PERCENT / 100);
        time::sleep(Duration::from_millis(config.interval_ms + jitter_ms)).await;
        let mut checks = task::JoinSet::new();
        for endpoint in fleet.used() {
            checks.spawn(check(endpoint, config.clone(), path.to_owned()));
        }
        // Each one ends within its timeout.
        while checks.join_next().await.is_some() {}
    }
}

async fn check(endpoint: Arc<Endpoint>, config: HealthConfig, path: String) {
    let limit = Duration::from_millis(config.timeout_ms);
    let asked = time::timeout(limit, ask(endpoint.address, &path)).await;
    let is_healthy = asked.is_ok_and(|status| status.is_ok_and(|bytes| is_success(&bytes)));
    if endpoint.checked(is_healthy, &config) {
        let address = endpoint.address;
        tracing::warn!(endpoint = %address, is_healthy, "health checks changed an endpoint");
    }
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<[u8; STATUS_BYTES]> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: leanvibe-edge-health\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status).await?;
    Ok(status)
}

fn is_success(status: &[u8; STATUS_BYTES]) -> bool {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2', tens, ones] = status else {
        return false;
    };
    tens.is_ascii_digit() && ones.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::endpoint::Standing;

    #[test]
    fn only_2xx_of_http_1_is_healthy() {
        assert!(is_success(b"HTTP/1.1 204"));
        for bad in [b"HTTP/1.1 503", b"HTTP/1.1 302", b"HTTP/2.0 200", b"SSH-2.0-Open"] {
            assert!(!is_success(bad));
        }
    }

    #[test]
    fn checks_in_a_row_take_an_endpoint_out_and_bring_it_back() {
        let config = HealthConfig::default();
        let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        let standing = || endpoint.standing(|| 1);
        for is_healthy in [false, false, true, false, false] {
            assert!(!endpoint.checked(is_healthy, &config));
            assert_eq!(standing(), Standing::In);
        }
        assert!(endpoint.checked(false, &config));
        assert_eq!(standing(), Standing::Out);
        assert!(!endpoint.checked(true, &config));
        assert_eq!(standing(), Standing::Out);
        assert!(endpoint.checked(true, &config));
        assert_eq!(standing(), Standing::In);
    }
}
