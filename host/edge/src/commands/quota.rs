//! `quota audit`: whether every quota account of a running edge adds up.
//!
//! Invariant: it fails when one does not, so that a script notices.

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::Value;

use super::{
    session::{ServerArgs, Session},
    table::{Align, Table, cell},
};
use crate::client::Call;

/// Arguments of `quota`.
#[derive(Debug, clap::Args)]
pub(super) struct QuotaArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: QuotaCommand,
}

#[derive(Debug, Subcommand)]
enum QuotaCommand {
    /// Add up every account: tranches, what was spent of them, and what came back.
    Audit,
}

pub(super) fn run(args: QuotaArgs) -> Result<()> {
    let session = args.server.session()?;
    let QuotaCommand::Audit = args.command;
    super::client_runtime()?.block_on(audit(&session))
}

async fn audit(session: &Session) -> Result<()> {
    let call = Call::get(&["admin", "quotas", "audit"]);
    let answer = session.client.send(&call).await?;
    session.print_answer(&answer, table)?;
    if answer.json.get("sound") != Some(&Value::Bool(true)) {
        bail!("quota accounts do not add up: keep the database as it is and report this");
    }
    Ok(())
}

fn table(audit: &Value) -> String {
    let violations = audit.get("violations").and_then(Value::as_array);
    let violations = violations.map(Vec::as_slice).unwrap_or_default();
    if violations.is_empty() {
        return "every quota account adds up\n".to_owned();
    }
    let columns = [
        ("TENANT", Align::Left),
        ("METRIC", Align::Left),
        ("WINDOW", Align::Left),
        ("RULE", Align::Left),
        ("FOUND", Align::Right),
        ("EXPECTED", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for violation in violations {
        let field = |name: &str| cell(violation.get(name));
        table.row([
            field("tenant_id"),
            field("metric"),
            field("window_start"),
            field("rule"),
            field("found"),
            field("expected"),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broken_account_is_a_row() {
        assert_eq!(
            table(&json!({"sound": true, "violations": []})),
            "every quota account adds up\n"
        );
        let shown = table(&json!({"sound": false, "violations": [{
            "tenant_id": "t", "metric": "api_calls", "window_start": "2026-01-01T00:00:00Z",
            "rule": "spent <= tranche of epoch 1", "found": 9, "expected": 8,
        }]}));
        assert!(shown.contains("spent <= tranche of epoch 1") && shown.contains("9"), "{shown}");
    }
}
