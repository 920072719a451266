-- The member of its residency group that serves a tenant while it can; NULL, of what was made
-- before: the group's first.
ALTER TABLE tenant ADD COLUMN home_region TEXT;

-- What holds for the personal data in it: a JSON object; what is absent is as in the product
-- guide's example.
ALTER TABLE tenant ADD COLUMN gdpr_settings TEXT NOT NULL DEFAULT '{}';

-- What of it the manager of the tenants' data goes by. NULL: as long as the installation.
ALTER TABLE tenant ADD COLUMN retention_days INTEGER;
ALTER TABLE tenant ADD COLUMN legal_hold INTEGER NOT NULL DEFAULT 0;
