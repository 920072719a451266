//! The generic cell rate algorithm (ITU-T Recommendation I.371, annex A, in its form of
//! virtual scheduling): one number, the time at which everything taken so far would have
//! been earned.
//!
//! Taken from on every request: a load and a compare-exchange. Invariant: over any span of
//! the clock at most `burst + rate × span` is let through, whoever takes at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{limiter::Verdict, rate::Rate};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// How often something is earned, and how much may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Time that earns one, in ns; rounded up, so that a rate is never exceeded.
    pub(crate) interval_ns: u64,
    /// What may be saved up.
    pub(crate) burst: u64,
}

impl Pace {
    /// The pace of a rate.
    pub(crate) const fn of(rate: Rate) -> Self {
        Self {
            interval_ns: NS_PER_S.div_ceil(rate.per_second() as u64),
            burst: rate.burst() as u64,
        }
    }

    /// An equal part of it, for one of several.
    pub(crate) const fn shared_by(self, edges: u64) -> Self {
        let edges = if edges == 0 { 1 } else { edges };
        let burst = self.burst / edges;
        Self {
            interval_ns: self.interval_ns.saturating_mul(edges),
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// The time that earns a whole burst, in ns: at most 10^15.
    pub(crate) const fn span_ns(self) -> u64 {
        self.interval_ns.saturating_mul(self.burst)
    }
}

/// The state of one bucket; a new one is full.
#[derive(Debug, Default)]
pub(crate) struct Gcra {
    /// The theoretical arrival time, in ns of a clock whose zero is arbitrary.
    tat_ns: AtomicU64,
}

impl Gcra {
    /// Takes `cost`, or nothing.
    pub(crate) fn take(&self, rate: Rate, pace: Pace, now_ms: u64, cost: u32) -> Verdict {
        let now = now_ms.saturating_mul(NS_PER_MS);
        let most = now.saturating_add(pace.span_ns());
        let price = pace.interval_ns.saturating_mul(u64::from(cost));
        let after = |tat: u64| tat.max(now).saturating_add(price);
        let taken = self.tat_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, |tat| {
            Some(after(tat)).filter(|after| *after <= most)
        });
        let (allowed, tat, wait_ns) = match taken {
            Ok(tat) => (true, after(tat), 0),
            Err(tat) => (false, tat.max(now), after(tat).saturating_sub(most)),
        };
        let remaining = most.saturating_sub(tat) / pace.interval_ns;
        Verdict {
            allowed,
            rate,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            wait_ms: wait_ns.div_ceil(NS_PER_MS),
            full_ms: tat.saturating_sub(now).div_ceil(NS_PER_MS),
        }
    }

    /// Leaves nothing saved up.
    pub(crate) fn drain(&self, pace: Pace, now_ms: u64) {
        let empty = now_ms.saturating_mul(NS_PER_MS).saturating_add(pace.span_ns());
        self.tat_ns.fetch_max(empty, Ordering::AcqRel);
    }

    /// When it is as good as a new one, in ms.
    pub(crate) fn full_at_ms(&self) -> u64 {
        self.tat_ns.load(Ordering::Acquire).div_ceil(NS_PER_MS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(per_second, burst).expect("a rate")
    }

    fn takes(gcra: &Gcra, rate: Rate, now_ms: u64, cost: u32) -> Verdict {
        gcra.take(rate, Pace::of(rate), now_ms, cost)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_an_interval() {
        let (gcra, rate) = (Gcra::default(), rate(10, 3));
        let passed = |now_ms| takes(&gcra, rate, now_ms, 1).allowed;
        assert_eq!(
            [0, 0, 0, 0, 99, 100, 100, 200].map(passed),
            [true, true, true, false, false, true, false, true]
        );
        // After a pause the burst is there again, and no more than that.
        assert_eq!([9_000; 4].map(passed), [true, true, true, false]);
    }

    #[test]
    fn a_refusal_takes_nothing_and_says_when_to_come_back() {
        let (gcra, rate) = (Gcra::default(), rate(10, 3));
        let taken = takes(&gcra, rate, 1_000, 2);
        assert_eq!((taken.allowed, taken.remaining, taken.full_ms), (true, 1, 200));
        let refused = takes(&gcra, rate, 1_050, 2);
        assert_eq!((refused.allowed, refused.remaining, refused.wait_ms), (false, 1, 50));
        assert!(takes(&gcra, rate, 1_050, 1).allowed, "one is left");
        let never = takes(&gcra, rate, 60_000, 4);
        assert_eq!((never.allowed, never.remaining), (false, 3), "more than the burst");
        assert!(takes(&gcra, rate, 60_000, 0).allowed);
    }

    #[test]
    fn a_drained_bucket_earns_its_first_in_an_interval() {
        let (gcra, rate) = (Gcra::default(), rate(10, 3));
        gcra.drain(Pace::of(rate), 500);
        assert_eq!(takes(&gcra, rate, 500, 1).wait_ms, 100);
        assert!(takes(&gcra, rate, 600, 1).allowed);
    }

    #[test]
    fn takers_at_the_same_time_share_one_burst() {
        let (gcra, rate) = (Arc::new(Gcra::default()), rate(1, 1_000));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let gcra = Arc::clone(&gcra);
                let one = move |_: &u32| takes(&gcra, rate, 7, 1).allowed;
                std::thread::spawn(move || (0..600_u32).filter(one).count())
            })
            .collect();
        let admitted: usize = takers.into_iter().map(|taker| taker.join().expect("no panic")).sum();
        assert_eq!(admitted, 1_000);
    }

    proptest! {
        #[test]
        fn no_span_sees_more_than_burst_and_rate_allow(
            per_second in 1_u32..5_000, burst in 1_u32..200,
            steps in prop::collection::vec((0_u64..400, 1_u32..5), 1..200),
        ) {
            let (gcra, rate) = (Gcra::default(), rate(per_second, burst));
            let mut now = 0;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (pause, cost) in steps {
                now += pause;
                if takes(&gcra, rate, now, cost).allowed {
                    admitted.push((now, u64::from(cost)));
                }
            }
            for (first, (from, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (until, cost) in &admitted[first..] {
                    sum += cost;
                    let earned = u64::from(per_second) * (until - from);
                    prop_assert!(sum * 1_000 <= u64::from(burst) * 1_000 + earned);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_is_let_through(
            per_second in 1_u32..=1_000_000, burst in 1_u32..1_000, cost in 1_u32..1_000,
            now in 0_u64..1_000_000_000,
        ) {
            let (gcra, rate) = (Gcra::default(), rate(per_second, burst));
            let cost = cost.min(burst);
            while takes(&gcra, rate, now, cost).allowed {}
            let refused = takes(&gcra, rate, now, cost);
            prop_assert!(refused.wait_ms >= 1);
            prop_assert!(takes(&gcra, rate, now + refused.wait_ms, cost).allowed);
        }

        #[test]
        fn equal_parts_are_no_more_than_the_whole_from_one_a_head_on(
            per_second in 1_u32..=1_000_000, burst in 1_u32..=1_000_000, edges in 1_u64..64,
        ) {
            let whole = Pace::of(rate(per_second, burst));
            let part = whole.shared_by(edges);
            prop_assert!(part.interval_ns >= whole.interval_ns * edges);
            prop_assert!(part.burst * edges <= whole.burst.max(edges));
        }
    }
}
