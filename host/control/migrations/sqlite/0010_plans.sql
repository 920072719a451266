-- Plans as they were declared, and what is to happen to a tenant at a later time.

-- Each distinct content of a plan that was ever in force, once.
CREATE TABLE plan_version (
    plan          TEXT    NOT NULL,
    version       INTEGER NOT NULL CHECK (version > 0),
    -- SHA-256 of the body, which is JSON in one canonical form.
    digest        BLOB    NOT NULL CHECK (length(digest) = 32),
    body          TEXT    NOT NULL,
    first_seen_at INTEGER NOT NULL,
    PRIMARY KEY (plan, version),
    UNIQUE (plan, digest)
) STRICT;

-- Quotas of one tenant with dates.
CREATE TABLE quota_override (
    tenant_id       BLOB    NOT NULL REFERENCES tenant (id),
    metric          TEXT    NOT NULL,
    effective_from  INTEGER NOT NULL,
    effective_until INTEGER CHECK (effective_until > effective_from),
    value           INTEGER NOT NULL CHECK (value >= 0),
    reason          TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, metric, effective_from)
) STRICT, WITHOUT ROWID;

-- Changes of plan that were asked for at a time, and what became of them.
CREATE TABLE plan_change (
    tenant_id    BLOB    NOT NULL REFERENCES tenant (id),
    id           BLOB    NOT NULL CHECK (length(id) = 16),
    plan         TEXT    NOT NULL,
    effective_at INTEGER NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('scheduled', 'applied', 'cancelled', 'refused')),
    -- Why it was refused.
    detail       TEXT,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = 'scheduled') = (ended_at IS NULL))
) STRICT, WITHOUT ROWID;

-- The overrides with dates that are in force, a JSON object like quota_overrides: every
-- reader of the directory sees the same, whatever its clock says.
ALTER TABLE tenant ADD COLUMN dated_quotas TEXT NOT NULL DEFAULT '{}';
-- When an override next begins or ends, or the next change of plan is due.
ALTER TABLE tenant ADD COLUMN due_at INTEGER;

-- What is due is looked for every second.
CREATE INDEX tenant_by_due ON tenant (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tenant_by_trial_end ON tenant (trial_ends_at) WHERE status = 'trial';
CREATE INDEX tenant_by_grace_end ON tenant (grace_ends_at) WHERE status = 'past_due';
