-- On which day of the month a tenant's quotas begin anew, and what it was before: a JSON
-- object; what is absent is that of calendar months.
ALTER TABLE tenant ADD COLUMN quota_anchor text NOT NULL DEFAULT '{}';

GRANT UPDATE (quota_anchor) ON tenant TO application_user;
