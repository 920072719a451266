-- Who did what, and who may: the audit chains and the tokens of the control API.

-- One chain per tenant, and the platform's under the nil UUID. No foreign key: a chain
-- outlives its tenant. Entries are only ever added.
CREATE TABLE audit_entry (
    tenant_id     BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    seq           INTEGER NOT NULL CHECK (seq > 0),
    at            INTEGER NOT NULL,
    actor         TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    target        TEXT    NOT NULL,
    before_digest TEXT,
    after_digest  TEXT,
    detail        TEXT    NOT NULL,
    previous      TEXT    NOT NULL,
    hash          TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, seq)
) STRICT;

CREATE TRIGGER audit_entry_is_final BEFORE UPDATE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'an audit entry is final'); END;
CREATE TRIGGER audit_entry_stays BEFORE DELETE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'an audit entry stays'); END;

-- Tokens of the control API, found by the id before it is known whose they are.
CREATE TABLE access_token (
    id           TEXT    NOT NULL PRIMARY KEY,
    -- NULL for the operator's own.
    tenant_id    BLOB    REFERENCES tenant (id),
    role         TEXT    NOT NULL CHECK (role IN
        ('admin', 'parent-admin', 'tenant-admin', 'service')),
    -- JSON list of scopes; empty means all of the role's.
    scopes       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER,
    -- The token that it replaced.
    rotated_from TEXT,
    CHECK ((role = 'admin') = (tenant_id IS NULL))
) STRICT;

CREATE INDEX access_token_by_tenant ON access_token (tenant_id, id);
