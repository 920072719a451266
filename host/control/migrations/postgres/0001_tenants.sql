-- Tenants and what belongs to them; the same tables and columns as on SQLite. Run by
-- schema_owner, in schema edge. Instants are milliseconds since 1970, UTC.
--
-- Rules that the linter (store/lint.rs) holds every later migration to:
-- * a table with tenant_id has row-level security, enabled and forced, and the policy
--   one_tenant for application_user, who sees and writes only the tenant of the context;
-- * cross-tenant work is control_plane's, by policies of its own;
-- * every key, index and foreign key starts with tenant_id, so that no error of one tenant
--   tells of another; the exceptions are the directory's slugs and hosts;
-- * keys are uuid, bigint or text, whose operators are leakproof: never enum, numeric, jsonb;
-- * nobody else has a right, and application_user never TRUNCATE, which knows no policies.

GRANT USAGE ON SCHEMA edge TO application_user, control_plane;

-- The directory: a row a tenant, which knows all tenants by control_plane only.
CREATE TABLE tenant (
    id                uuid   NOT NULL PRIMARY KEY,
    -- Unique for ever: an erased tenant keeps its row.
    slug              text   NOT NULL UNIQUE,
    organization_name text   NOT NULL,
    display_name      text   NOT NULL,
    admin_email       text   NOT NULL,
    plan              text   NOT NULL,
    data_residency    text   NOT NULL,
    parent            uuid   REFERENCES tenant (id),
    status            text   NOT NULL CHECK (status IN
        ('provisioning', 'trial', 'active', 'past_due', 'suspended', 'erasing', 'erased')),
    suspend_reason    text   CHECK (suspend_reason IN
        ('trial_expired', 'unpaid', 'abuse', 'operator')),
    trial_ends_at     bigint,
    grace_ends_at     bigint,
    -- JSON objects: quota name to number, attribute name to text.
    quota_overrides   text   NOT NULL DEFAULT '{}',
    attributes        text   NOT NULL DEFAULT '{}',
    created_at        bigint NOT NULL,
    version           bigint NOT NULL,
    -- The change of the directory in which it, its keys or its secrets last changed.
    revision          bigint NOT NULL DEFAULT 1,
    CHECK ((status = 'suspended') = (suspend_reason IS NOT NULL))
);

CREATE INDEX tenant_by_parent ON tenant (parent);
CREATE INDEX tenant_by_revision ON tenant (revision);

ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON tenant TO application_user
    USING (id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant TO control_plane USING (true) WITH CHECK (true);

-- Identity, slug and place in the family are not a tenant's own to change.
GRANT SELECT, UPDATE (organization_name, display_name, admin_email, plan, status,
    suspend_reason, trial_ends_at, grace_ends_at, quota_overrides, attributes, version,
    revision) ON tenant TO application_user;
GRANT SELECT, INSERT, UPDATE (revision) ON tenant TO control_plane;

-- Exact hosts beside <slug>.<base domain>; unique over all tenants.
CREATE TABLE tenant_domain (
    tenant_id uuid NOT NULL REFERENCES tenant (id),
    domain    text NOT NULL UNIQUE,
    PRIMARY KEY (tenant_id, domain)
);

ALTER TABLE tenant_domain ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_domain FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON tenant_domain TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant_domain FOR SELECT TO control_plane USING (true);

GRANT SELECT, INSERT, DELETE ON tenant_domain TO application_user;
GRANT SELECT ON tenant_domain TO control_plane;

-- Write-only values that policy configs refer to by name.
CREATE TABLE tenant_secret (
    tenant_id uuid NOT NULL REFERENCES tenant (id),
    name      text NOT NULL,
    value     text NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

ALTER TABLE tenant_secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_secret FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON tenant_secret TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant_secret FOR SELECT TO control_plane USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_secret TO application_user;
GRANT SELECT ON tenant_secret TO control_plane;

-- Levels that are reported, not metered at the edge: users, projects, storage (MiB),
-- concurrent_sessions. A missing row is 0.
CREATE TABLE tenant_gauge (
    tenant_id  uuid   NOT NULL REFERENCES tenant (id),
    metric     text   NOT NULL,
    value      bigint NOT NULL CHECK (value >= 0),
    updated_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, metric)
);

ALTER TABLE tenant_gauge ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_gauge FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON tenant_gauge TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant_gauge FOR SELECT TO control_plane USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_gauge TO application_user;
GRANT SELECT ON tenant_gauge TO control_plane;

-- Data-plane keys; the secret is stored as its SHA-256 only.
CREATE TABLE api_key (
    tenant_id  uuid   NOT NULL REFERENCES tenant (id),
    id         text   NOT NULL,
    hash       bytea  NOT NULL CHECK (length(hash) = 32),
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    PRIMARY KEY (tenant_id, id)
);

ALTER TABLE api_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON api_key TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON api_key FOR SELECT TO control_plane USING (true);

GRANT SELECT, INSERT, UPDATE (revoked_at) ON api_key TO application_user;
GRANT SELECT ON api_key TO control_plane;

-- What belongs to the platform, not to a tenant: application_user has no right here.

-- The operator's tokens for the control API, as SHA-256. `first` is the one of the
-- configuration, or the one minted at the first start.
CREATE TABLE admin_token (
    name       text   NOT NULL PRIMARY KEY,
    hash       bytea  NOT NULL CHECK (length(hash) = 32),
    created_at bigint NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON admin_token TO control_plane;

-- Answers of the operator's requests that carried an Idempotency-Key, stored with what
-- they changed. Found by the key, before it is known which tenant they are about.
CREATE TABLE idempotency (
    scope       text   NOT NULL,
    key         text   NOT NULL,
    fingerprint bytea  NOT NULL CHECK (length(fingerprint) = 32),
    tenant_id   uuid   NOT NULL REFERENCES tenant (id),
    answer      bytea  NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE INDEX idempotency_by_tenant ON idempotency (tenant_id);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON idempotency TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE ON idempotency TO control_plane;

-- One row: the number of the last change of the directory. Every change takes the next,
-- one change at a time, so numbers become visible in their order and without gaps.
CREATE TABLE directory_head (
    one      bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    revision bigint NOT NULL
);

INSERT INTO directory_head (one, revision) VALUES (1, 1);

GRANT SELECT, UPDATE (revision) ON directory_head TO application_user, control_plane;
