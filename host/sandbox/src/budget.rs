//! What is left of a call's limits, and the errors that stop a guest.
//!
//! Counted down by the epoch callback and by host functions. Invariant: a budget is
//! refilled only when a call begins, never while a guest runs.

use crate::limits::Limits;

/// The remaining allowance of the call in progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) ticks: u32,
    pub(crate) host_calls: u32,
    pub(crate) edit_bytes: usize,
    pub(crate) log_lines: u32,
    pub(crate) log_bytes: usize,
    pub(crate) outbound_calls: u32,
    pub(crate) outbound_bytes: usize,
}

impl Budget {
    /// A full allowance.
    pub(crate) fn of(limits: &Limits, tick_ms: u64) -> Self {
        let ticks = u64::from(limits.deadline_ms) / tick_ms.max(1);
        Self {
            ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
            host_calls: limits.host_calls,
            edit_bytes: limits.edit_bytes,
            log_lines: limits.log_lines,
            log_bytes: limits.log_bytes,
            outbound_calls: limits.outbound_calls,
            outbound_bytes: limits.outbound_bytes,
        }
    }

    /// One tick of computing.
    pub(crate) fn tick(&mut self) -> Result<(), DeadlinePassed> {
        self.ticks = self.ticks.checked_sub(1).ok_or(DeadlinePassed)?;
        Ok(())
    }

    /// One call of a host function.
    pub(crate) fn host_call(&mut self) -> Result<(), TooManyHostCalls> {
        self.host_calls = self.host_calls.checked_sub(1).ok_or(TooManyHostCalls)?;
        Ok(())
    }

    /// Whether one more call with a body of this size may leave; takes it if so.
    pub(crate) fn outbound_call(&mut self, bytes: usize) -> bool {
        let Some(calls) = self.outbound_calls.checked_sub(1) else { return false };
        let has_room = self.outbound(bytes);
        if has_room {
            self.outbound_calls = calls;
        }
        has_room
    }

    /// Whether so many bytes of a body may cross; takes them if so.
    pub(crate) fn outbound(&mut self, bytes: usize) -> bool {
        let left = self.outbound_bytes.checked_sub(bytes);
        self.outbound_bytes = left.unwrap_or(self.outbound_bytes);
        left.is_some()
    }

    /// Whether a log line of this size may still be written; takes it if so.
    pub(crate) fn log_line(&mut self, bytes: usize) -> bool {
        let (Some(lines), Some(left)) =
            (self.log_lines.checked_sub(1), self.log_bytes.checked_sub(bytes))
        else {
            return false;
        };
        (self.log_lines, self.log_bytes) = (lines, left);
        true
    }
}

/// The guest computed for longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("deadline exceeded")]
pub(crate) struct DeadlinePassed;

/// The guest called the host more often than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more host calls than one call of a policy may make")]
pub(crate) struct TooManyHostCalls;

/// The guest asked for a message where there is none.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} is available in {1} only")]
pub(crate) struct OutsideHook(pub(crate) &'static str, pub(crate) &'static str);
