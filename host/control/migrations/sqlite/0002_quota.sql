-- The durable account of every quota window. Tokens are granted in tranches (epochs): a
-- tranche is debited here before one token of it is handed out, and what is proven unspent
-- is credited. Instants are milliseconds since 1970, UTC; ids are 16 bytes.
-- Always: granted - credited <= limit_high.

CREATE TABLE quota_window (
    tenant         BLOB    NOT NULL CHECK (length(tenant) = 16),
    metric         TEXT    NOT NULL,
    start_ms       INTEGER NOT NULL,
    end_ms         INTEGER NOT NULL CHECK (end_ms > start_ms),
    -- The limit last in force; the version rises with every change.
    limit_version  INTEGER NOT NULL,
    limit_tokens   INTEGER NOT NULL CHECK (limit_tokens >= 0),
    -- The largest limit that was in force in this window.
    limit_high     INTEGER NOT NULL,
    granted        INTEGER NOT NULL DEFAULT 0,
    credited       INTEGER NOT NULL DEFAULT 0 CHECK (credited >= 0),
    -- Highest epoch opened, and highest epoch no longer open.
    latest         INTEGER NOT NULL DEFAULT 0,
    floor          INTEGER NOT NULL DEFAULT 0,
    -- Sums over reconciled epochs whose rows are gone.
    folded_tranche INTEGER NOT NULL DEFAULT 0,
    folded_spent   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, metric, start_ms),
    CHECK (credited <= granted),
    CHECK (granted - credited <= limit_high),
    CHECK (floor <= latest)
) STRICT, WITHOUT ROWID;

CREATE TABLE quota_epoch (
    tenant         BLOB    NOT NULL,
    metric         TEXT    NOT NULL,
    start_ms       INTEGER NOT NULL,
    epoch          INTEGER NOT NULL CHECK (epoch > 0),
    -- The dispatcher that may hand it out: 'holder:<uuid>' is the one inside that process.
    fence          TEXT    NOT NULL,
    tranche_own    INTEGER NOT NULL CHECK (tranche_own >= 0),
    -- Tokens of it that a pool above the tenant pays for; pools are not in use yet.
    tranche_shared INTEGER NOT NULL DEFAULT 0 CHECK (tranche_shared >= 0),
    state          TEXT    NOT NULL CHECK (state IN ('open', 'closing', 'reconciled')),
    PRIMARY KEY (tenant, metric, start_ms, epoch),
    FOREIGN KEY (tenant, metric, start_ms) REFERENCES quota_window (tenant, metric, start_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX quota_epoch_by_fence ON quota_epoch (fence) WHERE state <> 'reconciled';

-- One row per run of an edge process.
CREATE TABLE quota_holder (
    holder        BLOB    NOT NULL PRIMARY KEY CHECK (length(holder) = 16),
    -- Of the dispatcher inside this process.
    fence         TEXT    NOT NULL UNIQUE,
    edge          TEXT    NOT NULL,
    boot          BLOB    NOT NULL CHECK (length(boot) = 16),
    registered_at INTEGER NOT NULL,
    ended_at      INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX quota_holder_alive ON quota_holder (edge) WHERE ended_at IS NULL;

CREATE TABLE quota_report (
    tenant    BLOB    NOT NULL,
    metric    TEXT    NOT NULL,
    start_ms  INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    holder    BLOB    NOT NULL,
    report_no INTEGER NOT NULL,
    spent     INTEGER NOT NULL CHECK (spent >= 0),
    refunded  INTEGER NOT NULL CHECK (refunded >= 0),
    sealed    INTEGER NOT NULL CHECK (sealed IN (0, 1)),
    PRIMARY KEY (tenant, metric, start_ms, epoch, holder),
    FOREIGN KEY (tenant, metric, start_ms, epoch)
        REFERENCES quota_epoch (tenant, metric, start_ms, epoch)
) STRICT, WITHOUT ROWID;

-- Tokens given back after their epoch was sealed: a running total per holder and window.
CREATE TABLE quota_late_refund (
    tenant   BLOB    NOT NULL,
    metric   TEXT    NOT NULL,
    start_ms INTEGER NOT NULL,
    holder   BLOB    NOT NULL,
    refunded INTEGER NOT NULL CHECK (refunded >= 0),
    PRIMARY KEY (tenant, metric, start_ms, holder),
    FOREIGN KEY (tenant, metric, start_ms) REFERENCES quota_window (tenant, metric, start_ms)
) STRICT, WITHOUT ROWID;
