//! `plugin new`: a small complete policy to start from.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use model::manifest::{Language, PluginName};
use serde_json::json;

use super::{super::output, Format};
use crate::author::template;

/// Make a new plugin: a policy, its manifest, and golden cases.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// Its name: a-z, 0-9 and '-'.
    name: PluginName,
    /// The language.
    #[arg(long, value_enum)]
    lang: Lang,
    /// The folder, in place of one of the plugin's name.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lang {
    Rust,
    Js,
    Python,
    C,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let (language, install) = match args.lang {
        Lang::Rust => (Language::Rust, "rustup target add wasm32-unknown-unknown"),
        Lang::Js => (Language::Js, "npm install"),
        Lang::Python => {
            (Language::Python, "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
        }
        Lang::C => (
            Language::C,
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n    cargo install \
             wit-bindgen-cli --version 0.63.0 --no-default-features --features c",
        ),
    };
    let folder = args.dir.clone().unwrap_or_else(|| args.name.as_str().into());
    let files = template::write(&folder, language, &args.name)?;
    if args.format.json {
        return output::line(&json!({ "dir": folder, "files": files }).to_string());
    }
    output::text(&format!(
        "{folder}: {count} files; README.md says what they are. Next:

    cd {folder}
    {install}
    leanvibe-edge plugin build
    leanvibe-edge plugin test
    leanvibe-edge plugin run
",
        folder = folder.display(),
        count = files.len(),
    ))
}
