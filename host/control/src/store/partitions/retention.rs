//! The end of rows: whole months at once, the rest row by row.
//!
//! Both go by the month: the first instant kept is the start of the month in which retention
//! ends, so a row lives up to a month longer than it has to, and never shorter. While a tenant
//! is under a legal hold no month goes, and the others' rows go one by one. Invariant: a row
//! that is younger than the retention, or held, is not touched.

use model::{audit::PLATFORM_CHAIN, clock::UnixMs};
use time::{OffsetDateTime, Time};

use super::{JOB, Manager, Step, Store, StoreError, sql};
use crate::store::{
    audit::{self, Act},
    db::{ControlTx, Purpose, SchemaTx},
    rows::stored,
};

pub(super) const DAY_MS: u64 = 86_400_000;
/// Rows deleted in one transaction: short enough for whoever waits to change a tenant.
pub(super) const DELETE_ROWS: i64 = 1_000;

impl Manager<'_> {
    /// Drops the months of which every row is beyond retention, one a transaction.
    pub(super) async fn drop_months(&self) -> Result<Vec<String>, StoreError> {
        let before = first_kept(self.now(), self.rules.retention_days);
        let mut dropped = Vec::new();
        loop {
            // No hold comes between the look and the end of the month.
            let mut turn = self.store.db.control(Purpose::Change).await?;
            if is_any_held(&mut turn).await? {
                return turn.end(Ok(dropped)).await;
            }
            let mut tx = self.owner.begin(Step::Restructure).await?;
            let month = self.drop_month(&mut tx, before).await;
            let month = tx.end(month).await;
            match turn.end(month).await? {
                Some(month) => dropped.push(month),
                None => return Ok(dropped),
            }
        }
    }

    async fn drop_month(
        &self,
        tx: &mut SchemaTx,
        before: UnixMs,
    ) -> Result<Option<String>, StoreError> {
        let (month,): (Option<String>,) =
            sql("SELECT drop_month($1)").bind(stored(before)).one(tx).await?;
        if let Some(month) = &month {
            // The owner of the tables has no part in the chains.
            tx.become_control().await?;
            let act = Act::new(&JOB, "retention.drop_month", month);
            audit::append(tx, PLATFORM_CHAIN, &act, self.now()).await?;
        }
        Ok(month)
    }
}

impl Store {
    /// Deletes what is beyond retention and in no month: on SQLite that is all.
    pub(super) async fn delete_beyond(&self, days: u32) -> Result<u64, StoreError> {
        let before = first_kept(self.clock.now(), days);
        let mut deleted = 0;
        loop {
            let mut tx = self.db.control(Purpose::Change).await?;
            let rows = delete_some(&mut tx, before, self.clock.now()).await;
            match tx.end(rows).await? {
                0 => return Ok(deleted),
                rows => deleted += rows,
            }
        }
    }
}

async fn is_any_held(tx: &mut ControlTx) -> Result<bool, StoreError> {
    let (held,): (bool,) =
        sql("SELECT EXISTS (SELECT 1 FROM tenant WHERE legal_hold)").one(tx).await?;
    Ok(held)
}

async fn delete_some(tx: &mut ControlTx, before: UnixMs, now: UnixMs) -> Result<u64, StoreError> {
    let rows = sql("DELETE FROM tenant_data WHERE created_at < $1
           AND (tenant_id, id, created_at) IN (
               SELECT tenant_id, id, created_at FROM tenant_data
               WHERE created_at < $1
                 AND tenant_id NOT IN (SELECT id FROM tenant WHERE legal_hold) LIMIT $2)")
    .bind(stored(before))
    .bind(DELETE_ROWS)
    .execute(tx)
    .await?;
    if rows > 0 {
        let mut act = Act::new(&JOB, "retention.delete_rows", "tenant_data");
        let gone = serde_json::json!({ "rows": rows, "before_ms": before.0 });
        act.describe(Some(&gone), None);
        audit::append(tx, PLATFORM_CHAIN, &act, now).await?;
    }
    Ok(rows)
}

/// Start of the month in which `days` before `now` lies.
fn first_kept(now: UnixMs, days: u32) -> UnixMs {
    let oldest = now.0.saturating_sub(u64::from(days) * DAY_MS);
    let start = i64::try_from(oldest / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.replace_day(1).ok())
        .map_or(0, |first| first.replace_time(Time::MIDNIGHT).unix_timestamp());
    UnixMs(u64::try_from(start).unwrap_or(0) * 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_kept_instant_is_the_start_of_its_month() {
        let march_2024 = UnixMs(1_710_000_000_000);
        assert_eq!(first_kept(march_2024, 0), UnixMs(1_709_251_200_000));
        assert_eq!(first_kept(march_2024, 9), UnixMs(1_706_745_600_000), "a leap day before");
        assert_eq!(first_kept(UnixMs(5), 2_555), UnixMs(0));
    }

    proptest! {
        #[test]
        fn nothing_younger_than_the_retention_is_beyond_it(
            now in 0_u64..5_000_000_000_000, days in 0_u32..10_000,
        ) {
            let kept = first_kept(UnixMs(now), days).0;
            let oldest = now.saturating_sub(u64::from(days) * DAY_MS);
            prop_assert!(kept <= oldest);
            prop_assert!(oldest - kept < 31 * DAY_MS);
        }
    }
}
