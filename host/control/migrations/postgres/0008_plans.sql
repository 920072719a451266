-- Plans as they were declared, and what is to happen to a tenant at a later time.

-- Each distinct content of a plan that was ever in force, once. Belongs to the platform.
CREATE TABLE plan_version (
    plan          text   NOT NULL,
    version       bigint NOT NULL CHECK (version > 0),
    -- SHA-256 of the body, which is JSON in one canonical form.
    digest        bytea  NOT NULL CHECK (length(digest) = 32),
    body          text   NOT NULL,
    first_seen_at bigint NOT NULL,
    PRIMARY KEY (plan, version),
    UNIQUE (plan, digest)
);

GRANT SELECT, INSERT ON plan_version TO control_plane;

-- Quotas of one tenant with dates.
CREATE TABLE quota_override (
    tenant_id       uuid   NOT NULL REFERENCES tenant (id),
    metric          text   NOT NULL,
    effective_from  bigint NOT NULL,
    effective_until bigint CHECK (effective_until > effective_from),
    value           bigint NOT NULL CHECK (value >= 0),
    reason          text   NOT NULL,
    PRIMARY KEY (tenant_id, metric, effective_from)
);

ALTER TABLE quota_override ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_override FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON quota_override TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);

GRANT SELECT, INSERT, DELETE ON quota_override TO application_user;

-- Changes of plan that were asked for at a time, and what became of them.
CREATE TABLE plan_change (
    tenant_id    uuid   NOT NULL REFERENCES tenant (id),
    id           uuid   NOT NULL,
    plan         text   NOT NULL,
    effective_at bigint NOT NULL,
    state        text   NOT NULL CHECK (state IN ('scheduled', 'applied', 'cancelled', 'refused')),
    -- Why it was refused.
    detail       text,
    created_at   bigint NOT NULL,
    ended_at     bigint,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = 'scheduled') = (ended_at IS NULL))
);

ALTER TABLE plan_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE plan_change FORCE ROW LEVEL SECURITY;

CREATE POLICY one_tenant ON plan_change TO application_user
    USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid)
    WITH CHECK (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid);

GRANT SELECT, INSERT, DELETE, UPDATE (state, detail, ended_at) ON plan_change
    TO application_user;

-- The overrides with dates that are in force, a JSON object like quota_overrides: every
-- reader of the directory sees the same, whatever its clock says.
ALTER TABLE tenant ADD COLUMN dated_quotas text NOT NULL DEFAULT '{}';
-- When an override next begins or ends, or the next change of plan is due.
ALTER TABLE tenant ADD COLUMN due_at bigint;

GRANT UPDATE (dated_quotas, due_at) ON tenant TO application_user;

-- What is due is looked for every second.
CREATE INDEX tenant_by_due ON tenant (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX tenant_by_trial_end ON tenant (trial_ends_at) WHERE status = 'trial';
CREATE INDEX tenant_by_grace_end ON tenant (grace_ends_at) WHERE status = 'past_due';
