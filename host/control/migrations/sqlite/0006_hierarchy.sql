-- Families, and what they are billed; the same tables and columns as on PostgreSQL.
--
-- A closure row says that `ancestor` stands `depth` levels above the tenant, 0 being the
-- tenant itself.

CREATE TABLE tenant_closure (
    tenant_id BLOB    NOT NULL REFERENCES tenant (id),
    ancestor  BLOB    NOT NULL,
    depth     INTEGER NOT NULL CHECK (depth BETWEEN 0 AND 7),
    PRIMARY KEY (tenant_id, ancestor)
) STRICT;

CREATE INDEX tenant_closure_by_ancestor ON tenant_closure (ancestor, depth, tenant_id);

-- Whose child a tenant became when: an invoice goes by the family at the end of its month.
CREATE TABLE tenant_parent (
    tenant_id BLOB    NOT NULL REFERENCES tenant (id),
    since     INTEGER NOT NULL,
    parent    BLOB,
    PRIMARY KEY (tenant_id, since)
) STRICT;

CREATE INDEX tenant_parent_by_parent ON tenant_parent (parent, since);

-- Under which plan and in which status a tenant was when.
CREATE TABLE tenant_terms (
    tenant_id BLOB    NOT NULL REFERENCES tenant (id),
    since     INTEGER NOT NULL,
    plan      TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, since)
) STRICT;

-- How the bills of a parent and its subtree are made out, from an instant on.
CREATE TABLE billing_consolidation (
    tenant_id      BLOB    NOT NULL REFERENCES tenant (id),
    effective_from INTEGER NOT NULL,
    -- JSON, with shares in basis points.
    document       TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, effective_from)
) STRICT;

-- Issued invoices: never changed.
CREATE TABLE invoice (
    tenant_id BLOB    NOT NULL REFERENCES tenant (id),
    period    TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    -- JSON, as computed when it was issued.
    document  TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, period)
) STRICT;

CREATE TRIGGER invoice_is_not_changed BEFORE UPDATE ON invoice
BEGIN SELECT RAISE(ABORT, 'an issued invoice is never changed'); END;
CREATE TRIGGER invoice_is_not_deleted BEFORE DELETE ON invoice
BEGIN SELECT RAISE(ABORT, 'an issued invoice is never deleted'); END;

-- One row: the last invoice's number. Taken with the invoice, so there is no gap.
CREATE TABLE invoice_head (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last_number INTEGER NOT NULL
) STRICT;

INSERT INTO invoice_head (one, last_number) VALUES (1, 0);

-- Families as they are; their history begins with the creation of their members.
WITH RECURSIVE line (tenant_id, ancestor, depth) AS (
    SELECT id, id, 0 FROM tenant
    UNION ALL
    SELECT line.tenant_id, tenant.parent, line.depth + 1
    FROM line JOIN tenant ON tenant.id = line.ancestor
    WHERE tenant.parent IS NOT NULL
)
INSERT INTO tenant_closure SELECT tenant_id, ancestor, depth FROM line;
INSERT INTO tenant_parent SELECT id, created_at, parent FROM tenant;
INSERT INTO tenant_terms SELECT id, created_at, plan, status FROM tenant;
