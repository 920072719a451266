-- Epochs that a dispatcher shared by several holders hands out, beside those of one holder.
-- Both kinds are numbered together. Of a shared one any living holder may have tokens, so
-- it is credited only when every holder has sealed it.

-- Of shared epochs alone: highest one no longer open, and highest one opened. Open ones are
-- always the last of them.
ALTER TABLE quota_window
    DROP COLUMN floor,
    ADD COLUMN shared_floor  bigint NOT NULL DEFAULT 0,
    ADD COLUMN shared_latest bigint NOT NULL DEFAULT 0,
    ADD CHECK (shared_floor <= shared_latest),
    ADD CHECK (shared_latest <= latest);

-- Windows in which shared epochs are open: closed when they have ended.
CREATE INDEX quota_window_shared_open ON quota_window (end_ms)
    WHERE shared_floor < shared_latest;

-- The fence of a shared epoch is 'redis:<run_id>:<replid>'.
ALTER TABLE quota_epoch
    ADD COLUMN shared bigint NOT NULL DEFAULT 0 CHECK (shared IN (0, 1));

CREATE INDEX quota_epoch_shared ON quota_epoch (tenant_id, metric, start_ms, epoch)
    WHERE shared = 1 AND state <> 'reconciled';
-- What holders have to seal. Work on it grows with what is closing, not with the tenants.
CREATE INDEX quota_epoch_closing ON quota_epoch (tenant_id, metric, start_ms, epoch)
    WHERE shared = 1 AND state = 'closing';
CREATE INDEX quota_epoch_closing_own ON quota_epoch (fence)
    WHERE shared = 0 AND state = 'closing';

-- Every report renews reported_at; a holder that is silent for long is lost.
ALTER TABLE quota_holder
    ADD COLUMN reported_at bigint NOT NULL DEFAULT 0,
    -- It ended without final figures.
    ADD COLUMN lost        bigint NOT NULL DEFAULT 0 CHECK (lost IN (0, 1));
UPDATE quota_holder SET reported_at = CAST(extract(epoch FROM now()) * 1000 AS bigint);
ALTER TABLE quota_holder ALTER COLUMN reported_at DROP DEFAULT;

GRANT UPDATE (reported_at, lost), DELETE ON quota_holder TO control_plane;

-- Of one epoch a holder may have several leases, one after the other. Lease 0 is the mark of
-- the holder itself: sealed, it will never spend another token of the epoch; not sealed, the
-- holder was lost, and what it had is not known yet. (Rows from before have figures there.)
ALTER TABLE quota_report
    ADD COLUMN lease bigint NOT NULL DEFAULT 0 CHECK (lease >= 0),
    DROP CONSTRAINT quota_report_pkey,
    ADD PRIMARY KEY (tenant_id, metric, start_ms, epoch, holder, lease);
ALTER TABLE quota_report ALTER COLUMN lease DROP DEFAULT;

CREATE INDEX quota_report_unsealed ON quota_report (holder, tenant_id, metric, start_ms, epoch)
    WHERE sealed = 0;
