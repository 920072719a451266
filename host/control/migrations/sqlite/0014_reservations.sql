-- Room that is set aside for requests under way: bytes of uploads, users, projects.

-- The sum of a level's reservations; changed with them, in one transaction.
ALTER TABLE usage_level ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0);

-- What each is for. Past its time it is not dropped: what became of it is not known, and it
-- stays counted until the upstream, a report or the operator says. There are as many as
-- requests under way, so an edge that renews its own looks through all of them.
CREATE TABLE usage_reservation (
    tenant_id  BLOB    NOT NULL CHECK (length(tenant_id) = 16),
    id         BLOB    NOT NULL CHECK (length(id) = 16),
    metric     TEXT    NOT NULL CHECK (metric IN ('users', 'projects', 'storage')),
    amount     INTEGER NOT NULL CHECK (amount > 0),
    -- Which edge made it, and which run of it keeps it alive; nobody does when it is zero.
    edge       BLOB    NOT NULL CHECK (length(edge) = 16),
    run        BLOB    NOT NULL CHECK (length(run) = 16),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;
