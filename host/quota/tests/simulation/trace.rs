//! What happens in a schedule that is run again, line by line.

use std::{fmt, sync::LazyLock};

use super::{clock::SimClock, setting};

static ON: LazyLock<bool> = LazyLock::new(|| setting("QUOTA_SIMULATION_SEED").is_some());

/// Prints what happened and when, if one schedule is run.
pub(super) fn trace(clock: &SimClock, what: fmt::Arguments<'_>) {
    if *ON {
        println!("{:>9.3} {what}", clock.elapsed().as_secs_f64());
    }
}
