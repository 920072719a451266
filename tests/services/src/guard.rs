//! A server that cannot outlive its test process.
//!
//! A small shell starts the server and then waits on a pipe whose other end only the test
//! process holds. The system closes that end however the process ends, `kill -9` included;
//! the shell then stops the server and removes its folder. Invariant: no server and no
//! folder is left behind, unless the shell itself is killed.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::server_user::ServerUser;

/// `$1` is the folder, the rest the server. A line on the pipe means "stop, keep the
/// folder"; its end means "stop and clean up". The log of a server that died is kept for
/// whoever waits for its start.
const SCRIPT: &str = r#"
folder=$1; shift
"$@" >"$folder/log" 2>&1 &
server=$!
keep=; read -r keep
# In order when the data will be needed again, else at once.
[ -n "$keep" ] && signal=INT || signal=QUIT
kill -"$signal" "$server" 2>/dev/null
wait "$server"
[ -n "$keep" ] || rm -rf "$folder"
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Starts `server` as `user`; its output goes to `log` in the folder.
    pub(crate) fn start(user: ServerUser, folder: &Path, server: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(folder).args(server);
        // A group of its own: Ctrl-C ends the tests, and through the pipe the server.
        shell.stdin(Stdio::piped()).process_group(0).current_dir("/");
        Self(user.runs(&mut shell).spawn().expect("a shell"))
    }

    /// Stops the server and keeps its folder.
    pub(crate) fn stop(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(b"keep\n").expect("a shell that listens");
        }
        self.0.wait().expect("an end");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing to do about a shell that somebody else has reaped.
        let _ = self.0.wait();
    }
}
