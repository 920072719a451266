//! The binary as a process of its own, for what only a process can suffer: kill -9, a
//! taken port, signals, the command line.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

use super::{Client, eventually};

/// A running `leanvibe-edge serve`.
#[derive(Debug)]
pub struct EdgeProcess {
    pub child: Child,
    pub edge: Client,
    pub control: Client,
}

/// The binary that `make test` built beside this test.
pub fn binary() -> PathBuf {
    let binary = binary_path();
    assert!(binary.is_file(), "{} is missing; use `make test`", binary.display());
    binary
}

/// Where it is built; the compiler of uploaded plugins, for worlds inside the test.
pub fn binary_path() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("target/debug");
    folder.join("leanvibe-edge")
}

/// A port that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

impl EdgeProcess {
    /// Starts `serve` on `dir` (holding `policies/`), with the admin token of the worlds.
    pub async fn serve(dir: &Path) -> Self {
        Self::serve_with(dir, &[]).await
    }

    /// The same with more environment.
    pub async fn serve_with(dir: &Path, env: &[(&str, &str)]) -> Self {
        let (edge, control) = (free_addr(), free_addr());
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .env("LEANVIBE_EDGE__EDGE__LISTEN", edge.to_string())
            .env("LEANVIBE_EDGE__CONTROL__LISTEN", control.to_string())
            .env("LEANVIBE_EDGE__POLICIES__DIR", dir.join("policies"))
            .env("LEANVIBE_EDGE__DATA__DIR", dir.join("data"))
            .env("LEANVIBE_EDGE__QUOTA__ADMIT_WAIT_MS_MAX", super::world::ADMIT_WAIT_MS.to_string())
            .env("LEANVIBE_EDGE__LOG__LEVEL", "error")
            .env("LEANVIBE_EDGE_ADMIN_TOKEN", super::world::ADMIN_TOKEN)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().expect("a process");
        let process =
            Self { child, edge: Client { addr: edge }, control: Client { addr: control } };
        eventually("the process is ready", || async {
            let request =
                Client::request("GET", "/readyz", "control.test").body(Default::default());
            let reply = process.control.try_send(request.expect("a request")).await.ok()?;
            reply.status.is_success().then_some(())
        })
        .await;
        process
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a kill");
    }

    /// Sends a signal (`HUP`, `TERM`, `STOP`, …) to the process.
    pub async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("a living process").to_string();
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid).status().await;
        assert!(sent.expect("kill(1)").success());
    }
}
