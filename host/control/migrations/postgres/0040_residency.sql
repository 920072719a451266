-- The member of its residency group that serves a tenant while it can; NULL, of what was made
-- before: the group's first.
ALTER TABLE tenant ADD COLUMN home_region text;

-- What holds for the personal data in it: a JSON object; what is absent is as in the product
-- guide's example.
ALTER TABLE tenant ADD COLUMN gdpr_settings text NOT NULL DEFAULT '{}';

-- What of it the manager of the tenants' data goes by. NULL: as long as the installation.
ALTER TABLE tenant ADD COLUMN retention_days bigint;
ALTER TABLE tenant ADD COLUMN legal_hold boolean NOT NULL DEFAULT FALSE;

GRANT UPDATE (gdpr_settings, retention_days, legal_hold) ON tenant TO application_user;
