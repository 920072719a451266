-- Tenants and what belongs to them. Ids are UUIDv7 in 16 bytes, so their order is the
-- order of creation; instants are milliseconds since 1970, UTC. Shapes and statements keep
-- to what PostgreSQL has too: every key but a slug's and a domain's starts with the tenant.

CREATE TABLE tenant (
    id                BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- Unique for ever: an erased tenant keeps its row.
    slug              TEXT    NOT NULL UNIQUE,
    organization_name TEXT    NOT NULL,
    display_name      TEXT    NOT NULL,
    admin_email       TEXT    NOT NULL,
    plan              TEXT    NOT NULL,
    data_residency    TEXT    NOT NULL,
    parent            BLOB    REFERENCES tenant (id),
    status            TEXT    NOT NULL CHECK (status IN
        ('provisioning', 'trial', 'active', 'past_due', 'suspended', 'erasing', 'erased')),
    suspend_reason    TEXT    CHECK (suspend_reason IN
        ('trial_expired', 'unpaid', 'abuse', 'operator')),
    trial_ends_at     INTEGER,
    grace_ends_at     INTEGER,
    -- JSON objects: quota name to number, attribute name to text.
    quota_overrides   TEXT    NOT NULL DEFAULT '{}',
    attributes        TEXT    NOT NULL DEFAULT '{}',
    created_at        INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    CHECK ((status = 'suspended') = (suspend_reason IS NOT NULL))
) STRICT;

CREATE INDEX tenant_by_parent ON tenant (parent);

-- Exact hosts beside <slug>.<base domain>; unique over all tenants.
CREATE TABLE tenant_domain (
    domain TEXT NOT NULL PRIMARY KEY,
    tenant BLOB NOT NULL REFERENCES tenant (id)
) STRICT;

CREATE INDEX tenant_domain_by_tenant ON tenant_domain (tenant, domain);

-- Write-only values that policy configs refer to by name.
CREATE TABLE tenant_secret (
    tenant BLOB NOT NULL REFERENCES tenant (id),
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

-- Levels that are reported, not metered at the edge: users, projects, storage (MiB),
-- concurrent_sessions. A missing row is 0.
CREATE TABLE tenant_gauge (
    tenant     BLOB    NOT NULL REFERENCES tenant (id),
    metric     TEXT    NOT NULL,
    value      INTEGER NOT NULL CHECK (value >= 0),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, metric)
) STRICT;

-- Data-plane keys; the secret is stored as its SHA-256 only.
CREATE TABLE api_key (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     BLOB    NOT NULL REFERENCES tenant (id),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

CREATE INDEX api_key_by_tenant ON api_key (tenant, id);

-- The operator's tokens for the control API, as SHA-256. `first` is the one of the
-- configuration, or the one minted at the first start.
CREATE TABLE admin_token (
    name       TEXT    NOT NULL PRIMARY KEY,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL
) STRICT;

-- Answers of requests that carried an Idempotency-Key, stored with what they changed.
CREATE TABLE idempotency (
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    tenant      BLOB    NOT NULL REFERENCES tenant (id),
    answer      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;

CREATE INDEX idempotency_by_age ON idempotency (created_at);
