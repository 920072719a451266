//! What of an open account is proven unspent so far, as pieces of statements.
//!
//! Usage, alerts and trends all show it. Invariant: a tranche counts in full unless those
//! who may have its tokens report: the holder that it is bound to lives, or no lost holder's
//! share of a shared one is unknown.

/// A condition on epoch `e`: its unspent tokens do not count as charged.
macro_rules! counts_by_reports {
    () => {
        "e.state <> 'reconciled' AND CASE WHEN e.shared = 0
             THEN EXISTS (SELECT 1 FROM quota_holder h
                 WHERE h.fence = e.fence AND h.ended_at IS NULL)
             ELSE NOT EXISTS (SELECT 1 FROM quota_report r JOIN quota_holder h USING (holder)
                 WHERE r.tenant_id = e.tenant_id AND r.metric = e.metric
                   AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.sealed = 0
                   AND h.ended_at IS NOT NULL)
             END"
    };
}
pub(in crate::store) use counts_by_reports;

/// Tokens of epoch `e` that nobody reported as spent.
macro_rules! unspent {
    () => {
        "(e.tranche_own + e.tranche_shared - coalesce((SELECT sum(r.spent) FROM quota_report r
              WHERE r.tenant_id = e.tenant_id AND r.metric = e.metric
                AND r.start_ms = e.start_ms AND r.epoch = e.epoch), 0))"
    };
}
pub(in crate::store) use unspent;

/// The same of all epochs of window `w`.
macro_rules! unspent_of_window {
    () => {
        concat!(
            "(SELECT CAST(coalesce(sum(",
            $crate::store::authority::unspent!(),
            "), 0) AS BIGINT) FROM quota_epoch e
              WHERE e.tenant_id = w.tenant_id AND e.metric = w.metric
                AND e.start_ms = w.start_ms AND ",
            $crate::store::authority::counts_by_reports!(),
            ")"
        )
    };
}
pub(in crate::store) use unspent_of_window;
