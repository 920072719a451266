-- What applications keep for a tenant: the guide's users, projects and files are its kinds.
-- The same columns as on PostgreSQL, which partitions it; here it is a plain table.
CREATE TABLE tenant_data (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    kind       TEXT    NOT NULL,
    -- JSON.
    data       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id, created_at)
) STRICT, WITHOUT ROWID;

CREATE INDEX tenant_data_by_time ON tenant_data (tenant_id, created_at, id);
-- For retention, which knows no tenant.
CREATE INDEX tenant_data_by_age ON tenant_data (created_at);
