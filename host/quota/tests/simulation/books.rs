//! The authority's account, in memory: the rules of the port, one operation at a time.
//!
//! What `control` does in SQL is done here on maps: compare-and-swap on the latest epoch of
//! a kind, epochs that close as a prefix, marks (lease 0) that say who is through with one,
//! credits only of epochs that every living holder has sealed and of which nobody's share is
//! missing. Invariant: `granted − credited ≤ limit`; figures beyond a tranche break the run.

mod lives;
mod moves;
mod pooled;
mod reports;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use model::{
    clock::Clock as _,
    ledger::{
        Bounds, EpochRef, Fence, Holder, HolderId, InstallPermit, KeepRequest, OpenRequest,
        Opening, Registered, Standing, WindowAccount, WindowKey, rules::tranche_size,
    },
    quota::Metric,
    tenant::TenantId,
};

use super::{clock::SimClock, population::Terms, rules::Rules, trace::trace, truth::Truth};

/// The number of figures that come after the end of a holder.
const FINAL: u64 = u64::MAX;
/// A holder that has not reported for so long is lost, while another one has.
const SILENT_MS: u64 = 1_500;

/// Holders by their order, so that a run does not hang on random names.
type Ordinal = usize;

pub(super) struct Books {
    clock: SimClock,
    truth: Truth,
    rules: Rules,
    holders: Vec<HolderRow>,
    ordinals: HashMap<HolderId, Ordinal>,
    windows: BTreeMap<WindowKey, Row>,
    /// The pools, whether they were others at first, and how often tokens came back to them.
    terms: Terms,
    settled: bool,
    freed: BTreeMap<Metric, u64>,
    /// Tokens that lost holders may have left charged, at most.
    wasted: u64,
    /// Holders that were ended while nobody knew what they had.
    lost: u64,
}

struct HolderRow {
    holder: Holder,
    reported_at: u64,
    ended: bool,
}

#[derive(Default)]
struct Row {
    limit: u64,
    limit_high: u64,
    granted: u64,
    credited: u64,
    latest: u64,
    bounds: Bounds,
    epochs: BTreeMap<u64, Epoch>,
    late: BTreeMap<Ordinal, u64>,
    /// A pool bounds it; it found nothing there after so many returns.
    pooled: bool,
    pool_dry: Option<u64>,
    /// What was granted, and not given back, by the epochs up to `since`: before the tenant came
    /// into its pool.
    base: u64,
    since: u64,
    /// Tokens that former members took from the pool of this tenant.
    carried: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Closing,
    Reconciled,
}

struct Epoch {
    fence: Fence,
    tranche: u64,
    /// Set aside by its holder: no later tranche closes it.
    kept: bool,
    phase: Phase,
    closing_since: Duration,
    /// The pools that it was drawn from, by their owners.
    pools: Vec<TenantId>,
    /// What lost holders had reported beyond what CLOSE told of them: counted all the same.
    beyond: u64,
    /// Of each holder and lease; lease 0 is the mark that the holder is through.
    reports: BTreeMap<(Ordinal, u32), Figures>,
}

#[derive(Clone, Copy, Default)]
struct Figures {
    number: u64,
    spent: u64,
    sealed: bool,
}

impl Epoch {
    fn new(fence: Fence, tranche: u64, now: Duration) -> Self {
        Self {
            fence,
            tranche,
            kept: false,
            phase: Phase::Open,
            closing_since: now,
            pools: Vec::new(),
            beyond: 0,
            reports: BTreeMap::new(),
        }
    }

    const fn is_shared(&self) -> bool {
        matches!(self.fence, Fence::Redis(_))
    }

    fn spent(&self) -> u64 {
        self.reports.values().map(|figures| figures.spent).sum()
    }

    /// Spent by what is final: never more than the tranche. Running figures may be behind a
    /// refund whose token went back and was granted to another.
    fn finally_spent(&self) -> u64 {
        let sealed = self.reports.values().filter(|one| one.sealed);
        sealed.map(|one| one.spent).sum::<u64>() - self.beyond
    }

    fn is_sealed_by(&self, holder: Ordinal) -> bool {
        self.reports.get(&(holder, 0)).is_some_and(|mark| mark.sealed)
    }

    fn seal(&mut self, holder: Ordinal, number: u64) {
        let mark = self.reports.entry((holder, 0)).or_default();
        if !mark.sealed {
            *mark = Figures { number, spent: 0, sealed: true };
        }
    }

    fn lacks(&mut self, holder: Ordinal) {
        self.reports.entry((holder, 0)).or_default();
    }

    fn close(&mut self, now: Duration) {
        if self.phase == Phase::Open {
            (self.phase, self.closing_since) = (Phase::Closing, now);
        }
    }
}

impl Row {
    /// Granted, and not given back.
    const fn held(&self) -> u64 {
        self.granted - self.credited
    }

    /// Puts a limit in force; the limit that this makes for all that is granted in the window.
    fn bind(&mut self, limit: u64) -> u64 {
        let limit = (limit + self.base).saturating_sub(self.carried);
        (self.limit, self.limit_high) = (limit, self.limit_high.max(limit));
        limit
    }

    /// Debits a tranche; the number of its epoch.
    fn grant(&mut self, epoch: Epoch) -> u64 {
        self.latest += 1;
        self.granted += epoch.tranche;
        self.epochs.insert(self.latest, epoch);
        self.latest
    }

    /// Starts closing the shared epochs before `epoch`, but `kept`.
    fn close_before(&mut self, epoch: u64, kept: Option<(u64, Fence)>, now: Duration) {
        for (number, row) in self.epochs.range_mut(..epoch) {
            if row.is_shared() && kept != Some((*number, row.fence)) {
                row.close(now);
            }
        }
        let closed = |(_, row): &(&u64, &Epoch)| row.is_shared() && row.phase != Phase::Open;
        let floor = self.epochs.iter().filter(closed).map(|(number, _)| *number).max();
        self.bounds.floor = self.bounds.floor.max(floor.unwrap_or(0));
    }
}

impl Books {
    pub(super) fn new(clock: SimClock, truth: Truth, rules: Rules, terms: Terms) -> Self {
        Self {
            clock,
            truth,
            rules,
            holders: Vec::new(),
            ordinals: HashMap::new(),
            windows: BTreeMap::new(),
            terms,
            settled: false,
            freed: BTreeMap::new(),
            wasted: 0,
            lost: 0,
        }
    }

    pub(super) const fn wasted(&self) -> u64 {
        self.wasted
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Tokens of an account that living edges keep aside.
    pub(super) fn aside(&self, key: &WindowKey) -> u64 {
        let kept = |row: &Row| {
            let left = |epoch: &Epoch| epoch.tranche.saturating_sub(epoch.spent());
            let kept = row.epochs.values().filter(|one| one.kept && one.phase == Phase::Open);
            kept.map(left).sum()
        };
        self.windows.get(key).map_or(0, kept)
    }

    /// Late refunds of an account that are known of a holder.
    pub(super) fn late(&self, key: &WindowKey, holder: HolderId) -> u64 {
        let ordinal = self.ordinals.get(&holder);
        let row = self.windows.get(key);
        row.zip(ordinal).and_then(|(row, ordinal)| row.late.get(ordinal)).copied().unwrap_or(0)
    }

    fn alive(&self, holder: HolderId) -> Option<Ordinal> {
        self.ordinals.get(&holder).copied().filter(|ordinal| !self.holders[*ordinal].ended)
    }

    /// Told after every change of a window.
    fn debited(&self, key: &WindowKey) {
        let Some(row) = self.windows.get(key) else { return };
        let debited = row.held();
        self.truth.debited((key.tenant, key.metric, key.window.start.0), debited);
        if debited > row.limit_high {
            self.truth.fail(format_args!("{debited} debited of {}", row.limit_high));
        }
    }

    pub(super) fn register(&mut self, holder: Holder) -> Option<Registered> {
        let now = self.clock.now();
        if self.ordinals.contains_key(&holder.id) {
            // The row is there already: the database refuses.
            return None;
        }
        self.ordinals.insert(holder.id, self.holders.len());
        self.holders.push(HolderRow { holder, reported_at: now.0, ended: false });
        Some(Registered { now })
    }

    pub(super) fn open(
        &mut self,
        holder: HolderId,
        requests: &[OpenRequest],
    ) -> Option<Vec<Opening>> {
        self.alive(holder)?;
        let openings: Vec<_> = requests.iter().map(|request| self.open_one(request)).collect();
        for (request, opening) in requests.iter().zip(&openings) {
            if matches!(opening, Opening::Parked) {
                self.release(&request.key);
            }
        }
        trace(&self.clock, format_args!("{requests:?}\n          -> {openings:?}"));
        Some(openings)
    }

    fn open_one(&mut self, request: &OpenRequest) -> Opening {
        let OpenRequest { key, fence, latest, rate_per_s, .. } = *request;
        let now = self.clock.elapsed();
        let Some(room) = self.room(request) else { return Opening::Exhausted };
        let limit = room.as_ref().map_or(request.limit, |room| room.limit);
        let row = self.windows.entry(key).or_default();
        let limit = row.bind(limit);
        let shared = matches!(fence, Fence::Redis(_));
        let own = row.epochs.iter().filter(|(_, epoch)| epoch.fence == fence && !epoch.kept);
        let known =
            if shared { row.bounds.latest } else { own.map(|(n, _)| *n).max().unwrap_or(0) };
        let lost = if shared { latest != known } else { latest < known || latest > row.latest };
        if lost {
            return Opening::Lost { latest: known };
        }
        let own = limit.saturating_sub(row.held());
        let (remaining, sizing) =
            room.as_ref().map_or((own, limit), |room| (room.remaining, room.sizing));
        let tranche = tranche_size(sizing, remaining, rate_per_s);
        if tranche == 0 {
            if shared {
                row.close_before(known, None, now);
            }
            let Some(room) = room else { return Opening::Exhausted };
            self.note(&key, true);
            let parked = room.wants_others && !self.parked(&key).is_empty();
            return if parked { Opening::Parked } else { Opening::Exhausted };
        }
        let pools = self.terms.owners_above(key.tenant);
        let epoch = row.grant(Epoch { pools, ..Epoch::new(fence, tranche, now) });
        if shared {
            row.bounds.latest = epoch;
            row.close_before(epoch, Some((known, fence)), now);
        } else {
            let before = row.epochs.range_mut(..known);
            before
                .filter(|(_, epoch)| epoch.fence == fence && !epoch.kept)
                .for_each(|(_, row)| row.close(now));
        }
        if room.is_some() {
            self.note(&key, false);
            self.check_pools(&key);
        }
        self.debited(&key);
        let of = EpochRef { key, epoch };
        Opening::Opened(InstallPermit::issue(
            of,
            fence,
            tranche,
            remaining - tranche,
            self.clock.now(),
        ))
    }

    pub(super) fn keep(
        &mut self,
        holder: HolderId,
        requests: &[KeepRequest],
    ) -> Option<Vec<Opening>> {
        self.alive(holder)?;
        let openings: Vec<_> =
            requests.iter().map(|request| self.keep_one(holder, request)).collect();
        trace(&self.clock, format_args!("{requests:?}\n          -> {openings:?}"));
        Some(openings)
    }

    fn keep_one(&mut self, holder: HolderId, request: &KeepRequest) -> Opening {
        let KeepRequest { key, latest, limit, tokens } = *request;
        let (fence, now) = (Fence::Holder(holder), self.clock.elapsed());
        if self.terms.tie(key.tenant) {
            return Opening::Exhausted;
        }
        let row = self.windows.entry(key).or_default();
        let limit = row.bind(limit);
        let own = row.epochs.iter().filter(|(_, epoch)| epoch.fence == fence && epoch.kept);
        let known = own.map(|(number, _)| *number).max().unwrap_or(0);
        if latest < known || latest > row.latest {
            return Opening::Lost { latest: known };
        }
        let remaining = limit.saturating_sub(row.held());
        let tranche = tokens.min(remaining);
        if tranche == 0 {
            return Opening::Exhausted;
        }
        let epoch = row.grant(Epoch { kept: true, ..Epoch::new(fence, tranche, now) });
        self.debited(&key);
        let of = EpochRef { key, epoch };
        let now = self.clock.now();
        Opening::Opened(InstallPermit::issue(of, fence, tranche, remaining - tranche, now))
    }

    fn epochs(&self) -> impl Iterator<Item = (EpochRef, &Epoch)> {
        self.windows.iter().flat_map(|(key, row)| {
            let of = |epoch: &u64| EpochRef { key: *key, epoch: *epoch };
            row.epochs.iter().map(move |(number, epoch)| (of(number), epoch))
        })
    }

    fn standing(&self, key: &WindowKey) -> Option<Standing> {
        let row = self.windows.get(key)?;
        let dry = row.pool_dry == Some(self.freed(key.metric));
        let left = row.limit.saturating_sub(row.held());
        let available = if dry { 0 } else { left };
        Some(Standing { bounds: row.bounds, available })
    }

    pub(super) fn confirm(
        &self,
        holder: HolderId,
        keys: &[WindowKey],
    ) -> Option<Vec<Option<Standing>>> {
        self.alive(holder)?;
        Some(keys.iter().map(|key| self.standing(key)).collect())
    }

    pub(super) fn close(&mut self, keys: &[WindowKey]) {
        let now = self.clock.elapsed();
        for key in keys {
            if let Some(row) = self.windows.get_mut(key) {
                row.close_before(u64::MAX, None, now);
            }
        }
    }

    pub(super) fn accounts(&self, keys: &[WindowKey]) -> Vec<Option<WindowAccount>> {
        let account = |row: &Row| WindowAccount {
            limit: row.limit,
            granted: row.granted,
            credited: row.credited,
            latest: row.latest,
            charged: row.held(),
            wasted: 0,
            refunded: 0,
        };
        keys.iter().map(|key| self.windows.get(key).map(account)).collect()
    }

    /// A line per epoch that is not reconciled, for the message of a failure.
    pub(super) fn open_epochs(&self) -> String {
        let open = self.epochs().filter(|(_, epoch)| epoch.phase != Phase::Reconciled);
        let line = |(of, epoch): (EpochRef, &Epoch)| {
            let lacking: Vec<_> =
                epoch.reports.iter().filter(|(_, one)| !one.sealed).map(|(of, _)| of).collect();
            let waits = self
                .holders
                .iter()
                .enumerate()
                .filter(|(ordinal, row)| !row.ended && !epoch.is_sealed_by(*ordinal));
            let waits: Vec<_> = waits.map(|(ordinal, _)| ordinal).collect();
            format!(
                "\n  {} {} {} {:?} shared {} of {}, spent {}; unsealed {lacking:?}, waits for {waits:?}",
                of.key.tenant,
                of.key.metric.as_str(),
                of.epoch,
                epoch.phase,
                epoch.is_shared(),
                epoch.tranche,
                epoch.spent()
            )
        };
        open.map(line).collect()
    }
}
