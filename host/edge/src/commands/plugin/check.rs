//! `plugin check`: what an edge would say to an upload of the file.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{
    super::output::{self, Progress},
    Format, ProjectArgs,
};
use crate::author::{
    Project,
    check::{self, Report},
    project::{MANIFEST, read_manifest},
};

/// Check a component as an edge does before it takes it, and name what is wrong.
///
/// With a manifest also: that it declares the component's hooks, asks for what there is,
/// and that the component accepts `config.json`.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// The component; without it, the one that the project has built.
    file: Option<PathBuf>,
    /// The manifest; without it, the project's, if the folder is one.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let report = super::super::runtime()?.block_on(report(args))?;
    if args.format.json {
        output::line(&serde_json::to_string(&report)?)?;
    } else {
        output::text(&sheet(&report))?;
    }
    match report.problems.len() {
        0 => Ok(()),
        1 => bail!("1 problem"),
        problems => bail!("{problems} problems"),
    }
}

async fn report(args: &Args) -> Result<Report> {
    let project = match &args.file {
        Some(_) if !args.project.dir().join(MANIFEST).is_file() => None,
        _ => Some(args.project.open()?),
    };
    let file = match (&args.file, &project) {
        (Some(file), _) => file.clone(),
        (None, Some(project)) => super::built(project)?,
        (None, None) => bail!("name a component"),
    };
    let manifest = match &args.manifest {
        Some(file) => Some(read_manifest(file)?),
        None => project.as_ref().map(|project| project.manifest.clone()),
    };
    let config = project.as_ref().map(Project::config).transpose()?.unwrap_or_default();
    let progress = Progress::new();
    progress.say(format_args!("checking {}", file.display()));
    check::check(&file, manifest.as_ref(), config).await
}

fn sheet(report: &Report) -> String {
    let mut lines = vec![match report.valid {
        true => format!("ok      {}", report.file),
        false => format!("FAILED  {}", report.file),
    }];
    for problem in &report.problems {
        lines.push(format!("        {}: {}", problem.key, problem.reason));
    }
    if let (Some(digest), Some(memory)) = (&report.digest, report.initial_memory_bytes) {
        lines.push(format!("        {} bytes, sha256 {digest}", report.bytes));
        lines.push(format!(
            "        exports {}; starts with {} KiB of memory",
            report.hooks.join(", "),
            memory >> 10
        ));
    }
    lines.extend(report.notes.iter().map(|note| format!("note    {note}")));
    lines.push(String::new());
    lines.join("\n")
}
