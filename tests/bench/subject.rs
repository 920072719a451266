//! What is measured: a process on the subject's core.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Core of the subject.
pub const SUBJECT_CORE: &str = "0";
/// Core of the generator and the origin.
pub const LOAD_CORE: &str = "1";

/// Where things lie.
pub struct Setup {
    /// Scratch folder.
    pub dir: PathBuf,
    /// The checkout.
    pub checkout: PathBuf,
    /// The binary under test.
    pub edge: PathBuf,
}

impl Setup {
    /// Finds the parts, or says what to install.
    pub fn new(dir: &Path) -> Result<Self> {
        for (tool, package) in
            [("nginx", "nginx"), ("h2load", "nghttp2-client"), ("taskset", "util-linux")]
        {
            let found = Command::new("which").arg(tool).stdout(Stdio::null()).status()?;
            if !found.success() {
                bail!("{tool} is missing; install Debian's package {package}");
            }
        }
        let bench = std::env::current_exe()?;
        let edge = bench.with_file_name("leanvibe-edge");
        if !edge.is_file() {
            bail!("{} is missing; use `make bench`", edge.display());
        }
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        Ok(Self { dir: dir.to_owned(), checkout, edge })
    }
}

/// A running process; killed when dropped.
pub struct Subject {
    /// For the table.
    pub name: &'static str,
    /// Where it listens.
    pub addr: SocketAddr,
    child: Child,
}

impl Subject {
    /// Starts a command on a core and waits until it accepts.
    pub fn start(
        name: &'static str,
        core: &str,
        addr: SocketAddr,
        command: &[&str],
        env: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let output = std::fs::File::create(log)?;
        let child = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .envs(env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| name.to_owned())?;
        let mut subject = Self { name, addr, child };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(addr).is_err() {
            if let Some(status) = subject.child.try_wait()? {
                bail!("{name} ended with {status}: {}", std::fs::read_to_string(log)?);
            }
            if Instant::now() > end {
                bail!("{name} does not listen: {}", std::fs::read_to_string(log)?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(subject)
    }

    /// The process; `taskset` becomes the command, so this is the command's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // SIGTERM first: nginx's master ends its workers.
        let _gone = Command::new("kill").arg(self.pid().to_string()).status();
        std::thread::sleep(Duration::from_millis(300));
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
