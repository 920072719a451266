//! The sample: what the quota ledger charged since the last one goes into the history.
//!
//! Set-based, so that it costs three statements per thousand windows with news, and nothing
//! for a tenant without a window. One process samples at a time, by the one row of
//! `usage_sampler`. Invariants: `usage_seen.counted` is what the buckets of a window sum to,
//! because both change in one commit; what became known only after a window's end is
//! counted in its last hour.

use model::{clock::UnixMs, quota::Metric};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{BucketLength, HOUR_MS, sums};
use crate::store::{
    Store, StoreError,
    db::{ControlTx, Purpose, sql, sql_each},
    levels::CLAIM_KEPT_MS,
    rows::{instant, stored},
};

/// Windows of one commit: on SQLite nobody else writes meanwhile, so it stays in the tens
/// of milliseconds.
const WINDOWS_MAX: i64 = 1_000;
/// Time from a window's end to the last sample that still looks at it, in ms: 72 h, a day
/// more than the ledger keeps the details that late figures need.
const LATE_MS: u64 = 72 * HOUR_MS;
/// How long a bucket is kept, in ms: 400 days, for year-on-year figures.
const KEPT_MS: u64 = 400 * 24 * HOUR_MS;
/// Tenants whose old buckets one sample looks for: all of 100,000 within seven hours.
const SWEPT_MAX: i64 = 250;

/// What a sample did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Windows with news.
    pub windows: u64,
    /// Buckets past their time that were dropped.
    pub dropped: u64,
}

impl Store {
    /// Brings the history up to the ledger, and drops what is past its time. Answers with
    /// zeros at once while another process does it.
    ///
    /// # Errors
    /// The store failed; what was committed until then stays counted exactly.
    pub async fn sample_usage(&self) -> Result<Sampled, StoreError> {
        let mut sampled = Sampled::default();
        loop {
            let now = self.clock.now();
            let mut tx = self.db.control(Purpose::Write).await?;
            let outcome = batch(&mut tx, now).await;
            let Some(windows) = tx.end(outcome).await? else { return Ok(sampled) };
            sampled.windows += windows;
            if windows < WINDOWS_MAX.unsigned_abs() {
                break;
            }
        }
        let mut tx = self.db.control(Purpose::Write).await?;
        let outcome = sweep(&mut tx, self.clock.now()).await;
        sampled.dropped = tx.end(outcome).await?;
        Ok(sampled)
    }
}

#[derive(FromRow)]
struct Turn {
    sampled_at: i64,
    swept_after: Uuid,
}

/// Takes the turn to sample; `None` while another process has it.
async fn turn(tx: &mut ControlTx) -> Result<Option<Turn>, StoreError> {
    sql_each(
        "SELECT sampled_at, swept_after FROM usage_sampler",
        "SELECT sampled_at, swept_after FROM usage_sampler FOR UPDATE SKIP LOCKED",
    )
    .optional(tx)
    .await
}

/// Samples some windows; how many, or `None` while another process does.
async fn batch(tx: &mut ControlTx, now: UnixMs) -> Result<Option<u64>, StoreError> {
    let Some(Turn { sampled_at, .. }) = turn(tx).await? else { return Ok(None) };
    let windows = see(tx, instant(sampled_at).min(now)).await?;
    if windows > 0 {
        for fallen in fallen(tx).await? {
            take_back(tx, &fallen).await?;
        }
        count(tx, now).await?;
    }
    if windows < WINDOWS_MAX.unsigned_abs() {
        // Nothing is left for another batch: the next sample looks back from here.
        let done = sql("UPDATE usage_sampler SET sampled_at = $1");
        done.bind(stored(now)).execute(tx).await?;
    }
    Ok(Some(windows))
}

/// Notes what is charged in windows where that is news since `last`. A tranche counts in full unless
/// its holder lives, as in the usage figures.
async fn see(tx: &mut ControlTx, last: UnixMs) -> Result<u64, StoreError> {
    sql("INSERT INTO usage_seen (tenant_id, metric, start_ms, end_ms, total, counted)
         SELECT now.tenant_id, now.metric, now.start_ms, now.end_ms, now.charged, 0
         FROM (
             SELECT w.tenant_id, w.metric, w.start_ms, w.end_ms,
                 w.granted - w.credited - coalesce(held.unspent, 0) AS charged
             FROM quota_window w
             LEFT JOIN (
                 SELECT e.tenant_id, e.metric, e.start_ms,
                     CAST(sum(e.tranche_own + e.tranche_shared - coalesce(r.spent, 0)) AS BIGINT)
                     AS unspent
                 FROM quota_holder h
                 JOIN quota_epoch e ON e.fence = h.fence AND e.state <> 'reconciled'
                 LEFT JOIN quota_report r ON r.tenant_id = e.tenant_id AND r.metric = e.metric
                  AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.holder = h.holder
                 WHERE h.ended_at IS NULL
                 GROUP BY e.tenant_id, e.metric, e.start_ms
             ) held ON held.tenant_id = w.tenant_id AND held.metric = w.metric
              AND held.start_ms = w.start_ms
             WHERE w.end_ms > $1
         ) now
         LEFT JOIN usage_seen seen ON seen.tenant_id = now.tenant_id
          AND seen.metric = now.metric AND seen.start_ms = now.start_ms
         WHERE now.charged <> coalesce(seen.total, 0)
         LIMIT $2
         ON CONFLICT (tenant_id, metric, start_ms) DO UPDATE SET total = excluded.total")
    .bind(before(last, LATE_MS))
    .bind(WINDOWS_MAX)
    .execute(tx)
    .await
}

/// A window of which less is charged than the buckets say: tokens came back.
#[derive(FromRow)]
struct Fallen {
    tenant_id: Uuid,
    metric: String,
    start_ms: i64,
    end_ms: i64,
    total: i64,
    counted: i64,
}

async fn fallen(tx: &mut ControlTx) -> Result<Vec<Fallen>, StoreError> {
    sql("SELECT tenant_id, metric, start_ms, end_ms, total, counted FROM usage_seen
         WHERE total <> counted AND total < counted")
    .all(tx)
    .await
}

/// Takes what came back out of the newest buckets of its window.
async fn take_back(tx: &mut ControlTx, fallen: &Fallen) -> Result<(), StoreError> {
    let buckets: Vec<(i64, i64)> = sql("SELECT hour_start, value FROM usage_bucket
         WHERE tenant_id = $1 AND metric = $2 AND hour_start >= $3 AND hour_start < $4
           AND value > 0 ORDER BY hour_start DESC")
    .bind(fallen.tenant_id)
    .bind(&fallen.metric)
    .bind(fallen.start_ms)
    .bind(fallen.end_ms)
    .all(tx)
    .await?;
    let mut owed = fallen.counted - fallen.total;
    for (hour, value) in buckets {
        if owed == 0 {
            break;
        }
        let back = owed.min(value);
        sql("UPDATE usage_bucket SET value = value - $4
             WHERE tenant_id = $1 AND metric = $2 AND hour_start = $3")
        .bind(fallen.tenant_id)
        .bind(&fallen.metric)
        .bind(hour)
        .bind(back)
        .execute(tx)
        .await?;
        owed -= back;
    }
    Ok(())
}

/// Adds what was noted to the bucket of this hour, or of the window's nearest.
async fn count(tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
    sql("INSERT INTO usage_bucket (tenant_id, metric, hour_start, value)
         SELECT tenant_id, metric,
             CASE WHEN $1 < start_ms THEN start_ms
                  WHEN $1 >= end_ms THEN end_ms - $2
                  ELSE $1 END,
             total - counted
         FROM usage_seen WHERE total <> counted AND total > counted
         ON CONFLICT (tenant_id, metric, hour_start)
         DO UPDATE SET value = usage_bucket.value + excluded.value")
    .bind(stored(BucketLength::Hour.start_of(now)))
    .bind(stored(UnixMs(HOUR_MS)))
    .execute(tx)
    .await?;
    sql("UPDATE usage_seen SET counted = total WHERE total <> counted").execute(tx).await.map(drop)
}

/// Drops old buckets of the next tenants, and what else is past its time.
async fn sweep(tx: &mut ControlTx, now: UnixMs) -> Result<u64, StoreError> {
    let Some(Turn { swept_after: after, .. }) = turn(tx).await? else { return Ok(0) };
    let mut dropped = 0;
    for metric in Metric::ALL {
        // A level's last bucket before the time stays, to be carried into it.
        let statement = if sums(metric) {
            "DELETE FROM usage_bucket
             WHERE tenant_id IN (SELECT id FROM tenant WHERE id > $1 ORDER BY id LIMIT $2)
               AND metric = $3 AND hour_start < $4"
        } else {
            "DELETE FROM usage_bucket
             WHERE tenant_id IN (SELECT id FROM tenant WHERE id > $1 ORDER BY id LIMIT $2)
               AND metric = $3 AND hour_start < $4 AND EXISTS (
                   SELECT 1 FROM usage_bucket newer
                   WHERE newer.tenant_id = usage_bucket.tenant_id
                     AND newer.metric = usage_bucket.metric
                     AND newer.hour_start > usage_bucket.hour_start AND newer.hour_start <= $4)"
        };
        let old = sql(statement).bind(after).bind(SWEPT_MAX);
        dropped += old.bind(metric.as_str()).bind(before(now, KEPT_MS)).execute(tx).await?;
    }
    let page: Vec<(Uuid,)> = sql("SELECT id FROM tenant WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(after)
        .bind(SWEPT_MAX)
        .all(tx)
        .await?;
    // After the last tenant comes the first again.
    let whole = page.len() as u64 == SWEPT_MAX.unsigned_abs();
    let next = page.last().filter(|_| whole).map_or(Uuid::nil(), |(last,)| *last);
    sql("UPDATE usage_sampler SET swept_after = $1").bind(next).execute(tx).await?;
    for (statement, kept) in [
        ("DELETE FROM usage_seen WHERE end_ms <= $1", LATE_MS),
        ("DELETE FROM usage_claim WHERE created_at <= $1", CLAIM_KEPT_MS),
    ] {
        sql(statement).bind(before(now, kept)).execute(tx).await?;
    }
    Ok(dropped)
}

fn before(now: UnixMs, ms: u64) -> i64 {
    stored(UnixMs(now.0.saturating_sub(ms)))
}
