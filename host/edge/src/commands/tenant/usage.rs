//! `tenant usage`: what is used, of how much.

use anyhow::Result;
use serde_json::Value;

use super::Named;
use crate::{
    client::Call,
    commands::{
        session::Session,
        table::{Align, Table, cell},
    },
};

/// Metrics, with the names that their use and quota have in the answer.
const METRICS: [(&str, &str, &str); 6] = [
    ("users", "users_count", "max_users"),
    ("projects", "projects_count", "max_projects"),
    ("api_calls", "api_calls_this_month", "max_api_calls_per_month"),
    ("storage", "storage_used_mb", "max_storage_mb"),
    ("ai_requests", "ai_requests_today", "max_ai_requests_per_day"),
    ("concurrent_sessions", "concurrent_sessions", "max_concurrent_sessions"),
];

pub(super) async fn usage(session: &Session, tenant: &Named) -> Result<()> {
    let id = tenant.id(session).await?;
    session.print(&Call::get(&["tenants", &id, "usage"]), table).await
}

fn table(usage: &Value) -> String {
    let mut table = Table::new(&[
        ("METRIC", Align::Left),
        ("USED", Align::Right),
        ("QUOTA", Align::Right),
        ("PERCENT", Align::Right),
    ]);
    for (name, used, quota) in METRICS {
        table.row([
            name.to_owned(),
            cell(usage["current_usage"].get(used)),
            cell(usage["quotas"].get(quota)),
            cell(usage["utilization_percentages"].get(name)),
        ]);
    }
    format!("{}as of {}\n", table.text(), cell(usage.get("last_calculated_at")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_guides_figures_are_shown_as_they_are() {
        let shown = table(&json!({
            "current_usage": {
                "users_count": 45, "projects_count": 23, "api_calls_this_month": 85_000,
                "storage_used_mb": 8500, "ai_requests_today": 750, "concurrent_sessions": 12
            },
            "quotas": {
                "max_users": 999_999, "max_projects": 999_999,
                "max_api_calls_per_month": 999_999_999, "max_storage_mb": 1_048_576,
                "max_ai_requests_per_day": 10_000, "max_concurrent_sessions": 100
            },
            "utilization_percentages": {
                "users": 0.0045, "projects": 0.0023, "api_calls": 0.0085, "storage": 0.81,
                "ai_requests": 7.5, "concurrent_sessions": 12.0
            },
            "last_calculated_at": "2024-01-15T10:30:00Z"
        }));
        assert_eq!(
            shown,
            "METRIC                USED      QUOTA  PERCENT\n\
             users                   45     999999   0.0045\n\
             projects                23     999999   0.0023\n\
             api_calls            85000  999999999   0.0085\n\
             storage               8500    1048576     0.81\n\
             ai_requests            750      10000      7.5\n\
             concurrent_sessions     12        100     12.0\n\
             as of 2024-01-15T10:30:00Z\n"
        );
    }

    #[test]
    fn a_plan_that_is_no_longer_declared_shows_no_quotas() {
        let usage = json!({"current_usage": {"users_count": 1}, "quotas": null});
        assert!(table(&usage).contains("users                   1"), "{}", table(&usage));
    }
}
