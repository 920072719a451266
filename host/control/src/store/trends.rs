//! The history of usage: one bucket per tenant, metric and UTC hour with activity.
//!
//! What is charged comes from the quota ledger, by a sample every minute (`sample.rs`); a
//! level writes its bucket in its own transaction. Read in hours or days. Invariants: the
//! buckets of a quota window sum to what its account says was charged when it was last
//! sampled; a level is carried through hours without a row.

mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{clock::UnixMs, quota::Metric, tenant::TenantId};

pub use self::sample::Sampled;
use super::{
    Store, StoreError,
    authority::{int, uint},
    db::{Purpose, TenantTx, Tx, sql},
    rows::stored,
};

/// Length of a stored bucket, in ms.
const HOUR_MS: u64 = 3_600_000;

/// How long a bucket that is asked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketLength {
    /// A UTC hour.
    Hour,
    /// A UTC day.
    Day,
}

impl BucketLength {
    /// In ms.
    #[must_use]
    pub const fn ms(self) -> u64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
        }
    }

    /// The start of the bucket that holds `at`.
    #[must_use]
    pub const fn start_of(self, at: UnixMs) -> UnixMs {
        UnixMs(at.0 - at.0 % self.ms())
    }
}

/// Consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Length of each.
    pub length: BucketLength,
    /// Start of the first.
    pub start: UnixMs,
    /// How many.
    pub buckets: u64,
}

impl Span {
    /// The last `buckets` buckets, the one that holds `now` included.
    #[must_use]
    pub const fn until(now: UnixMs, length: BucketLength, buckets: u64) -> Self {
        let before = buckets.saturating_sub(1).saturating_mul(length.ms());
        let start = UnixMs(length.start_of(now).0.saturating_sub(before));
        Self { length, start, buckets }
    }

    /// Start of the bucket of an index.
    #[must_use]
    pub const fn bucket(&self, index: u64) -> UnixMs {
        self.start.plus_ms(index.saturating_mul(self.length.ms()))
    }

    const fn end(&self) -> UnixMs {
        self.bucket(self.buckets)
    }
}

/// A value for each bucket of a span: what was charged in it, or the level at its end.
pub type Series = Vec<u64>;

/// Whether the buckets of a metric say what was charged in them, and not a level.
#[must_use]
const fn sums(metric: Metric) -> bool {
    matches!(metric, Metric::ApiCalls | Metric::AiRequests)
}

impl Store {
    /// A tenant's usage by bucket, gaps filled: nothing was charged, or the level stayed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn trends(
        &self,
        tenant: TenantId,
        metrics: &[Metric],
        span: Span,
    ) -> Result<BTreeMap<Metric, Series>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let trends = read(&mut tx, metrics, span).await;
        tx.end(trends).await
    }

    /// API calls that were charged on the UTC day of `day`, as of the last sample.
    ///
    /// # Errors
    /// The store failed.
    pub async fn calls_on(&self, tenant: TenantId, day: UnixMs) -> Result<u64, StoreError> {
        let span = Span::until(day, BucketLength::Day, 1);
        let trends = self.trends(tenant, &[Metric::ApiCalls], span).await?;
        Ok(trends.values().flatten().sum())
    }
}

/// Writes the level that holds at `now` into the bucket of its hour.
pub(super) async fn put_level<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    metric: Metric,
    level: u64,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO usage_bucket (tenant_id, metric, hour_start, value) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, metric, hour_start) DO UPDATE SET value = excluded.value")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(stored(BucketLength::Hour.start_of(now)))
    .bind(int(level))
    .execute(tx)
    .await
    .map(drop)
}

async fn read(
    tx: &mut TenantTx,
    metrics: &[Metric],
    span: Span,
) -> Result<BTreeMap<Metric, Series>, StoreError> {
    let mut trends = BTreeMap::new();
    for &metric in metrics {
        let series = if sums(metric) {
            let rows = charged(tx, metric, span).await?;
            filled(span, rows, None)
        } else {
            let before = level_before(tx, metric, span.start).await?;
            let rows = levels(tx, metric, span).await?;
            filled(span, rows, Some(before))
        };
        trends.insert(metric, series);
    }
    Ok(trends)
}

/// A value for every bucket; where there is no row, that of the bucket before (`carried`,
/// to begin with), or 0 without one.
fn filled(span: Span, rows: Vec<(i64, i64)>, mut carried: Option<u64>) -> Series {
    let rows: BTreeMap<u64, u64> =
        rows.into_iter().map(|(start, value)| (uint(start), uint(value))).collect();
    let bucket = |index| {
        let row = rows.get(&span.bucket(index).0).copied();
        if carried.is_some() && row.is_some() {
            carried = row;
        }
        row.or(carried).unwrap_or(0)
    };
    (0..span.buckets).map(bucket).collect()
}

async fn charged(
    tx: &mut TenantTx,
    metric: Metric,
    span: Span,
) -> Result<Vec<(i64, i64)>, StoreError> {
    of_span(
        tx,
        "SELECT hour_start - hour_start % $5, CAST(sum(value) AS BIGINT) FROM usage_bucket
         WHERE tenant_id = $1 AND metric = $2 AND hour_start >= $3 AND hour_start < $4
         GROUP BY 1",
        metric,
        span,
    )
    .await
}

async fn levels(
    tx: &mut TenantTx,
    metric: Metric,
    span: Span,
) -> Result<Vec<(i64, i64)>, StoreError> {
    of_span(
        tx,
        "SELECT hour_start - hour_start % $5, value FROM usage_bucket
         WHERE tenant_id = $1 AND metric = $2 AND hour_start IN (
             SELECT max(hour_start) FROM usage_bucket
             WHERE tenant_id = $1 AND metric = $2 AND hour_start >= $3 AND hour_start < $4
             GROUP BY hour_start - hour_start % $5)",
        metric,
        span,
    )
    .await
}

async fn of_span(
    tx: &mut TenantTx,
    query: &'static str,
    metric: Metric,
    span: Span,
) -> Result<Vec<(i64, i64)>, StoreError> {
    sql(query)
        .bind(tx.tenant().0)
        .bind(metric.as_str())
        .bind(stored(span.start))
        .bind(stored(span.end()))
        .bind(int(span.length.ms()))
        .all(tx)
        .await
}

/// The level when `at` began. One that has no bucket was there before the history.
async fn level_before(tx: &mut TenantTx, metric: Metric, at: UnixMs) -> Result<u64, StoreError> {
    let tenant = tx.tenant();
    let of = |query| sql(query).bind(tenant.0).bind(metric.as_str()).bind(stored(at));
    let bucket: Option<(i64,)> = of("SELECT value FROM usage_bucket
         WHERE tenant_id = $1 AND metric = $2 AND hour_start < $3
         ORDER BY hour_start DESC LIMIT 1")
    .optional(tx)
    .await?;
    if let Some((value,)) = bucket {
        return Ok(uint(value));
    }
    let level: Option<(i64,)> = of("SELECT value FROM usage_level
         WHERE tenant_id = $1 AND metric = $2 AND updated_at < $3")
    .optional(tx)
    .await?;
    Ok(level.map_or(0, |(value,)| uint(value)))
}
