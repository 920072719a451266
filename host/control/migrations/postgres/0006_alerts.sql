-- Alerts of a tenant, and the outbox: what happened to it and who is told; the same tables
-- and columns as on SQLite. An event is inserted in the transaction of what it tells of,
-- with a delivery for everyone it goes to; workers of any process then take deliveries.

-- What a tenant wants to be told, as its JSON document. No row: nothing.
CREATE TABLE alert_settings (
    tenant_id  uuid   NOT NULL PRIMARY KEY REFERENCES tenant (id),
    document   text   NOT NULL,
    -- Whether it watches any metric.
    watches    bigint NOT NULL CHECK (watches IN (0, 1)),
    version    bigint NOT NULL,
    updated_at bigint NOT NULL
);

ALTER TABLE alert_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE alert_settings FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON alert_settings TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON alert_settings TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON alert_settings TO application_user;
-- The right to update is the right to lock: whoever evaluates a tenant holds its row.
GRANT SELECT, UPDATE (updated_at) ON alert_settings TO control_plane;

-- How far a metric of a tenant was alerted about. Written by the evaluation only.
CREATE TABLE alert_state (
    tenant_id      uuid   NOT NULL REFERENCES tenant (id),
    metric         text   NOT NULL,
    -- Of the quota's window; 0 for a level.
    window_start   bigint NOT NULL,
    limit_value    bigint NOT NULL CHECK (limit_value >= 0),
    -- Rises whenever another limit comes into force, which re-arms both thresholds.
    limit_version  bigint NOT NULL,
    limit_since    bigint NOT NULL,
    -- Whether the threshold was reached and its event inserted, and how often a level has
    -- fallen far enough below it since to be alerted about again.
    warning_fired  bigint NOT NULL CHECK (warning_fired IN (0, 1)),
    warning_round  bigint NOT NULL,
    critical_fired bigint NOT NULL CHECK (critical_fired IN (0, 1)),
    critical_round bigint NOT NULL,
    PRIMARY KEY (tenant_id, metric)
);

ALTER TABLE alert_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE alert_state FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON alert_state TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON alert_state TO control_plane;

-- What webhooks of a tenant are signed with: the newest, and for a while the one before.
CREATE TABLE webhook_secret (
    tenant_id  uuid   NOT NULL REFERENCES tenant (id),
    id         uuid   NOT NULL,
    secret     text   NOT NULL,
    created_at bigint NOT NULL,
    -- NULL until the next one is made.
    expires_at bigint,
    PRIMARY KEY (tenant_id, id)
);

ALTER TABLE webhook_secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_secret FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON webhook_secret TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON webhook_secret FOR SELECT TO control_plane USING (true);

GRANT SELECT, INSERT, UPDATE (expires_at), DELETE ON webhook_secret TO application_user;
GRANT SELECT ON webhook_secret TO control_plane;

-- Endpoints that answered 410 Gone: nothing is sent there until the settings are put anew.
CREATE TABLE webhook_gone (
    tenant_id uuid   NOT NULL REFERENCES tenant (id),
    url       text   NOT NULL,
    since     bigint NOT NULL,
    PRIMARY KEY (tenant_id, url)
);

ALTER TABLE webhook_gone ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_gone FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON webhook_gone TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON webhook_gone TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, DELETE ON webhook_gone TO application_user;
GRANT SELECT, INSERT ON webhook_gone TO control_plane;

-- What happened. Ids are UUIDv7, so their order is the order of events.
CREATE TABLE outbox_event (
    tenant_id   uuid   NOT NULL REFERENCES tenant (id),
    id          uuid   NOT NULL,
    -- quota.warning, tenant.plan_changed, …
    kind        text   NOT NULL,
    -- Names what may happen only once; NULL for what may happen again.
    once        text,
    -- A JSON object.
    payload     text   NOT NULL,
    occurred_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, once)
);

ALTER TABLE outbox_event ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox_event FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON outbox_event TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON outbox_event TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON outbox_event TO application_user;
GRANT SELECT, INSERT, DELETE ON outbox_event TO control_plane;

-- Who is told of it, and how that goes.
CREATE TABLE outbox_delivery (
    tenant_id       uuid   NOT NULL,
    event_id        uuid   NOT NULL,
    channel         text   NOT NULL CHECK (channel IN ('email', 'webhook')),
    -- An address or a URL; empty where the settings name none.
    target          text   NOT NULL,
    state           text   NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        bigint NOT NULL CHECK (attempts >= 0),
    -- When a pending one is due. While an attempt runs: when it counts as lost.
    next_attempt_at bigint,
    -- The attempt that runs; only its own outcome is taken.
    lease           uuid,
    last_error      text,
    created_at      bigint NOT NULL,
    settled_at      bigint,
    PRIMARY KEY (tenant_id, event_id, channel, target),
    FOREIGN KEY (tenant_id, event_id) REFERENCES outbox_event (tenant_id, id),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL))
);

-- Scanned whole for what is due: it holds only what is not settled yet.
CREATE INDEX outbox_delivery_pending ON outbox_delivery (tenant_id, next_attempt_at)
    WHERE state = 'pending';

ALTER TABLE outbox_delivery ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox_delivery FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON outbox_delivery TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON outbox_delivery TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON outbox_delivery TO application_user;
GRANT SELECT, INSERT, UPDATE (state, attempts, next_attempt_at, lease, last_error, settled_at),
    DELETE ON outbox_delivery TO control_plane;
