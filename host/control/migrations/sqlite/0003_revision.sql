-- Names and shapes that the statements share with PostgreSQL: whose a row is, is told by
-- tenant_id; a revision says in which change of the whole directory a tenant, its keys or
-- its secrets last changed, so that a reader asks for what is newer than it knows.

ALTER TABLE tenant_domain RENAME COLUMN tenant TO tenant_id;
ALTER TABLE tenant_secret RENAME COLUMN tenant TO tenant_id;
ALTER TABLE tenant_gauge RENAME COLUMN tenant TO tenant_id;
ALTER TABLE api_key RENAME COLUMN tenant TO tenant_id;
ALTER TABLE idempotency RENAME COLUMN tenant TO tenant_id;

ALTER TABLE tenant ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;

CREATE INDEX tenant_by_revision ON tenant (revision);

-- One row: the number of the last change.
CREATE TABLE directory_head (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO directory_head (one, revision) VALUES (1, 1);
