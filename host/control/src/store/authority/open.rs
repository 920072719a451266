//! Opening tranches: the only place that debits.
//!
//! Invariant: the debit is committed before its permit leaves; a request whose caller does
//! not know the latest epoch debits nothing.

use model::{
    clock::UnixMs,
    ledger::{InstallPermit, OpenRequest, Opening, rules::tranche_size},
};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    int, of, uint, window,
};

/// All requests in one commit, answered in their order.
impl Operation for Vec<OpenRequest> {
    type Answer = Vec<Opening>;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Vec<Opening>, StoreError> {
        // Windows are locked in one order by everybody, so that two batches that have some
        // in common never wait for each other.
        let mut turns: Vec<_> = self.iter().enumerate().collect();
        turns.sort_by_key(|(_, request)| request.key);
        let mut openings = Vec::with_capacity(self.len());
        for (place, request) in turns {
            openings.push((place, open(tx, request, now).await?));
        }
        openings.sort_by_key(|(place, _)| *place);
        Ok(openings.into_iter().map(|(_, opening)| opening).collect())
    }
}

async fn open(
    tx: &mut ControlTx,
    request: &OpenRequest,
    now: UnixMs,
) -> Result<Opening, StoreError> {
    let OpenRequest { key, fence, latest, limit, rate_per_s } = *request;
    let row = window::under_limit(tx, request, now).await?;
    if row.latest != int(latest) {
        return Ok(Opening::Lost { latest: uint(row.latest) });
    }
    let remaining = limit.saturating_sub(uint(row.granted - row.credited));
    let tranche = tranche_size(limit, remaining, rate_per_s);
    if tranche == 0 {
        return Ok(Opening::Exhausted);
    }
    let epoch = row.latest + 1;
    let insert = sql("INSERT INTO quota_epoch
             (tenant_id, metric, start_ms, epoch, fence, tranche_own, state)
         VALUES ($1, $2, $3, $4, $5, $6, 'open')");
    of(insert, &key).bind(epoch).bind(fence.to_string()).bind(int(tranche)).execute(tx).await?;
    // Two tranches may be open; an older one starts closing.
    let close = sql("UPDATE quota_epoch SET state = 'closing'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4
           AND state = 'open'");
    of(close, &key).bind(epoch - 1).execute(tx).await?;
    let debit = sql("UPDATE quota_window SET granted = granted + $4, latest = $5,
             floor = CASE WHEN floor < $5 - 2 THEN $5 - 2 ELSE floor END
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(debit, &key).bind(int(tranche)).bind(epoch).execute(tx).await?;
    window::fold(tx, &key, epoch).await?;
    Ok(Opening::Opened(InstallPermit::issue(key, fence, uint(epoch), tranche, remaining - tranche)))
}
