//! `plugin push`: a file becomes a plugin, or the next version of one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use model::manifest::Manifest;

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
    /// The author's plugin.toml, or a JSON file: capabilities, origins, metrics,
    /// config_schema, on_failure, instances, limits.
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
    if let Some(file) = &args.manifest {
        parts.push(("manifest", manifest(file)?));
    }
    if let Some(file) = &args.signature {
        parts.push(("signature", read(file)?));
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

/// A manifest as the upload has it. Of `plugin.toml` go what a version says of itself; its
/// hooks are read from the component, its name is the command's, its build is nobody's.
fn manifest(file: &Path) -> Result<Bytes> {
    let bytes = read(file)?;
    if file.extension().is_none_or(|extension| extension != "toml") {
        return Ok(bytes);
    }
    let text = std::str::from_utf8(&bytes).with_context(|| file.display().to_string())?;
    let manifest = Manifest::from_toml(text).map_err(|problems| {
        let lines = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.reason));
        ClientError::Usage(format!("{}: {}", file.display(), lines.collect::<Vec<_>>().join("; ")))
    })?;
    let uploaded = serde_json::json!({
        "description": manifest.description,
        "capabilities": manifest.capabilities,
        "origins": manifest.origins,
        "metrics": manifest.metrics,
        "config_schema": manifest.config,
        "on_failure": manifest.on_failure,
        "limits": manifest.limits,
    });
    Ok(uploaded.to_string().into())
}

fn read(file: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        (folder, file)
    }

    #[test]
    fn the_authors_manifest_becomes_what_an_upload_says_of_itself() {
        let text = "name = \"a\"\ndescription = \"A\"\nhooks = [\"request-hook\"]\n\
                    capabilities = [\"keyvalue\"]\non_failure = \"open\"\n\
                    [limits]\ndeadline_ms = 7\n[build]\nlanguage = \"c\"\n";
        let (_folder, file) = written("plugin.toml", text);
        let sent = manifest(&file).expect("a manifest");
        let sent: model::plugin::Manifest = serde_json::from_slice(&sent).expect("as uploaded");
        assert_eq!(sent.description, "A");
        assert_eq!(sent.capabilities, ["keyvalue"]);
        assert_eq!(sent.on_failure, model::policy::OnFailure::Open);
        assert_eq!(sent.limits.iter().collect::<Vec<_>>(), [("deadline_ms", 7)]);
    }

    #[test]
    fn what_is_wrong_with_the_authors_manifest_is_named_before_anything_is_sent() {
        let (_folder, file) = written("plugin.toml", "name = \"A b\"\nhooks = []\n");
        let said = manifest(&file).expect_err("no manifest").to_string();
        assert!(said.contains("name: ") && said.contains("description: "), "{said}");
    }

    #[test]
    fn a_manifest_in_json_is_sent_as_it_is() {
        let (_folder, file) = written("manifest.json", "{\"limits\": 7}");
        assert_eq!(manifest(&file).expect("bytes"), "{\"limits\": 7}");
    }
}
