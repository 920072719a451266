use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::plugins::tests::geo_in_every_scope,
    testing::{Backend, Control, acme, on_both, path_of},
};

on_both![
    every_list_is_read_page_by_page_while_it_grows,
    every_list_documents_limit_and_cursor_and_refuses_wrong_ones,
];

/// Lists by another name in the document than `items` are documents, not lists.
fn lists(document: &Value) -> Vec<String> {
    let paths = document["paths"].as_object().expect("paths");
    let is_list = |item: &Value| {
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let named = schema["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
        let schema = named.and_then(|name| document.pointer(name)).unwrap_or(schema);
        schema["properties"].get("items").is_some()
    };
    paths.iter().filter(|(_, item)| is_list(item)).map(|(path, _)| path.clone()).collect()
}

async fn every_list_is_read_page_by_page_while_it_grows(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let own = path_of(&tenant);
    let tokens = format!("{}/tokens", own.replace("/admin/", "/"));
    let platform = "/api/v1/admin/tokens".to_owned();
    let changes = format!("{own}/plan-changes");
    for (path, body) in [
        (format!("{own}/keys"), json!({})),
        (tokens, json!({ "role": "tenant-admin", "name": "n" })),
        (platform, json!({ "role": "admin", "name": "n" })),
        (changes, json!({ "plan": "team", "effective_at": "2024-02-01T00:00:00Z" })),
    ] {
        let add = async || {
            let answer = control.json("POST", &path, &body).await;
            assert_eq!(answer.status, 201, "{path}: {}", answer.text);
            answer.json["id"].as_str().expect("an id").to_owned()
        };
        let mut there = BTreeSet::new();
        // Several of one moment, and some later.
        for number in 0..5 {
            there.insert(add().await);
            control.clock.advance_ms(number % 2);
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = control.get(&format!("{path}?limit=2{cursor}")).await;
            assert_eq!(page.status, 200, "{path}: {}", page.text);
            let items = page.json["items"].as_array().expect("items");
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
            add().await;
            match page.json["next_cursor"].as_str() {
                Some(next) if seen.len() < 20 => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(seen.len(), distinct.len(), "{path}: none twice");
        assert!(distinct.is_superset(&there), "{path}: none left out");
    }
}

async fn every_list_documents_limit_and_cursor_and_refuses_wrong_ones(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let id = tenant["id"].as_str().expect("an id");
    geo_in_every_scope(&control, id).await;
    let document = control.get("/api/v1/openapi.json").await.json;
    let lists = lists(&document);
    assert!(lists.len() >= 12, "{lists:?}");
    for path in lists {
        let parameters = document["paths"][&path]["get"]["parameters"].as_array().expect("some");
        for name in ["limit", "cursor"] {
            assert!(parameters.iter().any(|p| p["name"] == name), "{path} has no {name}");
        }
        let real = path.replace("{tenant_id}", id).replace("{plan}", "team");
        let real = real.replace("{plugin}", "geo");
        let answer = control.get(&format!("{real}?limit=0&cursor=%25")).await;
        let bad: BTreeSet<_> = answer.bad_fields().into_iter().collect();
        assert_eq!(bad, BTreeSet::from(["cursor", "limit"]), "{path}");
        let answer = control.get(&real).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert!(answer.json.get("next_cursor").is_some(), "{path}: {}", answer.text);
    }
}

#[test]
fn a_page_is_cut_in_the_order_of_places() {
    let all = |limit| Asked { after: None, limit };
    let items = vec!["c", "a", "b"];
    let page = all(2).cut(items.clone(), |item| (*item).to_owned());
    assert_eq!((page.items, page.next_cursor), (vec!["a", "b"], Some(cursor("b"))));
    let rest = Asked { after: Some("b".to_owned()), limit: 2 };
    let page = rest.cut(items.clone(), |item| (*item).to_owned());
    assert_eq!((page.items, page.next_cursor), (vec!["c"], None));
    assert_eq!(all(3).cut(items, |item| (*item).to_owned()).next_cursor, None);
}
