//! The sample: what the quota ledger charged since the last one goes into the history.
//!
//! One query finds the windows with news, and a handful of statements counts a thousand of
//! them; a tenant without a window costs nothing. One process writes at a time, by the one
//! row of `usage_sampler`. Between hours, a bucket is as sharp as samples are frequent.
//! Invariants: `usage_seen.counted` is what the buckets of a window sum to, because both
//! change in one commit; what became known only after a window's end is counted in its last
//! hour, so that no window's use is another's.

use model::{clock::UnixMs, quota::Metric};
use serde_json::{Value, json};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{BucketLength, HOUR_MS, sums};
use crate::store::{
    Store, StoreError,
    authority::{counts_by_reports, unspent},
    db::{ControlTx, Purpose, sql, sql_each},
    levels::CLAIM_KEPT_MS,
    rows::{instant, stored},
};

/// Windows of one commit: on SQLite nobody else writes meanwhile, so it stays in the tens
/// of milliseconds.
const WINDOWS_MAX: usize = 1_000;
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
    /// Brings the history up to the ledger, and drops what is past its time. Ends at once
    /// when another process does it meanwhile.
    ///
    /// # Errors
    /// The store failed; what was committed until then stays counted exactly.
    pub async fn sample_usage(&self) -> Result<Sampled, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Read).await?;
        let looked = look(&mut tx).await;
        let (turn, news) = tx.end(looked).await?;
        let mut sampled = Sampled::default();
        for batch in news.chunks(WINDOWS_MAX) {
            let mut tx = self.db.control(Purpose::Write).await?;
            let outcome = count_batch(&mut tx, &turn, batch, now).await;
            if !tx.end(outcome).await? {
                return Ok(sampled);
            }
            sampled.windows += batch.len() as u64;
        }
        let mut tx = self.db.control(Purpose::Write).await?;
        let outcome = sweep(&mut tx, &turn, now).await;
        sampled.dropped = tx.end(outcome).await?;
        Ok(sampled)
    }
}

/// Where the last sample ended.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
struct Turn {
    sampled_at: i64,
    swept_after: Uuid,
}

impl Turn {
    /// Windows that ended earlier are no longer looked at, so nothing is noted of them.
    fn oldest_end(&self) -> i64 {
        before(instant(self.sampled_at), LATE_MS)
    }
}

/// Holds the turn to write; false when another process has it, or had it since the look.
async fn hold(tx: &mut ControlTx, looked: &Turn) -> Result<bool, StoreError> {
    let turn: Option<Turn> = sql_each(
        "SELECT sampled_at, swept_after FROM usage_sampler",
        "SELECT sampled_at, swept_after FROM usage_sampler FOR UPDATE SKIP LOCKED",
    )
    .optional(tx)
    .await?;
    Ok(turn.is_some_and(|turn| turn == *looked))
}

/// A window of which something else is charged than was noted.
#[derive(Debug, FromRow)]
struct News {
    tenant_id: Uuid,
    metric: String,
    start_ms: i64,
    end_ms: i64,
    charged: i64,
}

/// Where the last sample ended, and what is news since. A tranche counts in full unless its
/// holder lives, as in the usage figures; holders' own are found by the holders that live, and
/// shared ones by the index of those that are not reconciled. Reads only: on SQLite it keeps nobody from writing.
async fn look(tx: &mut ControlTx) -> Result<(Turn, Vec<News>), StoreError> {
    let turn: Turn = sql("SELECT sampled_at, swept_after FROM usage_sampler").one(tx).await?;
    let news = sql(concat!(
        "SELECT now.tenant_id, now.metric, now.start_ms, now.end_ms, now.charged
         FROM (
             SELECT w.tenant_id, w.metric, w.start_ms, w.end_ms,
                 w.granted - w.credited - coalesce(held.unspent, 0) AS charged
             FROM quota_window w
             LEFT JOIN (
                 SELECT tenant_id, metric, start_ms, CAST(sum(unspent) AS BIGINT) AS unspent
                 FROM (
                     SELECT e.tenant_id, e.metric, e.start_ms, ",
        unspent!(),
        " AS unspent
                     FROM quota_holder h JOIN quota_epoch e ON e.fence = h.fence
                      AND e.shared = 0 AND e.state <> 'reconciled'
                     WHERE h.ended_at IS NULL
                     UNION ALL
                     SELECT e.tenant_id, e.metric, e.start_ms, ",
        unspent!(),
        " FROM quota_epoch e WHERE e.shared = 1 AND ",
        counts_by_reports!(),
        "
                 ) each_epoch
                 GROUP BY tenant_id, metric, start_ms
             ) held ON held.tenant_id = w.tenant_id AND held.metric = w.metric
              AND held.start_ms = w.start_ms
             WHERE w.end_ms > $1
         ) now
         LEFT JOIN usage_seen seen ON seen.tenant_id = now.tenant_id
          AND seen.metric = now.metric AND seen.start_ms = now.start_ms
         WHERE now.charged <> coalesce(seen.total, 0)"
    ))
    .bind(turn.oldest_end())
    .all(tx)
    .await?;
    Ok((turn, news))
}

/// Counts some windows; false when it is another process's turn.
async fn count_batch(
    tx: &mut ControlTx,
    turn: &Turn,
    batch: &[News],
    now: UnixMs,
) -> Result<bool, StoreError> {
    if !hold(tx, turn).await? {
        return Ok(false);
    }
    note(tx, batch).await?;
    for fallen in fallen(tx).await? {
        take_back(tx, &fallen).await?;
    }
    count(tx, now).await?;
    Ok(true)
}

/// Notes what is charged, all windows in one statement.
async fn note(tx: &mut ControlTx, batch: &[News]) -> Result<(), StoreError> {
    let row = |news: &News| {
        let News { tenant_id, metric, start_ms, end_ms, charged } = news;
        json!([tenant_id.simple().to_string(), metric, start_ms, end_ms, charged])
    };
    let rows: Value = batch.iter().map(row).collect();
    sql_each(
        "INSERT INTO usage_seen (tenant_id, metric, start_ms, end_ms, total, counted)
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, 0
         FROM json_each($1) WHERE true
         ON CONFLICT (tenant_id, metric, start_ms) DO UPDATE SET total = excluded.total",
        "INSERT INTO usage_seen (tenant_id, metric, start_ms, end_ms, total, counted)
         SELECT (value ->> 0)::uuid, value ->> 1, (value ->> 2)::bigint, (value ->> 3)::bigint,
             (value ->> 4)::bigint, 0
         FROM json_array_elements($1::json) AS rows (value)
         ON CONFLICT (tenant_id, metric, start_ms) DO UPDATE SET total = excluded.total",
    )
    .bind(rows.to_string())
    .execute(tx)
    .await
    .map(drop)
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

/// Ends a sample: drops old buckets of the next tenants, and what else is past its time.
async fn sweep(tx: &mut ControlTx, turn: &Turn, now: UnixMs) -> Result<u64, StoreError> {
    if !hold(tx, turn).await? {
        return Ok(0);
    }
    let after = turn.swept_after;
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
    sql("UPDATE usage_sampler SET sampled_at = $1, swept_after = $2")
        .bind(stored(now).max(turn.sampled_at))
        .bind(next)
        .execute(tx)
        .await?;
    for (statement, before) in [
        ("DELETE FROM usage_seen WHERE end_ms <= $1", turn.oldest_end()),
        ("DELETE FROM usage_claim WHERE created_at <= $1", before(now, CLAIM_KEPT_MS)),
    ] {
        sql(statement).bind(before).execute(tx).await?;
    }
    Ok(dropped)
}

fn before(now: UnixMs, ms: u64) -> i64 {
    stored(UnixMs(now.0.saturating_sub(ms)))
}
