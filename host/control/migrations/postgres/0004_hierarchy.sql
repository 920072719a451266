-- Families, and what they are billed; the same tables and columns as on SQLite.
--
-- A closure row says that `ancestor` stands `depth` levels above the tenant, 0 being the
-- tenant itself. The rows of a family concern several tenants, so all of it is
-- control_plane's, but for the terms that a tenant's own transactions change.

CREATE TABLE tenant_closure (
    tenant_id uuid   NOT NULL REFERENCES tenant (id),
    ancestor  uuid   NOT NULL,
    depth     bigint NOT NULL CHECK (depth BETWEEN 0 AND 7),
    PRIMARY KEY (tenant_id, ancestor)
);

CREATE INDEX tenant_closure_by_ancestor ON tenant_closure (ancestor, depth, tenant_id);

-- Whose child a tenant became when: an invoice goes by the family at the end of its month.
CREATE TABLE tenant_parent (
    tenant_id uuid   NOT NULL REFERENCES tenant (id),
    since     bigint NOT NULL,
    parent    uuid,
    PRIMARY KEY (tenant_id, since)
);

CREATE INDEX tenant_parent_by_parent ON tenant_parent (parent, since);

-- Under which plan and in which status a tenant was when.
CREATE TABLE tenant_terms (
    tenant_id uuid   NOT NULL REFERENCES tenant (id),
    since     bigint NOT NULL,
    plan      text   NOT NULL,
    status    text   NOT NULL,
    PRIMARY KEY (tenant_id, since)
);

-- How the bills of a parent and its subtree are made out, from an instant on.
CREATE TABLE billing_consolidation (
    tenant_id      uuid   NOT NULL REFERENCES tenant (id),
    effective_from bigint NOT NULL,
    -- JSON, with shares in basis points.
    document       text   NOT NULL,
    PRIMARY KEY (tenant_id, effective_from)
);

-- Issued invoices: never changed, so nobody has the right to.
CREATE TABLE invoice (
    tenant_id uuid   NOT NULL REFERENCES tenant (id),
    period    text   NOT NULL,
    number    bigint NOT NULL,
    issued_at bigint NOT NULL,
    -- JSON, as computed when it was issued.
    document  text   NOT NULL,
    PRIMARY KEY (tenant_id, period)
);

-- One row: the last invoice's number. Taken with the invoice, so there is no gap.
CREATE TABLE invoice_head (
    one         bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    last_number bigint NOT NULL
);

INSERT INTO invoice_head (one, last_number) VALUES (1, 0);

-- Families as they are; their history begins with the creation of their members. The owner
-- is not above the policies of `tenant`, and has none.
ALTER TABLE tenant NO FORCE ROW LEVEL SECURITY;

WITH RECURSIVE line (tenant_id, ancestor, depth) AS (
    SELECT id, id, 0::bigint FROM tenant
    UNION ALL
    SELECT line.tenant_id, tenant.parent, line.depth + 1
    FROM line JOIN tenant ON tenant.id = line.ancestor
    WHERE tenant.parent IS NOT NULL
)
INSERT INTO tenant_closure SELECT tenant_id, ancestor, depth FROM line;
INSERT INTO tenant_parent SELECT id, created_at, parent FROM tenant;
INSERT INTO tenant_terms SELECT id, created_at, plan, status FROM tenant;

ALTER TABLE tenant FORCE ROW LEVEL SECURITY;

ALTER TABLE tenant_closure ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_closure FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_parent ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_parent FORCE ROW LEVEL SECURITY;
ALTER TABLE tenant_terms ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_terms FORCE ROW LEVEL SECURITY;
ALTER TABLE billing_consolidation ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_consolidation FORCE ROW LEVEL SECURITY;
ALTER TABLE invoice ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoice FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON tenant_closure TO control_plane USING (true) WITH CHECK (true);
CREATE POLICY all_tenants ON tenant_parent TO control_plane USING (true) WITH CHECK (true);
CREATE POLICY one_tenant ON tenant_terms TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON tenant_terms TO control_plane USING (true) WITH CHECK (true);
CREATE POLICY all_tenants ON billing_consolidation TO control_plane
    USING (true) WITH CHECK (true);
CREATE POLICY all_tenants ON invoice TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE ON tenant_closure TO control_plane;
GRANT SELECT, INSERT, UPDATE (parent) ON tenant_parent TO control_plane;
GRANT SELECT, INSERT, UPDATE (plan, status) ON tenant_terms TO application_user, control_plane;
GRANT SELECT, INSERT, UPDATE (document) ON billing_consolidation TO control_plane;
GRANT SELECT, INSERT ON invoice TO control_plane;
GRANT SELECT, UPDATE (last_number) ON invoice_head TO control_plane;

-- A move changes the place in the family, which is not a tenant's own to change.
GRANT UPDATE (parent, version) ON tenant TO control_plane;
