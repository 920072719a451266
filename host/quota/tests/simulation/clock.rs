//! Clocks that follow the runtime's, which stands still until everybody waits.
//!
//! Invariant: all run at one rate; each edge's shows another time, since none is trusted.

use std::time::Duration;

use model::clock::{Clock, UnixMs};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct SimClock {
    began: Instant,
    wall: UnixMs,
    zero: u64,
}

impl SimClock {
    /// Shows `wall` now, and `zero` on the monotonic clock.
    pub(super) fn at(wall: UnixMs, zero: u64) -> Self {
        Self { began: Instant::now(), wall, zero }
    }

    fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// How far the simulation is.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The same rate, another time.
    pub(super) fn off_by(&self, wall: u64, zero: u64) -> Self {
        Self { wall: self.wall.plus_ms(wall), zero, ..*self }
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMs {
        self.wall.plus_ms(self.elapsed_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        self.zero + self.elapsed_ms()
    }
}
