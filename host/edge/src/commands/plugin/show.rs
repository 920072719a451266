//! `plugin show`: a plugin with its versions.

use anyhow::Result;

use super::{scope::ScopeArgs, view};
use crate::{client::Call, commands::client_runtime};

/// Show a plugin with its versions.
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
        plugins.session.print(&Call::get(&plugins.path(&[&args.name])), view::plugin).await
    })
}
