use serde_json::{Value, json};

use crate::testing::{Answer, Backend, Control, on_both, path_of, tenant};

on_both![
    the_guides_tree_is_answered_as_a_tree,
    a_patch_of_the_parent_moves_the_subtree_and_null_makes_a_root,
    a_move_that_would_close_a_cycle_or_grow_too_deep_is_refused,
    a_move_is_a_request_of_its_own,
    children_are_listed_page_by_page,
    a_suspension_above_is_shown_everywhere,
    a_token_sees_its_own_relatives_only,
];

async fn child(control: &Control, slug: &str, parent: Option<&Value>) -> Value {
    let mut new = tenant(slug);
    new["parent_tenant_id"] = parent.map_or(Value::Null, |parent| parent["id"].clone());
    control.create(&new).await
}

fn id(tenant: &Value) -> &str {
    tenant["id"].as_str().expect("an id")
}

async fn hierarchy(control: &Control, tenant: &Value) -> Answer {
    control.get(&format!("/api/v1/tenants/{}/hierarchy", id(tenant))).await
}

/// Slugs of a tree, each with its children's in their order by name.
fn slugs(node: &Value) -> Value {
    let mut children: Vec<_> =
        node["children"].as_array().expect("children").iter().map(slugs).collect();
    children.sort_by_key(Value::to_string);
    json!([node["slug"], children])
}

async fn token(control: &Control, tenant: &Value, role: &str) -> String {
    let path = format!("/api/v1/tenants/{}/tokens", id(tenant));
    let answer = control.json("POST", &path, &json!({"role": role, "name": "t"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json["token"].as_str().expect("a token").to_owned()
}

async fn the_guides_tree_is_answered_as_a_tree(on: Backend) {
    let control = Control::start(on).await;
    let corporation = child(&control, "parent-corporation", None).await;
    let a = child(&control, "subsidiary-a", Some(&corporation)).await;
    child(&control, "division-1", Some(&a)).await;
    child(&control, "division-2", Some(&a)).await;
    let b = child(&control, "subsidiary-b", Some(&corporation)).await;
    child(&control, "regional-office-eu", Some(&b)).await;
    let apac = child(&control, "regional-office-apac", Some(&b)).await;
    child(&control, "subsidiary-c", Some(&corporation)).await;
    let answer = hierarchy(&control, &corporation).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        slugs(&answer.json["hierarchy"]),
        json!([
            "parent-corporation",
            [
                ["subsidiary-a", [["division-1", []], ["division-2", []]]],
                ["subsidiary-b", [["regional-office-apac", []], ["regional-office-eu", []]]],
                ["subsidiary-c", []],
            ]
        ])
    );
    let leaf = hierarchy(&control, &apac).await.json;
    let expected = json!({
        "tenant_id": apac["id"],
        "ancestors": [b["id"], corporation["id"]],
        "hierarchy": {
            "id": apac["id"],
            "slug": "regional-office-apac",
            "organization_name": "Acme Corporation",
            "plan": "enterprise",
            "status": "trial",
            "effective_status": "trial",
            "depth": 0,
            "children": [],
        },
        "truncated": false,
    });
    assert_eq!(leaf, expected);
    assert_eq!(control.get("/v1/tenants/1/hierarchy").await.status, 404);
}

async fn a_patch_of_the_parent_moves_the_subtree_and_null_makes_a_root(on: Backend) {
    let control = Control::start(on).await;
    let (one, two) = (child(&control, "one", None).await, child(&control, "two", None).await);
    let mut new = tenant("middle");
    new["parent_tenant_id"] = one["id"].clone();
    new["data_residency"] = "eu".into();
    let middle = control.create(&new).await;
    child(&control, "leaf", Some(&middle)).await;
    let moved = control.patch(&middle, &json!({"parent_tenant_id": two["id"]})).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    let mut expected = middle.clone();
    expected["parent_tenant_id"] = two["id"].clone();
    expected["version"] = 2.into();
    assert_eq!(moved.json, expected, "residency stays");
    assert_eq!(moved.headers["etag"], "\"2\"");
    assert_eq!(control.get(&path_of(&middle)).await.json, expected);
    let tree = slugs(&hierarchy(&control, &two).await.json["hierarchy"]);
    assert_eq!(tree, json!(["two", [["middle", [["leaf", []]]]]]));
    assert_eq!(slugs(&hierarchy(&control, &one).await.json["hierarchy"]), json!(["one", []]));
    let root = control.patch(&middle, &json!({"parent_tenant_id": null})).await;
    assert_eq!(root.json["parent_tenant_id"], Value::Null);
    // An answer that is sent back with another parent is a move and nothing else.
    let mut edited = root.json.clone();
    edited["parent_tenant_id"] = one["id"].clone();
    assert_eq!(control.patch(&middle, &edited).await.json["parent_tenant_id"], one["id"]);
    let audit = control.get(&format!("/api/v1/tenants/{}/audit", id(&middle))).await;
    let actions: Vec<_> =
        audit.json["items"].as_array().expect("items").iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["tenant.create", "tenant.move", "tenant.move", "tenant.move"]);
}

async fn a_move_that_would_close_a_cycle_or_grow_too_deep_is_refused(on: Backend) {
    let control = Control::start(on).await;
    let mut line = vec![child(&control, "level-1", None).await];
    for level in 2..=7 {
        line.push(child(&control, &format!("level-{level}"), line.last()).await);
    }
    for below in [&line[0], &line[6]] {
        let cycle = control.patch(&line[0], &json!({"parent_tenant_id": below["id"]})).await;
        assert_eq!((cycle.status, &cycle.json["code"]), (409, &"hierarchy-cycle".into()));
    }
    let two = child(&control, "two", None).await;
    child(&control, "two-below", Some(&two)).await;
    let deep = control.patch(&two, &json!({"parent_tenant_id": line[6]["id"]})).await;
    assert_eq!(deep.bad_fields(), ["parent_tenant_id"]);
    assert!(deep.text.contains("at most 8 levels"), "{}", deep.text);
    let fits = control.patch(&two, &json!({"parent_tenant_id": line[5]["id"]})).await;
    assert_eq!(fits.status, 200, "{}", fits.text);
    let nobody = json!({"parent_tenant_id": "00000000-0000-7000-8000-000000000000"});
    assert_eq!(control.patch(&two, &nobody).await.bad_fields(), ["parent_tenant_id"]);
}

async fn a_move_is_a_request_of_its_own(on: Backend) {
    let control = Control::start(on).await;
    let (one, two) = (child(&control, "one", None).await, child(&control, "two", None).await);
    let both = json!({"parent_tenant_id": one["id"], "plan": "team"});
    assert_eq!(control.patch(&two, &both).await.bad_fields(), ["parent_tenant_id"]);
    let bad = json!({"parent_tenant_id": "x", "plan": "gold"});
    assert_eq!(control.patch(&two, &bad).await.bad_fields(), ["parent_tenant_id", "plan"]);
    assert_eq!(control.get(&path_of(&two)).await.json, two);
    let fields = [("content-type", "application/json"), ("if-match", "\"9\"")];
    let body = json!({"parent_tenant_id": one["id"]}).to_string();
    let stale = control.with(("PATCH", &path_of(&two)), &fields, &body).await;
    assert_eq!((stale.status, &stale.json["code"]), (412, &"version-mismatch".into()));
    let same = control.patch(&two, &json!({"parent_tenant_id": null, "plan": "team"})).await;
    assert_eq!((same.status, &same.json["plan"]), (200, &"team".into()), "not a move");
}

async fn children_are_listed_page_by_page(on: Backend) {
    let control = Control::start(on).await;
    let parent = child(&control, "top", None).await;
    for number in 0..5 {
        control.clock.advance_ms(1);
        let below = child(&control, &format!("child-{number}"), Some(&parent)).await;
        child(&control, &format!("grandchild-{number}"), Some(&below)).await;
    }
    let path = format!("/api/v1/tenants/{}/children", id(&parent));
    let (mut found, mut next) = (Vec::new(), format!("{path}?limit=2"));
    loop {
        let page = control.get(&next).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let items = page.json["items"].as_array().expect("items");
        found.extend(items.iter().map(|item| item["slug"].as_str().expect("text").to_owned()));
        match page.json["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, ["child-0", "child-1", "child-2", "child-3", "child-4"]);
    let bad = control.get(&format!("{path}?limit=201&cursor=x&colour=red")).await;
    assert_eq!(bad.bad_fields(), ["cursor", "limit", "colour"]);
    let nobody = "/api/v1/tenants/00000000-0000-7000-8000-000000000000/children";
    assert_eq!(control.get(nobody).await.status, 404);
}

async fn a_suspension_above_is_shown_everywhere(on: Backend) {
    let control = Control::start(on).await;
    let top = child(&control, "top", None).await;
    let middle = child(&control, "middle", Some(&top)).await;
    let leaf = child(&control, "leaf", Some(&middle)).await;
    assert_eq!(leaf["effective_status"], "trial");
    control.post(&format!("{}/suspend", path_of(&top))).await;
    let statuses = |shown: &Value| {
        (shown["status"].as_str().map(str::to_owned), shown["effective_status"].clone())
    };
    let expected = (Some("trial".to_owned()), Value::from("suspended"));
    assert_eq!(statuses(&control.get(&path_of(&leaf)).await.json), expected);
    let listed = control.get("/api/v1/admin/tenants?slug=leaf").await;
    assert_eq!(statuses(&listed.json["items"][0]), expected);
    let tree = hierarchy(&control, &top).await.json;
    assert_eq!(statuses(&tree["hierarchy"]["children"][0]["children"][0]), expected);
    assert_eq!(statuses(&hierarchy(&control, &leaf).await.json["hierarchy"]), expected);
    let children = control.get(&format!("/api/v1/tenants/{}/children", id(&middle))).await;
    assert_eq!(statuses(&children.json["items"][0]), expected);
    let late = child(&control, "late", Some(&leaf)).await;
    assert_eq!(statuses(&late), expected);
    control.post(&format!("{}/resume", path_of(&top))).await;
    assert_eq!(control.get(&path_of(&leaf)).await.json["effective_status"], "trial");
}

async fn a_token_sees_its_own_relatives_only(on: Backend) {
    let control = Control::start(on).await;
    let top = child(&control, "top", None).await;
    let middle = child(&control, "middle", Some(&top)).await;
    let leaf = child(&control, "leaf", Some(&middle)).await;
    let sibling = child(&control, "sibling", Some(&top)).await;
    let path = |tenant: &Value| format!("/api/v1/tenants/{}/hierarchy", id(tenant));
    let parent = token(&control, &middle, "parent-admin").await;
    let seen = control.as_token(&parent, "GET", &path(&middle), &Value::Null).await;
    assert_eq!(slugs(&seen.json["hierarchy"]), json!(["middle", [["leaf", []]]]));
    assert_eq!(seen.json["ancestors"], json!([]), "who stands above it is not its business");
    let below = control.as_token(&parent, "GET", &path(&leaf), &Value::Null).await;
    assert_eq!(below.json["ancestors"], json!([middle["id"]]));
    for foreign in [&top, &sibling] {
        let answer = control.as_token(&parent, "GET", &path(foreign), &Value::Null).await;
        assert_eq!(answer.status, 404);
    }
    let moving = json!({"parent_tenant_id": null});
    let refused = control.as_token(&parent, "PATCH", &path_of(&leaf), &moving).await;
    assert_eq!((refused.status, &refused.json["code"]), (403, &"forbidden".into()));
    let own = token(&control, &middle, "tenant-admin").await;
    let seen = control.as_token(&own, "GET", &path(&middle), &Value::Null).await;
    assert_eq!(slugs(&seen.json["hierarchy"]), json!(["middle", []]), "{}", seen.text);
    let children = format!("/api/v1/tenants/{}/children", id(&middle));
    let seen = control.as_token(&own, "GET", &children, &Value::Null).await;
    assert_eq!((seen.status, &seen.json["items"]), (200, &json!([])));
    let seen = control.as_token(&parent, "GET", &children, &Value::Null).await;
    assert_eq!(seen.json["items"][0]["slug"], "leaf");
}
