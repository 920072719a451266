//! `plugin activate`: a version decides.

use anyhow::Result;
use serde_json::json;

use super::{scope::ScopeArgs, view};
use crate::{client::Call, commands::client_runtime};

/// Have a version decide.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Name of the plugin.
    name: String,
    /// Its number, or 12 digits or more of its SHA-256.
    version: String,
}

pub(super) fn run(args: Args) -> Result<()> {
    client_runtime()?.block_on(async {
        let plugins = args.scope.open().await?;
        let version = args.version.parse::<u64>().map_or(json!(args.version), |n| json!(n));
        let call = Call::post(&plugins.path(&[&args.name, "activate"]));
        plugins.session.print(&call.body(json!({ "version": version })), view::plugin).await
    })
}
