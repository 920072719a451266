//! A tenant as text.

use serde_json::Value;

use crate::commands::table::sheet;

/// Lines of a tenant: heading and JSON pointer.
const LINES: [(&str, &str); 25] = [
    ("slug", "/slug"),
    ("id", "/id"),
    ("organization", "/organization_name"),
    ("display name", "/display_name"),
    ("email", "/admin_email"),
    ("plan", "/plan"),
    ("plan version", "/plan_version"),
    ("status", "/status"),
    ("in effect", "/effective_status"),
    ("suspended for", "/suspend_reason"),
    ("trial ends", "/trial_ends_at"),
    ("grace ends", "/grace_ends_at"),
    ("residency", "/data_residency"),
    ("home region", "/home_region"),
    ("personal data", "/gdpr_settings"),
    ("parent", "/parent_tenant_id"),
    ("domains", "/custom_domains"),
    ("quotas", "/quotas"),
    ("overrides", "/quota_overrides"),
    ("quotas begin on day", "/quota_anchor_day"),
    ("since", "/quota_anchor_since"),
    ("attributes", "/attributes"),
    ("secrets", "/secrets"),
    ("created", "/created_at"),
    ("version", "/version"),
];

/// Everything that the API shows of a tenant.
pub(super) fn tenant(json: &Value) -> String {
    sheet(json, &LINES)
}
