//! When a delivery that failed is tried again, and when it is given up.
//!
//! Invariant: a delivery is tried at least once, however late, and given up when its next
//! try would lie a day or more after its event.

use model::clock::UnixMs;

/// Seconds between one try and the next; the last one repeats.
const DELAYS_S: [u64; 7] = [5, 30, 120, 600, 3_600, 10_800, 21_600];
/// How long after its event a delivery is tried, in ms: a day in which to mend a receiver.
pub(super) const GIVE_UP_AFTER_MS: u64 = 86_400_000;
/// How far a delay is stretched at most, in 1/256: by a fifth, so that what failed together
/// does not come back together.
const STRETCH_MAX: u64 = 51;

/// When to try after the `attempts`th failure at `now`; `None` to give up. `chance` is
/// random.
pub(super) fn next(attempts: u64, created_at: UnixMs, now: UnixMs, chance: u8) -> Option<UnixMs> {
    let step = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let [.., longest] = DELAYS_S;
    let delay_ms = DELAYS_S.get(step).copied().unwrap_or(longest) * 1_000;
    let stretch = delay_ms * STRETCH_MAX * u64::from(chance) / (255 * 256);
    let next = now.plus_ms(delay_ms + stretch);
    (next.ms_since(created_at) < GIVE_UP_AFTER_MS).then_some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_receiver_that_stays_away_is_tried_ten_times_in_a_day() {
        let created = UnixMs(1_705_314_600_000);
        let (mut now, mut delays) = (created, Vec::new());
        while let Some(at) = next(delays.len() as u64 + 1, created, now, 0) {
            delays.push(at.ms_since(now) / 1_000);
            now = at;
        }
        assert_eq!(delays, [5, 30, 120, 600, 3_600, 10_800, 21_600, 21_600, 21_600]);
    }

    proptest! {
        #[test]
        fn a_delay_is_stretched_by_a_fifth_at_most(
            attempts in 1_u64..100, now in 0_u64..86_400_000, chance in any::<u8>(),
        ) {
            let now = UnixMs(now);
            let shortest = next(attempts, UnixMs(0), now, 0);
            if let (Some(shortest), Some(at)) = (shortest, next(attempts, UnixMs(0), now, chance)) {
                let (least, delay) = (shortest.ms_since(now), at.ms_since(now));
                prop_assert!(least <= delay && delay * 5 <= least * 6, "{delay} of {least}");
            }
        }
    }
}
