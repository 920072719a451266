-- Plugins that tenants and the operator upload. The operator's own, for a plan or for the
-- whole platform, stand under the nil UUID, which no tenant has.

CREATE TABLE plugin (
    tenant_id  BLOB NOT NULL CHECK (length(tenant_id) = 16),
    -- Of the operator's: the plan, or nothing for the platform.
    plan       TEXT NOT NULL,
    name       TEXT NOT NULL,
    -- 0 is the kill switch.
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- JSON: order, on_failure, config.
    settings   TEXT NOT NULL,
    -- Of the settings and the switch, for ETags.
    version    INTEGER NOT NULL,
    -- The change of the directory that it was last part of.
    revision   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Removed; the row stays, so that its numbers are never given again.
    removed_at INTEGER,
    -- Number of the newest version that it ever had.
    newest     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, plan, name)
) STRICT, WITHOUT ROWID;

-- Never changed but for where it stands.
CREATE TABLE plugin_version (
    tenant_id    BLOB NOT NULL CHECK (length(tenant_id) = 16),
    plan         TEXT NOT NULL,
    plugin       TEXT NOT NULL,
    number       INTEGER NOT NULL CHECK (number > 0),
    -- SHA-256 of the component.
    component    BLOB NOT NULL CHECK (length(component) = 32),
    size         INTEGER NOT NULL,
    manifest     TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN
        ('draft', 'shadow', 'canary', 'active', 'retired', 'rolled-back')),
    -- JSON list of the hooks that it exports.
    hooks        TEXT NOT NULL,
    memory_bytes INTEGER NOT NULL,
    -- JSON list of lines: how its probe went.
    log          TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    PRIMARY KEY (tenant_id, plan, plugin, number)
) STRICT, WITHOUT ROWID;

-- Components by what they are; one tenant's are not shared with another.
CREATE TABLE plugin_artifact (
    tenant_id BLOB NOT NULL CHECK (length(tenant_id) = 16),
    component BLOB NOT NULL CHECK (length(component) = 32),
    bytes     BLOB NOT NULL,
    PRIMARY KEY (tenant_id, component)
) STRICT;

-- Which version decided since when, and who said so.
CREATE TABLE plugin_activation (
    tenant_id   BLOB NOT NULL CHECK (length(tenant_id) = 16),
    plan        TEXT NOT NULL,
    plugin      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL CHECK (action IN
        ('activate', 'rollback', 'enable', 'disable', 'remove')),
    from_number INTEGER,
    to_number   INTEGER,
    PRIMARY KEY (tenant_id, plan, plugin, seq)
) STRICT, WITHOUT ROWID;

-- The last change of the directory that a plugin was part of.
ALTER TABLE directory_head ADD COLUMN plugins INTEGER NOT NULL DEFAULT 0;
