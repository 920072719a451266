-- How far each journal of levels has been counted: a batch of changes that responses
-- reported comes again after a lost answer or a restart, and is counted once.
CREATE TABLE level_journal (
    -- One run of one edge.
    journal    uuid   NOT NULL PRIMARY KEY,
    -- The last batch of it.
    number     bigint NOT NULL CHECK (number > 0),
    applied_at bigint NOT NULL
);

CREATE INDEX level_journal_by_age ON level_journal (applied_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON level_journal TO control_plane;
