-- Alerts of a tenant, and the outbox: what happened to it and who is told; the same tables
-- and columns as on PostgreSQL. An event is inserted in the transaction of what it tells of,
-- with a delivery for everyone it goes to; the process then takes deliveries.

-- What a tenant wants to be told, as its JSON document. No row: nothing.
CREATE TABLE alert_settings (
    tenant_id  BLOB    NOT NULL PRIMARY KEY REFERENCES tenant (id),
    document   TEXT    NOT NULL,
    -- Whether it watches any metric.
    watches    INTEGER NOT NULL CHECK (watches IN (0, 1)),
    version    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- How far a metric of a tenant was alerted about. Written by the evaluation only.
CREATE TABLE alert_state (
    tenant_id      BLOB    NOT NULL REFERENCES tenant (id),
    metric         TEXT    NOT NULL,
    -- Of the quota's window; 0 for a level.
    window_start   INTEGER NOT NULL,
    limit_value    INTEGER NOT NULL CHECK (limit_value >= 0),
    -- Rises whenever another limit comes into force, which re-arms both thresholds.
    limit_version  INTEGER NOT NULL,
    limit_since    INTEGER NOT NULL,
    -- Whether the threshold was reached and its event inserted, and how often a level has
    -- fallen far enough below it since to be alerted about again.
    warning_fired  INTEGER NOT NULL CHECK (warning_fired IN (0, 1)),
    warning_round  INTEGER NOT NULL,
    critical_fired INTEGER NOT NULL CHECK (critical_fired IN (0, 1)),
    critical_round INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, metric)
) STRICT;

-- What webhooks of a tenant are signed with: the newest, and for a while the one before.
CREATE TABLE webhook_secret (
    tenant_id  BLOB    NOT NULL REFERENCES tenant (id),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    secret     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    -- NULL until the next one is made.
    expires_at INTEGER,
    PRIMARY KEY (tenant_id, id)
) STRICT;

-- Endpoints that answered 410 Gone: nothing is sent there until the settings are put anew.
CREATE TABLE webhook_gone (
    tenant_id BLOB    NOT NULL REFERENCES tenant (id),
    url       TEXT    NOT NULL,
    since     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, url)
) STRICT;

-- What happened. Ids are UUIDv7, so their order is the order of events.
CREATE TABLE outbox_event (
    tenant_id   BLOB    NOT NULL REFERENCES tenant (id),
    id          BLOB    NOT NULL CHECK (length(id) = 16),
    -- quota.warning, tenant.plan_changed, …
    kind        TEXT    NOT NULL,
    -- Names what may happen only once; NULL for what may happen again.
    once        TEXT,
    -- A JSON object.
    payload     TEXT    NOT NULL,
    occurred_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, once)
) STRICT;

-- Who is told of it, and how that goes.
CREATE TABLE outbox_delivery (
    tenant_id       BLOB    NOT NULL,
    event_id        BLOB    NOT NULL,
    channel         TEXT    NOT NULL CHECK (channel IN ('email', 'webhook')),
    -- An address or a URL; empty where the settings name none.
    target          TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    -- When a pending one is due. While an attempt runs: when it counts as lost.
    next_attempt_at INTEGER,
    -- The attempt that runs; only its own outcome is taken.
    lease           BLOB    CHECK (length(lease) = 16),
    last_error      TEXT,
    created_at      INTEGER NOT NULL,
    settled_at      INTEGER,
    PRIMARY KEY (tenant_id, event_id, channel, target),
    FOREIGN KEY (tenant_id, event_id) REFERENCES outbox_event (tenant_id, id),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL))
) STRICT;

-- Scanned whole for what is due: it holds only what is not settled yet.
CREATE INDEX outbox_delivery_pending ON outbox_delivery (tenant_id, next_attempt_at)
    WHERE state = 'pending';
