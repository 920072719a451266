use serde_json::{Value, json};

use crate::testing::{Backend, Control, id_of, on_both, tenant};

on_both![
    the_guides_document_can_be_put_and_is_answered_with_what_is_used,
    what_is_answered_can_be_put_again,
    the_extended_form_gives_guarantees_and_maxima,
    every_bad_field_is_named_by_its_place,
    broken_rules_are_named_by_their_place,
    what_is_left_out_is_taken_away,
    a_parent_sets_its_own_pools_within_its_own_quota_and_a_child_reads_none,
];

struct Family {
    control: Control,
    parent: Value,
    children: Vec<Value>,
    path: String,
}

impl Family {
    async fn new(on: Backend) -> Self {
        let control = Control::start(on).await;
        let parent = control.create(&tenant("parent")).await;
        let mut children = Vec::new();
        for slug in ["child-1", "child-2", "child-3"] {
            let mut child = tenant(slug);
            child["parent_tenant_id"] = parent["id"].clone();
            child["plan"] = "team".into();
            children.push(control.create(&child).await);
        }
        let path = format!("/api/v1/tenants/{}/pools", id_of(&parent));
        Self { control, parent, children, path }
    }

    async fn put(&self, storage: Value) -> crate::testing::Answer {
        let body = json!({ "resource_sharing": { "shared_storage_pool": storage } });
        self.control.json("PUT", &self.path, &body).await
    }

    async fn report(&self, child: usize, levels: &Value) {
        let path = format!("/api/v1/tenants/{}/usage/levels", id_of(&self.children[child]));
        assert_eq!(self.control.json("PUT", &path, levels).await.status, 200);
    }
}

/// The product guide's example.
fn guide() -> Value {
    json!({
        "resource_sharing": {
            "shared_storage_pool": {
                "total_allocation_gb": 1000,
                "child_allocations": {
                    "child-1": {"allocated_gb": 400, "used_gb": 350},
                    "child-2": {"allocated_gb": 300, "used_gb": 150},
                    "child-3": {"allocated_gb": 300, "used_gb": 200}
                }
            },
            "shared_user_pool": {
                "total_seats": 500,
                "utilized_seats": 287
            }
        }
    })
}

async fn the_guides_document_can_be_put_and_is_answered_with_what_is_used(on: Backend) {
    let family = Family::new(on).await;
    let answer = family.control.json("PUT", &family.path, &guide()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let first =
        &answer.json["resource_sharing"]["shared_storage_pool"]["child_allocations"]["child-1"];
    assert_eq!(first, &json!({ "allocated_gb": 400, "used_gb": 0 }), "what is used is computed");
    for (child, gb, users) in [(0, 350_u64, 100), (1, 150, 87), (2, 200, 100)] {
        family.report(child, &json!({ "storage_bytes": gb << 30, "users": users })).await;
    }
    let mut expected = guide();
    let sharing = &mut expected["resource_sharing"];
    sharing["shared_storage_pool"]["used_gb"] = 700.into();
    sharing["shared_storage_pool"]["committed_gb"] = 1000.into();
    sharing["shared_user_pool"]["committed_seats"] = 287.into();
    let answer = family.control.get(&family.path).await;
    assert_eq!(answer.text, expected.to_string());
    let audit = format!("/api/v1/tenants/{}/audit", id_of(&family.parent));
    let audit = family.control.get(&audit).await.json;
    let last = audit["items"].as_array().expect("items").last().expect("an entry");
    assert_eq!((&last["action"], &last["actor"]), (&json!("pools.set"), &json!("operator")));
}

async fn what_is_answered_can_be_put_again(on: Backend) {
    let family = Family::new(on).await;
    family.control.json("PUT", &family.path, &guide()).await;
    family.report(0, &json!({ "storage_bytes": (1_u64 << 30) + 1 })).await;
    let answered = family.control.get(&family.path).await;
    let used = &answered.json["resource_sharing"]["shared_storage_pool"]["used_gb"];
    assert_eq!(used, &json!(1.01), "rounded up");
    let again = family.control.json("PUT", &family.path, &answered.json).await;
    assert_eq!((again.status, again.text), (200, answered.text));
}

async fn the_extended_form_gives_guarantees_and_maxima(on: Backend) {
    let family = Family::new(on).await;
    let by_id = family.children[1]["id"].as_str().expect("an id").to_owned();
    let answer = family
        .put(json!({
            "total_allocation_gb": 10,
            "child_allocations": {
                "child-1": { "guaranteed_gb": 2, "max_gb": 8 },
                by_id: { "guaranteed_gb": 3 },
                "child-3": { "max_gb": 5 },
            },
        }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let share =
        |guaranteed, max| json!({ "guaranteed_gb": guaranteed, "max_gb": max, "used_gb": 0 });
    assert_eq!(
        answer.json["resource_sharing"],
        json!({ "shared_storage_pool": {
            "total_allocation_gb": 10,
            "child_allocations": {
                "child-1": share(2, 8),
                "child-2": share(3, 10),
                "child-3": share(0, 5),
            },
            "used_gb": 0,
            "committed_gb": 5,
        } })
    );
}

async fn every_bad_field_is_named_by_its_place(on: Backend) {
    let family = Family::new(on).await;
    let body = json!({
        "resource_sharing": {
            "shared_storage_pool": {
                "total_allocation_gb": 1.5,
                "child_allocations": {
                    "child-1": { "allocated_gb": -1 },
                    "child-2": { "allocated_gb": 1, "max_gb": 2, "used_gb": "a lot" },
                    "child-3": 7,
                    "child-4": {},
                },
                "colour": "red",
            },
            "shared_user_pool": { "total_seats": null },
            "shared_dreams": {},
        },
        "more": 1,
    });
    let answer = family.control.json("PUT", &family.path, &body).await;
    let storage = "resource_sharing.shared_storage_pool";
    let expected = [
        format!("{storage}.total_allocation_gb"),
        format!("{storage}.child_allocations.child-1.allocated_gb"),
        format!("{storage}.child_allocations.child-2.used_gb"),
        format!("{storage}.child_allocations.child-2.max_gb"),
        format!("{storage}.child_allocations.child-3"),
        format!("{storage}.child_allocations.child-4.allocated_gb"),
        format!("{storage}.colour"),
        "resource_sharing.shared_user_pool.total_seats".to_owned(),
        "resource_sharing.shared_dreams".to_owned(),
        "more".to_owned(),
    ];
    assert_eq!(answer.bad_fields(), expected);
    let answer = family.control.json("PUT", &family.path, &json!({})).await;
    assert_eq!(answer.bad_fields(), ["resource_sharing"]);
}

async fn broken_rules_are_named_by_their_place(on: Backend) {
    let family = Family::new(on).await;
    let answer = family
        .put(json!({
            "total_allocation_gb": 1025,
            "child_allocations": {
                "child-1": { "allocated_gb": 1026 },
                "child-9": { "allocated_gb": 1 },
                "parent": { "allocated_gb": 1 },
            },
        }))
        .await;
    let pool = "resource_sharing.shared_storage_pool";
    let expected = [
        format!("{pool}.child_allocations.child-9"),
        format!("{pool}.child_allocations.parent"),
        format!("{pool}.total_allocation_gb"),
        format!("{pool}.child_allocations"),
        format!("{pool}.child_allocations.child-1"),
    ];
    assert_eq!(answer.bad_fields(), expected);
    let details = answer.text;
    assert!(details.contains("at most the 1024 GB"), "{details}");
    let answer = family.control.get(&family.path).await;
    assert_eq!(answer.json, json!({ "resource_sharing": {} }), "nothing was set");
}

async fn what_is_left_out_is_taken_away(on: Backend) {
    let family = Family::new(on).await;
    family.control.json("PUT", &family.path, &guide()).await;
    let users = json!({ "resource_sharing": { "shared_user_pool": { "total_seats": 5 } } });
    let answer = family.control.json("PUT", &family.path, &users).await;
    let left = json!({ "total_seats": 5, "utilized_seats": 0, "committed_seats": 0 });
    assert_eq!(answer.json["resource_sharing"], json!({ "shared_user_pool": left }));
    let none = json!({ "resource_sharing": {} });
    let answer = family.control.json("PUT", &family.path, &none).await;
    assert_eq!((answer.status, answer.json), (200, none));
}

async fn a_parent_sets_its_own_pools_within_its_own_quota_and_a_child_reads_none(on: Backend) {
    let family = Family::new(on).await;
    let token = async |tenant: &Value, role: &str| {
        let path = format!("/api/v1/tenants/{}/tokens", id_of(tenant));
        let new = json!({ "role": role, "name": "t" });
        let answer = family.control.json("POST", &path, &new).await;
        answer.json["token"].as_str().expect("a token").to_owned()
    };
    let parent = token(&family.parent, "parent-admin").await;
    let answer = family.control.as_token(&parent, "PUT", &family.path, &guide()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // The enterprise plan has 999,999 users: no pool makes it more.
    let huge = json!({ "resource_sharing": { "shared_user_pool": { "total_seats": 1_000_000 } } });
    let answer = family.control.as_token(&parent, "PUT", &family.path, &huge).await;
    assert_eq!(answer.bad_fields(), ["resource_sharing.shared_user_pool.total_seats"]);
    let child = token(&family.children[0], "tenant-admin").await;
    let answer = family.control.as_token(&child, "GET", &family.path, &Value::Null).await;
    assert_eq!(answer.status, 404);
}
