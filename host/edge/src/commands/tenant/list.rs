//! `tenant list` and `tenant hierarchy`.

use anyhow::Result;

use crate::{
    client::{Call, Pages},
    commands::{
        output::{self, Progress},
        session::Session,
        table::Table,
    },
};

/// Tenants shown unless asked otherwise: a screen or two.
const LIMIT_DEFAULT: usize = 50;
/// Longest page of the API.
const PAGE_MAX: usize = 200;

const COLUMNS: [(&str, &str); 7] = [
    ("SLUG", "/slug"),
    ("ID", "/id"),
    ("PLAN", "/plan"),
    ("STATUS", "/status"),
    ("RESIDENCY", "/data_residency"),
    ("PARENT", "/parent_tenant_id"),
    ("CREATED", "/created_at"),
];

/// Arguments of `tenant list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only tenants of this status: trial, active, past_due, suspended, …
    #[arg(long)]
    status: Option<String>,
    /// Only tenants of this plan.
    #[arg(long)]
    plan: Option<String>,
    /// All of them, page by page; with --json one page a line.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// How many at most [default: 50].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let call = Call::get(&["admin", "tenants"])
            .query("status", self.status.as_deref())
            .query("plan", self.plan.as_deref());
        let limit = self.limit.map_or(LIMIT_DEFAULT, |limit| limit as usize);
        let most = if self.all { usize::MAX } else { limit };
        let mut pages = Pages::new(&session.client, call);
        let mut seen = Vec::new();
        let mut count = 0;
        let progress = Progress::new();
        while count < most {
            let asked = PAGE_MAX.min(most - count);
            let Some(page) = pages.next(Some(asked)).await? else { break };
            count += page.items()?.len();
            if session.json {
                output::line(&page.text)?;
            } else {
                seen.extend_from_slice(page.items()?);
            }
            progress.say(format_args!("{count} tenants"));
        }
        drop(progress);
        if !session.json {
            output::text(&Table::of(&seen, &COLUMNS).text())?;
        }
        if pages.more() {
            eprintln!("there are more: --all shows them, --limit as many as it says");
        }
        Ok(())
    }
}
