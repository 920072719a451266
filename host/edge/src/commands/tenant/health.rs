//! `tenant health`: the checks of a tenant, and the worst of them.

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

pub(super) async fn run(session: &Session, tenant: &Named) -> Result<()> {
    let id = tenant.id(session).await?;
    session.print(&Call::get(&["tenants", &id, "health"]), table).await
}

fn table(health: &Value) -> String {
    let columns = [("CHECK", Align::Left), ("STATUS", Align::Left), ("DETAIL", Align::Left)];
    let mut table = Table::new(&columns);
    let checks = health.get("checks").and_then(Value::as_object);
    for (name, check) in checks.into_iter().flatten() {
        table.row([name.clone(), cell(check.get("status")), cell(check.get("detail"))]);
    }
    let mut text = format!("{}\n\n{}", cell(health.get("status")), table.text());
    let metrics = health.get("metrics").and_then(Value::as_object);
    for (name, value) in metrics.into_iter().flatten() {
        text.push_str(&format!("\n{name} {}", cell(Some(value))));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_worst_stands_above_its_checks() {
        let shown = table(&json!({
            "status": "warning",
            "checks": {
                "database_connection": {"status": "healthy", "detail": "read"},
                "quota_status": {"status": "warning", "detail": "users at 90 %"},
            },
            "metrics": {"active_users": 9, "api_calls_today": null},
        }));
        assert_eq!(
            shown,
            "warning\n\n\
             CHECK                STATUS   DETAIL\n\
             database_connection  healthy  read\n\
             quota_status         warning  users at 90 %\n\
             \n\
             active_users 9\n\
             api_calls_today -\n"
        );
    }
}
