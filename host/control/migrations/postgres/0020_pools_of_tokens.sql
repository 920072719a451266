-- Pools of API calls and AI requests, beside those of storage and users; the same tables and
-- columns as on SQLite. What members draw is told by their quota windows.

ALTER TABLE pool DROP CONSTRAINT pool_metric_check;
ALTER TABLE pool ADD CONSTRAINT pool_metric_check
    CHECK (metric IN ('storage', 'users', 'api_calls', 'ai_requests'));

ALTER TABLE quota_window
    -- Tokens that were granted before the tenant came into its pool, up to which epoch: they
    -- are not the pool's. Credits of those epochs lower it.
    ADD COLUMN pool_base  bigint NOT NULL DEFAULT 0 CHECK (pool_base >= 0),
    ADD COLUMN pool_since bigint NOT NULL DEFAULT 0,
    -- Tokens that former members of the tenant's own pool took from it.
    ADD COLUMN carried    bigint NOT NULL DEFAULT 0 CHECK (carried >= 0),
    -- The tenant above all pools that the last tranche was drawn from, and its count of
    -- credits when nothing was left for this one.
    ADD COLUMN pool_top   uuid,
    ADD COLUMN pool_dry   bigint;

CREATE INDEX quota_window_by_pool ON quota_window (pool_top, metric)
    WHERE pool_top IS NOT NULL;

-- What goes on in a pool of tokens; of one that is gone the row stays.
CREATE TABLE quota_pool (
    tenant_id  uuid   NOT NULL,
    metric     text   NOT NULL,
    -- Rises when tokens may have become free in it or further down.
    freed      bigint NOT NULL,
    -- Its largest size, and since when the present one is set: for the audit.
    total_high bigint NOT NULL,
    since_ms   bigint NOT NULL,
    PRIMARY KEY (tenant_id, metric)
);

ALTER TABLE quota_pool ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_pool FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_pool TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (freed, total_high, since_ms) ON quota_pool TO control_plane;
