//! `tenant keys`: the keys of the data plane.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Named;
use crate::{
    client::Call,
    commands::{
        period::Period,
        session::Session,
        table::{Table, items, sheet},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Issue a key; its text is shown this once.
    Issue {
        #[command(flatten)]
        tenant: Named,
        /// How long it lives: 30m, 24h, 90d, 12w; for ever unless given.
        #[arg(long, value_name = "PERIOD")]
        expires: Option<Period>,
    },
    /// List keys, without their texts.
    List(Named),
    /// Revoke a key: it is refused from then on.
    Revoke {
        #[command(flatten)]
        tenant: Named,
        /// The key's id, the 12 characters after `lv_live_`.
        #[arg(value_name = "KEY_ID")]
        key: String,
    },
}

impl KeysCommand {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Issue { tenant, expires } => {
                let id = tenant.id(session).await?;
                let body = expires.map_or_else(|| json!({}), |p| json!({"expires_at": p.end()}));
                let call = Call::post(&["admin", "tenants", &id, "keys"]).body(body);
                session.print(&call, issued).await
            }
            Self::List(tenant) => {
                let id = tenant.id(session).await?;
                let call = Call::get(&["admin", "tenants", &id, "keys"]);
                session.print_all(call, list).await
            }
            Self::Revoke { tenant, key } => {
                let id = tenant.id(session).await?;
                session
                    .client
                    .send(&Call::delete(&["admin", "tenants", &id, "keys", &key]))
                    .await?;
                session.done("revoked");
                Ok(())
            }
        }
    }
}

fn issued(json: &Value) -> String {
    sheet(
        json,
        &[("id", "/id"), ("key", "/key"), ("created", "/created_at"), ("expires", "/expires_at")],
    )
}

fn list(page: &Value) -> String {
    let columns = [
        ("ID", "/id"),
        ("CREATED", "/created_at"),
        ("EXPIRES", "/expires_at"),
        ("REVOKED", "/revoked_at"),
    ];
    Table::of(items(page), &columns).text()
}
