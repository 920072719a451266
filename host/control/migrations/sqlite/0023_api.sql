-- Sealed secrets, signed heads of the audit chains, and answers to repeated requests; the
-- same tables and columns as on PostgreSQL.

-- The key that the value is sealed under; NULL: as it was written by an earlier release,
-- which the next start seals.
ALTER TABLE tenant_secret ADD COLUMN key_id TEXT;
ALTER TABLE webhook_secret ADD COLUMN key_id TEXT;

-- The keys that anything may be sealed under: by id, never by value.
CREATE TABLE seal_key (
    id         TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

-- What a chain ended in when it was signed: at most one a day (UTC), and only when there
-- was something new. No foreign key: a chain outlives its tenant.
CREATE TABLE audit_head (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    -- Days since 1970-01-01.
    day        INTEGER NOT NULL CHECK (day >= 0),
    seq        INTEGER NOT NULL CHECK (seq > 0),
    hash       TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    -- Ed25519, base64.
    public_key TEXT    NOT NULL,
    signature  TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, day)
) STRICT;

CREATE TRIGGER audit_head_is_final BEFORE UPDATE ON audit_head
BEGIN SELECT RAISE(ABORT, 'a signed head is final'); END;
CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'a signed head stays'); END;

-- Requests that carried an Idempotency-Key and took effect. The row is written with the
-- effect, the answer after it. A key belongs to a caller, and to the tenant that the
-- request's path names: the nil UUID where it names none. No foreign key for the same reason.
DROP TABLE idempotency;

CREATE TABLE idempotent_request (
    tenant_id   BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    caller      TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    -- SHA-256 of method, path and body.
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    -- Which of the requests with the key took effect.
    attempt     BLOB    NOT NULL CHECK (length(attempt) = 16),
    -- Sealed; NULL until it is given.
    answer      BLOB,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, caller, key)
) STRICT;
