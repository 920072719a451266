//! No document that a client may send makes the server fail.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value};

use crate::testing::{Backend, Control, acme, path_of, tenant};

const MEMBERS: [&str; 16] = [
    "organization_name",
    "display_name",
    "slug",
    "admin_email",
    "plan",
    "data_residency",
    "parent_tenant_id",
    "status",
    "suspend_reason",
    "custom_domains",
    "quota_overrides",
    "attributes",
    "secrets",
    "version",
    "reason",
    "expires_at",
];

fn value() -> impl Strategy<Value = Value> {
    let known = [
        "acme",
        "team",
        "eu",
        "us",
        "a@b.example",
        "active",
        "suspended",
        "abuse",
        "x.example",
        "2030-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "-0001-01-01T00:00:00Z",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(known.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let name = prop_oneof![
            prop::sample::select(&["max_users", "signing"][..]).prop_map(str::to_owned),
            any::<String>(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn document() -> impl Strategy<Value = Map<String, Value>> {
    let member = (prop::sample::select(&MEMBERS[..]).prop_map(str::to_owned), value());
    prop::collection::vec(member, 0..6).prop_map(|members| members.into_iter().collect())
}

#[test]
fn no_document_makes_the_server_fail_on_sqlite() {
    no_document_makes_the_server_fail(Backend::Sqlite);
}

#[test]
fn no_document_makes_the_server_fail_on_postgres() {
    no_document_makes_the_server_fail(Backend::Postgres);
}

fn no_document_makes_the_server_fail(on: Backend) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let control = runtime.block_on(Control::start(on));
    let held = runtime.block_on(control.create(&tenant("held")));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&document(), |members| {
        let mut create = acme();
        create.as_object_mut().expect("an object").extend(members.clone());
        let members = Value::Object(members);
        let path = path_of(&held);
        for (method, path, body) in [
            ("POST", "/api/v1/admin/tenants", &create),
            ("PATCH", &path, &members),
            ("POST", &format!("{path}/suspend"), &members),
            ("POST", &format!("{path}/resume"), &members),
            ("POST", &format!("{path}/keys"), &members),
        ] {
            let answer = runtime.block_on(control.json(method, path, body));
            let code = answer.json["code"].as_str().unwrap_or_default();
            let refused_whole = answer.status == 501 && code.starts_with("needs-");
            prop_assert!(answer.status < 500 || refused_whole, "{} {}", method, answer.text);
        }
        Ok(())
    });
    outcome.expect("no failure");
}
