use super::*;

const FULL: &str = r#"
name = "geo-router"
description = "Sends a request to the region of its country"
hooks = ["request-hook", "response-hook"]
capabilities = ["outbound", "telemetry"]
origins = ["https://geo.example.com"]
metrics = ["routed"]
on_failure = "open"

[limits]
deadline_ms = 20

[config]
type = "object"
required = ["fallback"]
[config.properties.fallback]
type = "string"

[build]
language = "rust"
"#;

fn keys(text: &str) -> Vec<String> {
    let problems = Manifest::from_toml(text).expect_err("problems");
    problems.into_iter().map(|problem| problem.key).collect()
}

#[test]
fn a_manifest_is_read_whole_and_reads_back_from_its_json() {
    let manifest = Manifest::from_toml(FULL).expect("a manifest");
    assert_eq!(manifest.name.as_str(), "geo-router");
    assert_eq!(manifest.on_failure, OnFailure::Open);
    assert_eq!(manifest.limits["deadline_ms"], 20);
    let hooks = manifest.port_hooks();
    assert!(hooks.request && hooks.response && !hooks.request_body);
    let json = serde_json::to_value(&manifest).expect("JSON");
    assert_eq!(Manifest::from_value(json), Ok(manifest));
}

#[test]
fn what_may_be_left_out_has_the_safe_value() {
    let text = "name = \"a\"\ndescription = \"A\"\nhooks = [\"request-hook\"]";
    let manifest = Manifest::from_toml(text).expect("a manifest");
    assert_eq!(manifest.on_failure, OnFailure::Closed);
    assert!(manifest.capabilities.is_empty() && manifest.origins.is_empty());
    assert!(manifest.build.is_none());
}

#[test]
fn every_bad_key_is_named_in_one_pass() {
    let text = r#"
name = "Geo Router"
hooks = ["request-hook", "init-hook", "request-hook"]
origins = ["https://a.example", "a.example"]
metrics = ["a-b"]
on_failure = "ajar"
colour = "red"
[limits]
deadline_ms = "long"
memory_bytes = 0
[config]
type = "object"
patternProperties = {}
[build]
language = "cobol"
"#;
    let mut found = keys(text);
    found.sort();
    let mut expected = [
        "build",
        "colour",
        "config.patternProperties",
        "description",
        "hooks[1]",
        "hooks[2]",
        "limits.deadline_ms",
        "limits.memory_bytes",
        "metrics[0]",
        "name",
        "on_failure",
        "origins[1]",
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let text = "name = \"a\"\ndescription = \"A\"\nhooks = []\norigins = [\"https://a.example\"]\n\
                metrics = [\"m\"]";
    assert_eq!(keys(text), ["hooks", "origins", "metrics"]);
}

#[test]
fn what_is_no_toml_or_too_long_is_one_problem() {
    let problems = Manifest::from_toml("name = \"a\"\nhooks = \n").expect_err("a problem");
    assert!(problems[0].reason.starts_with("line 2"), "{problems:?}");
    assert_eq!(keys(&"# long\n".repeat(MANIFEST_BYTES_MAX)), ["."]);
    assert!(Manifest::from_value(Value::Null).is_err());
}
