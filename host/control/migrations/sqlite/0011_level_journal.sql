-- How far each journal of levels has been counted: a batch of changes that responses
-- reported comes again after a lost answer or a restart, and is counted once.
CREATE TABLE level_journal (
    -- One run of one edge.
    journal    BLOB    NOT NULL PRIMARY KEY CHECK (length(journal) = 16),
    -- The last batch of it.
    number     INTEGER NOT NULL CHECK (number > 0),
    applied_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX level_journal_by_age ON level_journal (applied_at);
