//! Any program of the test's own choice, guarded like the servers: it ends with the test
//! process, and can be killed, frozen and started again on the same folder before.
//!
//! Invariant: a signal goes only to the process that this very value started.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    guard::{Guard, Signals},
    server_user::ServerUser,
};

/// A test that needs a program in order stops it so itself, with a signal.
const SIGNALS: Signals = Signals { in_order: "KILL", at_once: "KILL" };

/// A program with its folder, running or not. Dropping it removes the folder.
#[derive(Debug)]
pub struct Process {
    folder: PathBuf,
    command: Vec<String>,
    running: Mutex<Option<Guard>>,
}

impl Process {
    /// Starts a command with this environment added. Its output goes to `log` in `folder`,
    /// which must exist.
    ///
    /// # Panics
    /// There is no shell, or a part is not UTF-8.
    #[must_use]
    pub fn start(folder: &Path, env: &[(String, String)], command: &[&str]) -> Self {
        let env = env.iter().map(|(key, value)| format!("{key}={value}"));
        let command = std::iter::once("env".to_owned())
            .chain(env)
            .chain(command.iter().map(|&part| part.to_owned()))
            .collect();
        let process = Self { folder: folder.to_owned(), command, running: Mutex::new(None) };
        process.restart();
        process
    }

    /// Starts the same command again; kills it first when it runs.
    ///
    /// # Panics
    /// There is no shell.
    pub fn restart(&self) {
        let mut running = self.lock();
        if let Some(guard) = running.take() {
            guard.stop();
        }
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        *running = Some(Guard::start(ServerUser::this_process(), &self.folder, SIGNALS, &command));
    }

    /// SIGKILL, and waits for the end. Nothing when it does not run.
    pub fn kill(&self) {
        if let Some(guard) = self.lock().take() {
            guard.stop();
        }
    }

    /// Sends a signal (`STOP`, `TERM`, …).
    ///
    /// # Panics
    /// It does not run.
    pub fn signal(&self, signal: &str) {
        self.lock().as_ref().expect("a running process").signal(signal);
    }

    /// Whether it runs: neither killed nor ended by itself.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.lock().as_ref().is_some_and(|guard| !guard.ended())
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What all its runs printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guard>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(holds: impl Fn() -> bool) {
        while !holds() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_has_its_environment_and_is_started_again_in_its_folder() {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let env = [("WORD".to_owned(), "two words".to_owned())];
        let process = Process::start(&folder, &env, &["sh", "-c", "echo $WORD; sleep 600"]);
        until(|| process.log() == "two words\n");
        assert!(process.runs());
        process.kill();
        assert!(!process.runs());
        process.restart();
        until(|| process.log() == "two words\ntwo words\n");
        process.signal("KILL");
        until(|| !process.runs());
        drop(process);
        assert!(!folder.exists());
    }
}
