-- Guards of the sessions that a shared registry (Redis) counts: a registry that lost its
-- memory, or is another than before, finds here that sessions may be alive which it does
-- not know, and admits only renewals until they are back.
CREATE TABLE quota_session_guard (
    -- The top of the family.
    tenant_id   uuid   NOT NULL PRIMARY KEY,
    -- Rises by one with every guard; only the first holds at once.
    number      bigint NOT NULL CHECK (number > 0),
    -- The life and history of the registry that it is for.
    fence       text   NOT NULL,
    recorded_at bigint NOT NULL
);

ALTER TABLE quota_session_guard ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_session_guard FORCE ROW LEVEL SECURITY;

CREATE POLICY all_tenants ON quota_session_guard TO control_plane USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON quota_session_guard TO control_plane;
