//! The official flagd evaluator test-bed, run against [`Flags`].
//!
//! It comes with the crate `open-feature-flagd`, which is never built: its place on disk
//! is asked of `cargo metadata`, and its Gherkin is read from there. Invariant: a scenario
//! that is not run is listed here with its reason; fewer than expected is a failure.

mod gherkin;
mod steps;

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use self::gherkin::Scenario;
use super::Flags;

/// Scenarios that must have run, examples of outlines counted singly: those of
/// `open-feature-flagd` 0.3.0. A later release may have more.
const SCENARIOS_MIN: usize = 125;

/// Examples that are not run, by tag.
const SKIPPED: [(&str, &str); 1] = [(
    "@fractional-v1",
    "the bucketing that flagd replaced: the same keys expect other variants under v2",
)];

/// Scenarios that fail, by name. Every entry needs a reason.
const KNOWN_FAILURES: [(&str, &str); 0] = [];

/// Folder of the test-bed.
fn folder() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages.iter().find(|package| package["name"] == "open-feature-flagd");
    let manifest = package.and_then(|p| p["manifest_path"].as_str()).expect("open-feature-flagd");
    PathBuf::from(manifest).with_file_name("flagd-testbed").join("evaluator")
}

fn scenarios(folder: &std::path::Path) -> Vec<Scenario> {
    let mut files: Vec<_> = std::fs::read_dir(folder.join("gherkin"))
        .expect("the features")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let read = |file| std::fs::read_to_string(file).expect("a feature");
    files.into_iter().flat_map(|file| gherkin::parse(&read(file))).collect()
}

#[test]
fn the_flagd_test_bed_passes() {
    let folder = folder();
    let text = std::fs::read_to_string(folder.join("flags/testkit-flags.json")).expect("the flags");
    let flags = Flags::parse_tolerant(&text).expect("the test-bed's flags are valid");
    let (mut ran, mut skipped, mut wrong) = (0, 0, Vec::new());
    for scenario in scenarios(&folder) {
        if SKIPPED.iter().any(|(tag, _)| scenario.tags.contains(&(*tag).to_owned())) {
            skipped += 1;
            continue;
        }
        ran += 1;
        let result = steps::run(&flags, &scenario);
        let known = KNOWN_FAILURES.iter().any(|(name, _)| *name == scenario.name);
        match result {
            Err(reason) if !known => wrong.push(format!("{}: {reason}", scenario.name)),
            Ok(()) if known => {
                wrong.push(format!("{}: passes; take it off the list", scenario.name))
            }
            Ok(()) | Err(_) => {}
        }
    }
    println!("flagd test-bed: {ran} scenarios ran, {skipped} of a replaced version were skipped");
    assert!(wrong.is_empty(), "{} of {ran} failed:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= SCENARIOS_MIN, "only {ran} scenarios ran, expected {SCENARIOS_MIN}");
}
