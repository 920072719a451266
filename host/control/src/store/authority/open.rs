//! Opening tranches: the only place that debits.
//!
//! Both kinds of epochs, one holder's own and shared ones, have one numbering in a window;
//! the compare-and-swap is on the latest of the kind. Invariant: the debit is committed
//! before its permit leaves; a request whose caller does not know the latest epoch of its
//! kind debits nothing.

use std::collections::BTreeSet;

use model::{
    clock::UnixMs,
    ledger::{EpochRef, Fence, HolderId, InstallPermit, OpenRequest, Opening, rules::tranche_size},
};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    int, lives, of,
    pooled::{Release, Room, Tops},
    shared, uint,
    window::{self, WindowRow},
};

/// All requests of a holder in one commit, answered in their order.
pub(super) struct Open {
    pub(super) holder: HolderId,
    pub(super) requests: Vec<OpenRequest>,
}

impl Operation for Open {
    type Answer = Opened;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Opened, StoreError> {
        let own = |request: &OpenRequest| match request.fence {
            Fence::Holder(holder) => Some(holder),
            Fence::Redis(_) => None,
        };
        let own = self.requests.iter().filter_map(own);
        // The permit lets the holder spend: who declares it lost must see what it opens.
        for holder in own.chain([self.holder]).collect::<BTreeSet<_>>() {
            if !lives::stays_alive(tx, holder).await? {
                return Err(StoreError::HolderEnded(holder.0));
            }
        }
        let tops = Tops::hold(tx, &self.requests).await?;
        // Windows are locked in one order by everybody, so that two batches that have some
        // in common never wait for each other.
        let mut turns: Vec<_> = self.requests.iter().enumerate().collect();
        turns.sort_by_key(|(_, request)| request.key);
        let mut releases = Vec::new();
        let mut openings = Vec::with_capacity(self.requests.len());
        for (place, request) in turns {
            let room = match tops.of(&request.key) {
                Some(top) => Room::of(tx, top, request).await?.map(Some),
                None => request.above.is_none().then_some(None),
            };
            let opening = match &room {
                Some(room) => open(tx, request, room.as_ref(), now).await?,
                // The caller will hear of the pools as they are with the next snapshot.
                None => Opening::Exhausted,
            };
            if let (Opening::Parked, Some(Some(room))) = (&opening, &room) {
                releases.push(room.release(request.key));
            }
            openings.push((place, opening));
        }
        openings.sort_by_key(|(place, _)| *place);
        let openings = openings.into_iter().map(|(_, opening)| opening).collect();
        Ok(Opened { openings, releases })
    }
}

/// What came of the requests.
pub(super) struct Opened {
    /// In their order.
    pub(super) openings: Vec<Opening>,
    /// To be run next, in a transaction of its own each.
    pub(super) releases: Vec<Release>,
}

async fn open(
    tx: &mut ControlTx,
    request: &OpenRequest,
    room: Option<&Room>,
    now: UnixMs,
) -> Result<Opening, StoreError> {
    let OpenRequest { key, fence, rate_per_s, .. } = *request;
    let limit = room.map_or(request.limit, |room| room.limit);
    let (row, limit) = window::under_limit(tx, &key, limit, now).await?;
    let known = latest_of_kind(tx, request, &row).await?;
    if is_lost(request, &row, known) {
        return Ok(Opening::Lost { latest: uint(known) });
    }
    let own = limit.saturating_sub(uint(row.granted - row.credited));
    let (remaining, sizing) = room.map_or((own, limit), |room| (room.remaining, room.sizing));
    let tranche = tranche_size(sizing, remaining, rate_per_s);
    if tranche == 0 {
        if is_shared(fence) {
            shared::close_before(tx, &key, known).await?;
        }
        let Some(room) = room else { return Ok(Opening::Exhausted) };
        room.note(tx, &key, true).await?;
        let parked = room.is_parked(tx, &key).await?;
        return Ok(if parked { Opening::Parked } else { Opening::Exhausted });
    }
    if let Some(room) = room {
        room.note(tx, &key, false).await?;
    }
    let epoch = row.latest + 1;
    insert(tx, request, epoch, tranche).await?;
    if is_shared(fence) {
        shared::close_but(tx, &key, epoch, known, fence).await?;
    } else {
        close_own(tx, request, known).await?;
    }
    window::fold(tx, &key, epoch).await?;
    let of = EpochRef { key, epoch: uint(epoch) };
    Ok(Opening::Opened(InstallPermit::issue(of, fence, tranche, remaining - tranche, now)))
}

const fn is_shared(fence: Fence) -> bool {
    matches!(fence, Fence::Redis(_))
}

/// The highest epoch of the kind that is asked for, as far as its rows are still there.
async fn latest_of_kind(
    tx: &mut ControlTx,
    request: &OpenRequest,
    row: &WindowRow,
) -> Result<i64, StoreError> {
    if is_shared(request.fence) {
        return Ok(row.shared_latest);
    }
    let latest = sql("SELECT coalesce(max(epoch), 0) FROM quota_epoch
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND fence = $4 AND shared = 0");
    let (latest,): (i64,) =
        of(latest, &request.key).bind(request.fence.to_string()).one(tx).await?;
    Ok(latest)
}

/// Whether the caller missed an epoch of its kind. A holder may know of one of its own whose
/// row was folded since; that one is reconciled.
fn is_lost(request: &OpenRequest, row: &WindowRow, known: i64) -> bool {
    let asked = int(request.latest);
    if is_shared(request.fence) { asked != known } else { asked < known || asked > row.latest }
}

/// Debits the window.
async fn insert(
    tx: &mut ControlTx,
    request: &OpenRequest,
    epoch: i64,
    tranche: u64,
) -> Result<(), StoreError> {
    let OpenRequest { key, fence, .. } = request;
    let shared = i64::from(is_shared(*fence));
    let insert = sql("INSERT INTO quota_epoch
             (tenant_id, metric, start_ms, epoch, fence, tranche_own, state, shared)
         VALUES ($1, $2, $3, $4, $5, $6, 'open', $7)");
    let insert = of(insert, key).bind(epoch).bind(fence.to_string()).bind(int(tranche));
    insert.bind(shared).execute(tx).await?;
    let debit = sql("UPDATE quota_window SET granted = granted + $4, latest = $5,
             shared_latest = CASE WHEN $6 = 1 THEN $5 ELSE shared_latest END
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(debit, key).bind(int(tranche)).bind(epoch).bind(shared).execute(tx).await.map(drop)
}

/// Of one holder's own, two tranches may be open; an older one starts closing.
async fn close_own(
    tx: &mut ControlTx,
    request: &OpenRequest,
    before: i64,
) -> Result<(), StoreError> {
    let close = sql("UPDATE quota_epoch SET state = 'closing'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4
           AND state = 'open' AND fence = $5");
    of(close, &request.key).bind(before).bind(request.fence.to_string()).execute(tx).await.map(drop)
}
