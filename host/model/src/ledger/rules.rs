//! How large tranches and grants are, and which state follows: pure arithmetic.
//!
//! Shared by the authority, the in-process dispatcher and every later one, which all run
//! the same tests. Invariant: a tranche never exceeds what the window has left, and a
//! grant never what the tranche has left.

/// Tokens; the smallest tranche. Smaller ones would ask the authority for every few
/// requests of a tiny quota; its waste is what a lost machine may cost such a tenant.
pub const TRANCHE_MIN: u64 = 8;
/// Seconds of the observed rate that one tranche lasts: the middle of 30–60.
pub const TRANCHE_SECONDS: u64 = 45;
/// A tranche is at most this part of the limit (1 %), so that two open ones waste 2 %.
pub const TRANCHE_DIVISOR: u64 = 100;
/// Below this many tranches left in the window, tranches shrink with what is left.
pub const TRANCHE_ENDGAME: u64 = 4;
/// Tokens; tranches up to this size are not opened ahead of need.
pub const PREOPEN_ABOVE: u64 = 64;

/// Time in which granted tokens may be spent, in ms: what a partitioned edge may still
/// spend after a limit fell, and the longest that parked tokens keep others waiting.
pub const LEASE_TTL_MS: u64 = 10_000;

/// Tokens of the next tranche: `remaining` is what the window can still open.
#[must_use]
pub fn tranche_size(limit: u64, remaining: u64, rate_per_s: u64) -> u64 {
    let by_rate = rate_per_s.saturating_mul(TRANCHE_SECONDS);
    let usual = by_rate.min(limit / TRANCHE_DIVISOR).max(TRANCHE_MIN);
    let size = if remaining < usual.saturating_mul(TRANCHE_ENDGAME) {
        remaining.div_ceil(TRANCHE_ENDGAME).max(TRANCHE_MIN).min(usual)
    } else {
        usual
    };
    size.min(remaining)
}

/// Tokens of one grant: what is wanted, what the tranche has (`free`), and half of what
/// the window has (`pool`) divided by the active edges, but at least 1. Zero only when
/// `free` or `want` is.
#[must_use]
pub fn grant_size(want: u64, free: u64, pool: u64, active_edges: u64) -> u64 {
    let share = pool.div_ceil(active_edges.max(1).saturating_mul(2)).max(1);
    want.min(free).min(share)
}

/// Where an account stands, seen from the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Free tokens.
    Ok,
    /// At most half of the tranche left and no next one: open it in the background.
    Low,
    /// No free tokens, but the authority can open more.
    Next,
    /// No free tokens, none to open, but some are parked and may come back.
    Soft,
    /// Nothing left.
    Empty,
}

impl State {
    /// The state of an account with `free` of `tranche` tokens left, a next tranche or
    /// not, `beyond` tokens at the authority, and `parked` tokens that may come back.
    #[must_use]
    pub const fn of(tranche: u64, free: u64, has_next: bool, beyond: u64, parked: u64) -> Self {
        if free == 0 && !has_next {
            return match (beyond, parked) {
                (0, 0) => Self::Empty,
                (0, _) => Self::Soft,
                _ => Self::Next,
            };
        }
        if !has_next && beyond > 0 && tranche > PREOPEN_ABOVE && free <= tranche / 2 {
            Self::Low
        } else {
            Self::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tiny_quota_is_one_tranche() {
        assert_eq!(tranche_size(5, 5, 0), 5);
        assert_eq!(tranche_size(8, 8, 1_000_000), 8);
        assert_eq!(tranche_size(1, 1, 0), 1);
        assert_eq!(tranche_size(0, 0, 9), 0);
    }

    #[test]
    fn a_tranche_follows_the_rate_up_to_one_percent() {
        assert_eq!(tranche_size(1_000_000, 1_000_000, 0), 8);
        assert_eq!(tranche_size(1_000_000, 1_000_000, 10), 450);
        assert_eq!(tranche_size(1_000_000, 1_000_000, 100_000), 10_000);
    }

    #[test]
    fn the_last_tranches_shrink() {
        assert_eq!(tranche_size(1_000_000, 20_000, 100_000), 5_000);
        assert_eq!(tranche_size(1_000_000, 20, 100_000), 8);
        assert_eq!(tranche_size(1_000_000, 3, 100_000), 3);
    }

    #[test]
    fn grants_halve_down_to_one() {
        assert_eq!(grant_size(100, 64, 1_000, 1), 64);
        assert_eq!(grant_size(100, 8, 8, 1), 4);
        assert_eq!(grant_size(100, 8, 8, 4), 1);
        assert_eq!(grant_size(100, 1, 1, 9), 1);
    }

    #[test]
    fn the_states_are_those_of_the_design() {
        assert_eq!(State::of(100, 60, false, 900, 0), State::Ok);
        assert_eq!(State::of(100, 50, false, 900, 0), State::Low);
        assert_eq!(State::of(100, 50, true, 900, 0), State::Ok);
        assert_eq!(State::of(64, 1, false, 900, 0), State::Ok);
        assert_eq!(State::of(100, 50, false, 0, 0), State::Ok);
        assert_eq!(State::of(100, 0, false, 900, 5), State::Next);
        assert_eq!(State::of(100, 0, false, 0, 5), State::Soft);
        assert_eq!(State::of(100, 0, false, 0, 0), State::Empty);
    }

    proptest! {
        #[test]
        fn a_tranche_is_never_more_than_what_is_left_and_never_zero_before_the_end(
            limit in 0_u64..2_000_000_000, share in 0.0_f64..=1.0, rate in 0_u64..10_000_000,
        ) {
            let remaining = (limit as f64 * share) as u64;
            let size = tranche_size(limit, remaining, rate);
            prop_assert!(size <= remaining);
            prop_assert_eq!(size == 0, remaining == 0);
            prop_assert!(size <= (limit / 100).max(TRANCHE_MIN), "waste is bounded by 1 %");
        }

        #[test]
        fn tranches_and_grants_together_hand_out_exactly_the_limit(
            limit in 0_u64..5_000, rate in 0_u64..100_000, want in 1_u64..500, edges in 1_u64..8,
        ) {
            let (mut left, mut out) = (limit, 0);
            while left > 0 {
                let tranche = tranche_size(limit, left, rate);
                left -= tranche;
                let mut free = tranche;
                while free > 0 {
                    let grant = grant_size(want, free, free + left, edges);
                    prop_assert!(grant >= 1 && grant <= free);
                    free -= grant;
                    out += grant;
                }
            }
            prop_assert_eq!(out, limit);
        }

        #[test]
        fn a_grant_never_exceeds_half_of_the_window(
            want in 1_u64..1_000_000, free in 1_u64..1_000_000, more in 0_u64..1_000_000,
            edges in 1_u64..64,
        ) {
            let grant = grant_size(want, free, free + more, edges);
            prop_assert!(grant == 1 || (grant - 1) * 2 * edges < free + more);
        }
    }
}
