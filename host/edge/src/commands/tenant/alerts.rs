//! `tenant alerts`: what a tenant wants to be told, and what it was told.

use anyhow::Result;
use serde_json::Value;

use super::Named;
use crate::{
    client::Call,
    commands::{
        session::Session,
        table::{Align, Table, cell, items},
    },
};

/// Arguments of `tenant alerts`.
#[derive(Debug, clap::Args)]
pub(super) struct Alerts {
    #[command(flatten)]
    tenant: Named,
    /// What happened and how telling it goes, newest first, instead of the settings.
    #[arg(long)]
    events: bool,
    /// How many events at most, to 200 [default: 50].
    #[arg(long, value_name = "NUMBER", requires = "events")]
    limit: Option<u32>,
}

impl Alerts {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let id = self.tenant.id(session).await?;
        if self.events {
            let call = Call::get(&["tenants", &id, "alerts", "events"]).query("limit", self.limit);
            return session.print(&call, events).await;
        }
        session.print(&Call::get(&["tenants", &id, "alerts"]), settings).await
    }
}

fn settings(json: &Value) -> String {
    let columns = ["METRIC", "WARNING", "CRITICAL", "CHANNELS", "RECIPIENTS", "WEBHOOK"];
    let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
    let mut row = |name: &str, rule: &Value| {
        let member = |name| cell(rule.get(name));
        table.row([
            name.to_owned(),
            member("warning_threshold"),
            member("critical_threshold"),
            member("notification_channels"),
            member("recipients"),
            member("webhook_url"),
        ]);
    };
    let rules = json.get("quota_alerts").and_then(Value::as_object);
    for (metric, rule) in rules.into_iter().flatten() {
        row(metric, rule);
    }
    if let Some(defaults) = json.get("defaults") {
        row("(defaults)", defaults);
    }
    let mut text = table.text();
    if rules.is_none_or(serde_json::Map::is_empty) {
        text.push_str("no metric is watched\n");
    }
    for warning in json.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("warning: {}\n", cell(Some(warning))));
    }
    text
}

/// A line for each delivery; an event that nobody was to be told of has one too.
fn events(page: &Value) -> String {
    let columns = ["WHEN", "EVENT", "METRIC", "CHANNEL", "TARGET", "STATE", "LAST ERROR"];
    let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
    for event in items(page) {
        let deliveries = event.get("deliveries").and_then(Value::as_array);
        let deliveries = deliveries.map(Vec::as_slice).unwrap_or_default();
        let none = [Value::Null];
        for delivery in if deliveries.is_empty() { &none } else { deliveries } {
            table.row([
                cell(event.get("occurred_at")),
                cell(event.get("type")),
                cell(event.pointer("/data/metric")),
                cell(delivery.get("channel")),
                cell(delivery.get("target")),
                cell(delivery.get("state")),
                cell(delivery.get("last_error")),
            ]);
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_a_line_a_metric_with_the_servers_warnings_below() {
        let shown = settings(&json!({
            "quota_alerts": {
                "api_calls": {
                    "warning_threshold": 80, "critical_threshold": 95,
                    "notification_channels": ["email", "webhook"],
                    "recipients": ["admin@company.com"],
                },
                "storage": {"warning_threshold": 85, "critical_threshold": 95},
            },
            "warnings": ["no webhook_url"],
        }));
        assert_eq!(
            shown,
            "METRIC     WARNING  CRITICAL  CHANNELS        RECIPIENTS         WEBHOOK\n\
             api_calls  80       95        email, webhook  admin@company.com  -\n\
             storage    85       95        -               -                  -\n\
             warning: no webhook_url\n"
        );
        assert!(settings(&json!({"quota_alerts": {}})).ends_with("no metric is watched\n"));
    }

    #[test]
    fn an_event_is_a_line_for_each_delivery() {
        let shown = events(&json!({"items": [
            {"type": "quota.warning", "data": {"metric": "storage"}, "deliveries": [
                {"channel": "email", "state": "delivered"}, {"channel": "webhook", "state": "pending"},
            ]},
            {"type": "quota.critical", "deliveries": []},
        ]}));
        assert_eq!(shown.lines().count(), 4, "{shown}");
        assert!(shown.contains("delivered") && shown.contains("pending"), "{shown}");
    }
}
