//! The authority's account, in memory: the rules of the port, one operation at a time.
//!
//! What `control` does in SQL is done here on maps: compare-and-swap on the latest epoch of
//! a kind, epochs that close as a prefix, marks (lease 0) that say who is through with one,
//! credits only of epochs that every living holder has sealed and of which nobody's share is
//! missing. Invariant: `granted − credited ≤ limit`; figures beyond a tranche break the run.

mod pooled;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use model::{
    clock::Clock as _,
    ledger::{
        Bounds, EpochRef, Fence, Holder, HolderId, Inherited, InstallPermit, KeepRequest,
        LateRefunds, LeaseReport, LostShare, OpenRequest, Opening, Registered, Report,
        ReportAnswer, Standing, Stranded, Will, WindowAccount, WindowKey, rules::tranche_size,
    },
    quota::Metric,
};

use super::{
    clock::SimClock,
    population::Terms,
    rules::{CREDITED_AFTER, Rules},
    trace::trace,
    truth::Truth,
};

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
        let debited = row.granted - row.credited;
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
        (row.limit, row.limit_high) = (limit, row.limit_high.max(limit));
        let shared = matches!(fence, Fence::Redis(_));
        let own = row.epochs.iter().filter(|(_, epoch)| epoch.fence == fence && !epoch.kept);
        let known =
            if shared { row.bounds.latest } else { own.map(|(n, _)| *n).max().unwrap_or(0) };
        let lost = if shared { latest != known } else { latest < known || latest > row.latest };
        if lost {
            return Opening::Lost { latest: known };
        }
        let own = limit.saturating_sub(row.granted - row.credited);
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
        row.latest += 1;
        row.granted += tranche;
        let (epoch, phase) = (row.latest, Phase::Open);
        let reports = BTreeMap::new();
        let (closing_since, beyond) = (now, 0);
        let row_of = Epoch { fence, tranche, kept: false, phase, closing_since, beyond, reports };
        row.epochs.insert(epoch, row_of);
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
        (row.limit, row.limit_high) = (limit, row.limit_high.max(limit));
        let own = row.epochs.iter().filter(|(_, epoch)| epoch.fence == fence && epoch.kept);
        let known = own.map(|(number, _)| *number).max().unwrap_or(0);
        if latest < known || latest > row.latest {
            return Opening::Lost { latest: known };
        }
        let remaining = limit.saturating_sub(row.granted - row.credited);
        let tranche = tokens.min(remaining);
        if tranche == 0 {
            return Opening::Exhausted;
        }
        row.latest += 1;
        row.granted += tranche;
        let (epoch, reports) = (row.latest, BTreeMap::new());
        let (phase, closing_since, beyond) = (Phase::Open, now, 0);
        let row_of = Epoch { fence, tranche, kept: true, phase, closing_since, beyond, reports };
        row.epochs.insert(epoch, row_of);
        self.debited(&key);
        let of = EpochRef { key, epoch };
        let now = self.clock.now();
        Opening::Opened(InstallPermit::issue(of, fence, tranche, remaining - tranche, now))
    }

    pub(super) fn report(&mut self, report: &Report) -> ReportAnswer {
        let now = self.clock.now();
        trace(&self.clock, format_args!("{report:?}"));
        let Some(ordinal) = self.alive(report.holder) else {
            return ReportAnswer { now, ended: true, ..ReportAnswer::default() };
        };
        self.holders[ordinal].reported_at = now.0;
        for figures in &report.leases {
            self.store(ordinal, report.holder, report.number, figures);
        }
        for of in &report.seals {
            self.seal(ordinal, report.holder, report.number, of);
        }
        report.lost.iter().for_each(|share| self.answer_share(share));
        let mut ended: BTreeSet<EpochRef> = report.seals.iter().copied().collect();
        ended.extend(report.lost.iter().map(|share| share.of));
        ended.extend(report.leases.iter().filter(|one| one.sealed).map(|one| one.of));
        let mut credited = ended.iter().map(|of| self.reconcile(of)).map(|done| done.1).sum();
        for late in &report.late {
            credited += self.credit_late(ordinal, late);
        }
        ReportAnswer {
            recalls: self.recalls(ordinal, true, report.holder),
            own_recalls: self.recalls(ordinal, false, report.holder),
            standings: report.watched.iter().map(|key| self.standing(key)).collect(),
            lost: self.lacking(),
            credited,
            now,
            ended: false,
        }
    }

    fn store(&mut self, from: Ordinal, holder: HolderId, number: u64, figures: &LeaseReport) {
        let EpochRef { key, epoch } = figures.of;
        let Some(row) = self.windows.get_mut(&key).and_then(|row| row.epochs.get_mut(&epoch))
        else {
            self.truth.fail(format_args!("figures of an unknown epoch: {figures:?}"));
            return;
        };
        let foreign = !row.is_shared() && row.fence != Fence::Holder(holder);
        let known = row.reports.get(&(from, figures.lease)).copied();
        let mark = row.reports.get(&(from, 0)).filter(|mark| mark.sealed);
        let newest = known.map(|one| one.number).max(mark.map(|mark| mark.number));
        let stale = newest.is_some_and(|newest| newest >= number);
        let sealed = known.is_some_and(|known| known.sealed);
        if foreign || stale || sealed || row.phase == Phase::Reconciled {
            return;
        }
        if mark.is_some() && known.is_none() {
            self.truth.fail(format_args!("a lease of a tranche that was sealed: {figures:?}"));
        }
        let LeaseReport { lease, mut spent, sealed, .. } = *figures;
        if !self.rules.figures_whole {
            let others = row.spent() - known.map_or(0, |known| known.spent);
            spent = spent.min(row.tranche.saturating_sub(others));
        }
        row.reports.insert((from, lease), Figures { number, spent, sealed });
        if row.finally_spent() > row.tranche {
            self.truth.fail(format_args!("more was spent than the tranche had: {figures:?}"));
        }
    }

    fn seal(&mut self, from: Ordinal, holder: HolderId, number: u64, of: &EpochRef) {
        let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
        if let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch))
            && epoch.phase != Phase::Reconciled
            && (epoch.is_shared() || epoch.fence == Fence::Holder(holder))
        {
            epoch.seal(from, number);
        }
    }

    /// What CLOSE told of a lost holder counts as spent, or what it had reported, if more.
    fn answer_share(&mut self, share: &LostShare) {
        let LostShare { of, holder, tokens } = share;
        let Some(ordinal) = self.ordinals.get(holder).copied() else { return };
        let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
        let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch)) else { return };
        let lacking = epoch.reports.get(&(ordinal, 0)).is_some_and(|mark| !mark.sealed);
        if !lacking || !epoch.is_shared() {
            return;
        }
        let mine = epoch.reports.range_mut((ordinal, 0)..=(ordinal, u32::MAX));
        let mut known = 0;
        for (_, figures) in mine {
            known += figures.spent;
            (figures.sealed, figures.number) = (true, FINAL);
        }
        let more = tokens.saturating_sub(known);
        epoch.beyond += known.saturating_sub(*tokens);
        self.wasted += known.saturating_sub(*tokens);
        if let Some(mark) = epoch.reports.get_mut(&(ordinal, 0)) {
            mark.spent = more;
        }
        if epoch.finally_spent() > epoch.tranche {
            self.truth.fail(format_args!("more was granted than the tranche had: {share:?}"));
        }
    }

    /// Whether all figures of an epoch are final.
    fn is_final(&self, epoch: &Epoch) -> bool {
        if epoch.phase == Phase::Reconciled {
            return false;
        }
        let late = self.clock.elapsed().saturating_sub(epoch.closing_since) > CREDITED_AFTER;
        if !self.rules.credit_after_seals && epoch.phase == Phase::Closing && late {
            return true;
        }
        if epoch.reports.values().any(|figures| !figures.sealed) {
            return false;
        }
        let sealed =
            |(ordinal, row): (Ordinal, &HolderRow)| row.ended || epoch.is_sealed_by(ordinal);
        match epoch.fence {
            Fence::Holder(_) => epoch.reports.keys().any(|(_, lease)| *lease == 0),
            Fence::Redis(_) => {
                epoch.phase == Phase::Closing && self.holders.iter().enumerate().all(sealed)
            }
        }
    }

    /// Ends an epoch whose figures are final; whether it did, and what was credited.
    fn reconcile(&mut self, of: &EpochRef) -> (u64, u64) {
        let epoch = self.windows.get(&of.key).and_then(|row| row.epochs.get(&of.epoch));
        if !epoch.is_some_and(|epoch| self.is_final(epoch)) {
            return (0, 0);
        }
        let Some(row) = self.windows.get_mut(&of.key) else { return (0, 0) };
        let Some(epoch) = row.epochs.get_mut(&of.epoch) else { return (0, 0) };
        let unspent = epoch.tranche.saturating_sub(epoch.spent());
        epoch.phase = Phase::Reconciled;
        row.credited += unspent;
        if unspent > 0 {
            self.free(&of.key);
        }
        self.debited(&of.key);
        (1, unspent)
    }

    fn credit_late(&mut self, from: Ordinal, late: &LateRefunds) -> u64 {
        let now = self.clock.now();
        let Some(row) = self.windows.get_mut(&late.key).filter(|_| now < late.key.window.end)
        else {
            return 0;
        };
        let known = row.late.entry(from).or_default();
        let news = late.total.saturating_sub(*known).min(row.granted - row.credited);
        *known += news;
        row.credited += news;
        if news > 0 {
            self.free(&late.key);
        }
        self.debited(&late.key);
        news
    }

    fn epochs(&self) -> impl Iterator<Item = (EpochRef, &Epoch)> {
        self.windows.iter().flat_map(|(key, row)| {
            let of = |epoch: &u64| EpochRef { key: *key, epoch: *epoch };
            row.epochs.iter().map(move |(number, epoch)| (of(number), epoch))
        })
    }

    fn recalls(&self, ordinal: Ordinal, shared: bool, holder: HolderId) -> Vec<EpochRef> {
        let asked = |epoch: &Epoch| {
            epoch.phase == Phase::Closing
                && !epoch.is_sealed_by(ordinal)
                && epoch.is_shared() == shared
                && (shared || epoch.fence == Fence::Holder(holder))
        };
        self.epochs().filter(|(_, epoch)| asked(epoch)).map(|(of, _)| of).collect()
    }

    fn lacking(&self) -> Vec<(EpochRef, Fence, HolderId)> {
        let mut lacking = Vec::new();
        for (of, epoch) in self.epochs() {
            if epoch.is_shared() && epoch.phase == Phase::Closing {
                let marks =
                    epoch.reports.iter().filter(|((_, lease), mark)| *lease == 0 && !mark.sealed);
                let holder = |ordinal: Ordinal| self.holders[ordinal].holder.id;
                lacking.extend(marks.map(|((ordinal, _), _)| (of, epoch.fence, holder(*ordinal))));
            }
        }
        lacking
    }

    fn standing(&self, key: &WindowKey) -> Option<Standing> {
        let row = self.windows.get(key)?;
        let dry = row.pool_dry == Some(self.freed(key.metric));
        let left = row.limit.saturating_sub(row.granted - row.credited);
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
            charged: row.granted - row.credited,
            wasted: 0,
            refunded: 0,
        };
        keys.iter().map(|key| self.windows.get(key).map(account)).collect()
    }

    pub(super) fn inherit(&mut self, will: &Will) -> Inherited {
        trace(&self.clock, format_args!("{will:?}"));
        let Some(ordinal) = self.ordinals.get(&will.predecessor).copied() else {
            return Inherited::default();
        };
        if self.holders[ordinal].holder.boot != will.boot {
            return Inherited::default();
        }
        let holder = will.predecessor;
        let told: BTreeSet<EpochRef> = will.leases.iter().map(|figures| figures.of).collect();
        let mine = |epoch: &Epoch| {
            let unsealed =
                |((of, _), figures): (&(Ordinal, u32), &Figures)| *of == ordinal && !figures.sealed;
            epoch.fence == Fence::Holder(holder) || epoch.reports.iter().any(unsealed)
        };
        let left =
            |(_, epoch): &(EpochRef, &Epoch)| epoch.phase != Phase::Reconciled && mine(epoch);
        let open: BTreeSet<EpochRef> = self.epochs().filter(left).map(|(of, _)| of).collect();
        for figures in &will.leases {
            self.store(ordinal, holder, FINAL, figures);
        }
        told.iter().for_each(|of| self.seal(ordinal, holder, FINAL, of));
        self.holders[ordinal].ended = true;
        for of in &open {
            let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
            let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch)) else { continue };
            let mut leases = epoch.reports.range((ordinal, 1)..=(ordinal, u32::MAX));
            if leases.any(|(_, figures)| !figures.sealed) {
                epoch.lacks(ordinal);
            } else {
                epoch.seal(ordinal, FINAL);
            }
        }
        let ended = told.union(&open).copied().collect::<BTreeSet<_>>();
        let mut inherited = Inherited::default();
        for of in ended {
            let (epochs, credited) = self.reconcile(&of);
            inherited.epochs += epochs;
            inherited.credited += credited;
        }
        inherited
    }

    pub(super) fn strand_others(&mut self, heir: HolderId) -> Stranded {
        let Some(heir) = self.ordinals.get(&heir).copied() else { return Stranded::default() };
        let edge = self.holders[heir].holder.edge.clone();
        let others = self.holders.iter().enumerate();
        let others = others
            .filter(|(ordinal, row)| *ordinal != heir && !row.ended && row.holder.edge == edge);
        let others: Vec<Ordinal> = others.map(|(ordinal, _)| ordinal).collect();
        others.into_iter().for_each(|other| self.lose(other));
        Stranded::default()
    }

    /// A holder went without a word: of shared epochs CLOSE has to tell its share, its own
    /// stay charged.
    fn lose(&mut self, ordinal: Ordinal) {
        self.holders[ordinal].ended = true;
        self.lost += 1;
        trace(&self.clock, format_args!("lost: {:?}", self.holders[ordinal].holder));
        let fence = Fence::Holder(self.holders[ordinal].holder.id);
        let now = self.clock.elapsed();
        for epoch in self.windows.values_mut().flat_map(|row| row.epochs.values_mut()) {
            if epoch.phase == Phase::Reconciled {
                continue;
            }
            if epoch.is_shared() {
                epoch.lacks(ordinal);
                self.wasted += epoch.tranche;
            } else if epoch.fence == fence {
                epoch.close(now);
                self.wasted += epoch.tranche;
            }
        }
    }

    pub(super) fn end(&mut self, holder: HolderId) {
        let Some(ordinal) = self.alive(holder) else { return };
        self.holders[ordinal].ended = true;
        for epoch in self.windows.values_mut().flat_map(|row| row.epochs.values_mut()) {
            let mut leases = epoch.reports.range((ordinal, 1)..=(ordinal, u32::MAX));
            if epoch.is_shared() && leases.any(|(_, figures)| !figures.sealed) {
                epoch.reports.entry((ordinal, 0)).or_default().sealed = false;
            }
        }
    }

    /// What the jobs of the authority do once in a while.
    pub(super) fn upkeep(&mut self) {
        let now = self.clock.now();
        let over = |key: &&WindowKey| key.window.end <= now;
        let over: Vec<WindowKey> = self.windows.keys().filter(over).copied().collect();
        self.close(&over);
        let heard = |row: &HolderRow| !row.ended && now.0 - row.reported_at < SILENT_MS;
        if self.holders.iter().any(heard) {
            let silent = |row: &HolderRow| !row.ended && now.0 - row.reported_at >= SILENT_MS;
            let silent: Vec<Ordinal> =
                (0..self.holders.len()).filter(|one| silent(&self.holders[*one])).collect();
            silent.into_iter().for_each(|holder| self.lose(holder));
        }
        let closing = |epoch: &Epoch| epoch.is_shared() && epoch.phase == Phase::Closing;
        let closing: Vec<EpochRef> =
            self.epochs().filter(|(_, epoch)| closing(epoch)).map(|(of, _)| of).collect();
        for of in closing {
            self.reconcile(&of);
        }
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
