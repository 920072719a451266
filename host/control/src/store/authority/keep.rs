//! Tranches that a holder keeps aside for the time in which nobody answers it.
//!
//! Called once per window, edge and metric whose plan has an overdraft. Invariant: they are
//! debited like any other, so what is spent of them was never anybody else's; no other tranche
//! closes them, and they are credited by the final figures of their holder alone. Accounts that
//! a pool bounds keep nothing: no other member could have it.

use model::{
    clock::UnixMs,
    ledger::{EpochRef, Fence, HolderId, InstallPermit, KeepRequest, Opening, WindowKey},
};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    int, lives, of,
    open::debit,
    pooled::Tops,
    uint,
    window::{self, Place},
};

/// All requests of a holder in one commit, answered in their order.
pub(super) struct Keep {
    pub(super) holder: HolderId,
    pub(super) requests: Vec<KeepRequest>,
}

impl Operation for Keep {
    type Answer = Vec<Opening>;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Vec<Opening>, StoreError> {
        if !lives::stays_alive(tx, self.holder).await? {
            return Err(StoreError::HolderEnded(self.holder.0));
        }
        let keys: Vec<_> = self.requests.iter().map(|request| request.key).collect();
        let tops = Tops::hold(tx, &keys).await?;
        // In the order of the windows' locks, as `open` does.
        let mut turns: Vec<_> = self.requests.iter().enumerate().collect();
        turns.sort_by_key(|(_, request)| request.key);
        let mut answers = Vec::with_capacity(self.requests.len());
        for (place, request) in turns {
            let answer = match tops.of(&request.key) {
                Some(_) => keep_nothing(tx, self.holder, request).await?,
                None => keep(tx, self.holder, request, now).await?,
            };
            answers.push((place, answer));
        }
        answers.sort_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

async fn keep(
    tx: &mut ControlTx,
    holder: HolderId,
    request: &KeepRequest,
    now: UnixMs,
) -> Result<Opening, StoreError> {
    let KeepRequest { key, latest, limit, tokens } = *request;
    let (row, limit) = match window::under_limit(tx, &key, limit, now).await? {
        Place::Here(row, limit) => (row, limit),
        Place::Elsewhere(window) => return Ok(Opening::Elsewhere { window }),
    };
    let fence = Fence::Holder(holder);
    let known = latest_kept(tx, fence, &key).await?;
    if int(latest) < known || int(latest) > row.latest {
        return Ok(Opening::Lost { latest: uint(known) });
    }
    let remaining = limit.saturating_sub(uint(row.granted - row.credited));
    let tranche = tokens.min(remaining);
    if tranche == 0 {
        return Ok(Opening::Exhausted);
    }
    let epoch = row.latest + 1;
    let insert = sql("INSERT INTO quota_epoch
             (tenant_id, metric, start_ms, epoch, fence, tranche_own, state, shared, kept)
         VALUES ($1, $2, $3, $4, $5, $6, 'open', 0, 1)");
    let insert = of(insert, &key).bind(epoch).bind(fence.to_string()).bind(int(tranche));
    insert.execute(tx).await?;
    debit(tx, &key, epoch, tranche, false).await?;
    window::fold(tx, &key, epoch).await?;
    let of = EpochRef { key, epoch: uint(epoch) };
    Ok(Opening::Opened(InstallPermit::issue(of, fence, tranche, remaining - tranche, now)))
}

/// Refuses an account that a pool bounds; but a holder hears of what it has kept from before,
/// so that it gives it back.
async fn keep_nothing(
    tx: &mut ControlTx,
    holder: HolderId,
    request: &KeepRequest,
) -> Result<Opening, StoreError> {
    // Held, so that an earlier call of the holder is through.
    window::find(tx, &request.key).await?;
    let known = latest_kept(tx, Fence::Holder(holder), &request.key).await?;
    let lost = int(request.latest) < known;
    Ok(if lost { Opening::Lost { latest: uint(known) } } else { Opening::Exhausted })
}

/// The highest epoch that was kept for a holder, as far as its rows are still there.
async fn latest_kept(tx: &mut ControlTx, fence: Fence, key: &WindowKey) -> Result<i64, StoreError> {
    let latest = sql("SELECT coalesce(max(epoch), 0) FROM quota_epoch
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND fence = $4 AND kept = 1");
    let (latest,): (i64,) = of(latest, key).bind(fence.to_string()).one(tx).await?;
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use model::{
        ledger::{Authority as _, OpenRequest},
        quota::Metric,
    };

    use super::{
        super::{
            edges::{Edge, World, lease, permit},
            tests::key,
        },
        *,
    };
    use crate::testing::{Backend, on_both};

    on_both! {
        what_is_kept_is_debited_once_and_comes_back_with_its_seal,
        other_tranches_do_not_close_what_is_kept,
        no_more_is_kept_than_is_left,
    }

    async fn ask(edge: &Edge, key: WindowKey, latest: u64, tokens: u64) -> Opening {
        let request = KeepRequest { key, latest, limit: 100, tokens };
        edge.store.keep(edge.id, vec![request]).await.expect("an answer").remove(0)
    }

    async fn what_is_kept_is_debited_once_and_comes_back_with_its_seal(on: Backend) {
        let world = World::new(on).await;
        let mut edge = world.edge("one").await;
        let key = key(Metric::ApiCalls);
        let kept = permit(ask(&edge, key, 0, 30).await);
        assert_eq!((kept.tranche(), kept.beyond()), (30, 70));
        let again = ask(&edge, key, 0, 30).await;
        assert!(matches!(again, Opening::Lost { latest: 1 }), "{again:?}");
        let of = EpochRef { key, epoch: kept.epoch() };
        let spent = model::ledger::LeaseReport { tranche: 30, ..lease(of, 1, 4, true) };
        edge.figures(vec![spent]).await;
        assert_eq!(edge.seal(of).await.credited, 26);
        assert_eq!(world.account(key).await, (4, 26));
        world.audit().await;
    }

    async fn other_tranches_do_not_close_what_is_kept(on: Backend) {
        let world = World::new(on).await;
        let mut edge = world.edge("one").await;
        let key = key(Metric::ApiCalls);
        let kept = permit(ask(&edge, key, 0, 30).await).epoch();
        let mut latest = 0;
        for _ in 0..4 {
            let fence = Fence::Holder(edge.id);
            let request =
                OpenRequest { key, fence, latest, limit: 100, above: None, rate_per_s: 0 };
            let opened = edge.store.open(edge.id, vec![request]).await.expect("an answer");
            latest = permit(opened.into_iter().next().expect("one")).epoch();
        }
        let recalled = edge.figures(vec![]).await.own_recalls;
        assert_eq!(recalled.len(), 2, "two of the usual may be open");
        assert!(recalled.iter().all(|of| of.epoch != kept), "{recalled:?}");
        world.audit().await;
    }

    async fn no_more_is_kept_than_is_left(on: Backend) {
        let world = World::new(on).await;
        let (one, two) = (world.edge("one").await, world.edge("two").await);
        let key = key(Metric::ApiCalls);
        assert_eq!(permit(ask(&one, key, 0, 70).await).tranche(), 70);
        assert_eq!(permit(ask(&two, key, 0, 70).await).tranche(), 30);
        let three = world.edge("three").await;
        assert!(matches!(ask(&three, key, 0, 70).await, Opening::Exhausted));
        world.audit().await;
    }
}
