//! The rights that the README gives the edges' Redis user: enough for everything, checked
//! against a real server that notes every denial.

use std::path::Path;

use model::quota::Metric;
use serde_json::json;
use services::{RedisOptions, Value};

use crate::{
    actors::{Site, SiteOptions, eventually},
    quota::rate::of_team,
};

const PASSWORD: &str = "geheim";

/// The rights as the README has them.
fn rights() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let (_, rest) = text.split_once("Give the edges' Redis user `").expect("the sentence");
    let (rights, _) = rest.split_once('`').expect("its end");
    rights.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn site() -> Site {
    let redis = RedisOptions {
        users: vec![format!("edge on >{PASSWORD} {}", rights())],
        ..RedisOptions::default()
    };
    Site::with(SiteOptions {
        redis,
        login: format!("edge:{PASSWORD}@"),
        prepare: Some(Box::new(|policies: &Path| of_team(policies, 1_000, 1_000))),
    })
    .await
}

/// What the server refused to anybody.
fn denials(site: &Site) -> Value {
    site.redis.cli(&["ACL", "LOG"]).expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_rights_are_enough_for_quotas_recalls_sessions_and_rates() {
    let site = site().await;
    let tenant = site.tenant("narrow", "team").await;
    let quotas = json!({"quota_overrides": {"max_api_calls_per_month": 60}});
    let path = format!("/api/v1/admin/tenants/{}", tenant.id);
    site.admin("PATCH", &path, Some(quotas)).await.expect(200);
    // Both edges spend, so that the last tokens lie at one while the other needs them.
    let mut edge = 0;
    eventually("the quota is used up", || {
        edge = 1 - edge;
        let here = tenant.at(site.edge(edge));
        async move {
            let cookie = format!("session_id=s{edge}");
            let answer = here.send("GET", "/", &[("cookie", &cookie)], "").await;
            let used_up = answer.header("retry-after").parse::<u64>().is_ok_and(|s| s > 60);
            (answer.status == 429 && used_up).then_some(())
        }
    })
    .await;
    assert_eq!(site.origin.arrivals(), 60, "none was out of reach");
    for edge in [0, 1] {
        assert!(site.metric(edge, "quota_dispatcher_calls_total").await > 0.0);
        assert_eq!(site.metric(edge, "quota_dispatcher_failures_total").await, 0.0);
        assert!(site.metric(edge, "rate_store_calls_total").await > 0.0);
        assert_eq!(site.metric(edge, "rate_store_failures_total").await, 0.0);
        assert_eq!(site.metric(edge, "edge_sessions_live").await, 1.0);
    }
    // Each edge listens for recalls, under the one user that may.
    let heard = site.redis.cli(&["PUBSUB", "NUMSUB", "q:recall"]).expect("an answer");
    let Value::List(heard) = heard else { panic!("no list") };
    assert_eq!(heard[1].text(), "2");
    assert!(site.redis.command_stats().calls("publish") > 0, "a recall was sent");
    assert!(matches!(denials(&site), Value::List(list) if list.is_empty()), "{:?}", denials(&site));
    for edge in [0, 1] {
        assert_eq!(site.usage(edge, &tenant).await["concurrent_sessions"], 2);
    }
    let metric = Metric::ApiCalls.as_str();
    let keys = site.redis.cli(&["KEYS", &format!("q:*{metric}*")]).expect("an answer");
    assert!(matches!(keys, Value::List(keys) if !keys.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_rights_put_no_old_key_in_place_of_a_newer_one() {
    let site = site().await;
    for (command, allowed) in [
        (&["RESTORE", "q:x", "0", "x"][..], false),
        (&["COPY", "q:x", "q:y"], false),
        (&["RENAME", "q:x", "q:y"], false),
        (&["RENAMENX", "q:x", "q:y"], false),
        (&["MOVE", "q:x", "1"], false),
        (&["SWAPDB", "0", "1"], false),
        (&["FLUSHALL"], false),
        (&["REPLICAOF", "NO", "ONE"], false),
        (&["DEBUG", "SLEEP", "0"], false),
        (&["CONFIG", "SET", "save", ""], false),
        (&["GET", "other"], false),
        (&["PUBLISH", "other", "x"], false),
        (&["GET", "q:x"], true),
        (&["GET", "s:x"], true),
        (&["GET", "r:x"], true),
        (&["PUBLISH", "q:recall", "x"], true),
        (&["INFO", "server"], true),
        (&["CLUSTER", "SLOTS"], true),
    ] {
        let mut asked = vec!["ACL", "DRYRUN", "edge"];
        asked.extend(command);
        let answer = site.redis.cli(&asked).expect("an answer").text();
        assert_eq!(answer == "OK", allowed, "{command:?}: {answer}");
    }
}
