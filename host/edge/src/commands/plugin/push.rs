//! `plugin push`: a file becomes a plugin, or the next version of one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;

use super::{
    scope::{Plugins, ScopeArgs},
    view,
};
use crate::{
    client::{Call, ClientError},
    commands::client_runtime,
};

/// Upload a component: as a new plugin, or as the next version of one that is there.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Name of the plugin.
    name: String,
    /// The component, or a core module with a component type.
    component: PathBuf,
    /// JSON file: capabilities, origins, metrics, config_schema, on_failure, instances, limits.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// JSON file that a new plugin is configured with.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with the Ed25519 signature of the component, in base64.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Have it decide at once.
    #[arg(long)]
    activate: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    client_runtime()?.block_on(push(args))
}

async fn push(args: Args) -> Result<()> {
    let mut parts = vec![("component", read(&args.component)?)];
    for (part, file) in [("manifest", &args.manifest), ("signature", &args.signature)] {
        if let Some(file) = file {
            parts.push((part, read(file)?));
        }
    }
    if args.activate {
        parts.push(("activate", Bytes::from_static(b"true")));
    }
    let config = args.config.as_deref().map(read).transpose()?;
    let plugins = args.scope.open().await?;
    if is_there(&plugins, &args.name).await? {
        if config.is_some() {
            let said = "--config is for a new plugin; this one is set with PUT …/config".to_owned();
            return Err(ClientError::Usage(said).into());
        }
        let call = Call::post(&plugins.path(&[&args.name, "versions"])).form(&parts);
        return plugins.session.print(&call, view::version).await;
    }
    parts.push(("name", args.name.into()));
    parts.extend(config.map(|config| ("config", config)));
    let call = Call::post(&plugins.path(&[])).form(&parts);
    plugins.session.print(&call, view::plugin).await
}

async fn is_there(plugins: &Plugins, name: &str) -> Result<bool> {
    match plugins.session.client.send(&Call::get(&plugins.path(&[name]))).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused(problem)) if problem.status() == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn read(file: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    Ok(bytes.into())
}
