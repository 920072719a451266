-- The name that the quota statements share with PostgreSQL: whose a row is, is told by
-- tenant_id. References between these tables follow by themselves.

ALTER TABLE quota_window RENAME COLUMN tenant TO tenant_id;
ALTER TABLE quota_epoch RENAME COLUMN tenant TO tenant_id;
ALTER TABLE quota_report RENAME COLUMN tenant TO tenant_id;
ALTER TABLE quota_late_refund RENAME COLUMN tenant TO tenant_id;
