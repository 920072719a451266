-- Levels, claims, pools and the history of usage.

-- Levels that a tenant's backends report: users, projects, storage. Storage is in bytes
-- from here on, the other levels are counts; a missing row is 0.
ALTER TABLE tenant_gauge RENAME TO usage_level;
UPDATE usage_level SET value = value * 1048576 WHERE metric = 'storage';

-- Claims that were taken, for a day: a repeated one is answered and not counted again.
CREATE TABLE usage_claim (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    -- As the client chose it.
    id         TEXT    NOT NULL,
    metric     TEXT    NOT NULL,
    delta      INTEGER NOT NULL,
    -- The level after it.
    level      INTEGER NOT NULL CHECK (level >= 0),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_claim_by_age ON usage_claim (created_at);

-- What a tenant sets aside of a metric for its children.
CREATE TABLE pool (
    tenant_id BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    metric    TEXT    NOT NULL CHECK (metric IN ('storage', 'users')),
    -- Bytes, or users.
    total     INTEGER NOT NULL CHECK (total >= 0),
    -- 1: every child may use it, and no share is guaranteed; 0: those with a share.
    open      INTEGER NOT NULL CHECK (open IN (0, 1)),
    PRIMARY KEY (tenant_id, metric)
) STRICT, WITHOUT ROWID;

-- A child's share. It counts while the child is one: after a move it says nothing.
CREATE TABLE pool_share (
    tenant_id  BLOB    NOT NULL,
    metric     TEXT    NOT NULL,
    child      BLOB    NOT NULL CHECK (length(child) = 16),
    guaranteed INTEGER NOT NULL CHECK (guaranteed >= 0),
    maximum    INTEGER NOT NULL CHECK (maximum >= guaranteed),
    PRIMARY KEY (tenant_id, metric, child),
    FOREIGN KEY (tenant_id, metric) REFERENCES pool (tenant_id, metric)
) STRICT, WITHOUT ROWID;

-- The history of usage by UTC hour: what was charged in it, or the level at its end. An
-- hour without activity has no row.
CREATE TABLE usage_bucket (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    metric     TEXT    NOT NULL,
    hour_start INTEGER NOT NULL CHECK (hour_start % 3600000 = 0),
    value      INTEGER NOT NULL CHECK (value >= 0),
    PRIMARY KEY (tenant_id, metric, hour_start)
) STRICT, WITHOUT ROWID;

-- How much of each quota window is in the history: total is what was last seen charged,
-- counted what the buckets have of it.
CREATE TABLE usage_seen (
    tenant_id BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    metric    TEXT    NOT NULL,
    start_ms  INTEGER NOT NULL,
    end_ms    INTEGER NOT NULL,
    total     INTEGER NOT NULL,
    counted   INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, metric, start_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_seen_uncounted ON usage_seen (tenant_id) WHERE total <> counted;
CREATE INDEX usage_seen_by_end ON usage_seen (end_ms);

-- The windows that a sample looks at: those of now, of all that were ever open.
CREATE INDEX quota_window_by_end ON quota_window (end_ms);

-- One row: whoever samples holds it. When that was done last, and the tenant after which
-- old buckets are looked for next.
CREATE TABLE usage_sampler (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    sampled_at  INTEGER NOT NULL,
    swept_after BLOB    NOT NULL CHECK (length(swept_after) = 16)
) STRICT;

INSERT INTO usage_sampler (one, sampled_at, swept_after)
VALUES (1, 0, x'00000000000000000000000000000000');
