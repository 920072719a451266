-- How many sessions tenants have is a level of usage too, copied from the registry that
-- counts them; this finds the tenants that have any.
CREATE INDEX usage_level_sessions ON usage_level (tenant_id)
    WHERE metric = 'concurrent_sessions' AND value > 0;
