//! Which bounds a new window may have: windows of one account never overlap.
//!
//! An edge that has not seen a change of a tenant's anchor asks for tokens of a window of the
//! old months, another for those of the new ones. Were both opened, the tenant would have two
//! quotas for the time that they share. Called only when a window is asked for of which nothing
//! was granted yet. Rows that only say what a pool carries, or that nothing was left, keep
//! nobody from a window of other bounds. A tenant that comes into a pool keeps its window to
//! its end, and has that of the pool's members from then on. Invariant: whoever looks holds
//! the account until the end of its transaction, so that two processes never make room for
//! themselves at once.

use model::{clock::UnixMs, ledger::WindowKey, window::Window};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql, sql_each},
    },
    int, uint,
};

/// The window that the account has, or is to have, at the time that `key` is about: as near
/// to `now` as the window of the key allows.
pub(super) async fn place(
    tx: &mut ControlTx,
    key: &WindowKey,
    now: UnixMs,
) -> Result<Window, StoreError> {
    hold(tx, key).await?;
    let Window { start, end } = key.window;
    let others: Vec<(i64, i64)> = sql("SELECT start_ms, end_ms FROM quota_window
         WHERE tenant_id = $1 AND metric = $2 AND end_ms > $3 AND start_ms < $4
           AND (latest > 0 OR start_ms = $3)
         ORDER BY CASE WHEN latest > 0 THEN 0 ELSE 1 END, start_ms")
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(start.0))
    .bind(int(end.0))
    .all(tx)
    .await?;
    let window = |(start, end)| Window { start: UnixMs(uint(start)), end: UnixMs(uint(end)) };
    let others: Vec<Window> = others.into_iter().map(window).collect();
    Ok(room(key.window, now, &others))
}

/// Keeps everybody else from making windows of the account. On SQLite a transaction that
/// writes excludes every other.
async fn hold(tx: &mut ControlTx, key: &WindowKey) -> Result<(), StoreError> {
    let lock = sql_each(
        "SELECT 1 WHERE $1 IS NOT NULL",
        "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS locked",
    );
    let account = format!("quota:{}:{}", key.tenant.0, key.metric.as_str());
    let _locked: Option<(i64,)> = lock.bind(account).optional(tx).await?;
    Ok(())
}

/// The one of `others` that holds `now`, or what these leave of `wanted` around it.
fn room(wanted: Window, now: UnixMs, others: &[Window]) -> Window {
    let last = UnixMs(wanted.end.0.saturating_sub(1));
    let at = now.clamp(wanted.start, last.max(wanted.start));
    if let Some(other) = others.iter().find(|other| other.contains(at)) {
        return *other;
    }
    let ended = others.iter().map(|other| other.end).filter(|end| *end <= at);
    let coming = others.iter().map(|other| other.start).filter(|start| *start > at);
    Window {
        start: ended.chain([wanted.start]).max().unwrap_or(wanted.start),
        end: coming.chain([wanted.end]).min().unwrap_or(wanted.end),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{
        anchor::Anchor,
        clock::Clock as _,
        ledger::{Authority as _, Fence, OpenRequest, Opening},
        quota::Metric,
    };
    use proptest::prelude::*;

    use super::{
        super::{edges::World, tests::key},
        *,
    };
    use crate::{
        store::db::Purpose,
        testing::{Backend, on_both},
    };

    on_both! {
        an_edge_with_another_anchor_is_told_the_window_that_the_account_has,
        whatever_anchors_edges_have_seen_windows_never_overlap,
    }

    const DAY_MS: u64 = 86_400_000;

    const fn window(start: u64, end: u64) -> Window {
        Window { start: UnixMs(start), end: UnixMs(end) }
    }

    #[test]
    fn what_others_leave_begins_and_ends_with_them() {
        let others = [window(0, 10), window(25, 30)];
        for (wanted, now, given) in [
            (window(0, 10), 5, window(0, 10)),
            (window(0, 20), 5, window(0, 10)),
            (window(5, 20), 15, window(10, 20)),
            (window(0, 40), 12, window(10, 25)),
            (window(0, 40), 26, window(25, 30)),
            (window(12, 20), 2, window(12, 20)),
            (window(28, 40), 99, window(30, 40)),
        ] {
            assert_eq!(room(wanted, UnixMs(now), &others), given, "{wanted:?} at {now}");
        }
    }

    async fn ask(world: &World, key: WindowKey) -> Opening {
        let edge = world.edge("one").await;
        let fence = Fence::Holder(edge.id);
        let request =
            OpenRequest { key, fence, latest: 0, limit: 1_000_000, above: None, rate_per_s: 0 };
        world.store.open(edge.id, vec![request]).await.expect("an answer").remove(0)
    }

    async fn an_edge_with_another_anchor_is_told_the_window_that_the_account_has(on: Backend) {
        let world = World::new(on).await;
        let own = key(Metric::ApiCalls);
        assert!(matches!(ask(&world, own).await, Opening::Opened(_)));
        let day = |days: i64| UnixMs(own.window.start.0.wrapping_add_signed(days * DAY_MS as i64));
        for window in [
            Window { start: day(-7), end: day(23) },
            Window { start: own.window.start, end: day(60) },
        ] {
            let stale = WindowKey { window, ..own };
            let answer = ask(&world, stale).await;
            assert!(
                matches!(answer, Opening::Elsewhere { window } if window == own.window),
                "{answer:?}"
            );
        }
        assert_eq!(windows(&world, own).await, [own.window]);
        world.audit().await;
    }

    async fn windows(world: &World, key: WindowKey) -> Vec<Window> {
        let mut tx = world.store.db.control(Purpose::Read).await.expect("begun");
        let rows = sql("SELECT start_ms, end_ms FROM quota_window WHERE tenant_id = $1
             ORDER BY start_ms")
        .bind(key.tenant.0)
        .all(&mut tx)
        .await;
        let rows: Vec<(i64, i64)> = tx.end(rows).await.expect("rows");
        rows.into_iter().map(|(start, end)| window(uint(start), uint(end))).collect()
    }

    /// Edges ask one after another, each under an anchor day of its own, at a time of its own.
    async fn history(world: &World, asked: Vec<(u8, u64)>) {
        let account = key(Metric::ApiCalls);
        for (day, days) in asked {
            let at = UnixMs(account.window.start.0 + days * DAY_MS);
            let now = world.clock.now();
            world.clock.advance_ms(at.ms_since(now));
            let at = world.clock.now();
            let anchor = Anchor::on(day).expect("a day");
            let wanted = Window::of(Metric::ApiCalls, at, anchor).expect("a window");
            let mut key = WindowKey { window: wanted, ..account };
            if let Opening::Elsewhere { window } = ask(world, key).await {
                assert!(window.contains(at), "{window:?} at {at:?}");
                key.window = window;
            }
            let again = ask(world, key).await;
            assert!(matches!(again, Opening::Opened(_)), "{again:?}");
        }
        let windows = windows(world, account).await;
        let apart = windows.windows(2).all(|pair| pair[0].end <= pair[1].start);
        assert!(apart, "{windows:?}");
        let starts: BTreeSet<_> = windows.iter().map(|window| window.start).collect();
        assert_eq!(starts.len(), windows.len());
    }

    async fn whatever_anchors_edges_have_seen_windows_never_overlap(on: Backend) {
        use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
        let mut runner = TestRunner::deterministic();
        let asked = prop::collection::vec((1_u8..=31, 0_u64..100), 1..12);
        for _ in 0..12 {
            let mut asked = asked.new_tree(&mut runner).expect("a case").current();
            asked.sort_by_key(|(_, days)| *days);
            // The clock of a world only goes on: every history has a world of its own.
            let world = World::new(on).await;
            history(&world, asked).await;
            world.audit().await;
        }
    }
}
