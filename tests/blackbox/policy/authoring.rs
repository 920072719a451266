//! The author's commands, as processes: a new project, its checks and its golden cases, and
//! an edge of its own that follows every save. No toolchain is needed: the project's build
//! command copies what the test made. The toolchains are run by `make templates`.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::actors::{Client, binary, eventually, responder};

/// Makes `dist/greeter.wasm` of `source.wasm`, in one rename.
const BUILD: &str = "[build]\nlanguage = \"c\"\ncommand = [\"sh\", \"-c\", \"mkdir -p dist && \
                     cp source.wasm dist/new && mv dist/new dist/greeter.wasm\"]\n";

/// Runs `plugin …` to its end; gives whether it succeeded, and what it printed.
async fn plugin(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(binary());
    let output = command.arg("plugin").args(args).current_dir(dir).output().await.expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// A project whose component is `wasm`.
async fn project(dir: &Path, wasm: &[u8]) {
    let made = plugin(dir, &["new", "--lang", "c", "greeter", "--dir", "."]).await;
    assert!(made.0, "{}", made.2);
    let manifest = std::fs::read_to_string(dir.join("plugin.toml")).expect("a manifest");
    let (manifest, _) = manifest.split_once("[build]").expect("a [build]");
    std::fs::write(dir.join("plugin.toml"), format!("{manifest}{BUILD}")).expect("a file");
    save(dir, wasm);
}

/// As an editor does: written aside and renamed.
fn save(dir: &Path, wasm: &[u8]) {
    std::fs::write(dir.join(".source"), wasm).expect("a file");
    std::fs::rename(dir.join(".source"), dir.join("source.wasm")).expect("a rename");
}

#[tokio::test]
async fn a_project_is_built_checked_and_tested_and_every_fault_has_a_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    project(dir, &responder(403)).await;

    let (ok, _, error) = plugin(dir, &["test"]).await;
    assert!(!ok && error.contains("plugin build"), "{error}");
    let (ok, built, error) = plugin(dir, &["build"]).await;
    assert!(ok && built.contains("dist/greeter.wasm"), "{built}{error}");
    let (ok, report, _) = plugin(dir, &["check", "--json"]).await;
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert!(ok && report["valid"] == true, "{report}");
    assert_eq!(report["hooks"], serde_json::json!(["request-hook"]));

    // This component answers everything: of the template's cases none holds.
    let (ok, report, _) = plugin(dir, &["test", "--json"]).await;
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert!(!ok && report["passed"] == 0, "{report}");
    std::fs::remove_dir_all(dir.join("cases")).expect("removed");
    std::fs::create_dir(dir.join("cases")).expect("a folder");
    let case = r#"{ "name": "everything is refused",
        "tenant": { "slug": "acme", "plan": "team", "group": "eu" },
        "request": { "path": "/" }, "expect": { "decision": "respond", "status": 403 } }"#;
    std::fs::write(dir.join("cases/refused.json"), case).expect("a file");
    let (ok, report, error) = plugin(dir, &["test"]).await;
    assert!(ok && report.contains("1 passed, 0 failed"), "{report}{error}");

    // The manifest and the component have to agree, and the config to hold.
    let manifest = std::fs::read_to_string(dir.join("plugin.toml")).expect("a manifest");
    let other = manifest.replace("hooks = [\"request-hook\"]", "hooks = [\"response-hook\"]");
    std::fs::write(dir.join("plugin.toml"), other).expect("a file");
    std::fs::write(dir.join("config.json"), r#"{ "greting": "x" }"#).expect("a file");
    let (ok, report, _) = plugin(dir, &["check"]).await;
    assert!(
        !ok && report.contains("names response-hook") && report.contains("greting"),
        "{report}"
    );
}

/// A `plugin run --json`.
struct Local {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Local {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(["plugin", "run", "--json", "--listen", "127.0.0.1:0"]).current_dir(dir);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn();
        let mut child = child.expect("a process");
        let events = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, events }
    }

    /// The next event of that name; others before it do not matter.
    async fn event(&mut self, name: &str) -> Value {
        let next = async {
            loop {
                let line = self.events.next_line().await.expect("output").expect("an event");
                let event: Value = serde_json::from_str(&line).expect("JSON");
                if event["event"] == name {
                    return event;
                }
            }
        };
        let bound = std::time::Duration::from_secs(60);
        tokio::time::timeout(bound, next).await.unwrap_or_else(|_| panic!("no event `{name}`"))
    }
}

#[tokio::test]
async fn an_authors_edge_follows_every_save_and_keeps_what_is_live_when_one_does_not_hold() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    project(dir, &responder(403)).await;
    let mut local = Local::start(dir);
    let listening = local.event("listening").await;
    let url = listening["url"].as_str().expect("a URL");
    let port: u16 = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let client = Client { addr: ([127, 0, 0, 1], port).into() };
    let status = async || {
        let request = Client::request("GET", "/", &format!("acme.localhost:{port}"));
        let request = request.body(Default::default()).expect("a request");
        client.try_send(request).await.expect("an answer").status.as_u16()
    };
    assert_eq!(status().await, 403);

    save(dir, &responder(451));
    while local.event("live").await["version"] == listening["version"] {}
    eventually("the saved version answers", || async { (status().await == 451).then_some(()) })
        .await;

    save(dir, b"no component");
    let refused = local.event("refused").await;
    assert!(refused["reason"].as_str().is_some_and(|why| why.contains("WebAssembly")), "{refused}");
    assert_eq!(status().await, 451);

    std::fs::write(dir.join("plugin.toml"), "name = 3").expect("a file");
    let failed = local.event("failed").await;
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("name")), "{failed}");
    assert_eq!(status().await, 451);

    let pid = local.child.id().expect("a living process").to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill(1)");
    assert!(sent.success());
    assert!(local.child.wait().await.expect("its end").success());
}
