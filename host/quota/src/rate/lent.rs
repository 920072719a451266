//! A bucket that several edges share: what this edge has borrowed of it, and how it gets
//! more.
//!
//! A loan is good for a moment only (`hold`), counted from before it was asked for, and what
//! is not spent by then is lost. So what is admitted in a span was granted in that span or
//! in the moment before, and the store may owe that much less: capacity = burst − rate ×
//! hold. Then the edges together admit at most `burst + rate × span`, however they hoard.
//! Invariants: a loan is spent within its time; one question per bucket is under way.
//!
//! What may exceed the rate: a burst of 1, or one below 42 ms of the rate, leaves no room
//! for the moment (then up to rate × hold more); a store that loses its data forgets what it
//! is owed (one burst more); while it is away each edge goes by its share of the rate
//! (rate ÷ edges seen last, nothing saved up).

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use model::{
    limiter::{Taken, Verdict},
    rate::Rate,
};
use tokio::{runtime::Handle, sync::Mutex};

use super::{Counters, RateAsk, RateLoan, RateStore, RateStoreAway, bucket::KeyBucket, gcra::Pace};

/// Shortest and longest time for which a loan is good, in ms: a round trip with room, and
/// as long as a lease of a quota is for, so that a busy edge asks about once a second.
const HOLD_MS: (u64, u64) = (20, 1_000);
/// Shortest time for which a refusal is believed, in ms: an edge that is asked for much more
/// than the rate asks the store no more than so often.
const REFUSED_MS_MIN: u64 = 20;
/// Time for which a store that did not answer is left alone, in ms.
const AWAY_MS: u64 = 100;
/// Time after which an edge that did not ask no longer counts as one, in ms.
const EDGE_SEEN_MS: u64 = 10_000;
const NS_PER_MS: u64 = 1_000_000;

/// Who lends, to all buckets of this process.
pub(crate) struct Lender {
    store: Arc<dyn RateStore>,
    edge: Box<str>,
    runtime: Handle,
    counters: Counters,
    /// Most edges that a bucket was seen with last: the divisor while the store is away.
    edges: AtomicU32,
    away_until_ms: AtomicU64,
}

impl Lender {
    pub(crate) fn new(
        store: Arc<dyn RateStore>,
        edge: &str,
        runtime: Handle,
        counters: Counters,
    ) -> Self {
        let (edges, away_until_ms) = (AtomicU32::new(1), AtomicU64::new(0));
        Self { store, edge: edge.into(), runtime, counters, edges, away_until_ms }
    }

    fn is_away(&self, now_ms: u64) -> bool {
        now_ms < self.away_until_ms.load(Ordering::Relaxed)
    }
}

/// What one loan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    /// For how long it is good, in ms.
    hold_ms: u64,
    /// What may be owed, in ns.
    capacity_ns: u64,
}

impl Terms {
    fn of(pace: Pace) -> Self {
        let span = pace.span_ns();
        let half_ms = (span / 2 / NS_PER_MS).saturating_sub(1);
        let hold_ms = half_ms.clamp(HOLD_MS.0, HOLD_MS.1);
        // A clock in whole ms may let a loan live one of them longer.
        let less = span.saturating_sub((hold_ms + 1) * NS_PER_MS);
        let exact = less >= pace.interval_ns && less >= span / 2;
        Self { hold_ms, capacity_ns: if exact { less } else { span } }
    }
}

/// Tokens that are good until a time: `until_ms:40 | tokens:24`.
#[derive(Default)]
struct Loan(AtomicU64);

impl Loan {
    const TOKENS: u64 = (1 << 24) - 1;

    fn parts(word: u64) -> (u64, u64) {
        (word >> 24, word & Self::TOKENS)
    }

    /// Takes `cost` while it is good; what is left then.
    fn take(&self, now_ms: u64, cost: u32) -> Option<u64> {
        let cost = u64::from(cost);
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let (until, tokens) = Self::parts(word);
            (now_ms < until && tokens >= cost && tokens > 0).then(|| word - cost)
        });
        taken.ok().map(|word| Self::parts(word).1 - cost)
    }

    fn left(&self, now_ms: u64) -> u64 {
        let (until, tokens) = Self::parts(self.0.load(Ordering::Acquire));
        if now_ms < until { tokens } else { 0 }
    }

    fn until_ms(&self) -> u64 {
        Self::parts(self.0.load(Ordering::Acquire)).0
    }

    fn put(&self, tokens: u32, until_ms: u64) {
        self.0.store(until_ms << 24 | u64::from(tokens) & Self::TOKENS, Ordering::Release);
    }
}

/// This edge's part of one bucket.
pub(crate) struct Lent {
    lender: Arc<Lender>,
    keys: [Box<str>; 2],
    /// One is spent while the other is filled.
    loans: [Loan; 2],
    /// At so many tokens or fewer more is asked for.
    mark: AtomicU32,
    /// What the store had left when it was asked last.
    left: AtomicU32,
    refused_until_ms: AtomicU64,
    /// Requests that wait for an answer of the store.
    waiting: AtomicU32,
    refilling: AtomicBool,
    /// Whether this edge goes by its share.
    apart: AtomicBool,
    asking: Mutex<Asked>,
}

/// The last loan.
#[derive(Default)]
struct Asked {
    at_ms: u64,
    granted: u32,
}

impl Lent {
    pub(crate) fn new(lender: Arc<Lender>, key: &str) -> Self {
        Self {
            lender,
            keys: [key.into(), format!("{key}:edges").into()],
            loans: Default::default(),
            mark: AtomicU32::new(0),
            left: AtomicU32::new(0),
            refused_until_ms: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            refilling: AtomicBool::new(false),
            apart: AtomicBool::new(false),
            asking: Mutex::default(),
        }
    }

    pub(crate) fn idle_at_ms(&self) -> u64 {
        let loans = self.loans.iter().map(Loan::until_ms);
        loans.chain([self.refused_until_ms.load(Ordering::Relaxed)]).max().unwrap_or(0)
    }

    /// Tokens at hand.
    fn at_hand(&self, now_ms: u64) -> u64 {
        self.loans.iter().map(|loan| loan.left(now_ms)).sum()
    }

    /// Takes from the loans, those that end sooner first.
    fn spend(&self, now_ms: u64, cost: u32) -> bool {
        let [first, second] = &self.loans;
        let (sooner, later) =
            if first.until_ms() <= second.until_ms() { (first, second) } else { (second, first) };
        sooner.take(now_ms, cost).or_else(|| later.take(now_ms, cost)).is_some()
    }

    fn verdict(&self, allowed: bool, rate: Rate, now_ms: u64) -> Verdict {
        let pace = Pace::of(rate);
        let left = u64::from(self.left.load(Ordering::Relaxed));
        let refused = self.refused_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms);
        let remaining = match allowed {
            true => self.at_hand(now_ms).saturating_add(left).min(pace.burst),
            false => 0,
        };
        Verdict {
            allowed,
            rate,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            wait_ms: if allowed { 0 } else { refused.max(1) },
            full_ms: ((pace.burst - remaining) * pace.interval_ns).div_ceil(NS_PER_MS),
        }
    }

    /// How many to ask for: what is needed now, or what was spent lately in the time for
    /// which a loan is good.
    fn want(&self, asked: &Asked, least: u32, terms: Terms, now_ms: u64) -> u32 {
        let spent = u64::from(asked.granted).saturating_sub(self.at_hand(now_ms));
        let lately = now_ms.saturating_sub(asked.at_ms).max(1);
        let steady = if lately > terms.hold_ms * 2 { 0 } else { spent * terms.hold_ms / lately };
        let waiting = u64::from(self.waiting.load(Ordering::Relaxed));
        let want = steady.max(u64::from(least) + waiting.saturating_sub(1));
        u32::try_from(want.min(Loan::TOKENS)).unwrap_or(least)
    }

    /// Asks the store for at least `least`, and keeps what `own` of it leaves. `None`: the
    /// store is away; otherwise whether it granted.
    async fn borrow_more(&self, bucket: &KeyBucket, asked: &mut Asked, own: u32) -> Option<bool> {
        let (pace, sent_ms) = (Pace::of(bucket.rate()), bucket.now_ms());
        let terms = Terms::of(pace);
        let least = own.max(1);
        let want = self.want(asked, least, terms, sent_ms);
        let numbers = [pace.interval_ns, terms.capacity_ns, u64::from(least), u64::from(want)];
        let [interval, capacity, least, want] = numbers.map(|n| n.to_string().into());
        let seen = EDGE_SEEN_MS.to_string().into();
        let arguments = [interval, capacity, least, want, self.lender.edge.clone(), seen];
        let answer = self.ask(RateAsk { keys: self.keys.clone(), arguments }).await;
        let (until_ms, now_ms) = (sent_ms + terms.hold_ms, bucket.now_ms());
        let Ok(loan) = answer else {
            self.lender.away_until_ms.store(now_ms + AWAY_MS, Ordering::Relaxed);
            return None;
        };
        self.lender.edges.store(loan.edges.max(1), Ordering::Relaxed);
        self.left.store(loan.left, Ordering::Relaxed);
        self.apart.store(false, Ordering::Relaxed);
        if loan.granted == 0 {
            let wait = loan.wait_ms.max(REFUSED_MS_MIN);
            self.refused_until_ms.store(sent_ms.saturating_add(wait), Ordering::Relaxed);
            return Some(false);
        }
        // The answer took longer than the loan is good for: nobody may spend it.
        if now_ms >= until_ms {
            return None;
        }
        *asked = Asked { at_ms: sent_ms, granted: loan.granted };
        self.keep(loan.granted.saturating_sub(own), until_ms, now_ms);
        Some(true)
    }

    async fn ask(&self, ask: RateAsk) -> Result<RateLoan, RateStoreAway> {
        self.lender.counters.calls.inc();
        let answer = self.lender.store.ask(ask).await;
        if answer.is_err() {
            self.lender.counters.failures.inc();
        }
        answer
    }

    /// Puts a loan where the least is lost.
    fn keep(&self, tokens: u32, until_ms: u64, now_ms: u64) {
        self.mark.store(tokens / 2, Ordering::Relaxed);
        if tokens == 0 {
            return;
        }
        if let Some(loan) = self.loans.iter().min_by_key(|loan| loan.left(now_ms)) {
            loan.put(tokens, until_ms);
        }
    }

    /// This edge's share, while the store is away.
    fn take_share(&self, bucket: &KeyBucket, cost: u32) -> Verdict {
        let (rate, now_ms) = (bucket.rate(), bucket.now_ms());
        let edges = self.lender.edges.load(Ordering::Relaxed);
        let pace = Pace::of(rate).shared_by(u64::from(edges));
        if !self.apart.swap(true, Ordering::Relaxed) {
            bucket.drain_here(pace, now_ms);
        }
        bucket.take_here(rate, pace, now_ms, cost)
    }
}

/// Takes `cost` of a lent bucket.
pub(crate) fn take(bucket: &Arc<KeyBucket>, lent: &Lent, cost: u32) -> Taken {
    let (rate, now_ms) = (bucket.rate(), bucket.now_ms());
    if let Some(verdict) = known(bucket, lent, rate, now_ms, cost) {
        return Taken::Now(verdict);
    }
    lent.waiting.fetch_add(1, Ordering::Relaxed);
    let waiting = Waiting(Arc::clone(bucket));
    Taken::Later(Box::pin(async move { waiting.answer(cost).await }))
}

/// The answer, where the store need not be asked for it.
fn known(
    bucket: &Arc<KeyBucket>,
    lent: &Lent,
    rate: Rate,
    now_ms: u64,
    cost: u32,
) -> Option<Verdict> {
    if lent.spend(now_ms, cost) {
        refill_if_low(bucket, lent, now_ms);
        return Some(lent.verdict(true, rate, now_ms));
    }
    let capacity = Terms::of(Pace::of(rate)).capacity_ns / Pace::of(rate).interval_ns;
    if now_ms < lent.refused_until_ms.load(Ordering::Relaxed) || u64::from(cost) > capacity {
        return Some(lent.verdict(false, rate, now_ms));
    }
    lent.lender.is_away(now_ms).then(|| lent.take_share(bucket, cost))
}

fn refill_if_low(bucket: &Arc<KeyBucket>, lent: &Lent, now_ms: u64) {
    let low = lent.at_hand(now_ms) <= u64::from(lent.mark.load(Ordering::Relaxed));
    let refused = now_ms < lent.refused_until_ms.load(Ordering::Relaxed);
    let idle = low && !refused && !lent.lender.is_away(now_ms);
    if !idle
        || lent.mark.load(Ordering::Relaxed) == 0
        || lent.refilling.swap(true, Ordering::AcqRel)
    {
        return;
    }
    let bucket = Arc::clone(bucket);
    lent.lender.runtime.spawn(async move {
        let Some(lent) = bucket.of_lender() else { return };
        if let Ok(mut asked) = lent.asking.try_lock() {
            lent.borrow_more(&bucket, &mut asked, 0).await;
        }
        lent.refilling.store(false, Ordering::Release);
    });
}

/// A request that waits for the store; counted for as long as it does.
struct Waiting(Arc<KeyBucket>);

impl Waiting {
    async fn answer(self, cost: u32) -> Verdict {
        let bucket = &self.0;
        let Some(lent) = bucket.of_lender() else {
            return bucket.take_here(bucket.rate(), Pace::of(bucket.rate()), bucket.now_ms(), cost);
        };
        let mut asked = lent.asking.lock().await;
        // Whoever had the turn before may have brought enough, or heard that there is none.
        let (rate, now_ms) = (bucket.rate(), bucket.now_ms());
        if let Some(verdict) = known(bucket, lent, rate, now_ms, cost) {
            return verdict;
        }
        match lent.borrow_more(bucket, &mut asked, cost).await {
            Some(allowed) => lent.verdict(allowed, rate, bucket.now_ms()),
            None => lent.take_share(bucket, cost),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(lent) = self.0.of_lender() {
            lent.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
