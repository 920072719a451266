//! `check`: the config, the declarations, the golden cases and the walls of the database,
//! without serving. A PostgreSQL is looked at as it is: nothing is migrated, nothing written.

use anyhow::{Result, bail};
use control::Store;

use crate::{config::Config, declare::Declarations, golden, publish, run};

/// Prints one line a golden case and a fault of the database; fails when anything does not
/// hold.
pub(super) fn run(config: &Config) -> Result<()> {
    let runtime = super::runtime()?;
    runtime.block_on(publish::check(&config.policies.dir, &config.edge.base_domain))?;
    let declared = Declarations::load(&config.policies.dir);
    if let Ok(declared) = declared {
        run::check_default_residency(config, declared.groups.keys())?;
    }
    let cases = runtime.block_on(golden_cases(config))?;
    let faults = runtime.block_on(schema(&config.store_url()))?;
    match (cases, faults) {
        (0, 0) => Ok(()),
        (cases, 0) => bail!("{cases} golden cases failed"),
        (0, faults) => bail!("{faults} faults in the database's row-level security"),
        (cases, faults) => bail!(
            "{cases} golden cases failed, and {faults} faults in the database's row-level security"
        ),
    }
}

/// How many golden cases failed.
async fn golden_cases(config: &Config) -> Result<usize> {
    let report = golden::run(&config.policies.dir).await?;
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
    Ok(failed)
}

/// How many rules of row-level security a PostgreSQL breaks; SQLite has none.
async fn schema(url: &str) -> Result<usize> {
    if !url.starts_with("postgres") {
        return Ok(0);
    }
    let Some(findings) = Store::inspect_schema(url).await? else {
        println!("ok      database: empty; the first start makes the schema");
        return Ok(0);
    };
    for finding in &findings {
        println!("FAILED  database: {}: {} {}", finding.rule, finding.object, finding.detail);
    }
    if findings.is_empty() {
        println!("ok      database: row-level security holds on every table and partition");
    }
    Ok(findings.len())
}
