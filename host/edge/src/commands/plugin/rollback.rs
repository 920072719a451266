//! `plugin rollback`: the version before decides again.

use anyhow::Result;

use super::{scope::ScopeArgs, view};
use crate::{client::Call, commands::client_runtime};

/// Take the active version back; the one before decides again.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Name of the plugin.
    name: String,
}

pub(super) fn run(args: Args) -> Result<()> {
    client_runtime()?.block_on(async {
        let plugins = args.scope.open().await?;
        let call = Call::post(&plugins.path(&[&args.name, "rollback"]));
        plugins.session.print(&call, view::plugin).await
    })
}
