//! `migrate`: brings the database to this release's schema, without serving.
//!
//! Serving does the same at its start; this is for those who want it to happen at a time of
//! their own, or want to see first what would happen. Invariant: a dry run changes nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use control::{Store, store::Schema};

use super::{
    ConfigArgs,
    output::{self, Progress},
};

/// How often the progress of a migration is looked at, in ms.
const LOOK_MS: u64 = 500;

/// Arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only list what would be applied.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object: version_before, version_after, and what was (or would be)
    /// applied.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: MigrateArgs) -> Result<()> {
    let MigrateArgs { config, dry_run, json } = args;
    let url = config.load()?.store_url();
    super::runtime()?.block_on(async {
        let before = Schema::of(&url).await.context("store.url")?;
        if !dry_run && !before.pending.is_empty() {
            apply(&url, &before).await?;
        }
        let after = if dry_run { before.clone() } else { Schema::of(&url).await? };
        output::text(&if json {
            as_json(&before, &after)
        } else {
            as_text(&before, &after, dry_run)
        })
    })
}

/// Applies what is pending, and says how far it is: every migration is committed by itself.
async fn apply(url: &str, before: &Schema) -> Result<()> {
    let total = before.pending.len();
    let progress = Progress::new();
    let migrating = Store::migrate(url);
    tokio::pin!(migrating);
    loop {
        tokio::select! {
            migrated = &mut migrating => return migrated.context("store.url"),
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {
                // A look that fails is no reason to stop: the migration says what is wrong.
                if let Ok(now) = Schema::of(url).await {
                    let done = total.saturating_sub(now.pending.len());
                    let running = now.pending.first().map_or("", |next| &next.description);
                    progress.say(format_args!("{done} of {total} migrations applied; {running}"));
                }
            }
        }
    }
}

fn as_text(before: &Schema, after: &Schema, dry_run: bool) -> String {
    if before.pending.is_empty() {
        return format!("version {}: nothing to apply\n", before.version);
    }
    let verb = if dry_run { "would apply" } else { "applied" };
    let mut text: String = before
        .pending
        .iter()
        .map(|migration| format!("{verb} {:04} {}\n", migration.version, migration.description))
        .collect();
    text.push_str(&match dry_run {
        true => format!("version {}: nothing was changed\n", before.version),
        false => format!("version {} before, {} now\n", before.version, after.version),
    });
    text
}

fn as_json(before: &Schema, after: &Schema) -> String {
    let migrations: Vec<_> = before
        .pending
        .iter()
        .map(|migration| {
            serde_json::json!({
                "version": migration.version,
                "description": migration.description,
            })
        })
        .collect();
    let shown = serde_json::json!({
        "version_before": before.version,
        "version_after": after.version,
        "migrations": migrations,
    });
    format!("{shown}\n")
}

#[cfg(test)]
mod tests {
    use control::store::PendingMigration;

    use super::*;

    fn schema(version: i64, pending: &[(i64, &str)]) -> Schema {
        let pending = pending.iter().map(|(version, description)| PendingMigration {
            version: *version,
            description: (*description).to_owned(),
        });
        Schema { version, pending: pending.collect() }
    }

    #[test]
    fn a_migration_says_where_it_started_and_where_it_ended() {
        let (before, after) = (schema(2, &[(3, "access"), (4, "billing")]), schema(4, &[]));
        assert_eq!(
            as_text(&before, &after, false),
            "applied 0003 access\napplied 0004 billing\nversion 2 before, 4 now\n"
        );
        assert_eq!(
            as_text(&before, &before, true),
            "would apply 0003 access\nwould apply 0004 billing\nversion 2: nothing was changed\n"
        );
        assert_eq!(as_text(&after, &after, false), "version 4: nothing to apply\n");
    }

    #[test]
    fn the_json_has_both_versions() {
        let before = schema(2, &[(3, "access")]);
        assert_eq!(
            as_json(&before, &schema(3, &[])),
            "{\"version_before\":2,\"version_after\":3,\"migrations\":[{\"version\":3,\
             \"description\":\"access\"}]}\n"
        );
    }
}
