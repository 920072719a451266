//! A tenant's meter: the hot path of admission.
//!
//! [`Meter::take`] runs on every request of every worker: a few loads and one
//! compare-exchange per metric; it locks, allocates and calls nothing while tokens are at
//! hand. Invariant: a token taken is spent, given back once, or stays charged; tokens of
//! several metrics are taken all or nothing.

use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    clock::UnixMs,
    gate::{Denial, EdgeQuota, Meter, Permit, QuotaStatus, Take, Token, Tokens},
    ledger::{Above, BootId},
    loss::OnLoss,
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
    tenant::TenantId,
};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    time::{Instant, timeout_at},
};

use crate::{
    config::QuotaConfig,
    decision::Timed,
    lease_file::Map,
    metrics::Metrics,
    redis::Recalled,
    slot::{Slot, SlotTake},
    window_clock::WindowClock,
};

/// Retry-After of a wait that was too long, in seconds: the tranche is on its way.
const RETRY_SOON_S: u64 = 1;
/// Retry-After while the authority is down, in seconds: 2–5, by tenant, so that clients
/// of many tenants do not come back together.
const RETRY_DOWN_S: std::ops::RangeInclusive<u64> = 2..=5;

/// What meters and keeper share.
pub(crate) struct Shared {
    pub(crate) config: QuotaConfig,
    pub(crate) clock: WindowClock,
    pub(crate) map: Map,
    pub(crate) metrics: Metrics,
    pub(crate) inbox: UnboundedSender<Message>,
    pub(crate) boot: BootId,
    /// Rises whenever the authority has ended this process's holder.
    pub(crate) life: AtomicU32,
}

impl Shared {
    /// No holder's yet; and where the keeper hears what it is told.
    pub(crate) fn new(
        config: QuotaConfig,
        clock: WindowClock,
        map: Map,
        metrics: Metrics,
        boot: BootId,
    ) -> (Arc<Self>, UnboundedReceiver<Message>) {
        let (inbox, messages) = mpsc::unbounded_channel();
        let life = AtomicU32::new(0);
        (Arc::new(Self { config, clock, map, metrics, inbox, boot, life }), messages)
    }
}

/// What the keeper is told. At most one demand per slot is under way.
pub(crate) enum Message {
    /// Look at a slot: it needs tokens, its limit changed, or a token came back late.
    Look(Arc<TenantMeter>, usize),
    /// Another edge needs tokens that this one may have parked.
    Recalled(Recalled),
    /// A server of the shared dispatcher begins to answer.
    DispatcherFound,
    /// Bring the authority's figures of a tenant up to date.
    Flush(TenantId, oneshot::Sender<bool>),
    /// Seal, report, stop.
    Stop(oneshot::Sender<bool>),
}

/// A tenant's quotas at this edge.
pub(crate) struct TenantMeter {
    pub(crate) tenant: TenantId,
    pub(crate) slots: [Slot; 2],
    pub(crate) refilled: Notify,
    ordinal: AtomicU64,
    me: Weak<Self>,
    shared: Arc<Shared>,
}

enum Attempt {
    Granted(Tokens),
    Denied(Denial),
    /// The slot that has none.
    Starved(usize),
}

impl TenantMeter {
    pub(crate) fn new(tenant: TenantId, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            tenant,
            slots: Metric::CONSUMABLE.map(Slot::new),
            refilled: Notify::new(),
            ordinal: AtomicU64::new(0),
            me: me.clone(),
            shared,
        })
    }

    /// Puts an entry's limits in force, unless a newer entry was seen. A limit that fell
    /// ends the lease at once, and other pools above too: the next take waits for one under
    /// the new limit.
    pub(crate) fn apply(&self, entry: &TenantEntry) {
        let ordinal = entry.ordinal();
        if self.ordinal.fetch_max(ordinal, Ordering::SeqCst) >= ordinal {
            return;
        }
        for (index, (slot, drawn)) in self.slots.iter().zip(&entry.drawn).enumerate() {
            let own = entry.record.tenant.quota_anchor;
            slot.set_anchor(drawn.map_or(own, |drawn| drawn.anchor));
            let above = drawn.map(|drawn| Above { tenant: drawn.top, limit: drawn.above });
            let moved = slot.set_above(above);
            let on_loss = entry.plan.on_authority_loss.of(slot.metric);
            slot.set_allows(on_loss == OnLoss::Allow);
            slot.overdraft.set_size(match on_loss {
                // What one member keeps aside of a pool, no other could have.
                OnLoss::Overdraft(tokens) if above.is_none() => tokens.get().into(),
                OnLoss::Overdraft(_) | OnLoss::Deny | OnLoss::Allow => 0,
            });
            let unlimited = entry.quotas.shown_as_unlimited(slot.metric);
            if slot.set_limit(entry.quotas.of(slot.metric), unlimited, moved) {
                slot.seal(&self.shared.map);
                slot.overdraft.seal(&self.shared.map);
                slot.set_beyond(0);
                self.demand(index);
            }
        }
    }

    fn demand(&self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        if slot.demand()
            && let Some(me) = self.me.upgrade()
        {
            // Fails only after the keeper stopped: then the wait runs out.
            let _ = self.shared.inbox.send(Message::Look(me, index));
        }
    }

    /// A token that is kept aside. By the latest time that it may be: it is none of the next
    /// window, as other leases are not, which end early too.
    fn overdraw(&self, slot: &Slot, now: UnixMs) -> Option<Token> {
        let latest = now.max(self.shared.clock.latest());
        slot.overdraft.take(&self.shared.map, slot.metric, latest)
    }

    /// Takes tokens. `stalled`: who has none has waited for as long as a request may.
    fn attempt(&self, metrics: MetricSet, now: UnixMs, stalled: bool) -> Attempt {
        let mut tokens = Tokens::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if !metrics.contains(slot.metric) {
                continue;
            }
            match slot.take(&self.shared.map, now, &self.shared.clock) {
                SlotTake::Token(token, ask) => {
                    tokens.push(token);
                    if ask {
                        self.demand(index);
                    }
                }
                SlotTake::Dry => {
                    let why = self.why_dry(index, slot, now);
                    let nobody_knows = match why {
                        Attempt::Denied(Denial::Unavailable { .. }) => true,
                        Attempt::Starved(_) => stalled,
                        Attempt::Denied(_) | Attempt::Granted(_) => false,
                    };
                    if nobody_knows && slot.allows() {
                        self.count_one(&self.shared.metrics.unaccounted, index);
                        continue;
                    }
                    if nobody_knows && let Some(token) = self.overdraw(slot, now) {
                        self.count_one(&self.shared.metrics.overdrawn, index);
                        tokens.push(token);
                        continue;
                    }
                    for token in &tokens {
                        self.untake(token);
                    }
                    if let Attempt::Denied(denial) = why {
                        self.count_denial(denial, index);
                    }
                    return why;
                }
            }
        }
        Attempt::Granted(tokens)
    }

    fn why_dry(&self, index: usize, slot: &Slot, now: UnixMs) -> Attempt {
        if slot.is_empty(now, self.shared.config.empty_cache_ms)
            && let Some(status) = slot.status(&self.shared.map, now)
        {
            return Attempt::Denied(Denial::Exhausted(QuotaStatus { remaining: 0, ..status }));
        }
        if slot.is_soft(self.shared.clock.monotonic_ms())
            && let Some(status) = slot.status(&self.shared.map, now)
        {
            return Attempt::Denied(Denial::Soft(QuotaStatus { remaining: 0, ..status }));
        }
        if slot.is_refused(self.shared.clock.monotonic_ms()) {
            let spread = RETRY_DOWN_S.end() - RETRY_DOWN_S.start() + 1;
            let retry_after_s = RETRY_DOWN_S.start() + self.tenant.0.as_u64_pair().1 % spread;
            return Attempt::Denied(Denial::Unavailable { retry_after_s });
        }
        Attempt::Starved(index)
    }

    fn count_one(&self, family: &[prometheus::IntCounter; 2], index: usize) {
        if let Some(counter) = family.get(index) {
            counter.inc();
        }
    }

    /// Counts tokens taken and given back, as the keeper reads them from a record.
    pub(crate) fn count(&self, index: usize, (taken, refunded): (u64, u64)) {
        let families = [&self.shared.metrics.admitted, &self.shared.metrics.refunded];
        for (family, news) in families.into_iter().zip([taken, refunded]) {
            if let Some(counter) = family.get(index) {
                counter.inc_by(news);
            }
        }
        if let Some(slot) = self.slots.get(index) {
            slot.tally.admit(taken);
        }
    }

    /// What this edge knows of the tenant's quotas.
    pub(crate) fn at_edge(&self) -> Vec<EdgeQuota> {
        let map = &self.shared.map;
        let slots = self.slots.iter().map(|slot| {
            let (admitted, dispatcher_calls) = slot.tally.read();
            let (metric, at_hand) = (slot.metric, slot.at_hand(map));
            let kept = slot.overdraft.at_hand(map);
            EdgeQuota { metric, at_hand, kept, admitted, dispatcher_calls }
        });
        slots.collect()
    }

    /// Whether the meter has to stay though nobody uses it: what came back late is counted
    /// in its window.
    pub(crate) fn is_needed(&self, now: UnixMs) -> bool {
        self.slots.iter().any(|slot| slot.late() > 0 && slot.is_within(now))
    }

    fn count_denial(&self, denial: Denial, index: usize) {
        let metrics = &self.shared.metrics;
        let family = match denial {
            Denial::Exhausted(_) => &metrics.exhausted,
            Denial::Soft(_) => &metrics.soft,
            Denial::Unavailable { .. } => &metrics.unavailable,
        };
        self.count_one(family, index);
    }

    fn untake(&self, token: &Token) {
        let record = self.shared.map.record(token.lease);
        if !record.is_some_and(|record| record.untake(token.generation)) {
            self.give_back_late(token);
        }
    }

    fn give_back_late(&self, token: &Token) {
        let found = self.slots.iter().enumerate().find(|(_, slot)| slot.metric == token.metric);
        let Some((index, slot)) = found else { return };
        let metrics = &self.shared.metrics;
        if !slot.give_back_late(token.generation) {
            metrics.expired_refunds.inc();
            return;
        }
        if let Some(counter) = metrics.late_refunds.get(index) {
            counter.inc();
        }
        self.demand(index);
    }

    async fn wait(self: Arc<Self>, metrics: MetricSet) -> Result<Permit, Denial> {
        let _waiting = Waiting::enter(&self, metrics);
        let _timed = self.shared.metrics.decisions.waited.start_timer();
        let wait = Duration::from_millis(self.shared.config.admit_wait_ms_max);
        let deadline = Instant::now() + wait;
        loop {
            let mut refilled = pin!(self.refilled.notified());
            // From here on no refill is missed, whatever happens before the await.
            refilled.as_mut().enable();
            let starved = match self.attempt(metrics, self.shared.clock.now(), false) {
                Attempt::Granted(tokens) => return Ok(self.permit(tokens)),
                Attempt::Denied(denial) => return Err(denial),
                Attempt::Starved(index) => index,
            };
            self.demand(starved);
            if timeout_at(deadline, refilled).await.is_err() {
                return match self.attempt(metrics, self.shared.clock.now(), true) {
                    Attempt::Granted(tokens) => Ok(self.permit(tokens)),
                    Attempt::Denied(denial) => Err(denial),
                    Attempt::Starved(starved) => {
                        self.count_one(&self.shared.metrics.unavailable, starved);
                        Err(Denial::Unavailable { retry_after_s: RETRY_SOON_S })
                    }
                };
            }
        }
    }

    fn permit(self: &Arc<Self>, tokens: Tokens) -> Permit {
        let meter: Arc<dyn Meter> = Arc::<Self>::clone(self);
        Permit::new(meter, tokens)
    }
}

impl Meter for TenantMeter {
    fn take(self: Arc<Self>, metrics: MetricSet, now: UnixMs) -> Take {
        let timed = Timed::begin();
        let attempt = self.attempt(metrics, self.shared.clock.of_request(now), false);
        timed.end(&self.shared.metrics.decisions.taken);
        match attempt {
            Attempt::Granted(tokens) => Take::Granted(Permit::new(self, tokens)),
            Attempt::Denied(denial) => Take::Denied(denial),
            Attempt::Starved(_) => Take::Wait(Box::pin(self.wait(metrics))),
        }
    }

    fn refund(&self, tokens: &[Token]) {
        for token in tokens {
            let record = self.shared.map.record(token.lease);
            if !record.is_some_and(|record| record.refund(token.generation)) {
                self.give_back_late(token);
            }
        }
    }

    fn status(&self, metric: Metric, now: UnixMs) -> Option<QuotaStatus> {
        let slot = self.slots.iter().find(|slot| slot.metric == metric)?;
        slot.status(&self.shared.map, self.shared.clock.of_request(now))
    }
}

/// Counts a waiting request for as long as it waits.
struct Waiting {
    meter: Arc<TenantMeter>,
    metrics: MetricSet,
}

impl Waiting {
    fn enter(meter: &Arc<TenantMeter>, metrics: MetricSet) -> Self {
        let waiting = Self { meter: Arc::clone(meter), metrics };
        waiting.slots().for_each(|slot| {
            slot.waiting().fetch_add(1, Ordering::AcqRel);
        });
        waiting
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.meter.slots.iter().filter(|slot| self.metrics.contains(slot.metric))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slots().for_each(|slot| {
            slot.waiting().fetch_sub(1, Ordering::AcqRel);
        });
    }
}
