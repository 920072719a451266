//! When a metric is alerted about: the rules of once, and of once again.
//!
//! Pure; run by the evaluation on what it reads. A threshold that was reached stays silent
//! until it is re-armed: by the next window, by another limit, or, for a level, by falling
//! clearly below it. Invariant: whatever order readings come in, the name of an event says
//! which arming it belongs to, and no arming has two.

use model::{clock::UnixMs, quota::Metric, window::Window};

use super::settings::{Severity, Threshold};

/// How long a limit stands before another one is believed, in ms: processes that reload
/// their plans or follow the directory one after the other see two limits for a moment,
/// and must not take turns in re-arming.
const LIMIT_SETTLES_MS: u64 = 5_000;

/// What is used of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) metric: Metric,
    pub(super) used: u64,
    pub(super) limit: u64,
    /// `None` for a level.
    pub(super) window: Option<Window>,
}

/// How far one threshold is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Reached, and its event inserted.
    pub(super) fired: bool,
    /// How often a level has left it.
    pub(super) round: u64,
}

/// How far a metric was alerted about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) window_start: UnixMs,
    pub(super) limit: u64,
    pub(super) limit_version: u64,
    pub(super) limit_since: UnixMs,
    /// In the order of [`Severity::ALL`].
    pub(super) marks: [Mark; 2],
}

impl Reading {
    fn window_start(&self) -> UnixMs {
        self.window.map_or(UnixMs(0), |window| window.start)
    }
}

impl Watch {
    /// A metric that was never watched.
    fn new(reading: &Reading, now: UnixMs) -> Self {
        Self {
            window_start: reading.window_start(),
            limit: reading.limit,
            limit_version: 1,
            limit_since: now,
            marks: [Mark::default(); 2],
        }
    }

    /// What a reading changes: the new state, and the thresholds to tell about. `None` when
    /// the reading is not to be judged: its window is over, or its limit not yet believed.
    pub(super) fn after(
        before: Option<Self>,
        reading: &Reading,
        thresholds: [Threshold; 2],
        now: UnixMs,
    ) -> Option<(Self, Vec<Severity>)> {
        let mut watch = match before {
            None => Self::new(reading, now),
            Some(before) => before.under(reading, now)?,
        };
        let mut told = Vec::new();
        for ((severity, threshold), mark) in
            Severity::ALL.into_iter().zip(thresholds).zip(&mut watch.marks)
        {
            let is_level = reading.window.is_none();
            if mark.fired && is_level && threshold.is_left(reading.used, reading.limit) {
                *mark = Mark { fired: false, round: mark.round + 1 };
            }
            if !mark.fired && threshold.is_reached(reading.used, reading.limit) {
                mark.fired = true;
                told.push(severity);
            }
        }
        Some((watch, told))
    }

    /// The state in the window and under the limit of a reading.
    fn under(self, reading: &Reading, now: UnixMs) -> Option<Self> {
        let start = reading.window_start();
        if start < self.window_start {
            return None;
        }
        let rolled = start > self.window_start;
        let changed = reading.limit != self.limit;
        if changed && !rolled && now.ms_since(self.limit_since) < LIMIT_SETTLES_MS {
            return None;
        }
        if !rolled && !changed {
            return Some(self);
        }
        Some(Self {
            window_start: start,
            limit: reading.limit,
            limit_version: self.limit_version + u64::from(changed),
            limit_since: if changed { now } else { self.limit_since },
            marks: [Mark::default(); 2],
        })
    }

    /// The name of the event of a threshold, as armed now.
    pub(super) fn once(&self, metric: Metric, severity: Severity) -> String {
        let [warning, critical] = self.marks;
        let mark = match severity {
            Severity::Warning => warning,
            Severity::Critical => critical,
        };
        format!(
            "quota/{}/{}/{}/{}/{}",
            metric.as_str(),
            self.window_start.0,
            severity.as_str(),
            self.limit_version,
            mark.round
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{anchor::Anchor, clock::UnixMs};
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_705_314_600_000);
    const DAY_MS: u64 = 86_400_000;

    /// A metric under watch, as it is read.
    struct Watched {
        watch: Option<Watch>,
        metric: Metric,
        now: UnixMs,
        told: Vec<String>,
    }

    impl Watched {
        fn new(metric: Metric) -> Self {
            Self { watch: None, metric, now: NOW, told: Vec::new() }
        }

        fn read(&mut self, used: u64, limit: u64) -> Vec<Severity> {
            let window = Window::of(self.metric, self.now, Anchor::default());
            let reading = Reading { metric: self.metric, used, limit, window };
            let thresholds = [Threshold::WARNING, Threshold::CRITICAL];
            let Some((watch, told)) = Watch::after(self.watch, &reading, thresholds, self.now)
            else {
                return Vec::new();
            };
            self.watch = Some(watch);
            self.told.extend(told.iter().map(|severity| watch.once(self.metric, *severity)));
            told
        }
    }

    use Severity::{Critical, Warning};

    #[test]
    fn each_threshold_is_told_once_a_window() {
        let mut calls = Watched::new(Metric::AiRequests);
        let told: Vec<_> =
            [0, 79, 80, 81, 94, 95, 96, 100].map(|used| calls.read(used, 100)).into();
        assert_eq!(told.concat(), [Warning, Critical]);
        // Refunds bring it below, and it rises again: the same window.
        assert_eq!([calls.read(10, 100), calls.read(99, 100)].concat(), []);
        calls.now = calls.now.plus_ms(DAY_MS);
        assert_eq!(calls.read(10, 100), []);
        assert_eq!(calls.read(97, 100), [Warning, Critical], "both at once");
    }

    #[test]
    fn a_reading_of_a_window_that_is_over_is_not_judged() {
        let mut calls = Watched::new(Metric::AiRequests);
        calls.now = NOW.plus_ms(DAY_MS);
        assert_eq!(calls.read(80, 100), [Warning]);
        // A process whose clock is behind.
        let state = calls.watch;
        calls.now = NOW;
        assert_eq!(calls.read(100, 100), []);
        assert_eq!(calls.watch, state);
    }

    #[test]
    fn another_limit_arms_again_once_it_has_settled() {
        let mut calls = Watched::new(Metric::ApiCalls);
        assert_eq!(calls.read(80, 100), [Warning]);
        assert_eq!(calls.read(170, 200), [], "too soon to be believed");
        calls.now = calls.now.plus_ms(LIMIT_SETTLES_MS);
        assert_eq!(calls.read(159, 200), []);
        assert_eq!(calls.read(160, 200), [Warning]);
        // A process that still knows the old limit.
        assert_eq!(calls.read(161, 100), []);
        assert_eq!(calls.read(190, 200), [Critical]);
        calls.now = calls.now.plus_ms(LIMIT_SETTLES_MS);
        assert_eq!(calls.read(195, 100), [Warning, Critical], "back, and beyond it");
        assert_eq!(calls.told.iter().collect::<BTreeSet<_>>().len(), calls.told.len());
    }

    #[test]
    fn two_processes_with_two_limits_do_not_take_turns() {
        let mut calls = Watched::new(Metric::ApiCalls);
        let mut told = 0;
        for _ in 0..40 {
            for limit in [100, 101] {
                told += calls.read(90, limit).len();
                calls.now = calls.now.plus_ms(50);
            }
        }
        assert_eq!(told, 1);
    }

    #[test]
    fn a_level_arms_again_when_it_falls_five_points_below() {
        let mut storage = Watched::new(Metric::Storage);
        let told: Vec<_> = [80, 79, 80, 75, 81, 74, 79, 80, 95, 89, 94, 95, 10, 95]
            .map(|used| storage.read(used, 100))
            .into();
        assert_eq!(told.concat(), [Warning, Warning, Critical, Critical, Warning, Critical]);
        assert_eq!(storage.told.iter().collect::<BTreeSet<_>>().len(), storage.told.len());
    }

    proptest! {
        #[test]
        fn no_two_events_have_one_name_and_none_is_without_cause(
            level in any::<bool>(),
            steps in prop::collection::vec(
                (0_u64..130, prop::sample::select(vec![0_u64, 50, 100]), 0_u64..2 * DAY_MS), 0..60,
            ),
        ) {
            let mut watched =
                Watched::new(if level { Metric::Storage } else { Metric::AiRequests });
            for (used, limit, pause) in steps {
                watched.now = watched.now.plus_ms(pause);
                for severity in watched.read(used, limit) {
                    let threshold = match severity {
                        Warning => Threshold::WARNING,
                        Critical => Threshold::CRITICAL,
                    };
                    prop_assert!(threshold.is_reached(used, limit));
                }
            }
            let names: BTreeSet<_> = watched.told.iter().collect();
            prop_assert_eq!(names.len(), watched.told.len());
        }
    }
}
