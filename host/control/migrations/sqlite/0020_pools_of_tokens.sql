-- Pools of API calls and AI requests, beside those of storage and users; the same tables and
-- columns as on PostgreSQL. What members draw is told by their quota windows.

CREATE TABLE pool_of_any (
    tenant_id BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    metric    TEXT    NOT NULL
        CHECK (metric IN ('storage', 'users', 'api_calls', 'ai_requests')),
    -- Bytes, users or tokens.
    total     INTEGER NOT NULL CHECK (total >= 0),
    -- 1: every child may use it, and no share is guaranteed; 0: those with a share.
    open      INTEGER NOT NULL CHECK (open IN (0, 1)),
    PRIMARY KEY (tenant_id, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE pool_share_of_any (
    tenant_id  BLOB    NOT NULL,
    metric     TEXT    NOT NULL,
    child      BLOB    NOT NULL CHECK (length(child) = 16),
    guaranteed INTEGER NOT NULL CHECK (guaranteed >= 0),
    maximum    INTEGER NOT NULL CHECK (maximum >= guaranteed),
    PRIMARY KEY (tenant_id, metric, child),
    FOREIGN KEY (tenant_id, metric) REFERENCES pool_of_any (tenant_id, metric)
) STRICT, WITHOUT ROWID;

INSERT INTO pool_of_any SELECT tenant_id, metric, total, open FROM pool;
INSERT INTO pool_share_of_any
SELECT tenant_id, metric, child, guaranteed, maximum FROM pool_share;
DROP TABLE pool_share;
DROP TABLE pool;
-- References follow by themselves.
ALTER TABLE pool_of_any RENAME TO pool;
ALTER TABLE pool_share_of_any RENAME TO pool_share;

-- Tokens that were granted before the tenant came into its pool, up to which epoch: they are
-- not the pool's. Credits of those epochs lower it.
ALTER TABLE quota_window ADD COLUMN pool_base INTEGER NOT NULL DEFAULT 0
    CHECK (pool_base >= 0);
ALTER TABLE quota_window ADD COLUMN pool_since INTEGER NOT NULL DEFAULT 0;
-- Tokens that former members of the tenant's own pool took from it.
ALTER TABLE quota_window ADD COLUMN carried INTEGER NOT NULL DEFAULT 0 CHECK (carried >= 0);
-- The tenant above all pools that the last tranche was drawn from, and its count of credits
-- when nothing was left for this one.
ALTER TABLE quota_window ADD COLUMN pool_top BLOB;
ALTER TABLE quota_window ADD COLUMN pool_dry INTEGER;

CREATE INDEX quota_window_by_pool ON quota_window (pool_top, metric)
    WHERE pool_top IS NOT NULL;

-- What goes on in a pool of tokens; of one that is gone the row stays.
CREATE TABLE quota_pool (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    metric     TEXT    NOT NULL,
    -- Rises when tokens may have become free in it or further down.
    freed      INTEGER NOT NULL,
    -- Its largest size, and since when the present one is set: for the audit.
    total_high INTEGER NOT NULL,
    since_ms   INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, metric)
) STRICT, WITHOUT ROWID;
