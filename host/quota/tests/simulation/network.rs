//! The network between edges, Redis and the authority, with its faults.
//!
//! A message takes some time, may be lost or arrive twice, and so may its answer be lost;
//! since every message draws its own time, they overtake each other. Invariant: what a
//! message does at its receiver happens at one instant, and all chance comes from one seed.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::oneshot, time::sleep};

/// The far end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Authority,
    Server(usize),
}

/// How bad it is, as parts of a thousand messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) lost: u32,
    pub(super) twice: u32,
    /// Those take up to [`SLOW_MS`] instead of [`USUAL_MS`].
    pub(super) slow: u32,
}

const USUAL_MS: u64 = 4;
const SLOW_MS: u64 = 400;
/// A second copy arrives so much later, at most, in ms.
const AGAIN_MS: u64 = 1_500;

pub(super) struct Network(Mutex<State>);

struct State {
    random: StdRng,
    weather: Weather,
    cuts: BTreeSet<(usize, Place)>,
}

/// What becomes of a message.
struct Trip {
    there: Option<Duration>,
    back: Option<Duration>,
    again: Option<Duration>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let random = StdRng::seed_from_u64(seed);
        Arc::new(Self(Mutex::new(State {
            random,
            weather: Weather::default(),
            cuts: BTreeSet::new(),
        })))
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.0.lock().unwrap().weather = weather;
    }

    pub(super) fn cut(&self, edge: usize, place: Place) {
        self.0.lock().unwrap().cuts.insert((edge, place));
    }

    pub(super) fn join(&self, edge: usize, place: Place) {
        self.0.lock().unwrap().cuts.remove(&(edge, place));
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.cuts.clear();
        state.weather = Weather::default();
    }

    fn is_cut(&self, edge: usize, place: Place) -> bool {
        self.0.lock().unwrap().cuts.contains(&(edge, place))
    }

    /// Carries a message to a place, does there what it says, and brings the answer. Never
    /// ends when either is lost.
    pub(super) async fn call<R: Send + 'static>(
        self: &Arc<Self>,
        edge: usize,
        place: Place,
        act: impl FnMut() -> Option<R> + Send + 'static,
    ) -> R {
        let trip = self.0.lock().unwrap().trip();
        self.carry(edge, place, trip, act).await
    }

    /// The same without a copy: a transaction is not sent again by anything on its way.
    pub(super) async fn call_once<R: Send + 'static>(
        self: &Arc<Self>,
        edge: usize,
        place: Place,
        act: impl FnMut() -> Option<R> + Send + 'static,
    ) -> R {
        let trip = Trip { again: None, ..self.0.lock().unwrap().trip() };
        self.carry(edge, place, trip, act).await
    }

    async fn carry<R: Send + 'static>(
        self: &Arc<Self>,
        edge: usize,
        place: Place,
        Trip { there, back, again }: Trip,
        mut act: impl FnMut() -> Option<R> + Send + 'static,
    ) -> R {
        let (reply, answer) = oneshot::channel();
        let network = Arc::clone(self);
        tokio::spawn(async move {
            let Some(there) = there.filter(|_| !network.is_cut(edge, place)) else { return };
            sleep(there).await;
            let said = act();
            if let Some(back) = back
                && let Some(said) = said
            {
                sleep(back).await;
                if !network.is_cut(edge, place) {
                    let _ = reply.send(said);
                }
            }
            if let Some(again) = again {
                sleep(again).await;
                drop(act());
            }
        });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }
}

impl State {
    fn trip(&mut self) -> Trip {
        let Weather { lost, twice, slow } = self.weather;
        let Self { random, .. } = self;
        let mut happens = |of_thousand| random.random_range(0..1_000) < of_thousand;
        let (there, back, again) = (!happens(lost), !happens(lost), happens(twice));
        let mut takes = || {
            let most = if random.random_range(0..1_000) < slow { SLOW_MS } else { USUAL_MS };
            Duration::from_millis(random.random_range(0..=most))
        };
        let (there, back) = (there.then(&mut takes), back.then(&mut takes));
        let late = Duration::from_millis(random.random_range(0..=AGAIN_MS));
        Trip { there, back, again: again.then_some(late) }
    }
}
