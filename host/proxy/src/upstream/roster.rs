//! The endpoints of one pool, and which of them serves next.
//!
//! Made once per worker, snapshot and pool; the endpoints in it are shared by all workers.
//! Two endpoints that are in are drawn, and the one with fewer requests under way serves.
//! Invariant: failed answers never eject more than `ejected_percent_max` of a pool, so a
//! client who provokes them cannot close it; only failed connections do.

use std::sync::Arc;

use super::{
    UpstreamsConfig,
    endpoint::{Busy, Endpoint, Standing},
};

/// What went wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// No answer, or one that says that the server failed.
    Answer,
}

/// The endpoints of a pool.
pub(crate) struct Roster {
    endpoints: Box<[Arc<Endpoint>]>,
}

/// An endpoint that was chosen.
pub(crate) struct Pick {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) on_trial: bool,
    /// `None` where there is no choice to make.
    pub(crate) busy: Option<Busy>,
}

impl Roster {
    pub(crate) fn new(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        Self { endpoints: endpoints.into_iter().collect() }
    }

    /// An endpoint that takes a request and is not one of `tried`.
    pub(crate) fn pick(
        &self,
        config: &UpstreamsConfig,
        tried: &[std::net::SocketAddr],
        now_ms: impl Fn() -> u64,
        mut random: impl FnMut() -> u32,
    ) -> Option<Pick> {
        let free = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.address);
        let due = self.endpoints.iter().filter(free).find(|endpoint| {
            endpoint.standing(&now_ms) == Standing::Due && endpoint.claim_trial(now_ms(), config)
        });
        if let Some(endpoint) = due {
            return Some(self.picked(endpoint, true));
        }
        let ready = || self.endpoints.iter().filter(free).filter(|one| !one.is_out());
        let drawn = match ready().count() {
            0 => return None,
            1 => ready().next()?,
            count => {
                let first = random() as usize % count;
                let second = (first + 1 + random() as usize % (count - 1)) % count;
                // Another worker may have ejected one meanwhile.
                let drawn = |place| ready().nth(place).or_else(|| ready().next());
                let (first, second) = (drawn(first)?, drawn(second)?);
                if second.in_flight() < first.in_flight() { second } else { first }
            }
        };
        Some(self.picked(drawn, false))
    }

    fn picked(&self, endpoint: &Arc<Endpoint>, on_trial: bool) -> Pick {
        let busy = (self.endpoints.len() > 1).then(|| Busy::at(endpoint));
        Pick { endpoint: Arc::clone(endpoint), on_trial, busy }
    }

    /// Counts a failure; true when it ejects the endpoint.
    pub(crate) fn failed(
        &self,
        endpoint: &Endpoint,
        on_trial: bool,
        failure: Failure,
        config: &UpstreamsConfig,
        now_ms: u64,
    ) -> bool {
        let enough = endpoint.failed(config);
        let late = endpoint.is_out() && !on_trial;
        let ejects = !late && (on_trial || enough && self.may_eject(failure, config));
        if ejects {
            endpoint.eject(now_ms, config);
        }
        ejects
    }

    fn may_eject(&self, failure: Failure, config: &UpstreamsConfig) -> bool {
        let out = self.endpoints.iter().filter(|one| one.is_out()).count() + 1;
        failure == Failure::Connect
            || out * 100 <= self.endpoints.len() * config.ejected_percent_max as usize
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use model::clock::{Clock, ManualClock, UnixMs};
    use proptest::prelude::*;

    use super::*;

    fn roster(count: u16) -> Roster {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Roster::new((1..=count).map(|port| Arc::new(Endpoint::new(address(port)))))
    }

    fn config() -> UpstreamsConfig {
        UpstreamsConfig::default()
    }

    fn pick(roster: &Roster, now_ms: u64) -> Option<Pick> {
        roster.pick(&config(), &[], || now_ms, || 0)
    }

    #[test]
    fn an_ejected_endpoint_is_tried_once_when_its_time_is_over_and_longer_the_next_time() {
        let (roster, config) = (roster(1), config());
        let clock = ManualClock::at(UnixMs(1_000_000));
        let only = Arc::clone(&roster.endpoints[0]);
        let fail =
            |trial| roster.failed(&only, trial, Failure::Connect, &config, clock.monotonic_ms());
        for _ in 1..config.eject_after_failures {
            assert!(!fail(false));
        }
        assert!(fail(false));
        assert!(pick(&roster, clock.monotonic_ms()).is_none());
        clock.advance_ms(config.ejection_ms);
        let trial = pick(&roster, clock.monotonic_ms()).expect("a trial");
        assert!(trial.on_trial && pick(&roster, clock.monotonic_ms()).is_none());
        assert!(fail(true));
        clock.advance_ms(config.ejection_ms);
        assert!(pick(&roster, clock.monotonic_ms()).is_none(), "the second one is longer");
        clock.advance_ms(config.ejection_ms);
        assert!(pick(&roster, clock.monotonic_ms()).expect("a trial").on_trial);
        only.succeeded(true, || clock.monotonic_ms());
        assert!(!pick(&roster, clock.monotonic_ms()).expect("it is in").on_trial);
    }

    #[test]
    fn the_endpoint_with_fewer_requests_serves() {
        let roster = roster(2);
        let first = pick(&roster, 0).expect("one");
        let second = pick(&roster, 0).expect("the other");
        assert_ne!(first.endpoint.address, second.endpoint.address);
        let freed = first.endpoint.address;
        drop(first);
        assert_eq!(pick(&roster, 0).expect("the free one").endpoint.address, freed);
    }

    #[test]
    fn an_only_endpoint_is_never_ejected_for_its_answers() {
        let roster = roster(1);
        for _ in 0..100 {
            let only = &roster.endpoints[0];
            assert!(!roster.failed(only, false, Failure::Answer, &config(), 1));
        }
        assert!(pick(&roster, 1).is_some());
    }

    proptest! {
        #[test]
        fn failed_answers_eject_no_more_than_their_share_and_nobody_ejected_serves(
            count in 1u16..8,
            percent in 0u32..=100,
            steps in prop::collection::vec((0usize..8, any::<bool>(), 0u64..2_000), 1..300),
        ) {
            let roster = roster(count);
            let config = UpstreamsConfig { ejected_percent_max: percent, ..config() };
            let mut now_ms = 1;
            for (index, good, later) in steps {
                now_ms += later;
                let mut seed = index as u32;
                let random = || { seed = seed.wrapping_mul(747_796_405).wrapping_add(1); seed };
                let Some(pick) = roster.pick(&config, &[], || now_ms, random) else {
                    prop_assert!(roster.endpoints.iter().all(|one| one.is_out()));
                    continue;
                };
                prop_assert!(pick.on_trial || !pick.endpoint.is_out());
                if good {
                    pick.endpoint.succeeded(pick.on_trial, || now_ms);
                } else {
                    let Pick { endpoint, on_trial, .. } = &pick;
                    roster.failed(endpoint, *on_trial, Failure::Answer, &config, now_ms);
                }
                let out = roster.endpoints.iter().filter(|one| one.is_out()).count();
                prop_assert!(out * 100 <= usize::from(count) * percent as usize);
            }
            prop_assert!(roster.endpoints.iter().all(|one| one.in_flight() == 0));
        }
    }
}
