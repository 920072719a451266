//! Role × endpoint × tenant: who may do what, for every endpoint of the list.
//!
//! An endpoint that is added is tested here without a word: what it asks for is in the
//! list, and what each role may do is in `model::access`.

use std::collections::BTreeMap;

use model::{
    access::{Relation, Right, Rights, Role},
    tenant::TenantId,
};
use serde_json::{Value, json};

use crate::{
    api::{caller::TENANT_PARAMETER, endpoint::Endpoint, endpoints},
    store::{Actor, NewToken},
    testing::{Answer, Backend, Control, id_of, on_both, tenant},
};

on_both![
    every_role_gets_what_it_may_have_of_every_endpoint_and_nothing_else,
    no_answer_to_another_tenant_tells_whether_a_tenant_is_there,
];

/// A family of three generations and a stranger, with something of each to give away.
struct World {
    control: Control,
    /// By the name of the tenant.
    ids: BTreeMap<&'static str, TenantId>,
}

/// A text that is in every tenant but `asker`'s: it may be in no answer to it.
const MARKER: &str = "marker-of-";

impl World {
    async fn start(on: Backend) -> Self {
        let control = Control::start(on).await;
        control.usage.set(1, 1);
        let mut ids = BTreeMap::new();
        for (name, parent) in [
            ("grandparent", None),
            ("asker", Some("grandparent")),
            ("child", Some("asker")),
            ("sibling", Some("grandparent")),
            ("stranger", None),
        ] {
            let mut new = tenant(name);
            new["display_name"] = format!("{MARKER}{name}").into();
            new["parent_tenant_id"] = parent.map_or(Value::Null, |parent| json!(ids[parent]));
            ids.insert(name, id_of(&control.create(&new).await));
        }
        // Nobody, but well formed.
        ids.insert("nobody", TenantId(uuid::Uuid::max()));
        Self { control, ids }
    }

    async fn token(&self, role: Role, scopes: Option<Rights>) -> String {
        let tenant = (role != Role::Admin).then(|| self.ids["asker"]);
        let new = NewToken { tenant, role, scopes, name: "m".to_owned(), expires_at: None };
        let issued = self.control.store.issue_token(&Actor::Operator, new).await;
        issued.expect("a token").text.expose().to_owned()
    }

    async fn ask(&self, token: &str, endpoint: &Endpoint, tenant: TenantId) -> Answer {
        let path = format!("/api/v1{}", endpoint.path)
            .replace(&format!("{{{TENANT_PARAMETER}}}"), &tenant.to_string());
        // Whatever else a path names is not there.
        let path: Vec<_> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "nothing" } else { part })
            .collect();
        // A body that no endpoint accepts, so that nothing is changed on the way.
        let body = match endpoint.document.body {
            Some(_) => json!({ "no-such-field": 1 }),
            None => Value::Null,
        };
        self.control.as_token(token, endpoint.method.as_str(), &path.join("/"), &body).await
    }
}

/// What a token of `asker` may do about a tenant; `None` when it may not know of it.
fn rights(role: Role, scopes: Rights, about: &str) -> Option<Rights> {
    let relation = match (role, about) {
        (Role::Admin, _) | (_, "asker") => Relation::Own,
        (Role::ParentAdmin, "child") => Relation::Below,
        _ => return None,
    };
    Some(role.rights(relation).and(scopes))
}

async fn every_role_gets_what_it_may_have_of_every_endpoint_and_nothing_else(on: Backend) {
    let world = World::start(on).await;
    let narrow = Rights::of(&[Right::UsageRead]);
    for (role, scopes) in [
        (Role::Admin, Rights::ALL),
        (Role::Admin, narrow),
        (Role::ParentAdmin, Rights::ALL),
        (Role::TenantAdmin, Rights::ALL),
        (Role::TenantAdmin, narrow),
        (Role::Service, Rights::of(&[Right::UsageReport, Right::TenantRead])),
    ] {
        let token = world.token(role, (scopes != Rights::ALL).then_some(scopes)).await;
        for endpoint in &endpoints() {
            let Some(right) = endpoint.right else { continue };
            let of_tenant = endpoint.path.contains(TENANT_PARAMETER);
            for (about, id) in &world.ids {
                // Deletes and verbs without a body would change what others are asked about.
                let changes = endpoint.method != "GET" && endpoint.document.body.is_none();
                let allowed = match of_tenant {
                    true => rights(role, scopes, about),
                    false => Some(role.rights_at_most().and(scopes)),
                };
                let granted = allowed.is_some_and(|rights| rights.contains(right));
                if changes && granted && *about != "nobody" && !endpoint.path.ends_with('}') {
                    continue;
                }
                let answer = world.ask(&token, endpoint, *id).await;
                let what = format!(
                    "{role:?} {scopes:?} {} {} about {about}: {} {}",
                    endpoint.method, endpoint.path, answer.status, answer.text
                );
                assert!(answer.status < 500 || answer.status == 501, "{what}");
                assert_ne!(answer.status, 401, "{what}");
                match allowed {
                    None => assert_eq!(answer.status, 404, "{what}"),
                    Some(_) if !granted => assert_eq!(answer.status, 403, "{what}"),
                    Some(_) => assert_ne!(
                        (answer.status, &answer.json["scope"]),
                        (403, &right.scope().into()),
                        "{what}"
                    ),
                }
            }
        }
    }
}

async fn no_answer_to_another_tenant_tells_whether_a_tenant_is_there(on: Backend) {
    let world = World::start(on).await;
    for role in [Role::ParentAdmin, Role::TenantAdmin] {
        let token = world.token(role, None).await;
        for endpoint in &endpoints() {
            if endpoint.right.is_none() {
                continue;
            }
            let nobody = world.ask(&token, endpoint, world.ids["nobody"]).await;
            for about in ["grandparent", "sibling", "stranger"] {
                let answer = world.ask(&token, endpoint, world.ids[about]).await;
                let what = format!("{role:?} {} {} about {about}", endpoint.method, endpoint.path);
                for hidden in ["grandparent", "sibling", "stranger"] {
                    let marker = format!("{MARKER}{hidden}");
                    assert!(!answer.text.contains(&marker), "{what}: {}", answer.text);
                }
                if endpoint.path.contains(TENANT_PARAMETER) {
                    assert_eq!((answer.status, &answer.text), (404, &nobody.text), "{what}");
                }
            }
        }
    }
}
