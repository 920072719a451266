-- Epochs that a dispatcher shared by several holders hands out, beside those of one holder.
-- Both kinds are numbered together. Of a shared one any living holder may have tokens, so
-- it is credited only when every holder has sealed it. SQLite has one holder at a time, but
-- keeps the same account.

-- Of shared epochs alone: highest one no longer open, and highest one opened. Open ones are
-- always the last of them.
ALTER TABLE quota_window RENAME COLUMN floor TO shared_floor;
UPDATE quota_window SET shared_floor = 0;
ALTER TABLE quota_window ADD COLUMN shared_latest INTEGER NOT NULL DEFAULT 0
    CHECK (shared_floor <= shared_latest) CHECK (shared_latest <= latest);

-- Windows in which shared epochs are open: closed when they have ended.
CREATE INDEX quota_window_shared_open ON quota_window (end_ms)
    WHERE shared_floor < shared_latest;

-- The fence of a shared epoch is 'redis:<run_id>:<replid>'.
ALTER TABLE quota_epoch
    ADD COLUMN shared INTEGER NOT NULL DEFAULT 0 CHECK (shared IN (0, 1));

CREATE INDEX quota_epoch_shared ON quota_epoch (tenant_id, metric, start_ms, epoch)
    WHERE shared = 1 AND state <> 'reconciled';
-- What holders have to seal. Work on it grows with what is closing, not with the tenants.
CREATE INDEX quota_epoch_closing ON quota_epoch (tenant_id, metric, start_ms, epoch)
    WHERE shared = 1 AND state = 'closing';
CREATE INDEX quota_epoch_closing_own ON quota_epoch (fence)
    WHERE shared = 0 AND state = 'closing';

-- Every report renews reported_at; a holder that is silent for long is lost.
ALTER TABLE quota_holder ADD COLUMN reported_at INTEGER NOT NULL DEFAULT 0;
-- It ended without final figures.
ALTER TABLE quota_holder ADD COLUMN lost INTEGER NOT NULL DEFAULT 0 CHECK (lost IN (0, 1));
UPDATE quota_holder SET reported_at = unixepoch() * 1000;

-- Of one epoch a holder may have several leases, one after the other. Lease 0 is the mark of
-- the holder itself: sealed, it will never spend another token of the epoch; not sealed, the
-- holder was lost, and what it had is not known yet. (Rows from before have figures there.)
CREATE TABLE quota_report_by_lease (
    tenant_id BLOB    NOT NULL,
    metric    TEXT    NOT NULL,
    start_ms  INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    holder    BLOB    NOT NULL,
    lease     INTEGER NOT NULL CHECK (lease >= 0),
    report_no INTEGER NOT NULL,
    spent     INTEGER NOT NULL CHECK (spent >= 0),
    refunded  INTEGER NOT NULL CHECK (refunded >= 0),
    sealed    INTEGER NOT NULL CHECK (sealed IN (0, 1)),
    PRIMARY KEY (tenant_id, metric, start_ms, epoch, holder, lease),
    FOREIGN KEY (tenant_id, metric, start_ms, epoch)
        REFERENCES quota_epoch (tenant_id, metric, start_ms, epoch)
) STRICT, WITHOUT ROWID;

INSERT INTO quota_report_by_lease
SELECT tenant_id, metric, start_ms, epoch, holder, 0, report_no, spent, refunded, sealed
FROM quota_report;
DROP TABLE quota_report;
ALTER TABLE quota_report_by_lease RENAME TO quota_report;

CREATE INDEX quota_report_unsealed ON quota_report (holder, tenant_id, metric, start_ms, epoch)
    WHERE sealed = 0;
