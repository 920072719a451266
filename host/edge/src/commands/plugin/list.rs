//! `plugin list`: the plugins of a scope.

use anyhow::Result;

use super::{scope::ScopeArgs, view};
use crate::{client::Call, commands::client_runtime};

/// List plugins.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
}

pub(super) fn run(args: Args) -> Result<()> {
    client_runtime()?.block_on(async {
        let plugins = args.scope.open().await?;
        plugins.session.print(&Call::get(&plugins.path(&[])), view::list).await
    })
}
