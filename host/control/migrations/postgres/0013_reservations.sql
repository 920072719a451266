-- Room that is set aside for requests under way: bytes of uploads, users, projects; the same
-- tables and columns as on SQLite.

-- The sum of a level's reservations; changed with them, in one transaction.
ALTER TABLE usage_level ADD COLUMN reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0);

-- What each is for. Past its time it is not dropped: what became of it is not known, and it
-- stays counted until the upstream, a report or the operator says. There are as many as
-- requests under way, so an edge that renews its own looks through all of them.
CREATE TABLE usage_reservation (
    tenant_id  uuid   NOT NULL,
    id         uuid   NOT NULL,
    metric     text   NOT NULL CHECK (metric IN ('users', 'projects', 'storage')),
    amount     bigint NOT NULL CHECK (amount > 0),
    -- Which edge made it, and which run of it keeps it alive; nobody does when it is zero.
    edge       uuid   NOT NULL,
    run        uuid   NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

ALTER TABLE usage_reservation ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_reservation FORCE ROW LEVEL SECURITY;

-- A tenant's own report ends what is not known of it.
CREATE POLICY one_tenant ON usage_reservation TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);
CREATE POLICY all_tenants ON usage_reservation TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, DELETE ON usage_reservation TO application_user;
GRANT SELECT, INSERT, UPDATE (amount, run, expires_at), DELETE ON usage_reservation TO control_plane;
