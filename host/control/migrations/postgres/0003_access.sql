-- Who did what, and who may: the audit chains and the tokens of the control API.

-- One chain per tenant, and the platform's under the nil UUID. No foreign key: a chain
-- outlives its tenant. Nobody may change or remove an entry.
CREATE TABLE audit_entry (
    tenant_id     uuid   NOT NULL,
    seq           bigint NOT NULL CHECK (seq > 0),
    at            bigint NOT NULL,
    actor         text   NOT NULL,
    action        text   NOT NULL,
    target        text   NOT NULL,
    before_digest text,
    after_digest  text,
    detail        text   NOT NULL,
    previous      text   NOT NULL,
    hash          text   NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);

ALTER TABLE audit_entry ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON audit_entry TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON audit_entry TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON audit_entry TO application_user, control_plane;

-- Tokens of the control API. Found by the id before it is known whose they are, so
-- control_plane's alone; application_user has no right here.
CREATE TABLE access_token (
    id           text   NOT NULL PRIMARY KEY,
    -- NULL for the operator's own.
    tenant_id    uuid   REFERENCES tenant (id),
    role         text   NOT NULL CHECK (role IN
        ('admin', 'parent-admin', 'tenant-admin', 'service')),
    -- JSON list of scopes; empty means all of the role's.
    scopes       text   NOT NULL,
    name         text   NOT NULL,
    hash         bytea  NOT NULL CHECK (length(hash) = 32),
    created_at   bigint NOT NULL,
    expires_at   bigint,
    revoked_at   bigint,
    last_used_at bigint,
    -- The token that it replaced.
    rotated_from text,
    CHECK ((role = 'admin') = (tenant_id IS NULL))
);

CREATE INDEX access_token_by_tenant ON access_token (tenant_id, id);

ALTER TABLE access_token ENABLE ROW LEVEL SECURITY;
ALTER TABLE access_token FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON access_token TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE, UPDATE (expires_at, revoked_at, last_used_at) ON access_token
    TO control_plane;
