-- The durable account of every quota window; the same tables and columns as on SQLite.
-- Tokens are granted in tranches (epochs): a tranche is debited here before one token of
-- it is handed out, and what is proven unspent is credited.
-- Always: granted - credited <= limit_high.
--
-- One commit debits tranches of many tenants, so all of it is control_plane's;
-- application_user has no right here. Whoever writes an epoch, a report or a late refund
-- holds the row of its window (FOR UPDATE) first.

CREATE TABLE quota_window (
    tenant_id      uuid   NOT NULL,
    metric         text   NOT NULL,
    start_ms       bigint NOT NULL,
    end_ms         bigint NOT NULL CHECK (end_ms > start_ms),
    -- The limit last in force; the version rises with every change.
    limit_version  bigint NOT NULL,
    limit_tokens   bigint NOT NULL CHECK (limit_tokens >= 0),
    -- The largest limit that was in force in this window.
    limit_high     bigint NOT NULL,
    granted        bigint NOT NULL DEFAULT 0,
    credited       bigint NOT NULL DEFAULT 0 CHECK (credited >= 0),
    -- Highest epoch opened, and highest epoch no longer open.
    latest         bigint NOT NULL DEFAULT 0,
    floor          bigint NOT NULL DEFAULT 0,
    -- Sums over reconciled epochs whose rows are gone.
    folded_tranche bigint NOT NULL DEFAULT 0,
    folded_spent   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, metric, start_ms),
    CHECK (credited <= granted),
    CHECK (granted - credited <= limit_high),
    CHECK (floor <= latest)
);

ALTER TABLE quota_window ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_window FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_window TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON quota_window TO control_plane;

CREATE TABLE quota_epoch (
    tenant_id      uuid   NOT NULL,
    metric         text   NOT NULL,
    start_ms       bigint NOT NULL,
    epoch          bigint NOT NULL CHECK (epoch > 0),
    -- The dispatcher that may hand it out: 'holder:<uuid>' is the one inside that process.
    fence          text   NOT NULL,
    tranche_own    bigint NOT NULL CHECK (tranche_own >= 0),
    -- Tokens of it that a pool above the tenant pays for; pools are not in use yet.
    tranche_shared bigint NOT NULL DEFAULT 0 CHECK (tranche_shared >= 0),
    state          text   NOT NULL CHECK (state IN ('open', 'closing', 'reconciled')),
    PRIMARY KEY (tenant_id, metric, start_ms, epoch),
    FOREIGN KEY (tenant_id, metric, start_ms)
        REFERENCES quota_window (tenant_id, metric, start_ms)
);

CREATE INDEX quota_epoch_by_fence ON quota_epoch (fence) WHERE state <> 'reconciled';

ALTER TABLE quota_epoch ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_epoch FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_epoch TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (state), DELETE ON quota_epoch TO control_plane;

-- One row per run of an edge process; no tenant's.
CREATE TABLE quota_holder (
    holder        uuid   NOT NULL PRIMARY KEY,
    -- Of the dispatcher inside this process.
    fence         text   NOT NULL UNIQUE,
    edge          text   NOT NULL,
    boot          uuid   NOT NULL,
    registered_at bigint NOT NULL,
    ended_at      bigint
);

CREATE INDEX quota_holder_alive ON quota_holder (edge) WHERE ended_at IS NULL;

GRANT SELECT, INSERT, UPDATE (ended_at) ON quota_holder TO control_plane;

CREATE TABLE quota_report (
    tenant_id uuid   NOT NULL,
    metric    text   NOT NULL,
    start_ms  bigint NOT NULL,
    epoch     bigint NOT NULL,
    holder    uuid   NOT NULL,
    report_no bigint NOT NULL,
    spent     bigint NOT NULL CHECK (spent >= 0),
    refunded  bigint NOT NULL CHECK (refunded >= 0),
    sealed    bigint NOT NULL CHECK (sealed IN (0, 1)),
    PRIMARY KEY (tenant_id, metric, start_ms, epoch, holder),
    FOREIGN KEY (tenant_id, metric, start_ms, epoch)
        REFERENCES quota_epoch (tenant_id, metric, start_ms, epoch)
);

ALTER TABLE quota_report ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_report FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_report TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (report_no, spent, refunded, sealed), DELETE ON quota_report
    TO control_plane;

-- Tokens given back after their epoch was sealed: a running total per holder and window.
CREATE TABLE quota_late_refund (
    tenant_id uuid   NOT NULL,
    metric    text   NOT NULL,
    start_ms  bigint NOT NULL,
    holder    uuid   NOT NULL,
    refunded  bigint NOT NULL CHECK (refunded >= 0),
    PRIMARY KEY (tenant_id, metric, start_ms, holder),
    FOREIGN KEY (tenant_id, metric, start_ms)
        REFERENCES quota_window (tenant_id, metric, start_ms)
);

ALTER TABLE quota_late_refund ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_late_refund FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_late_refund TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (refunded), DELETE ON quota_late_refund TO control_plane;
