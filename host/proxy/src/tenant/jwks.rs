//! An issuer's keys as it publishes them: fetched, cached by `kid`, refreshed.
//!
//! A [`Remote`] is shared by every worker and by the one thread that fetches
//! ([`refresh`]). Requests read the last good set; a `kid` that the set lacks makes a
//! worker [`ask`](Remote::ask) for another fetch and wait for it, but not long. Invariant:
//! whatever tokens say, an issuer is asked at most once per [`REFETCH_INTERVAL_MS`], and a
//! good set is replaced only by a good one.

mod document;
mod fetch;
mod refresh;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::clock::Clock;
use tokio::sync::{Notify, watch};

use self::fetch::Url;
pub(crate) use self::refresh::{Meters, spawn};
use super::issuer::{Algorithm, Key};

/// Milliseconds between the starts of two fetches of one issuer (10,000): a storm of
/// unknown `kid`s costs the issuer no more than that, and a rotation is seen this soon.
pub(crate) const REFETCH_INTERVAL_MS: u64 = 10_000;
/// Milliseconds that a request waits for a fetch (500): longer than a healthy issuer
/// takes, short enough for a client that waits.
pub(crate) const KEY_WAIT_MS: u64 = 500;

/// A set of keys as an issuer published it.
#[derive(Debug)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Key>,
    /// Rises with every set that differs from the one before.
    pub(crate) generation: u64,
    digest: [u8; 32],
}

/// The keys of one issuer.
pub(crate) struct Remote {
    /// The issuer's name, in logs and metrics.
    name: Box<str>,
    url: Url,
    algorithms: Vec<Algorithm>,
    clock: Arc<dyn Clock>,
    state: watch::Sender<State>,
    schedule: Mutex<Schedule>,
    asked: Notify,
    generation: AtomicU64,
}

/// What the last fetch left.
#[derive(Debug, Default)]
struct State {
    /// Fetches that have ended.
    fetches: u64,
    set: Option<Arc<KeySet>>,
}

/// Whether the next fetch may start. Locked only where a `kid` is unknown.
#[derive(Debug)]
struct Schedule {
    /// The latest fetch that was asked for.
    wanted: u64,
    not_before_ms: u64,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({}, {})", self.name, self.url)
    }
}

impl Remote {
    /// The keys behind a URL, none yet; the first fetch is asked for.
    ///
    /// # Errors
    /// The URL is no place that keys may come from.
    pub(crate) fn new(
        name: &str,
        url: &str,
        algorithms: &[Algorithm],
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<Self>, String> {
        let remote = Self {
            name: name.into(),
            url: fetch::checked(url)?,
            algorithms: algorithms.to_vec(),
            clock: Arc::clone(clock),
            state: watch::Sender::new(State::default()),
            schedule: Mutex::new(Schedule { wanted: 0, not_before_ms: 0 }),
            asked: Notify::new(),
            generation: AtomicU64::new(0),
        };
        remote.ask();
        Ok(Arc::new(remote))
    }

    /// The last good set.
    pub(crate) fn set(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().set.clone()
    }

    /// The generation of the last good set; 0 before the first. Called for every
    /// remembered token.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether tokens of that algorithm are ever believed.
    pub(crate) fn allows(&self, algorithm: &str) -> bool {
        self.algorithms.iter().any(|allowed| allowed.as_str() == algorithm)
    }

    /// Asks for a fetch, unless one is under way or was a moment ago. The number of the
    /// fetch to wait for; `None` when there will be none for now.
    pub(crate) fn ask(&self) -> Option<u64> {
        let now_ms = self.clock.monotonic_ms();
        let fetches = self.state.borrow().fetches;
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        if schedule.wanted > fetches {
            return Some(schedule.wanted);
        }
        if now_ms < schedule.not_before_ms {
            return None;
        }
        schedule.wanted = fetches + 1;
        schedule.not_before_ms = now_ms.saturating_add(REFETCH_INTERVAL_MS);
        self.asked.notify_one();
        Some(schedule.wanted)
    }

    /// Waits until that fetch has ended, whatever came of it.
    pub(crate) async fn fetched(&self, number: u64) {
        let mut state = self.state.subscribe();
        // An error means that nobody fetches any more; the caller finds what there is.
        let _ended = state.wait_for(|state| state.fetches >= number).await.is_ok();
    }

    /// Whether a fetch was asked for and has not ended.
    fn is_wanted(&self) -> bool {
        let fetches = self.state.borrow().fetches;
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).wanted > fetches
    }

    /// Ends a fetch, with a new set or with what there was.
    fn publish(&self, set: Option<KeySet>) {
        self.state.send_modify(|state| {
            state.fetches += 1;
            if let Some(set) = set {
                self.generation.store(set.generation, Ordering::Release);
                state.set = Some(Arc::new(set));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use model::clock::ManualClock;

    use super::*;

    fn remote(clock: &Arc<ManualClock>) -> Arc<Remote> {
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        Remote::new("test", "https://id.test/keys", &[Algorithm::Es256], &clock).expect("a URL")
    }

    #[test]
    fn a_storm_of_questions_is_one_fetch_per_interval() {
        let clock = Arc::new(ManualClock::default());
        let remote = remote(&clock);
        assert!((0..100).all(|_| remote.ask() == Some(1)), "all wait for the same fetch");
        remote.publish(None);
        assert!(!remote.is_wanted());
        clock.advance_ms(REFETCH_INTERVAL_MS - 1);
        assert_eq!(remote.ask(), None);
        clock.advance_ms(1);
        assert!((0..100).all(|_| remote.ask() == Some(2)));
    }

    #[test]
    fn a_failed_fetch_leaves_the_set() {
        let remote = remote(&Arc::default());
        assert_eq!(remote.generation(), 0);
        remote.publish(Some(KeySet { keys: Vec::new(), generation: 1, digest: [1; 32] }));
        remote.publish(None);
        assert_eq!((remote.generation(), remote.set().map(|set| set.generation)), (1, Some(1)));
    }
}
