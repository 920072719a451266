//! What commands print: data on standard output, everything else on standard error.
//!
//! Invariant: a reader that leaves early (`| head`) is no error, and no text of the API
//! reaches a terminal with control characters in it.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;

/// Prints text that ends its own lines.
pub(super) fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints one line; nothing for an empty one.
pub(super) fn line(line: &str) -> Result<()> {
    if line.is_empty() { Ok(()) } else { text(&format!("{line}\n")) }
}

/// A line on standard error that grows old: shown on a terminal only, and overwritten.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub(super) fn say(&self, line: std::fmt::Arguments<'_>) {
        if self.shown {
            // Carriage return, and erase to the end of the line (ECMA-48 EL).
            eprint!("\r\x1b[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say(format_args!(""));
    }
}
