//! The run's own time: shortly before the end of a month, so that a window's end falls into
//! the run.
//!
//! The program starts itself again under libfaketime, which moves the wall clock (and no
//! other) by a fixed span for it and everything it starts. Only Redis keeps the machine's
//! time (its allocator does not start under the library), days behind the authority's:
//! nothing may depend on its clock.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::OnceLock,
};

use anyhow::{Context, Result};
use model::{
    clock::{Clock, SystemClock, UnixMs},
    quota::Metric,
    window::Window,
};

/// Where libraries are on Debian; one folder per architecture below.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const MISSING: &str = "libfaketime is needed to reach a window's end: apt-get install libfaketime";
/// Says that the clock is moved already.
const MOVED: &str = "LEANVIBE_CHAOS_MOVED";

/// The wall clock.
#[must_use]
pub fn now() -> UnixMs {
    static CLOCK: OnceLock<SystemClock> = OnceLock::new();
    CLOCK.get_or_init(SystemClock::default).now()
}

/// `23:59:12.345` of now.
#[must_use]
pub fn stamp() -> String {
    let ms = now().0 % 86_400_000;
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
}

/// Runs the program again with the month's end in `to_window_end_s` seconds; `None` in that
/// very run.
///
/// # Errors
/// libfaketime is missing, or the program cannot be started.
pub fn moved(to_window_end_s: u64) -> Result<Option<ExitCode>> {
    if std::env::var_os(MOVED).is_some() {
        return Ok(None);
    }
    let library = library().context(MISSING)?;
    let now = now();
    let month =
        Window::of(Metric::ApiCalls, now, model::anchor::Anchor::default()).context("a month")?;
    let ahead_s = (month.end.ms_since(now) / 1_000).saturating_sub(to_window_end_s);
    let status = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MOVED, "1")
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("+{ahead_s}s"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DISABLE_SHM", "1")
        .env("NO_FAKE_STAT", "1")
        .status()?;
    Ok(Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// The environment of Redis.
#[must_use]
pub fn of_redis() -> Vec<(String, String)> {
    vec![("LD_PRELOAD".to_owned(), String::new())]
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir(LIBRARIES).ok()?.filter_map(Result::ok);
    let here = Path::new(LIBRARIES).join(LIBRARY);
    folders.map(|folder| folder.path().join(LIBRARY)).chain([here]).find(|file| file.is_file())
}
