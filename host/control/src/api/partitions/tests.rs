use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::{Backend, Control, tenant};

const TREE: &str = "/api/v1/admin/partitions";

/// The move of a number, once it is over.
async fn ended(control: &Control, id: &Value) -> Value {
    for _ in 0..300 {
        let tree = control.get(TREE).await.json;
        let moves = tree["moves"].as_array().expect("moves");
        let found = moves.iter().find(|found| found["id"] == *id).expect("the move");
        if found["state"] == "done" || found["state"] == "failed" {
            return found.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the move does not end");
}

#[tokio::test]
async fn sqlite_has_no_partitions_and_says_so() {
    let control = Control::start(Backend::Sqlite).await;
    let answers = [
        control.get(TREE).await,
        control.json("POST", &format!("{TREE}/split"), &json!({ "partition": "x" })).await,
        control.post(&format!("{TREE}/run")).await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 501, "{}", answer.text);
        assert_eq!(answer.json["code"], "needs-postgresql");
        assert_eq!(answer.json["capability"], "partitions");
        assert_eq!(answer.json["needs"], "postgresql");
    }
    let audit = control.get("/api/v1/admin/audit").await;
    assert!(!audit.text.contains("\"partition."), "nothing was done: {}", audit.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_split_on_demand_and_the_tree_shows_it() {
    let control = Control::start(Backend::Postgres).await;
    let before = control.get(TREE).await;
    assert_eq!(before.status, 200, "{}", before.text);
    let parts = before.json["partitions"].as_array().expect("parts");
    assert_eq!(parts.len(), 8);
    assert_eq!(parts[3]["name"], "tenant_data_h8_3");
    assert_eq!((&parts[3]["modulus"], &parts[3]["remainder"]), (&json!(8), &json!(3)));
    assert!(parts[3]["bytes"].as_u64().expect("bytes") > 0);
    assert_eq!(before.json["split_threshold_bytes"], 107_374_182_400_u64);
    assert_eq!(before.json["retention_days"], 2_555);

    let split = json!({ "partition": "tenant_data_h8_3" });
    let answer = control.json("POST", &format!("{TREE}/split"), &split).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["state"], "wanted");
    let done = ended(&control, &answer.json["id"]).await;
    assert_eq!(done["state"], "done", "{done}");
    let after = control.get(TREE).await.json;
    let names: Vec<_> = after["partitions"].as_array().expect("parts").iter().collect();
    assert_eq!(names.len(), 9);
    for part in done["into"].as_array().expect("two") {
        assert!(names.iter().any(|shown| shown["name"] == *part), "{part} of {after}");
    }
    let gone = control.json("POST", &format!("{TREE}/split"), &split).await;
    assert_eq!(gone.bad_fields(), ["partition"]);
    let audit = control.get("/api/v1/admin/audit").await;
    assert_eq!(audit.text.matches("\"partition.split\"").count(), 1, "{}", audit.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_isolated_on_demand_and_once() {
    let control = Control::start(Backend::Postgres).await;
    let whale = control.create(&tenant("whale")).await;
    let path = format!("{TREE}/isolate");
    let isolate = json!({ "tenant_id": whale["id"] });
    let answer = control.json("POST", &path, &isolate).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(ended(&control, &answer.json["id"]).await["state"], "done");
    let tree = control.get(TREE).await.json;
    let own = tree["partitions"].as_array().expect("parts").last().expect("a part").clone();
    assert_eq!((&own["kind"], &own["tenant_id"]), (&json!("tenant"), &whale["id"]));
    let again = control.json("POST", &path, &isolate).await;
    assert_eq!((again.status, &again.json["code"]), (409, &json!("already-isolated")));
    let nobody = json!({ "tenant_id": "00000000-0000-7000-8000-000000000000" });
    assert_eq!(control.json("POST", &path, &nobody).await.status, 404);
    assert_eq!(control.json("POST", &path, &json!({})).await.bad_fields(), ["tenant_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_says_what_it_did_and_the_chain_who_asked_for_it() {
    let control = Control::start(Backend::Postgres).await;
    let answer = control.post(&format!("{TREE}/run")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["state"], "done");
    assert_eq!(answer.json["months_made"].as_array().expect("months").len(), 8 * 4);
    let tree = control.get(TREE).await.json;
    assert_eq!(tree["partitions"][0]["oldest_month"], "2024-01-01T00:00:00Z");
    assert_eq!(tree["partitions"][0]["months_until"], "2024-05-01T00:00:00Z");
    let audit = control.get("/api/v1/admin/audit").await.json;
    let items = audit["items"].as_array().expect("items");
    let runs: Vec<_> = items.iter().filter(|item| item["action"] == "partition.run").collect();
    assert_eq!(runs.len(), 1, "{audit}");
    assert_eq!(runs[0]["actor"], "operator");
}
