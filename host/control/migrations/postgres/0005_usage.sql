-- Levels, claims, pools and the history of usage; the same tables and columns as on SQLite.

-- Levels that a tenant's backends report: users, projects, storage. Storage is in bytes
-- from here on, the other levels are counts; a missing row is 0. The owner converts past
-- the policies, which show it no row while they are forced.
ALTER TABLE tenant_gauge RENAME TO usage_level;
ALTER INDEX tenant_gauge_pkey RENAME TO usage_level_pkey;
ALTER TABLE usage_level NO FORCE ROW LEVEL SECURITY;
UPDATE usage_level SET value = value * 1048576 WHERE metric = 'storage';
ALTER TABLE usage_level FORCE ROW LEVEL SECURITY;

-- A claim is judged by the pools above its tenant, so it is the control plane's.
DROP POLICY all_tenants ON usage_level;
CREATE POLICY all_tenants ON usage_level TO control_plane USING (true) WITH CHECK (true);

GRANT INSERT, UPDATE ON usage_level TO control_plane;

-- Claims that were taken, for a day: a repeated one is answered and not counted again.
CREATE TABLE usage_claim (
    tenant_id  uuid   NOT NULL,
    -- As the client chose it.
    id         text   NOT NULL,
    metric     text   NOT NULL,
    delta      bigint NOT NULL,
    -- The level after it.
    level      bigint NOT NULL CHECK (level >= 0),
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

CREATE INDEX usage_claim_by_age ON usage_claim (created_at);

ALTER TABLE usage_claim ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_claim FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON usage_claim TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON usage_claim TO control_plane;

-- What a tenant sets aside of a metric for its children. Its row is the lock of everything
-- that draws from it; ancestors' are taken first.
CREATE TABLE pool (
    tenant_id uuid   NOT NULL,
    metric    text   NOT NULL CHECK (metric IN ('storage', 'users')),
    -- Bytes, or users.
    total     bigint NOT NULL CHECK (total >= 0),
    -- 1: every child may use it, and no share is guaranteed; 0: those with a share.
    open      bigint NOT NULL CHECK (open IN (0, 1)),
    PRIMARY KEY (tenant_id, metric)
);

ALTER TABLE pool ENABLE ROW LEVEL SECURITY;
ALTER TABLE pool FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON pool TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON pool TO control_plane;

-- A child's share. It counts while the child is one: after a move it says nothing.
CREATE TABLE pool_share (
    tenant_id  uuid   NOT NULL,
    metric     text   NOT NULL,
    child      uuid   NOT NULL,
    guaranteed bigint NOT NULL CHECK (guaranteed >= 0),
    maximum    bigint NOT NULL CHECK (maximum >= guaranteed),
    PRIMARY KEY (tenant_id, metric, child),
    FOREIGN KEY (tenant_id, metric) REFERENCES pool (tenant_id, metric)
);

ALTER TABLE pool_share ENABLE ROW LEVEL SECURITY;
ALTER TABLE pool_share FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON pool_share TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON pool_share TO control_plane;

-- The history of usage by UTC hour: what was charged in it, or the level at its end. An
-- hour without activity has no row.
CREATE TABLE usage_bucket (
    tenant_id  uuid   NOT NULL,
    metric     text   NOT NULL,
    hour_start bigint NOT NULL CHECK (hour_start % 3600000 = 0),
    value      bigint NOT NULL CHECK (value >= 0),
    PRIMARY KEY (tenant_id, metric, hour_start)
);

ALTER TABLE usage_bucket ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_bucket FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON usage_bucket TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON usage_bucket TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON usage_bucket TO application_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_bucket TO control_plane;

-- How much of each quota window is in the history: total is what was last seen charged,
-- counted what the buckets have of it.
CREATE TABLE usage_seen (
    tenant_id uuid   NOT NULL,
    metric    text   NOT NULL,
    start_ms  bigint NOT NULL,
    end_ms    bigint NOT NULL,
    total     bigint NOT NULL,
    counted   bigint NOT NULL,
    PRIMARY KEY (tenant_id, metric, start_ms)
);

CREATE INDEX usage_seen_uncounted ON usage_seen (tenant_id) WHERE total <> counted;
CREATE INDEX usage_seen_by_end ON usage_seen (end_ms);

ALTER TABLE usage_seen ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_seen FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON usage_seen TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON usage_seen TO control_plane;

-- The windows that a sample looks at: those of now, of all that were ever open.
CREATE INDEX quota_window_by_end ON quota_window (end_ms);

-- One row: whoever samples holds it. When that was done last, and the tenant after which
-- old buckets are looked for next.
CREATE TABLE usage_sampler (
    one         bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    sampled_at  bigint NOT NULL,
    swept_after uuid   NOT NULL
);

INSERT INTO usage_sampler (one, sampled_at, swept_after)
VALUES (1, 0, '00000000-0000-0000-0000-000000000000');

GRANT SELECT, UPDATE (sampled_at, swept_after) ON usage_sampler TO control_plane;
