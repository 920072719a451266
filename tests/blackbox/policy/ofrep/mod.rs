//! Feature flags over OFREP on a tenant's host: by hand, and by the OpenFeature SDK from
//! PyPI, which the test installs into a folder that later runs find again.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::actors::{World, WorldOptions, eventually};

const ALL: &str = "/ofrep/v1/evaluate/flags";

/// A world whose `flags.json` has some more.
async fn world(config: &str) -> World {
    let prepare = |policies: &Path| {
        let file = policies.join("flags.json");
        let text = std::fs::read_to_string(&file).expect("flags");
        let mut flags: Value = serde_json::from_str(&text).expect("JSON");
        let add = |flags: &mut Value, key: &str, flag: Value| flags["flags"][key] = flag;
        let fixed = |value: Value| json!({ "state": "ENABLED", "variants": { "x": value }, "defaultVariant": "x" });
        add(&mut flags, "page-size", fixed(json!(50)));
        add(&mut flags, "sampling", fixed(json!(0.25)));
        add(&mut flags, "a b", fixed(json!("spaced")));
        let mut beta = fixed(json!(false));
        beta["variants"]["y"] = json!(true);
        beta["targeting"] = json!({ "if": [
            { "and": [{ "var": "beta" }, { "==": [{ "var": "targetingKey" }, "u-7"] }] }, "y"] });
        add(&mut flags, "beta-only", beta);
        let mut whose = fixed(json!("nobody"));
        whose["variants"] = json!({ "x": "nobody", "acme": "acme" });
        whose["targeting"] =
            json!({ "if": [{ "==": [{ "var": "tenant.slug" }, "acme-corp"] }, "acme"] });
        add(&mut flags, "whose", whose);
        let mut broken = fixed(json!(true));
        broken["targeting"] = json!("no-variant-of-it");
        add(&mut flags, "lost", broken);
        std::fs::write(&file, flags.to_string()).expect("a file");
    };
    World::with(WorldOptions { config: config.to_owned(), prepare: Some(Box::new(prepare)) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flag_is_evaluated_for_the_tenant_of_the_host_and_nothing_is_charged() {
    let world = world("").await;
    let acme = world.tenant("acme-corp", "enterprise", "us").await;
    let other = world.tenant("other", "developer", "us").await;
    let ask = async |tenant: &crate::actors::TenantActor, key: &str, body: &str| {
        tenant.send("POST", &format!("{ALL}/{key}"), &[], body).await
    };
    let found = ask(&acme, "theme", r#"{"context":{"targetingKey":"u-1"}}"#).await.expect(200);
    assert_eq!(found.header("content-type"), "application/json");
    let found = found.json();
    assert_eq!(
        (&found["key"], &found["value"], &found["variant"], &found["reason"]),
        (&json!("theme"), &json!("acme"), &json!("acme"), &json!("TARGETING_MATCH"))
    );
    assert_eq!(found["metadata"]["flagSetId"], "edge");
    // No body is an empty context; a key may hold anything.
    assert_eq!(ask(&acme, "page-size", "").await.expect(200).json()["value"], 50);
    assert_eq!(ask(&acme, "a%20b", "{}").await.expect(200).json()["value"], "spaced");

    // Nobody passes for another tenant, by whatever context.
    let forged = r#"{"context":{"tenant":{"slug":"acme-corp"},"tenant.slug":"acme-corp"}}"#;
    assert_eq!(ask(&other, "whose", forged).await.expect(200).json()["value"], "nobody");
    assert_eq!(ask(&acme, "whose", "{}").await.expect(200).json()["value"], "acme");

    // A disabled flag has no value: the client's default holds.
    let off = ask(&acme, "maintenance-banner", "{}").await.expect(200).json();
    assert_eq!((off.get("value"), &off["reason"]), (None, &json!("DISABLED")));

    for (key, body, status, code) in [
        ("nothing", "{}", 404, "FLAG_NOT_FOUND"),
        ("", "{}", 404, "FLAG_NOT_FOUND"),
        ("theme", "{", 400, "PARSE_ERROR"),
        ("theme", r#"{"context":7}"#, 400, "INVALID_CONTEXT"),
        ("theme", r#"{"context":{"targetingKey":7}}"#, 400, "INVALID_CONTEXT"),
        ("lost", "{}", 400, "GENERAL"),
    ] {
        let refused = ask(&acme, key, body).await.expect(status).json();
        assert_eq!((&refused["key"], &refused["errorCode"]), (&json!(key), &json!(code)), "{body}");
        assert!(refused["errorDetails"].is_string());
    }
    let large = format!(r#"{{"context":{{"x":"{}"}}}}"#, "x".repeat(64 << 10));
    ask(&acme, "theme", &large).await.expect(413);
    assert_eq!(acme.get(&format!("{ALL}/theme")).await.expect(405).header("allow"), "POST");
    let bad = [("authorization", "Bearer lve_nothing")];
    acme.send("POST", ALL, &bad, "{}").await.expect(401);
    assert_eq!(world.arrivals(), 0, "nothing is forwarded");
    assert_eq!(world.usage(&acme).await["current_usage"]["api_calls_this_month"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_flags_come_with_a_tag_that_saves_sending_them_again_until_one_changes() {
    let world = world("").await;
    let acme = world.tenant("acme-corp", "enterprise", "us").await;
    let ask =
        async |tag: &str, body: &str| acme.send("POST", ALL, &[("if-none-match", tag)], body).await;
    let first = ask("\"x\"", "{}").await.expect(200);
    let tag = first.header("etag");
    let flags = first.json()["flags"].as_array().expect("flags").clone();
    let keys: Vec<_> = flags.iter().filter_map(|flag| flag["key"].as_str()).collect();
    assert!(keys.is_sorted() && keys.contains(&"theme") && keys.contains(&"lost"), "{keys:?}");
    // One that fails spoils no other.
    let lost = flags.iter().find(|flag| flag["key"] == "lost").expect("a flag");
    assert_eq!(lost["errorCode"], "GENERAL");

    let same = ask(&format!("\"x\", W/{tag}"), "{}").await.expect(304);
    assert_eq!((same.header("etag"), same.body.len()), (tag.clone(), 0));
    // Another context has other flags; so has another file.
    let other = r#"{"context":{"targetingKey":"u-7","beta":true}}"#;
    assert_ne!(ask(&tag, other).await.expect(200).header("etag"), tag);
    world.edit("flags.json", |text| text.replace("\"page-size\":", "\"page-length\":"));
    eventually("the changed flags", || async {
        (ask(&tag, "{}").await.status == 200).then_some(())
    })
    .await;
    let body = ask(&tag, "[]").await.expect(400).json();
    assert_eq!((&body["errorCode"], body.get("key")), (&json!("PARSE_ERROR"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_leave_the_path_to_the_backends() {
    let world = world("[edge]\nofrep = false").await;
    let acme = world.tenant("plain", "developer", "us").await;
    acme.send("POST", ALL, &[], "{}").await.expect(200);
    assert_eq!(world.arrivals(), 1);
}

/// The Python that has the SDK: a virtual environment beside the build's other output,
/// made where there is none.
async fn python() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("blackbox/policy/ofrep");
    let own = std::env::current_exe().expect("this test");
    let dir = own.ancestors().nth(2).expect("the target folder").join("ofrep-client");
    let python = dir.join("bin/python");
    let requirements = sources.join("requirements.txt");
    let stamp = dir.join("requirements.txt");
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    if read(&stamp) == read(&requirements) {
        return python;
    }
    let run = async |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().await;
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", program.display());
    };
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    run(Path::new("python3"), &["-m", "venv", &text(&dir)]).await;
    run(&python, &["-m", "pip", "install", "-q", "-r", &text(&requirements)]).await;
    std::fs::copy(&requirements, &stamp).expect("a file");
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openfeature_sdk_evaluates_every_type_of_flag() {
    let world = world("").await;
    let acme = world.tenant("acme-corp", "enterprise", "us").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("blackbox/policy/ofrep/client.py");
    let base = format!("http://{}", world.edge_addr());
    let output = Command::new(python().await).arg(script).args([&base, &acme.host]).output().await;
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (name, value, reason) in [
        ("boolean", json!(true), "TARGETING_MATCH"),
        ("string", json!("acme"), "TARGETING_MATCH"),
        ("integer", json!(50), "STATIC"),
        ("float", json!(0.25), "STATIC"),
        ("object", json!({ "rows": 1_000_000, "formats": ["csv", "parquet"] }), "TARGETING_MATCH"),
        ("targeted", json!(true), "TARGETING_MATCH"),
        ("missing", json!(true), "ERROR"),
        ("mistyped", json!(true), "ERROR"),
    ] {
        let details = &found[name];
        assert_eq!((&details["value"], &details["reason"]), (&value, &json!(reason)), "{name}");
    }
    assert_eq!(found["missing"]["error_code"], "FLAG_NOT_FOUND");
    assert_eq!(found["mistyped"]["error_code"], "TYPE_MISMATCH");
}
