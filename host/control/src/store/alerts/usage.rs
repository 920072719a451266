//! What the evaluation reads of a span of tenants, a statement each.
//!
//! Only tenants that watch something are read. Invariant: consumption is the charged total
//! of the quota ledger, as the usage API has it from the authority.

use std::collections::BTreeMap;

use model::{clock::UnixMs, quota::Metric, tenant::TenantId};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        authority::{int, uint, unspent_of_window},
        db::{ControlTx, sql},
        rows,
        rows::Span,
    },
    AlertSettings, parsed,
    watch::{Mark, Watch},
};

/// Everything of a span that a judgement needs, but the quotas.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// In the order of their ids.
    pub(super) settings: Vec<(TenantId, Result<AlertSettings, StoreError>)>,
    used: BTreeMap<(TenantId, Metric), u64>,
    watches: BTreeMap<(TenantId, Metric), Watch>,
}

impl Figures {
    /// The tenants after `after` that watch something, at most `limit`.
    pub(super) async fn page(
        tx: &mut ControlTx,
        after: TenantId,
        limit: u32,
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        let rows: Vec<(Uuid, String)> = sql("SELECT tenant_id, document FROM alert_settings
             WHERE tenant_id > $1 AND watches = 1 ORDER BY tenant_id LIMIT $2")
        .bind(after.0)
        .bind(i64::from(limit))
        .all(tx)
        .await?;
        let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else {
            return Ok(Self::default());
        };
        let mut figures = Self::of(tx, Span { first: *first, last: *last }, now).await?;
        let settings = |(id, document): (_, String)| (TenantId(id), parsed(&document));
        figures.settings = rows.into_iter().map(settings).collect();
        Ok(figures)
    }

    /// The figures of a span, without its settings.
    pub(super) async fn of(
        tx: &mut ControlTx,
        span: Span,
        now: UnixMs,
    ) -> Result<Self, StoreError> {
        let mut figures = Self { watches: watches(tx, span).await?, ..Self::default() };
        levels(tx, span, &mut figures.used).await?;
        for metric in Metric::CONSUMABLE {
            charged(tx, span, metric, now, &mut figures.used).await?;
        }
        Ok(figures)
    }

    /// What is used of a metric; nothing, where nothing was ever counted.
    pub(super) fn used(&self, tenant: TenantId, metric: Metric) -> u64 {
        self.used.get(&(tenant, metric)).copied().unwrap_or(0)
    }

    pub(super) fn watch(&self, tenant: TenantId, metric: Metric) -> Option<Watch> {
        self.watches.get(&(tenant, metric)).copied()
    }
}

/// Levels as they were last reported: counts, and bytes of storage.
async fn levels(
    tx: &mut ControlTx,
    span: Span,
    used: &mut BTreeMap<(TenantId, Metric), u64>,
) -> Result<(), StoreError> {
    let rows: Vec<(Uuid, String, i64)> = sql("SELECT l.tenant_id, l.metric, l.value
         FROM alert_settings s JOIN usage_level l ON l.tenant_id = s.tenant_id
         WHERE s.tenant_id BETWEEN $1 AND $2 AND s.watches = 1")
    .bind(span.first)
    .bind(span.last)
    .all(tx)
    .await?;
    for (tenant, name, value) in rows {
        used.insert((TenantId(tenant), metric(&name)?), uint(value));
    }
    Ok(())
}

/// Charged totals of each tenant's window of now, whatever its anchor: as the usage figures
/// have them, for many tenants at once.
async fn charged(
    tx: &mut ControlTx,
    span: Span,
    metric: Metric,
    now: UnixMs,
    used: &mut BTreeMap<(TenantId, Metric), u64>,
) -> Result<(), StoreError> {
    let rows: Vec<(Uuid, i64)> = sql(concat!(
        "SELECT w.tenant_id, w.granted - w.credited - ",
        unspent_of_window!(),
        " AS charged
         FROM alert_settings s JOIN quota_window w ON w.tenant_id = s.tenant_id
         WHERE s.tenant_id BETWEEN $1 AND $2 AND s.watches = 1
           AND w.metric = $3 AND w.start_ms <= $4 AND w.end_ms > $4"
    ))
    .bind(span.first)
    .bind(span.last)
    .bind(metric.as_str())
    .bind(rows::stored(now))
    .all(tx)
    .await?;
    used.extend(rows.into_iter().map(|(id, charged)| ((TenantId(id), metric), uint(charged))));
    Ok(())
}

#[derive(sqlx::FromRow)]
struct WatchRow {
    tenant_id: Uuid,
    metric: String,
    window_start: i64,
    limit_value: i64,
    limit_version: i64,
    limit_since: i64,
    warning_fired: i64,
    warning_round: i64,
    critical_fired: i64,
    critical_round: i64,
}

async fn watches(
    tx: &mut ControlTx,
    span: Span,
) -> Result<BTreeMap<(TenantId, Metric), Watch>, StoreError> {
    let rows: Vec<WatchRow> = sql("SELECT * FROM alert_state WHERE tenant_id BETWEEN $1 AND $2")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    let watch = |row: WatchRow| {
        let mark = |fired: i64, round: i64| Mark { fired: fired != 0, round: uint(round) };
        let watch = Watch {
            window_start: rows::instant(row.window_start),
            limit: uint(row.limit_value),
            limit_version: uint(row.limit_version),
            limit_since: rows::instant(row.limit_since),
            marks: [
                mark(row.warning_fired, row.warning_round),
                mark(row.critical_fired, row.critical_round),
            ],
        };
        Ok(((TenantId(row.tenant_id), metric(&row.metric)?), watch))
    };
    rows.into_iter().map(watch).collect()
}

/// Remembers how far a metric was alerted about.
pub(super) async fn remember(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    watch: &Watch,
) -> Result<(), StoreError> {
    let [warning, critical] = watch.marks;
    sql("INSERT INTO alert_state (tenant_id, metric, window_start, limit_value, limit_version,
             limit_since, warning_fired, warning_round, critical_fired, critical_round)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (tenant_id, metric) DO UPDATE SET
             window_start = excluded.window_start, limit_value = excluded.limit_value,
             limit_version = excluded.limit_version, limit_since = excluded.limit_since,
             warning_fired = excluded.warning_fired, warning_round = excluded.warning_round,
             critical_fired = excluded.critical_fired, critical_round = excluded.critical_round")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(rows::stored(watch.window_start))
    .bind(int(watch.limit))
    .bind(int(watch.limit_version))
    .bind(rows::stored(watch.limit_since))
    .bind(i64::from(warning.fired))
    .bind(int(warning.round))
    .bind(i64::from(critical.fired))
    .bind(int(critical.round))
    .execute(tx)
    .await
    .map(drop)
}

pub(super) fn metric(name: &str) -> Result<Metric, StoreError> {
    Metric::from_name(name).ok_or_else(|| StoreError::Decode(format!("metric {name:?}")))
}
