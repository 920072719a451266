//! The command line against a running world: standard output, standard error, exit code.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::actors::{ADMIN_TOKEN, TenantActor, World, WorldOptions, binary, eventually};

/// What a command left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The output, if the command ended well and had nothing else to say.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// The output as JSON.
    #[track_caller]
    fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("no JSON ({e}): {out}"))
    }

    /// Standard error, if the command ended with this code and printed no data.
    #[track_caller]
    fn fails(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        self.err
    }
}

/// Runs the program with this environment and no other setting of ours.
async fn run(env: &[(&str, String)], args: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    for name in ["LEANVIBE_EDGE_SERVER", "LEANVIBE_EDGE_TOKEN", "LEANVIBE_EDGE_ADMIN_TOKEN"] {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    let output = command.stdin(Stdio::null()).output().await.expect("a process");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn server(world: &World) -> (&'static str, String) {
    ("LEANVIBE_EDGE_SERVER", format!("http://{}", world.control().addr))
}

/// Runs a line as the operator.
async fn edge(world: &World, line: &str) -> Ran {
    as_bearer(world, ADMIN_TOKEN, line).await
}

/// Runs a line with a token.
async fn as_bearer(world: &World, token: &str, line: &str) -> Ran {
    let args: Vec<_> = line.split_whitespace().collect();
    run(&[server(world), ("LEANVIBE_EDGE_TOKEN", token.to_owned())], &args).await
}

/// What the API answers to the operator.
async fn api(world: &World, path: &str) -> Value {
    world.admin("GET", &format!("/api/v1{path}"), None).await.expect(200).json()
}

/// A line of a table or sheet, with one space between its cells.
#[track_caller]
fn line(text: &str, first: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(first));
    let line = line.unwrap_or_else(|| panic!("no line {first} in\n{text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn acme(world: &World) -> TenantActor {
    world.tenant("acme", "team", "us").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_created_and_shown() {
    let world = World::start().await;
    let create = [
        "tenant",
        "create",
        "--slug",
        "acme-corp",
        "--organization",
        "Acme Corporation",
        "--display-name",
        "Acme Corp",
        "--email",
        "admin@acme-corp.com",
        "--plan",
        "enterprise",
        "--residency",
        "us",
    ];
    let env = [server(&world), ("LEANVIBE_EDGE_TOKEN", ADMIN_TOKEN.to_owned())];
    let out = run(&env, &create).await.ok();
    assert_eq!(line(&out, "slug"), "slug acme-corp");
    assert_eq!(line(&out, "organization"), "organization Acme Corporation");
    assert_eq!(line(&out, "status"), "status trial");
    assert!(line(&out, "quotas").contains("max_users=999999"), "{out}");
    assert_eq!(edge(&world, "tenant show acme-corp").await.ok(), out);
    let id = line(&out, "id").split_off("id ".len());
    assert_eq!(edge(&world, &format!("tenant show {id}")).await.ok(), out);
    let shown = edge(&world, "tenant show acme-corp --json").await.json();
    assert_eq!(shown, api(&world, &format!("/admin/tenants/{id}")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_created_below_a_slug_and_a_repetition_is_safe() {
    let world = World::start().await;
    let parent = acme(&world).await;
    let create = "tenant create --slug acme-eu --organization AcmeEU --email a@acme.example \
                  --plan team --parent acme --idempotency-key once --json";
    let first = edge(&world, create).await.json();
    assert_eq!(
        (&first["parent_tenant_id"], &first["data_residency"]),
        (&json!(parent.id), &json!("us"))
    );
    assert_eq!(edge(&world, create).await.json(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_walk_through_their_pages() {
    let world = World::start().await;
    for number in 0..5 {
        let body = json!({
            "organization_name": "T", "slug": format!("t-{number}"), "data_residency": "us",
            "plan": "team", "admin_email": "t@t.example",
        });
        world.admin("POST", "/api/v1/admin/tenants", Some(body)).await.expect(201);
    }
    let all = edge(&world, "tenant list --all").await.ok();
    assert_eq!(all.lines().count(), 6, "{all}");
    assert_eq!(all.lines().next().expect("a heading").split_whitespace().next(), Some("SLUG"));
    let some = edge(&world, "tenant list --limit 2").await;
    assert_eq!((some.code, some.out.lines().count()), (0, 3), "{some:?}");
    assert!(some.err.contains("--all"), "{}", some.err);
    let suspended = edge(&world, "tenant list --status suspended").await.ok();
    assert_eq!(suspended.lines().count(), 1, "{suspended}");
    assert_eq!(edge(&world, "tenant list --plan team").await.ok(), all);
    assert_eq!(edge(&world, "tenant list --plan developer").await.ok(), suspended);
    let json = edge(&world, "tenant list --json").await.json();
    assert_eq!(json, api(&world, "/admin/tenants").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_begins_and_ends() {
    let world = World::start().await;
    let acme = acme(&world).await;
    let out = edge(&world, "tenant suspend acme --reason abuse").await.ok();
    assert_eq!(line(&out, "status"), "status suspended");
    assert_eq!(line(&out, "suspended"), "suspended for abuse");
    crate::actors::eventually("the edge refuses", || async {
        (acme.get("/").await.status == 403).then_some(())
    })
    .await;
    assert_eq!(line(&edge(&world, "tenant resume acme").await.ok(), "status"), "status trial");
    let refused = edge(&world, "tenant suspend acme --reason mood").await.fails(1);
    assert!(refused.contains("\n  reason: must be one of: "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_a_patch_of_the_version_that_was_seen() {
    let world = World::start().await;
    acme(&world).await;
    let set = "tenant set acme --plan enterprise --name Acme --quota max_users=12 \
               --attribute tier=gold --domain shop.example --json";
    let set = edge(&world, set).await.json();
    assert_eq!((&set["plan"], &set["organization_name"]), (&json!("enterprise"), &json!("Acme")));
    assert_eq!(set["quota_overrides"], json!({"max_users": 12}));
    assert_eq!(set["attributes"], json!({"tier": "gold"}));
    assert_eq!(set["custom_domains"], json!(["shop.example"]));
    let removed = "tenant set acme --quota max_users= --attribute tier= --domain= --json";
    let removed = edge(&world, removed).await.json();
    assert_eq!(removed["quota_overrides"], json!({}));
    assert_eq!((&removed["attributes"], &removed["custom_domains"]), (&json!({}), &json!([])));
    let stale = edge(&world, "tenant set acme --name Other --if-version 1").await.fails(1);
    assert!(stale.contains("look at it"), "{stale}");
    assert_eq!(edge(&world, "tenant show acme --json").await.json(), removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_a_table_of_the_apis_figures() {
    let world = World::start().await;
    let acme = acme(&world).await;
    for _ in 0..5 {
        acme.get("/").await.expect(200);
    }
    let out = edge(&world, "tenant usage acme").await.ok();
    assert_eq!(line(&out, "api_calls"), "api_calls 5 100000 0.005");
    let json = edge(&world, "tenant usage acme --json").await.json();
    assert_eq!(json, world.usage(&acme).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_issued_once_listed_without_its_text_and_revoked() {
    let world = World::start().await;
    let acme = acme(&world).await;
    let issued = edge(&world, "tenant keys issue acme --expires 90d --json").await.json();
    let (id, key) = (issued["id"].as_str().expect("an id"), issued["key"].as_str().expect("a key"));
    assert!(issued["expires_at"].is_string(), "{issued}");
    let listed = edge(&world, "tenant keys list acme").await.ok();
    assert!(listed.contains(id) && !listed.contains(key), "{listed}");
    let revoked = edge(&world, &format!("tenant keys revoke acme {id}")).await;
    assert_eq!((revoked.code, revoked.err.as_str()), (0, "revoked\n"), "{revoked:?}");
    let keys = api(&world, &format!("/admin/tenants/{}/keys", acme.id)).await;
    assert!(keys["items"][0]["revoked_at"].is_string(), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_is_wrong_and_what_to_do() {
    let world = World::start().await;
    acme(&world).await;
    let wrong = as_bearer(&world, "wrong-token", "tenant list").await.fails(1);
    assert!(wrong.contains("LEANVIBE_EDGE_TOKEN") && !wrong.contains("wrong-token"), "{wrong}");
    let none = run(&[server(&world)], &["tenant", "list"]).await.fails(2);
    assert!(none.contains("LEANVIBE_EDGE_TOKEN") && none.contains("--token-file"), "{none}");
    let unknown = edge(&world, "tenant show nobody").await.fails(1);
    assert!(unknown.contains("\"nobody\"") && unknown.contains("tenant list"), "{unknown}");
    let no_id = "tenant show 0190a8f0-0000-7000-8000-000000000000";
    assert!(edge(&world, no_id).await.fails(1).contains("Not found"));
    let create = "tenant create --slug Bad_Slug --organization A --email nobody --plan platinum \
                  --residency mars";
    let fields = edge(&world, create).await.fails(1);
    let named: Vec<_> = fields.lines().skip(1).filter_map(|l| l.trim().split_once(": ")).collect();
    let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["slug", "admin_email", "plan", "data_residency"], "{fields}");
    let taken = "tenant create --slug acme --organization A --email a@a.example --plan team \
                 --residency us";
    assert_eq!(edge(&world, taken).await.fails(1).lines().count(), 1);
    assert!(edge(&world, "tenant show").await.fails(2).contains("Usage:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_named_with_what_to_check() {
    let mut world = World::start().await;
    let (_, url) = server(&world);
    world.stop().await;
    let line = ["--server", &url, "--token", "some-token"];
    let down = run(&[], &[&["tenant", "list"], &line[..]].concat()).await.fails(3);
    assert!(down.contains(&url) && down.contains("leanvibe-edge serve"), "{down}");
    assert!(down.contains("--server") && !down.contains("some-token"), "{down}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_announced_done_and_then_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edge.db");
    migrates(&format!("sqlite://{}", path.display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_announced_done_and_then_nothing_on_postgresql() {
    migrates(&services::postgres().database()).await;
}

async fn migrates(url: &str) {
    let env = [("LEANVIBE_EDGE__STORE__URL", url.to_owned())];
    let dry = run(&env, &["migrate", "--dry-run"]).await.ok();
    assert!(dry.starts_with("would apply 0001 tenants\n"), "{dry}");
    assert!(dry.ends_with("version 0: nothing was changed\n"), "{dry}");
    assert_eq!(run(&env, &["migrate", "--dry-run"]).await.ok(), dry);
    let json = run(&env, &["migrate", "--json"]).await.json();
    let applied = json["migrations"].as_array().expect("migrations");
    assert_eq!(applied.len(), dry.lines().count() - 1);
    assert_eq!(json["version_before"], 0);
    assert_eq!(json["version_after"], applied[applied.len() - 1]["version"]);
    let again = run(&env, &["migrate"]).await.ok();
    assert_eq!(again, format!("version {}: nothing to apply\n", json["version_after"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_or_is_served_is_named() {
    let world = World::start().await;
    let served = world.dir.path().join("data/edge.db");
    let env = |url: String| [("LEANVIBE_EDGE__STORE__URL", url)];
    // Nothing is pending, so the owner is left alone.
    run(&env(format!("sqlite://{}", served.display())), &["migrate"]).await.ok();
    let nowhere = "postgres://edge:hunter2@127.0.0.1:1/edge".to_owned();
    let error = run(&env(nowhere), &["migrate"]).await.fails(1);
    assert!(error.contains("127.0.0.1:1") && !error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_help_that_names_its_options() {
    for (line, parts) in [
        ("--help", &["tenant", "token", "audit", "migrate", "Exit codes"][..]),
        ("tenant --help", &["create", "suspend", "usage", "--server", "LEANVIBE_EDGE_SERVER"]),
        ("tenant create --help", &["--slug", "--idempotency-key", "--token-file", "--json"]),
        ("token issue --help", &["--role", "--scope", "--expires", "--tenant"]),
        ("migrate --help", &["--dry-run", "--config"]),
    ] {
        let args: Vec<_> = line.split_whitespace().collect();
        let help = run(&[], &args).await.ok();
        for part in parts {
            assert!(help.contains(part), "{part} in {line}:\n{help}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_from_its_issue_over_a_rotation_to_its_revocation() {
    let world = World::start().await;
    let acme = acme(&world).await;
    let issue = "token issue --role tenant-admin --tenant acme --name ops --expires 90d --json";
    let old = edge(&world, issue).await.json();
    let (old_id, old) = (old["id"].as_str().expect("an id"), old["token"].as_str().expect("text"));
    let usage = format!("tenant usage {}", acme.id);
    as_bearer(&world, old, &usage).await.ok();
    let rotate = format!("token rotate {old_id} --tenant acme --overlap 1h --json");
    let new = edge(&world, &rotate).await.json();
    let (new_id, new) = (new["id"].as_str().expect("an id"), new["token"].as_str().expect("text"));
    for token in [old, new] {
        as_bearer(&world, token, &usage).await.ok();
    }
    let listed = edge(&world, "token list --tenant acme").await.ok();
    assert!(listed.contains(old_id) && listed.contains(new_id), "{listed}");
    assert!(!listed.contains(old) && !listed.contains(new), "{listed}");
    let revoked = edge(&world, &format!("token revoke {new_id} --tenant acme")).await;
    assert_eq!((revoked.code, revoked.err.as_str()), (0, "revoked\n"), "{revoked:?}");
    assert!(as_bearer(&world, new, &usage).await.fails(1).contains("does not take this token"));
    as_bearer(&world, old, &usage).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_token_is_the_operators() {
    let world = World::start().await;
    acme(&world).await;
    let out = edge(&world, "token issue --role admin --name ci").await.ok();
    let token = line(&out, "token").split_off("token ".len());
    as_bearer(&world, &token, "tenant show acme").await.ok();
    assert!(edge(&world, "token list").await.ok().contains(" ci "));
    let bad = edge(&world, "token issue --role service --tenant acme").await.fails(1);
    assert!(bad.contains("\n  scopes: "), "{bad}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_token_needs_the_id_and_is_told_so() {
    let world = World::start().await;
    let acme = acme(&world).await;
    let issued = edge(&world, "token issue --role tenant-admin --tenant acme --json").await.json();
    let token = issued["token"].as_str().expect("a token");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).expect("a file");
    let file = file.to_str().expect("text");
    let by_id = ["tenant", "show", &acme.id, "--token-file", file];
    run(&[server(&world)], &by_id).await.ok();
    let by_slug = ["tenant", "show", "acme", "--token-file", file];
    let told = run(&[server(&world)], &by_slug).await.fails(2);
    assert!(told.contains("give the tenant's id"), "{told}");
    let suspend = ["tenant", "suspend", &acme.id, "--token-file", file];
    let refused = run(&[server(&world)], &suspend).await.fails(1);
    assert!(refused.contains("role and scopes"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_verified_and_a_changed_entry_is_found() {
    let url = services::postgres().database();
    let config = format!("[store]\nurl = \"{url}\"");
    let world = World::with(WorldOptions { config, prepare: None }).await;
    let acme = acme(&world).await;
    for plan in ["enterprise", "developer"] {
        edge(&world, &format!("tenant set acme --plan {plan}")).await.ok();
    }
    let verified = edge(&world, "audit verify --tenant acme").await.ok();
    let head = line(&verified, "head").split_off("head ".len());
    assert_eq!(verified.lines().next(), Some("3 entries verified"), "{verified}");
    edge(&world, "audit verify").await.ok();
    edge(&world, "tenant set acme --plan team").await.ok();
    let json = edge(&world, &format!("audit verify --tenant acme --through {head} --json")).await;
    assert_eq!(json.json()["verified"], 4);
    let of = format!("WHERE tenant_id = '{}'", acme.id);
    let sql = |statement: String| services::postgres().superuser(&url, &statement);
    sql(format!("DELETE FROM edge.audit_entry {of} AND seq > 2"));
    edge(&world, "audit verify --tenant acme").await.ok();
    let cut = edge(&world, &format!("audit verify --tenant acme --through {head}")).await.fails(1);
    assert!(cut.contains("ends at entry 2"), "{cut}");
    sql(format!("UPDATE edge.audit_entry SET actor = 'nobody' {of} AND seq = 2"));
    let broken = edge(&world, "audit verify --tenant acme").await.fails(1);
    assert!(broken.contains("entry 2 was changed"), "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_heads_are_verified_with_the_public_key_and_no_other() {
    let mut world = World::start().await;
    let acme = acme(&world).await;
    // Heads are signed at the start, and every hour from then on.
    world.stop().await;
    world.resume().await;
    let heads = format!("/api/v1/tenants/{}/audit/heads", acme.id);
    eventually("the chain is signed", || async {
        let page = world.admin("GET", &heads, None).await.expect(200).json();
        page["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
    })
    .await;
    let key = world.admin("GET", "/api/v1/audit/key", None).await.expect(200).json();
    let key = key["public_key"].as_str().expect("a key").to_owned();
    for of in ["--tenant acme", ""] {
        let verify = format!("audit verify {of} --public-key {key}");
        let verified = edge(&world, &verify).await.ok();
        assert!(verified.contains("1 signed heads verified"), "{verified}");
    }
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let refused = edge(&world, &format!("audit verify --tenant acme --public-key {other}")).await;
    assert!(refused.fails(1).contains("another key"));
}

/// The guide's tree: slug, plan, and the parent's place in this list.
const TREE: [(&str, &str, Option<usize>); 8] = [
    ("parent-corporation", "enterprise", None),
    ("subsidiary-a", "team", Some(0)),
    ("division-1", "developer", Some(1)),
    ("division-2", "developer", Some(1)),
    ("subsidiary-b", "enterprise", Some(0)),
    ("regional-office-eu", "team", Some(4)),
    ("regional-office-apac", "team", Some(4)),
    ("subsidiary-c", "team", Some(0)),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_tree_is_drawn_as_the_guide_draws_it_and_a_branch_can_be_moved() {
    let world = World::start().await;
    for (slug, plan, parent) in TREE {
        let place = match parent {
            None => "--residency us".to_owned(),
            Some(parent) => format!("--parent {}", TREE[parent].0),
        };
        let create = format!(
            "tenant create --slug {slug} --organization {slug} --email a@a.example --plan {plan} \
             {place}"
        );
        edge(&world, &create).await.ok();
        // Children are drawn in the order of their creation, which the clock tells.
        world.clock.advance_ms(1);
    }
    let drawn = "parent-corporation (enterprise) trial\n\
                 ├── subsidiary-a (team) trial\n\
                 │   ├── division-1 (developer) trial\n\
                 │   └── division-2 (developer) trial\n\
                 ├── subsidiary-b (enterprise) trial\n\
                 │   ├── regional-office-eu (team) trial\n\
                 │   └── regional-office-apac (team) trial\n\
                 └── subsidiary-c (team) trial\n";
    assert_eq!(edge(&world, "tenant hierarchy parent-corporation").await.ok(), drawn);
    edge(&world, "tenant move division-2 --parent subsidiary-c").await.ok();
    let moved = edge(&world, "tenant hierarchy subsidiary-c").await.ok();
    assert_eq!(moved, "subsidiary-c (team) trial\n└── division-2 (developer) trial\n");
    let cycle = "tenant move parent-corporation --parent division-1";
    assert!(edge(&world, cycle).await.fails(1).contains("cannot stand below itself"));
    edge(&world, "tenant move division-2 --root").await.ok();
    let root = edge(&world, "tenant show division-2 --json").await.json();
    assert_eq!(root["parent_tenant_id"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn trends_alerts_and_health_are_shown() {
    let world = World::start().await;
    let acme = acme(&world).await;
    let levels = Some(json!({"users": 7}));
    let path = format!("/api/v1/tenants/{}/usage/levels", acme.id);
    world.admin("PUT", &path, levels).await.expect(200);
    let trends =
        edge(&world, "tenant trends acme --period 7d --metrics users,api_calls").await.ok();
    assert_eq!(line(&trends, "users"), "users 0 7 - 7 ······█");
    let bad = edge(&world, "tenant trends acme --metrics cats").await.fails(1);
    assert!(bad.contains("\n  metrics: "), "{bad}");
    let rules = json!({"quota_alerts": {"storage": {"warning_threshold": 70}}});
    let path = format!("/api/v1/tenants/{}/alerts", acme.id);
    world.admin("PUT", &path, Some(rules)).await.expect(200);
    let alerts = edge(&world, "tenant alerts acme").await.ok();
    assert!(line(&alerts, "storage").starts_with("storage 70"), "{alerts}");
    assert_eq!(edge(&world, "tenant alerts acme --events").await.ok().lines().count(), 1);
    let health = edge(&world, "tenant health acme").await.ok();
    assert_eq!(health.lines().next(), Some("healthy"), "{health}");
    assert!(line(&health, "database_connection").starts_with("database_connection healthy"));
    for (command, path) in
        [("alerts", "alerts"), ("hierarchy", "hierarchy"), ("trends", "usage/trends")]
    {
        let json = edge(&world, &format!("tenant {command} acme --json")).await.json();
        assert_eq!(json, api(&world, &format!("/tenants/{}/{path}", acme.id)).await, "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_readme_run() {
    let world = World::start().await;
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("\n## Command line\n").expect("the section");
    let (_, lines) = section.split_once("```sh\n").expect("the lines");
    let (lines, _) = lines.split_once("```").expect("their end");
    let folder = binary().parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-e", "-c", lines])
        .current_dir(world.dir.path())
        .envs([server(&world), ("LEANVIBE_EDGE_TOKEN", ADMIN_TOKEN.to_owned()), ("PATH", path)])
        .output()
        .await
        .expect("a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    for part in
        ["acme-three", "└── acme-child (team) trial", "entries verified", "nothing to apply"]
    {
        assert!(out.contains(part), "{part} in {out}");
    }
}
