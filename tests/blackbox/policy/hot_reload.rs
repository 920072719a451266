//! Changes of the declarations under live traffic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::unix::pipe, process::Command};

use crate::actors::{TenantActor, World, WorldOptions, eventually, guest, responder};

use super::{declare, link};

/// Keeps sending until told to stop; counts what was not 200.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(tenant: &TenantActor) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..4)
            .map(|_| {
                let (tenant, stop, sent) = (tenant.clone(), Arc::clone(&stop), Arc::clone(&sent));
                tokio::spawn(async move {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        let reply = tenant.get("/").await;
                        sent.fetch_add(1, Ordering::SeqCst);
                        if reply.status != 200 {
                            failed.push(format!("{}: {}", reply.status, reply.text()));
                        }
                    }
                    failed
                })
            })
            .collect();
        Self { stop, sent, tasks }
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.expect("no panic"));
        }
        let sent = self.sent.load(Ordering::SeqCst);
        assert!(failed.is_empty(), "{} of {sent} failed: {:?}", failed.len(), failed.first());
        assert!(sent > 20, "only {sent} requests were sent");
    }
}

async fn status(world: &World) -> Value {
    world.admin("GET", "/api/v1/admin/policies", None).await.expect(200).json()
}

async fn version(world: &World) -> u64 {
    status(world).await["snapshot_version"].as_u64().expect("a version")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_takes_effect_under_load_without_a_failed_request() {
    let world = World::with(WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(|policies| {
            // Continues: zeroed memory is ok(continue).
            declare(policies, "swap", &guest("", "", "(i32.const 64)"), "");
            link(policies, "other", "swap", "");
        })),
    })
    .await;
    let acme = world.tenant("acme", "team", "us").await;
    let other = world.tenant("other", "team", "us").await;
    let load = Load::start(&acme);

    // A plan.
    world.edit("plans.toml", |text| {
        text.replace("max_api_calls_per_month = 100000", "max_api_calls_per_month = 123456")
    });
    eventually("the plan changed", || async {
        acme.get("/").await.header("ratelimit-policy").contains("q=123456").then_some(())
    })
    .await;

    // A region's upstream.
    let west = world.origin("us-west-2").addr.to_string();
    let east = world.origin("us-east-1").addr.to_string();
    world.edit("regions.toml", |text| text.replace(&east, &west));
    eventually("the region moved", || async {
        (acme.get("/").await.json()["region"] == "us-west-2").then_some(())
    })
    .await;

    // A config.
    world.edit("feature-flags/config.json", |text| {
        text.replace("x-feature-theme", "x-feature-look")
    });
    eventually("the header has its new name", || async {
        acme.get("/").await.status.is_success().then_some(())?;
        (!world.origin("us-west-2").last().header("x-feature-look").is_empty()).then_some(())
    })
    .await;

    // A rebuilt component.
    other.get("/").await.expect(200);
    let aside = world.policy_file("swap/plugin.new");
    std::fs::write(&aside, responder(418)).expect("a file");
    std::fs::rename(&aside, world.policy_file("swap/plugin.wasm")).expect("a rename");
    eventually("the component is swapped", || async {
        (other.get("/").await.status == 418).then_some(())
    })
    .await;

    // A chain.
    std::fs::remove_file(world.policy_file("tenants/other.toml")).expect("removed");
    eventually("the chain is shorter", || async {
        (other.get("/").await.status == 200).then_some(())
    })
    .await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_change_keeps_the_old_state_and_says_file_key_and_reason() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let load = Load::start(&acme);
    let cases: [(&str, &str, &str, &str, &str); 4] = [
        ("plans.toml", "max_users", "max_usres", "max_usres", "unknown field"),
        ("regions.toml", "\"us\"", "\"usa\"", "group", "still has it"),
        ("flags.json", "{", "{{", "flags", ""),
        ("residency-routing/policy.toml", "closed", "clsoed", "on_failure", "clsoed"),
    ];
    for (file, from, to, key, reason) in cases {
        let before = version(&world).await;
        let good = std::fs::read_to_string(world.policy_file(file)).expect("text");
        world.edit(file, |text| text.replacen(from, to, 1));
        let problem = eventually(&format!("the change of {file} is refused"), || async {
            let problems = status(&world).await["last_error"]["problems"].clone();
            problems.as_array()?.iter().find(|p| p["file"] == file).cloned()
        })
        .await;
        assert!(problem["key"].as_str().is_some_and(|k| k.contains(key)), "{file}: {problem}");
        assert!(
            problem["reason"].as_str().is_some_and(|r| r.contains(reason)),
            "{file}: {problem}"
        );
        assert_eq!(version(&world).await, before, "{file}: the old state stays");
        acme.get("/").await.expect(200);
        world.edit(file, |_| good);
        eventually("the fix is taken", || async {
            let now = status(&world).await;
            (now["last_error"].is_null() && now["snapshot_version"].as_u64()? > before)
                .then_some(())
        })
        .await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_leaves_the_running_component_too() {
    let world = World::with(WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(|policies| {
            declare(policies, "swap", &guest("", "", "(i32.const 64)"), "");
            link(policies, "other", "swap", "");
        })),
    })
    .await;
    let other = world.tenant("other", "team", "us").await;
    other.get("/").await.expect(200);
    // A tenant still has the group, so the whole change is refused, the component with it.
    std::fs::write(world.policy_file("swap/plugin.wasm"), responder(418)).expect("a file");
    world.edit("regions.toml", |text| text.replacen("\"us\"", "\"usa\"", 1));
    eventually("the change is refused", || async {
        status(&world).await["last_error"].is_object().then_some(())
    })
    .await;
    // A change of the directory publishes again; what was refused stays out.
    world.tenant("newcomer", "team", "eu").await.get("/").await.expect(200);
    other.get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_takes_its_time_delays_no_change_of_a_tenant() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let plans = world.policy_file("plans.toml");
    let changed = std::fs::read_to_string(&plans)
        .expect("text")
        .replace("max_api_calls_per_month = 100000", "max_api_calls_per_month = 123456");
    // A file that is read for as long as the test likes.
    let slow = world.policy_file("plans.slow");
    assert!(Command::new("mkfifo").arg(&slow).status().await.expect("mkfifo(1)").success());
    std::fs::rename(&slow, &plans).expect("a rename");
    let mut writer = eventually("the reload has begun", || async {
        pipe::OpenOptions::new().open_sender(&plans).ok()
    })
    .await;

    let path = format!("/api/v1/admin/tenants/{}", acme.id);
    world.admin("POST", &format!("{path}/suspend"), None).await.expect(200);
    acme.get("/").await.expect(403);
    world.admin("POST", &format!("{path}/resume"), None).await.expect(200);
    let served = acme.get("/").await.expect(200);
    assert!(served.header("ratelimit-policy").contains("q=100000"), "the reload is not over");

    writer.write_all(changed.as_bytes()).await.expect("written");
    let aside = world.policy_file("plans.edit");
    std::fs::write(&aside, changed).expect("a file");
    std::fs::rename(&aside, &plans).expect("a rename");
    drop(writer);
    eventually("the plan changed", || async {
        acme.get("/").await.header("ratelimit-policy").contains("q=123456").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_its_policy_rejects_stops_the_start_before_any_tenant_has_it() {
    let options = WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(|policies| {
            let file = policies.join("residency-routing/config.json");
            let text = std::fs::read_to_string(&file).expect("text");
            std::fs::write(&file, text.replace("\"outside\"", "\"outsied\"")).expect("a file");
        })),
    };
    let error = World::start_error(options).await;
    assert!(error.contains("residency-routing/config.json"), "{error}");
    assert!(error.contains("outsied"), "{error}");
}
