//! `check`: the config, the declarations and the golden cases, without serving.

use anyhow::{Result, bail};

use crate::{config::Config, golden, publish};

/// Prints one line a golden case; fails when anything does not hold.
pub(super) fn run(config: &Config) -> Result<()> {
    let runtime = super::runtime()?;
    runtime.block_on(publish::check(&config.policies.dir, &config.edge.base_domain))?;
    let report = runtime.block_on(golden::run(&config.policies.dir))?;
    for outcome in &report.outcomes {
        match &outcome.failure {
            None => println!("ok      {}: {}", outcome.file, outcome.name),
            Some(failure) => {
                println!("FAILED  {}: {}\n        {failure}", outcome.file, outcome.name)
            }
        }
    }
    let failed = report.failed();
    println!("{} golden cases passed, {failed} failed", report.outcomes.len() - failed);
    if failed > 0 {
        bail!("{failed} golden cases failed");
    }
    Ok(())
}
