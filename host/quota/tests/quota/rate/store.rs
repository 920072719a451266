//! A store in memory, on a clock that tests move: what the script does, step by step.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use model::{
    BoxFuture,
    clock::{Clock, ManualClock},
};
use quota::{RateAsk, RateLoan, RateStore, RateStoreAway};

/// What happens to one question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Answered, after the clock moved so far before and after it was carried out.
    Answered(u64, u64),
    /// Carried out, and the answer lost.
    Lost,
}

#[derive(Default)]
struct Bucket {
    at_ms: u64,
    debt_ns: u64,
    edges: HashMap<String, u64>,
}

pub(crate) struct Simulated {
    clock: Arc<ManualClock>,
    bucket: Mutex<Bucket>,
    fates: Mutex<VecDeque<Fate>>,
}

impl Simulated {
    pub(crate) fn new(clock: Arc<ManualClock>, fates: impl IntoIterator<Item = Fate>) -> Arc<Self> {
        let fates = Mutex::new(fates.into_iter().collect());
        Arc::new(Self { clock, bucket: Mutex::default(), fates })
    }

    fn carry_out(&self, ask: &RateAsk) -> RateLoan {
        let number = |at: usize| ask.arguments[at].parse::<u64>().unwrap();
        let (interval, most, least, want) = (number(0), number(1), number(2), number(3));
        let now_ms = self.clock.monotonic_ms();
        let mut bucket = self.bucket.lock().unwrap();
        let earned = (now_ms - bucket.at_ms) * 1_000_000;
        bucket.edges.insert(ask.arguments[4].to_string(), now_ms);
        let seen = number(5);
        bucket.edges.retain(|_, at| *at + seen >= now_ms);
        let edges = bucket.edges.len() as u64;
        let mut debt = bucket.debt_ns.saturating_sub(earned);
        let left = most.saturating_sub(debt) / interval;
        let granted = if left >= least { want.min(least.max(left.div_ceil(2 * edges))) } else { 0 };
        debt += granted * interval;
        let wait_ms =
            if granted > 0 { 0 } else { (debt + least * interval - most).div_ceil(1_000_000) };
        (bucket.at_ms, bucket.debt_ns) = (now_ms, debt);
        RateLoan {
            granted: granted as u32,
            left: (left - granted) as u32,
            wait_ms,
            edges: edges as u32,
        }
    }
}

impl RateStore for Simulated {
    fn ask(&self, ask: RateAsk) -> BoxFuture<'_, Result<RateLoan, RateStoreAway>> {
        Box::pin(async move {
            let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Answered(0, 1));
            match fate {
                Fate::Answered(before, after) => {
                    self.clock.advance_ms(before);
                    let loan = self.carry_out(&ask);
                    self.clock.advance_ms(after);
                    Ok(loan)
                }
                Fate::Lost => {
                    self.carry_out(&ask);
                    Err(RateStoreAway)
                }
            }
        })
    }
}
