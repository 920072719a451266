//! A server that cannot outlive its test process.
//!
//! A small shell starts the server and then waits on a pipe whose other end only the test
//! process holds. The system closes that end however the process ends, `kill -9` included;
//! the shell then stops the server and removes its folder. Invariant: no server and no
//! folder is left behind, unless the shell itself is killed. The shell alone waits for the
//! server, so that its process id names no other process while the guard lives.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::server_user::ServerUser;

/// `$1` is the folder, `$2` and `$3` the signals, the rest the server. Says the server's
/// process id. A line on the pipe means "stop, keep the folder"; its end means "stop and
/// clean up". The log of a server that died is kept for whoever waits for its start.
const SCRIPT: &str = r#"
folder=$1; in_order=$2; at_once=$3; shift 3
"$@" >>"$folder/log" 2>&1 &
server=$!
echo $server
keep=; read -r keep
# In order when the data will be needed again, else at once.
[ -n "$keep" ] && signal=$in_order || signal=$at_once
kill -"$signal" "$server" 2>/dev/null
wait "$server"
[ -n "$keep" ] || rm -rf "$folder"
"#;

/// What ends a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signals {
    /// When its data will be needed again.
    pub(crate) in_order: &'static str,
    /// When nobody needs it any more.
    pub(crate) at_once: &'static str,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
    server: u32,
}

impl Guard {
    /// Starts `server` as `user`; its output goes to `log` in the folder.
    pub(crate) fn start(
        user: ServerUser,
        folder: &Path,
        signals: Signals,
        server: &[&str],
    ) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(folder);
        shell.args([signals.in_order, signals.at_once]).args(server);
        // A group of its own: Ctrl-C ends the tests, and through the pipe the server.
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .current_dir("/");
        let mut shell = user.runs(&mut shell).spawn().expect("a shell");
        let mut line = String::new();
        let said = shell.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("a shell that speaks");
        Self { shell, server: line.trim().parse().expect("a process id") }
    }

    /// Process id of the server.
    pub(crate) const fn pid(&self) -> u32 {
        self.server
    }

    /// Whether the server has ended by itself or by a signal.
    pub(crate) fn ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server));
        // `PID (NAME) STATE …`; a name may hold anything.
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    }

    /// Sends a signal (`KILL`, `STOP`, …) to the server.
    pub(crate) fn signal(&self, signal: &str) {
        let server = self.server.to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &server]).status();
        let sent = sent.expect("kill(1)");
        assert!(sent.success(), "no signal {signal} to {}", self.server);
    }

    /// Stops the server and keeps its folder.
    pub(crate) fn stop(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            pipe.write_all(b"keep\n").expect("a shell that listens");
        }
        self.shell.wait().expect("an end");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Nothing to do about a shell that somebody else has reaped.
        let _ = self.shell.wait();
    }
}
