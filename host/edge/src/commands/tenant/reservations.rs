//! `tenant reservations`: room that is set aside, and what became of requests that nobody
//! knows about.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Named;
use crate::{
    client::Call,
    commands::{
        session::Session,
        table::{Table, items},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum ReservationsCommand {
    /// List what is set aside for requests under way or of unknown outcome, oldest first.
    List(Named),
    /// Say what became of a request that no edge vouches for.
    Resolve {
        #[command(flatten)]
        tenant: Named,
        /// The reservation's id.
        #[arg(value_name = "RESERVATION_ID")]
        reservation: String,
        /// By how much the level changed: bytes, users or projects; 0 when nothing was kept.
        #[arg(long, value_name = "CHANGE", allow_negative_numbers = true)]
        delta: i64,
    },
}

impl ReservationsCommand {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::List(tenant) => {
                let id = tenant.id(session).await?;
                let call = Call::get(&["tenants", &id, "usage", "reservations"]);
                session.print_all(call, list).await
            }
            Self::Resolve { tenant, reservation, delta } => {
                let id = tenant.id(session).await?;
                let path = ["tenants", &id, "usage", "reservations", &reservation];
                session.client.send(&Call::post(&path).body(json!({ "delta": delta }))).await?;
                session.done("resolved");
                Ok(())
            }
        }
    }
}

fn list(page: &Value) -> String {
    let columns = [
        ("ID", "/id"),
        ("METRIC", "/metric"),
        ("AMOUNT", "/amount"),
        ("CREATED", "/created_at"),
        ("UNRESOLVED", "/unresolved"),
    ];
    Table::of(items(page), &columns).text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_what_may_be_resolved() {
        let shown = list(&json!({ "items": [
            { "id": "r1", "metric": "storage", "amount": 700, "unresolved": true,
              "created_at": "2024-01-01T00:00:00Z", "expires_at": "2024-01-01T00:00:30Z" },
        ] }));
        let row = shown.lines().nth(1).expect("a row");
        for part in ["r1", "storage", "700", "2024-01-01T00:00:00Z", "yes"] {
            assert!(row.contains(part), "{part} in {shown}");
        }
    }
}
