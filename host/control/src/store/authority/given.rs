//! Many rows in one statement.
//!
//! A report brings hundreds of figures; a statement for each would hold the windows for as
//! long as a request may wait. They go as one JSON array, which the statement sees as the
//! table `given`, its columns those of `quota_report`, numbered `n` from 0. Invariant: every
//! such statement joins from `given`, in this order, to the primary key of what it touches.

use model::ledger::{EpochRef, HolderId};
use serde_json::{Value, json};

use super::int;

/// A statement on `given`, which is its first value (`$1`).
macro_rules! on_given {
    ($($statement:expr),+ $(,)?) => {
        $crate::store::db::sql_each(
            concat!(
                "WITH given AS (SELECT key AS n, unhex(value ->> 0) AS tenant_id,
                     value ->> 1 AS metric, value ->> 2 AS start_ms, value ->> 3 AS epoch,
                     unhex(value ->> 4) AS holder, value ->> 5 AS lease, value ->> 6 AS spent,
                     value ->> 7 AS refunded, value ->> 8 AS sealed
                 FROM json_each($1)) ",
                $($statement),+
            ),
            concat!(
                "WITH given AS (SELECT n - 1 AS n, (value ->> 0)::uuid AS tenant_id,
                     value ->> 1 AS metric, (value ->> 2)::bigint AS start_ms,
                     (value ->> 3)::bigint AS epoch, (value ->> 4)::uuid AS holder,
                     (value ->> 5)::bigint AS lease, (value ->> 6)::bigint AS spent,
                     (value ->> 7)::bigint AS refunded, (value ->> 8)::bigint AS sealed
                 FROM json_array_elements($1::json) WITH ORDINALITY AS rows (value, n)) ",
                $($statement),+
            ),
        )
    };
}
pub(super) use on_given;

/// One row of `given`; what does not matter is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) of: EpochRef,
    pub(super) holder: Option<HolderId>,
    pub(super) lease: i64,
    pub(super) spent: i64,
    pub(super) refunded: i64,
    pub(super) sealed: bool,
}

impl From<EpochRef> for Given {
    fn from(of: EpochRef) -> Self {
        Self { of, holder: None, lease: 0, spent: 0, refunded: 0, sealed: false }
    }
}

/// The first value of such a statement.
pub(super) fn given<T: Into<Given>>(rows: impl IntoIterator<Item = T>) -> String {
    rows.into_iter().map(|row| value(&row.into())).collect::<Value>().to_string()
}

fn value(row: &Given) -> Value {
    let Given { of: EpochRef { key, epoch }, holder, lease, spent, refunded, sealed } = *row;
    json!([
        key.tenant.0.simple().to_string(),
        key.metric.as_str(),
        int(key.window.start.0),
        int(epoch),
        holder.map(|holder| holder.0.simple().to_string()),
        lease,
        spent,
        refunded,
        u8::from(sealed),
    ])
}
