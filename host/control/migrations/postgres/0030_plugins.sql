-- Plugins that tenants and the operator upload. The operator's own, for a plan or for the
-- whole platform, stand under the nil UUID, which no tenant has.

CREATE TABLE plugin (
    tenant_id  uuid NOT NULL,
    -- Of the operator's: the plan, or nothing for the platform.
    plan       text NOT NULL,
    name       text NOT NULL,
    -- 0 is the kill switch.
    enabled    bigint NOT NULL CHECK (enabled IN (0, 1)),
    -- JSON: order, on_failure, config.
    settings   text NOT NULL,
    -- Of the settings and the switch, for ETags.
    version    bigint NOT NULL,
    -- The change of the directory that it was last part of.
    revision   bigint NOT NULL,
    created_at bigint NOT NULL,
    -- Removed; the row stays, so that its numbers are never given again.
    removed_at bigint,
    -- Number of the newest version that it ever had.
    newest     bigint NOT NULL,
    PRIMARY KEY (tenant_id, plan, name)
);

-- Never changed but for where it stands.
CREATE TABLE plugin_version (
    tenant_id    uuid NOT NULL,
    plan         text NOT NULL,
    plugin       text NOT NULL,
    number       bigint NOT NULL CHECK (number > 0),
    -- SHA-256 of the component.
    component    bytea NOT NULL CHECK (length(component) = 32),
    size         bigint NOT NULL,
    manifest     text NOT NULL,
    state        text NOT NULL CHECK (state IN
        ('draft', 'shadow', 'canary', 'active', 'retired', 'rolled-back')),
    -- JSON list of the hooks that it exports.
    hooks        text NOT NULL,
    memory_bytes bigint NOT NULL,
    -- JSON list of lines: how its probe went.
    log          text NOT NULL,
    created_at   bigint NOT NULL,
    created_by   text NOT NULL,
    PRIMARY KEY (tenant_id, plan, plugin, number)
);

-- Components by what they are; one tenant's are not shared with another.
CREATE TABLE plugin_artifact (
    tenant_id uuid NOT NULL,
    component bytea NOT NULL CHECK (length(component) = 32),
    bytes     bytea NOT NULL,
    PRIMARY KEY (tenant_id, component)
);

-- Which version decided since when, and who said so.
CREATE TABLE plugin_activation (
    tenant_id   uuid NOT NULL,
    plan        text NOT NULL,
    plugin      text NOT NULL,
    seq         bigint NOT NULL,
    at          bigint NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL CHECK (action IN
        ('activate', 'rollback', 'enable', 'disable', 'remove')),
    from_number bigint,
    to_number   bigint,
    PRIMARY KEY (tenant_id, plan, plugin, seq)
);

-- The last change of the directory that a plugin was part of.
ALTER TABLE directory_head ADD COLUMN plugins bigint NOT NULL DEFAULT 0;
GRANT UPDATE (plugins) ON directory_head TO application_user, control_plane;

ALTER TABLE plugin ENABLE ROW LEVEL SECURITY;
ALTER TABLE plugin FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON plugin TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON plugin TO control_plane USING (true) WITH CHECK (true);

ALTER TABLE plugin_version ENABLE ROW LEVEL SECURITY;
ALTER TABLE plugin_version FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON plugin_version TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON plugin_version TO control_plane USING (true) WITH CHECK (true);

ALTER TABLE plugin_artifact ENABLE ROW LEVEL SECURITY;
ALTER TABLE plugin_artifact FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON plugin_artifact TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON plugin_artifact TO control_plane USING (true) WITH CHECK (true);

ALTER TABLE plugin_activation ENABLE ROW LEVEL SECURITY;
ALTER TABLE plugin_activation FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON plugin_activation TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON plugin_activation TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (enabled, settings, version, revision, created_at, removed_at, newest)
    ON plugin TO application_user;
GRANT SELECT, INSERT, UPDATE (state), DELETE ON plugin_version TO application_user;
GRANT SELECT, INSERT, DELETE ON plugin_artifact TO application_user;
GRANT SELECT, INSERT ON plugin_activation TO application_user;
-- The directory is read across tenants.
GRANT SELECT ON plugin, plugin_version TO control_plane;
