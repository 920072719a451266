//! `token`: tokens of the control API, of the platform or of one tenant.
//!
//! Invariant: a token's text is printed once, when it is issued or rotated, and on standard
//! output alone.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Map, Value};

use super::{
    period::Period,
    session::{ServerArgs, Session},
    table::{Align, Table, cell, items, sheet},
};
use crate::client::{Call, TenantName};

/// Scopes of a token that a list names; `--json` has all.
const SCOPES_SHOWN: usize = 3;

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

/// Whose tokens.
#[derive(Debug, clap::Args)]
struct Of {
    /// The tenant, by slug or id; tokens of the platform when absent.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantName>,
}

impl Of {
    /// The path of the tokens, and what follows it.
    async fn path(&self, session: &Session, rest: &[&str]) -> Result<Vec<String>> {
        let mut path = match &self.tenant {
            None => vec!["admin".to_owned()],
            Some(tenant) => vec!["tenants".to_owned(), session.client.tenant_id(tenant).await?],
        };
        path.push("tokens".to_owned());
        path.extend(rest.iter().map(|&segment| segment.to_owned()));
        Ok(path)
    }
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Issue a token; its text is shown this once.
    Issue(Issue),
    /// List tokens, without their texts.
    List(Of),
    /// Replace a token: a new one with the same rights, and the old one for a while more.
    Rotate(Rotate),
    /// Revoke a token: it is refused from then on.
    Revoke {
        /// The token's id, the 12 characters after `lv_ctl_`.
        #[arg(value_name = "TOKEN_ID")]
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

/// Arguments of `token issue`.
#[derive(Debug, clap::Args)]
struct Issue {
    /// admin (the platform's, without --tenant), parent-admin, tenant-admin or service.
    #[arg(long)]
    role: String,
    #[command(flatten)]
    of: Of,
    /// Takes away every right but this and its likes: usage:read, keys:manage, …; a service
    /// needs at least one. May be repeated.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// What it is for, so that a list can be read.
    #[arg(long, default_value = "issued by leanvibe-edge")]
    name: String,
    /// How long it lives: 24h, 90d, 12w; until it is revoked unless given.
    #[arg(long, value_name = "PERIOD")]
    expires: Option<Period>,
}

impl Issue {
    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("role".to_owned(), self.role.as_str().into());
        if !self.scope.is_empty() {
            body.insert("scopes".to_owned(), self.scope.clone().into());
        }
        body.insert("name".to_owned(), self.name.as_str().into());
        body.extend(self.expires.map(|expires| ("expires_at".to_owned(), expires.end().into())));
        Value::Object(body)
    }
}

/// Arguments of `token rotate`.
#[derive(Debug, clap::Args)]
struct Rotate {
    /// The old token's id.
    #[arg(value_name = "TOKEN_ID")]
    id: String,
    #[command(flatten)]
    of: Of,
    /// How long the old one lives on: 15m, 24h, at most 30d; a day unless given.
    #[arg(long, value_name = "PERIOD")]
    overlap: Option<Period>,
    /// How long the new one lives: 24h, 90d, 12w; until it is revoked unless given.
    #[arg(long, value_name = "PERIOD")]
    expires: Option<Period>,
}

pub(super) fn run(args: TokenArgs) -> Result<()> {
    let session = args.server.session()?;
    super::client_runtime()?.block_on(async {
        match args.command {
            TokenCommand::Issue(issue) => {
                let path = issue.of.path(&session, &[]).await?;
                session.print(&Call::post(&path).body(issue.body()), issued).await
            }
            TokenCommand::List(of) => list(&session, &of).await,
            TokenCommand::Rotate(rotate) => {
                let path = rotate.of.path(&session, &[&rotate.id, "rotate"]).await?;
                session.print(&Call::post(&path).body(rotate.body()), issued).await
            }
            TokenCommand::Revoke { id, of } => {
                let path = of.path(&session, &[&id]).await?;
                session.client.send(&Call::delete(&path)).await?;
                session.done("revoked");
                Ok(())
            }
        }
    })
}

impl Rotate {
    fn body(&self) -> Value {
        let mut body = Map::new();
        body.extend(self.overlap.map(|o| ("overlap_s".to_owned(), o.seconds.into())));
        body.extend(self.expires.map(|expires| ("expires_at".to_owned(), expires.end().into())));
        Value::Object(body)
    }
}

async fn list(session: &Session, of: &Of) -> Result<()> {
    let path = of.path(session, &[]).await?;
    session.print_all(Call::get(&path), listed).await
}

fn listed(page: &Value) -> String {
    let columns = ["ID", "NAME", "ROLE", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED"];
    let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
    for token in items(page) {
        let member = |name| cell(token.get(name));
        table.row([
            member("id"),
            member("name"),
            member("role"),
            scopes(token.get("scopes")),
            member("created_at"),
            member("expires_at"),
            member("revoked_at"),
            member("last_used_at"),
        ]);
    }
    table.text()
}

/// A few scopes by name, many by number: a role has a dozen.
fn scopes(value: Option<&Value>) -> String {
    match value.and_then(Value::as_array) {
        Some(scopes) if scopes.len() > SCOPES_SHOWN => format!("{} scopes", scopes.len()),
        _ => cell(value),
    }
}

fn issued(json: &Value) -> String {
    sheet(
        json,
        &[
            ("id", "/id"),
            ("token", "/token"),
            ("role", "/role"),
            ("scopes", "/scopes"),
            ("name", "/name"),
            ("created", "/created_at"),
            ("expires", "/expires_at"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_names_a_few_scopes_and_counts_many() {
        let page = json!({"items": [
            {"id": "a", "scopes": ["usage:read"]},
            {"id": "b", "scopes": ["a", "b", "c", "d"], "name": "ops"},
        ]});
        let shown = listed(&page);
        assert!(shown.contains("usage:read") && shown.contains("4 scopes"), "{shown}");
    }

    #[test]
    fn what_is_not_asked_for_is_left_to_the_server() {
        let none = Of { tenant: None };
        let rotate = Rotate { id: "x".into(), of: none, overlap: None, expires: None };
        assert_eq!(rotate.body(), json!({}));
        let of = Of { tenant: None };
        let overlap = "1h".parse().ok();
        let rotate = Rotate { id: "x".into(), of, overlap, expires: None };
        assert_eq!(rotate.body(), json!({"overlap_s": 3_600}));
    }
}
