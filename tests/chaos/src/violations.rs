//! What must never happen, and did.

use std::sync::{Mutex, PoisonError};

use crate::time;

/// More than this many are only counted: the first ones say what is wrong.
const SHOWN_MAX: usize = 40;

/// Everything found so far; printed as it is found.
#[derive(Debug, Default)]
pub struct Violations(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    lines: Vec<String>,
    kinds: Vec<String>,
    more: usize,
}

impl Violations {
    /// One more.
    pub fn add(&self, line: String) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.lines.len() >= SHOWN_MAX {
            found.more += 1;
            return;
        }
        println!("{} VIOLATION: {line}", time::stamp());
        found.lines.push(line);
    }

    /// One more, unless there is one of the same kind.
    pub fn once(&self, kind: &str, line: String) {
        let known = {
            let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = found.kinds.iter().any(|other| other == kind);
            if !known {
                found.kinds.push(kind.to_owned());
            }
            known
        };
        if !known {
            self.add(line);
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = (found.more > 0).then(|| format!("and {} more", found.more));
        found.lines.iter().cloned().chain(more).collect()
    }
}
