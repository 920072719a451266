-- Guards of the sessions that a shared registry (Redis) counts: a registry that lost its
-- memory, or is another than before, finds here that sessions may be alive which it does
-- not know, and admits only renewals until they are back.
CREATE TABLE quota_session_guard (
    -- The top of the family.
    tenant_id   BLOB    NOT NULL PRIMARY KEY CHECK (length(tenant_id) = 16),
    -- Rises by one with every guard; only the first holds at once.
    number      INTEGER NOT NULL CHECK (number > 0),
    -- The life and history of the registry that it is for.
    fence       TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
