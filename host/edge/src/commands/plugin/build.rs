//! `plugin build`: the component, by the language's toolchain.

use anyhow::Result;
use serde_json::json;

use super::{
    super::output::{self, Progress},
    Format, ProjectArgs,
};
use crate::author;

/// Build the plugin into `dist/NAME.wasm`, with its language's toolchain.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let project = args.project.open()?;
    let built = {
        let progress = Progress::new();
        progress.say(format_args!("building {}", project.manifest.name));
        author::build::build(&project)?
    };
    if args.format.json {
        let answer = json!({
            "file": built.file, "bytes": built.bytes, "changed": built.changed,
        });
        return output::line(&answer.to_string());
    }
    let changed = if built.changed { "" } else { ", unchanged" };
    output::line(&format!("built {} ({} bytes{changed})", built.file.display(), built.bytes))
}
