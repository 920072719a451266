//! Concurrent sessions as the backend sees them: responses that it streams without end, one a
//! session.
//!
//! An edge ends the streams of a session that it can no longer prove to be counted, so at any
//! time the open streams are sessions that are served. Invariant (checked whenever one opens):
//! over all edges they are no more than the quota. Streams through an edge that is killed or
//! frozen reach nobody, and do not count; while two masters are reachable at once each side may
//! hold the quota, as the README says.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::Interval;

use crate::{edges::Edges, violations::Violations};

/// The tenant whose sessions they are, and its plan.
pub const TENANT: &str = "sessions";
/// Sessions that it may have.
pub const LIMIT: usize = 10;
/// Pause between two pieces of a stream: a connection that is gone is noticed with the next
/// ones, long before an edge's margin of 5 s is over.
const TICK: Duration = Duration::from_millis(50);
/// After a split brain what its other side admitted is gone: a TTL, its margin, and a beat.
const SPLIT_REACHES: Duration = Duration::from_secs(22);

/// The field of an answer that names its stream.
pub const NUMBER: &str = "x-chaos-stream";

/// All open streams.
#[derive(Debug)]
pub struct Live {
    state: Mutex<State>,
    /// Told once they run; the backend is there before them.
    edges: OnceLock<Arc<Edges>>,
    violations: Arc<Violations>,
}

#[derive(Debug, Default)]
struct State {
    /// Edge of each stream, by its number.
    open: BTreeMap<u64, usize>,
    opened: u64,
    peak: usize,
    /// Whether there are two masters, or until when their sessions may be both alive.
    split: Option<Option<Instant>>,
}

/// A stream's body; closing it takes it off the list.
#[derive(Debug)]
pub struct Stream {
    live: Arc<Live>,
    number: u64,
    ticks: Interval,
}

impl Live {
    /// None is open.
    #[must_use]
    pub fn new(violations: Arc<Violations>) -> Self {
        Self { state: Mutex::default(), edges: OnceLock::new(), violations }
    }

    /// Which edges there are.
    pub fn through(&self, edges: &Arc<Edges>) {
        // Once a run.
        let _ = self.edges.set(Arc::clone(edges));
    }

    /// A session's stream begins, through an edge.
    pub fn open(self: &Arc<Self>, edge: usize) -> Stream {
        let number = {
            let mut state = self.lock();
            state.opened += 1;
            let number = state.opened;
            state.open.insert(number, edge);
            let alive = state.open.values().filter(|edge| self.serves(**edge)).count();
            state.peak = state.peak.max(alive);
            let most = if state.is_split() { 2 * LIMIT } else { LIMIT };
            if alive > most {
                let line = format!("OVER-ADMISSION: {alive} sessions are alive, limit {most}");
                drop(state);
                self.violations.once("sessions", line);
            }
            number
        };
        Stream { live: Arc::clone(self), number, ticks: tokio::time::interval(TICK) }
    }

    fn serves(&self, edge: usize) -> bool {
        self.edges.get().is_none_or(|edges| !edges.disturbed(edge, Duration::ZERO))
    }

    /// Whether a stream is open.
    #[must_use]
    pub fn is_open(&self, number: u64) -> bool {
        self.lock().open.contains_key(&number)
    }

    /// How many there were, of all time, and the most at once since the last look.
    pub fn opened_and_peak(&self) -> (u64, usize) {
        let mut state = self.lock();
        let now = state.open.len();
        (state.opened, std::mem::replace(&mut state.peak, now))
    }

    /// From now on there are two masters.
    pub fn split(&self) {
        self.lock().split = Some(None);
    }

    /// There is one again.
    pub fn healed(&self) {
        self.lock().split = Some(Some(Instant::now() + SPLIT_REACHES));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Its name.
    pub const fn number(&self) -> u64 {
        self.number
    }
}

impl State {
    fn is_split(&self) -> bool {
        self.split.is_some_and(|until| until.is_none_or(|until| Instant::now() < until))
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.ticks.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.live.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_stream_too_many_is_found_and_two_masters_may_have_twice_as_many() {
        let violations = Arc::new(Violations::default());
        let live = Arc::new(Live::new(Arc::clone(&violations)));
        let mut streams: Vec<Stream> = (0..LIMIT).map(|_| live.open(0)).collect();
        drop(streams.pop());
        assert!(live.is_open(1) && !live.is_open(LIMIT as u64));
        streams.push(live.open(1));
        assert_eq!(live.opened_and_peak(), (LIMIT as u64 + 1, LIMIT));
        live.split();
        streams.push(live.open(1));
        live.healed();
        streams.push(live.open(1));
        assert_eq!(violations.all(), Vec::<String>::new());
        live.lock().split = None;
        streams.push(live.open(1));
        assert_eq!(violations.all().len(), 1);
    }
}
