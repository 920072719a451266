//! `plugin test`: the golden cases of a project, against the component that it has built.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use serde_json::json;

use super::{
    super::output::{self, Progress},
    Format, ProjectArgs,
};
use crate::{
    author::{Stage, check::sandbox_config, project::CASES},
    golden::{self, Outcome},
};

/// Run the golden cases in `cases/` against the built component.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let project = args.project.open()?;
    super::built(&project)?;
    // No case sends a request anywhere: port 9 discards.
    let stage = Stage::new(&project, |_| SocketAddr::from(([127, 0, 0, 1], 9)))?;
    let report = {
        let progress = Progress::new();
        progress.say(format_args!("compiling {}", project.manifest.name));
        let policies = stage.policies();
        super::super::runtime()?.block_on(golden::run_with(&policies, sandbox_config()))?
    };
    // As the author knows the file: without the stage's folder.
    let staged = format!("{}/", project.manifest.name);
    let file = |outcome: &Outcome| outcome.file.trim_start_matches(&staged).to_owned();
    let failed = report.failed();
    let passed = report.outcomes.len() - failed;
    if args.format.json {
        let cases = report.outcomes.iter().map(|outcome| {
            json!({ "file": file(outcome), "name": outcome.name, "failure": outcome.failure })
        });
        let cases: Vec<_> = cases.collect();
        let answer = json!({ "passed": passed, "failed": failed, "cases": cases });
        output::line(&answer.to_string())?;
    } else {
        for outcome in &report.outcomes {
            match &outcome.failure {
                None => output::line(&format!("ok      {}: {}", file(outcome), outcome.name))?,
                Some(failure) => output::line(&format!(
                    "FAILED  {}: {}\n        {failure}",
                    file(outcome),
                    outcome.name
                ))?,
            }
        }
        output::line(&format!("{passed} passed, {failed} failed"))?;
    }
    match (passed, failed) {
        (0, 0) => bail!("there is no case in {}", project.dir.join(CASES).display()),
        (_, 0) => Ok(()),
        (_, failed) => bail!("{failed} cases failed"),
    }
}
