-- Sealed secrets, signed heads of the audit chains, and answers to repeated requests; the
-- same tables and columns as on SQLite.

-- The key that the value is sealed under; NULL: as it was written by an earlier release,
-- which the next start seals.
ALTER TABLE tenant_secret ADD COLUMN key_id text;
ALTER TABLE webhook_secret ADD COLUMN key_id text;

GRANT UPDATE (secret, key_id) ON webhook_secret TO application_user;

-- The keys that anything may be sealed under: by id, never by value.
CREATE TABLE seal_key (
    id         text   NOT NULL PRIMARY KEY,
    created_at bigint NOT NULL
);

GRANT SELECT, INSERT ON seal_key TO control_plane;

-- What a chain ended in when it was signed: at most one a day (UTC), and only when there
-- was something new. No foreign key: a chain outlives its tenant.
CREATE TABLE audit_head (
    tenant_id  uuid   NOT NULL,
    -- Days since 1970-01-01.
    day        bigint NOT NULL CHECK (day >= 0),
    seq        bigint NOT NULL CHECK (seq > 0),
    hash       text   NOT NULL,
    at         bigint NOT NULL,
    -- Ed25519, base64.
    public_key text   NOT NULL,
    signature  text   NOT NULL,
    PRIMARY KEY (tenant_id, day)
);

ALTER TABLE audit_head ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_head FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON audit_head TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON audit_head TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT ON audit_head TO application_user;
GRANT SELECT, INSERT ON audit_head TO control_plane;

-- Requests that carried an Idempotency-Key and took effect. The row is written with the
-- effect, the answer after it. A key belongs to a caller, and to the tenant that the
-- request's path names: the nil UUID where it names none. No foreign key for the same reason.
DROP TABLE idempotency;

CREATE TABLE idempotent_request (
    tenant_id   uuid   NOT NULL,
    caller      text   NOT NULL,
    key         text   NOT NULL,
    -- SHA-256 of method, path and body.
    fingerprint bytea  NOT NULL CHECK (length(fingerprint) = 32),
    -- Which of the requests with the key took effect.
    attempt     uuid   NOT NULL,
    -- Sealed; NULL until it is given.
    answer      bytea,
    created_at  bigint NOT NULL,
    PRIMARY KEY (tenant_id, caller, key)
);

ALTER TABLE idempotent_request ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotent_request FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON idempotent_request TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON idempotent_request TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON idempotent_request TO application_user;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotent_request TO control_plane;
