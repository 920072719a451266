//! The product guide, run: its curl lines as they are printed, its JSON member by member.
//!
//! `guide.md` holds the guide's own text, cut to the parts that this release keeps. Only
//! what the guide leaves open is put in: the host, the tokens and the ids. `curl` itself
//! runs, through a shell, as a reader of the guide would run it: on SQLite and on PostgreSQL.

use std::{path::Path, process::Stdio};

use model::clock::UnixMs;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::actors::{ADMIN_TOKEN, Backend, TenantActor, World, on_both};

on_both![
    a_tenant_is_created_as_the_guide_says,
    the_guides_example_may_be_sent_to_the_endpoint_that_it_names_above_it,
    residency_is_chosen_at_the_creation,
    a_change_of_residency_is_never_half_done,
    plans_have_the_guides_figures_and_a_patch_gives_them_at_once,
    usage_has_the_guides_members_in_the_guides_order,
    a_parent_and_its_child_are_created_as_the_guide_says,
    trends_are_read_as_the_guide_says,
    alerts_are_configured_with_the_guides_document,
    billing_is_consolidated_with_the_guides_document,
    pools_are_shared_with_the_guides_document,
    health_has_the_guides_members,
];

const GUIDE: &str = include_str!("guide.md");

/// The first fenced block of a language after a line of the guide.
#[track_caller]
fn block(after: &str, language: &str) -> &'static str {
    let (_, rest) = GUIDE
        .split_once(&format!("\n{after}\n"))
        .unwrap_or_else(|| panic!("the guide has no line {after:?}"));
    let (_, block) = rest.split_once(&format!("```{language}\n")).expect("a block");
    block.split_once("```").expect("the block's end").0
}

/// A JSON example of the guide.
#[track_caller]
fn example(after: &str) -> Value {
    serde_json::from_str(block(after, "json")).expect("the guide's JSON")
}

/// A reader of the guide at a shell, with what the guide leaves open.
struct Reader<'a> {
    world: &'a World,
    replaced: Vec<(&'static str, String)>,
}

/// What curl printed.
#[derive(Debug)]
struct Printed {
    status: u16,
    body: Value,
}

impl<'a> Reader<'a> {
    fn new(world: &'a World) -> Self {
        let host = format!("http://{}", world.control().addr);
        Self { world, replaced: vec![("https://api.leanvibe.ai", host)] }
    }

    /// Puts in what stands for a placeholder; the first that matches wins.
    fn with(mut self, placeholder: &'static str, value: impl Into<String>) -> Self {
        self.replaced.push((placeholder, value.into()));
        self
    }

    /// The same with the admin token.
    fn admin(self) -> Self {
        self.with("Bearer admin-token", format!("Bearer {ADMIN_TOKEN}"))
    }

    /// The same with a tenant's id, and a token of its administrator.
    async fn tenant_admin(self, tenant: &TenantActor) -> Self {
        let path = format!("/api/v1/tenants/{}/tokens", tenant.id);
        let body = json!({"role": "tenant-admin", "name": "the guide's reader"});
        let issued = self.world.admin("POST", &path, Some(body)).await.expect(201).json();
        let bearer = format!("Bearer {}", text(&issued, "token"));
        self.with("{tenant_id}", &tenant.id).with("Bearer tenant-admin-token", bearer)
    }

    /// Runs the block after a line of the guide.
    #[track_caller]
    fn runs(&self, after: &str) -> impl Future<Output = Printed> {
        self.shell(block(after, "bash"))
    }

    fn shell(&self, lines: &str) -> impl Future<Output = Printed> + use<> {
        let mut lines = lines.to_owned();
        for (placeholder, value) in &self.replaced {
            assert!(lines.contains(placeholder), "{placeholder:?} in {lines}");
            lines = lines.replace(placeholder, value);
        }
        for open in ["leanvibe.ai", "Bearer admin-token", "Bearer tenant-", "{tenant_id}"] {
            assert!(!lines.contains(open), "{open:?} is still open in {lines}");
        }
        run(self.world.dir.path().to_owned(), lines)
    }
}

/// Runs lines of the guide in a shell, with a `.curlrc` that adds the status below the body.
async fn run(dir: std::path::PathBuf, lines: String) -> Printed {
    let curlrc = "silent\nshow-error\nnoproxy = \"*\"\nwrite-out = \"\\n%{http_code}\"\n";
    std::fs::write(dir.join(".curlrc"), curlrc).expect("a file");
    let output = Command::new("sh")
        .args(["-e", "-c", &lines])
        .env("CURL_HOME", Path::new(&dir))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("a shell");
    let printed = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "is curl installed? {errors}\n{lines}");
    let (body, status) = printed.rsplit_once('\n').expect("a status below the body");
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}\n{lines}"));
    Printed { status: status.parse().expect("a status"), body }
}

impl Printed {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

/// Every member of the guide's JSON is in the answer, in the guide's order and with the
/// guide's value; those named in `own` (JSON pointers) have a value of their own, of the
/// same type.
#[track_caller]
fn same(guide: &Value, answer: &Value, own: &[&str]) {
    compare(guide, answer, own, "");
}

#[track_caller]
fn compare(guide: &Value, answer: &Value, own: &[&str], at: &str) {
    if own.contains(&at) {
        let kind = |value: &Value| std::mem::discriminant(value);
        assert_eq!(kind(guide), kind(answer), "{at}: {answer} in place of {guide}");
        return;
    }
    match (guide, answer) {
        (Value::Object(members), Value::Object(answered)) => {
            let known = answered.keys().filter(|name| members.contains_key(*name));
            assert!(members.keys().eq(known), "{at}: the guide has {guide}, we answer {answer}");
            for (name, value) in members {
                compare(value, &answered[name], own, &format!("{at}/{name}"));
            }
        }
        (Value::Array(items), Value::Array(answered)) => {
            assert_eq!(items.len(), answered.len(), "{at}: {answer}");
            for (i, (item, answer)) in items.iter().zip(answered).enumerate() {
                compare(item, answer, own, &format!("{at}/{i}"));
            }
        }
        // 12.0 and 12 are one number.
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{at}"),
        _ => assert_eq!(guide, answer, "{at}"),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// How long a trial is: the guide's example has 30 days.
const TRIAL_MS: u64 = 30 * 86_400_000;

async fn a_tenant_is_created_as_the_guide_says(on: Backend) {
    let world = on.world().await;
    let reader = Reader::new(&world).admin();
    let answer = reader.runs("**Request Example:**").await.expect(201);
    let guide = example("**Response:**");
    same(&guide, &answer, &["/id", "/created_at", "/trial_ends_at"]);
    let now = UnixMs(world.clock_s() * 1_000);
    assert_eq!(answer["created_at"], now.rfc3339());
    assert_eq!(answer["trial_ends_at"], now.plus_ms(TRIAL_MS).rfc3339());
}

async fn the_guides_example_may_be_sent_to_the_endpoint_that_it_names_above_it(on: Backend) {
    let world = on.world().await;
    let endpoint = "POST /api/v1/admin/tenants";
    assert!(GUIDE.contains(endpoint));
    let lines = block("**Request Example:**", "bash").replace("/v1/admin", "/api/v1/admin");
    Reader::new(&world).admin().shell(&lines).await.expect(201);
}

async fn residency_is_chosen_at_the_creation(on: Backend) {
    let world = on.world().await;
    let reader = Reader::new(&world).admin();
    let answer = reader.runs("**Set Data Residency during Tenant Creation:**").await.expect(201);
    assert_eq!(answer["data_residency"], "eu");
    assert_eq!(answer["slug"], "european-corp");
}

async fn a_change_of_residency_is_never_half_done(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "team", "us").await;
    let reader = Reader::new(&world).admin().with("{tenant_id}", &acme.id);
    let refused = reader.runs("**Update Existing Tenant Data Residency:**").await.expect(501);
    assert_eq!(refused["code"], "needs-release");
    assert_eq!(refused["capability"], "online_move");
    let path = format!("/api/v1/admin/tenants/{}", acme.id);
    assert_eq!(world.admin("GET", &path, None).await.json()["data_residency"], "us");
}

async fn plans_have_the_guides_figures_and_a_patch_gives_them_at_once(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "team", "us").await;
    let path = format!("/api/v1/admin/tenants/{}", acme.id);
    let declared = world.admin("GET", "/api/v1/admin/policies", None).await.expect(200).json();
    for heading in ["Developer", "Team", "Enterprise"] {
        let guide = example(&format!("**{heading} Plan Configuration:**"));
        let patch = json!({"plan": guide["plan"]});
        let patched = world.admin("PATCH", &path, Some(patch)).await.expect(200).json();
        same(&guide["quotas"], &patched["quotas"], &[]);
        assert_eq!(patched["plan"], guide["plan"]);
        let plans = declared["plans"].as_array().expect("plans");
        let plan = plans.iter().find(|plan| plan["name"] == guide["plan"]).expect("the plan");
        same(&guide["quotas"], &plan["quotas"], &[]);
        for (feature, granted) in guide["features"].as_object().expect("features") {
            assert_eq!(&plan["features"][feature], granted, "{heading}: {feature}");
        }
    }
}

async fn usage_has_the_guides_members_in_the_guides_order(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    for _ in 0..3 {
        acme.get("/").await.expect(200);
    }
    let reader = Reader::new(&world).tenant_admin(&acme).await;
    let answer = reader.runs("**Get Current Usage:**").await.expect(200);
    let mut guide = example("### Real-Time Usage Tracking");
    guide["tenant_id"] = json!(acme.id);
    guide["last_calculated_at"] = json!("2026-03-15T12:00:00Z");
    let own: Vec<String> = ["current_usage", "utilization_percentages"]
        .iter()
        .flat_map(|part| {
            let members = guide[part].as_object().expect("an object").keys();
            members.map(move |name| format!("/{part}/{name}")).collect::<Vec<_>>()
        })
        .collect();
    same(&guide, &answer, &own.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(answer["current_usage"]["api_calls_this_month"], 3);
}

async fn a_parent_and_its_child_are_created_as_the_guide_says(on: Backend) {
    let world = on.world_with("[control]\ndefault_residency = \"us\"").await;
    let reader = Reader::new(&world).admin();
    let parent = reader.runs("#### Create Parent Organization").await.expect(201);
    assert_eq!((text(&parent, "slug"), &parent["parent_tenant_id"]), ("global-corp", &Value::Null));
    let reader = Reader::new(&world).admin().with("parent-tenant-uuid", text(&parent, "id"));
    let child = reader.runs("#### Create Child Organizations").await.expect(201);
    assert_eq!(child["parent_tenant_id"], parent["id"]);
    for (member, value) in [
        ("organization_name", "Global Corp - European Division"),
        ("slug", "global-corp-eu"),
        ("plan", "team"),
        ("data_residency", "eu"),
        ("status", "trial"),
    ] {
        assert_eq!(child[member], value, "{member}");
    }
}

/// Sends a JSON example of the guide with curl, as its other lines do.
async fn send(reader: &Reader<'_>, method: &str, path: &str, example: &str) -> Printed {
    let lines = format!(
        "curl -X {method} \"https://api.leanvibe.ai/v1{path}\" \\\n  \
         -H \"Authorization: Bearer tenant-admin-token\" \\\n  \
         -H \"Content-Type: application/json\" \\\n  -d '{example}'"
    );
    reader.shell(&lines).await
}

async fn trends_are_read_as_the_guide_says(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    report(&world, &acme, json!({"users": 45, "storage_bytes": 8_500_u64 << 20})).await;
    let reader = Reader::new(&world).tenant_admin(&acme).await;
    let answer = reader.runs("#### Usage Monitoring Dashboard").await.expect(200);
    assert_eq!(answer["tenant_id"], acme.id.as_str());
    assert_eq!(answer["metrics"], json!(["api_calls", "storage", "users"]));
    let buckets = answer["buckets"].as_array().expect("buckets");
    assert_eq!(buckets.len(), 30);
    assert_eq!(buckets[29]["start"], "2026-03-15T00:00:00Z");
    assert_eq!(buckets[29]["values"], json!({"api_calls": 0, "storage": 8_500, "users": 45}));
}

async fn alerts_are_configured_with_the_guides_document(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reader = Reader::new(&world).tenant_admin(&acme).await;
    let after = "#### Quota Alert Configuration";
    let path = "/tenants/{tenant_id}/alerts";
    let answer = send(&reader, "PUT", path, block(after, "json")).await.expect(200);
    same(&example(after), &answer, &[]);
    let read = world.admin("GET", &format!("/v1/tenants/{}/alerts", acme.id), None).await;
    same(&example(after), &read.expect(200).json(), &[]);
}

/// A parent and the three children of the guide's examples.
async fn family(world: &World) -> (TenantActor, Vec<TenantActor>) {
    let parent = world.tenant("parent", "enterprise", "us").await;
    let mut children = Vec::new();
    for number in 1..=3 {
        let slug = format!("child-{number}");
        let child = json!({
            "organization_name": slug, "slug": slug, "plan": "enterprise",
            "admin_email": format!("admin@{slug}.example"), "parent_tenant_id": parent.id,
        });
        children.push(world.create(child).await);
    }
    (parent, children)
}

/// The same reader with the operator's token in the guide's place of a tenant's.
fn operator<'a>(world: &'a World, tenant: &TenantActor) -> Reader<'a> {
    Reader::new(world)
        .with("{tenant_id}", &tenant.id)
        .with("Bearer tenant-admin-token", format!("Bearer {ADMIN_TOKEN}"))
}

async fn billing_is_consolidated_with_the_guides_document(on: Backend) {
    let world = on.world().await;
    let (parent, children) = family(&world).await;
    let after = "#### Consolidated Billing";
    let mut document = block(after, "json").replace("parent-uuid", &parent.id);
    for (number, child) in children.iter().enumerate() {
        document = document.replace(&format!("child-{}-uuid", number + 1), &child.id);
    }
    let reader = operator(&world, &parent);
    let answer = send(&reader, "PUT", "/tenants/{tenant_id}/billing", &document).await.expect(200);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    same(&document, &answer, &[]);
    let path = format!("/v1/tenants/{}/billing", parent.id);
    same(&document, &world.admin("GET", &path, None).await.expect(200).json(), &[]);
}

async fn pools_are_shared_with_the_guides_document(on: Backend) {
    let world = on.world().await;
    let (parent, children) = family(&world).await;
    // What the guide's children use: GB of storage, and 287 seats among them.
    for (child, (gb, users)) in children.iter().zip([(350_u64, 150), (150, 100), (200, 37)]) {
        report(&world, child, json!({"users": users, "storage_bytes": gb << 30})).await;
    }
    let after = "#### Cross-Tenant Resource Sharing";
    let reader = operator(&world, &parent);
    let path = "/tenants/{tenant_id}/pools";
    let answer = send(&reader, "PUT", path, block(after, "json")).await.expect(200);
    same(&example(after), &answer, &[]);
    let path = format!("/v1/tenants/{}/pools", parent.id);
    same(&example(after), &world.admin("GET", &path, None).await.expect(200).json(), &[]);
}

async fn health_has_the_guides_members(on: Backend) {
    let world = on.world().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let code = block("#### Health Check Endpoints", "python");
    let (_, path) = code.split_once("@router.get(\"").expect("a route");
    let path = path.split('"').next().expect("a path");
    let lines = format!(
        "curl \"https://api.leanvibe.ai{path}\" -H \"Authorization: Bearer tenant-admin-token\""
    );
    let reader = Reader::new(&world).tenant_admin(&acme).await;
    let answer = reader.shell(&lines).await.expect(200);
    assert_eq!(answer["tenant_id"], acme.id.as_str());
    assert_eq!(answer["status"], "healthy");
    let names: Vec<_> = code.lines().filter_map(|line| line.trim().strip_prefix('"')).collect();
    let names: Vec<_> = names.iter().filter_map(|line| Some(line.split_once("\":")?.0)).collect();
    let members =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let mut answered = members(&answer);
    answered.truncate(3);
    answered.extend(members(&answer["checks"]));
    answered.push("metrics".to_owned());
    answered.extend(members(&answer["metrics"]));
    assert_eq!(names, answered);
}

/// Reports levels, as a tenant's backend does.
async fn report(world: &World, tenant: &TenantActor, levels: Value) {
    let path = format!("/v1/tenants/{}/usage/levels", tenant.id);
    world.admin("PUT", &path, Some(levels)).await.expect(200);
}
