//! Who may do what, over real connections: on the control listener, and on
//! `api.<base domain>` of the data plane.
//!
//! What is refused is refused by the time that the call is answered which ends it: nothing
//! in here waits for a change to arrive.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::actors::{ADMIN_TOKEN, Backend, Client, Reply, TenantActor, World, on_both};

on_both![
    a_tenants_administrator_reads_its_own_usage_and_hears_of_nobody_else,
    a_revoked_token_is_refused_as_soon_as_the_revocation_is_answered,
    a_suspended_tenant_is_refused_as_soon_as_the_suspension_is_answered,
    a_revoked_key_is_refused_as_soon_as_the_revocation_is_answered,
];

/// How often a change is made: one that came too late would be seen in one of the rounds.
const ROUNDS: usize = 10;

/// Where the API is called.
#[derive(Clone, Copy, Debug)]
enum Door {
    /// The control listener.
    Control,
    /// The data plane's listener, by the host's name.
    Edge,
}

impl Door {
    const ALL: [Self; 2] = [Self::Control, Self::Edge];

    async fn call(
        self,
        world: &World,
        bearer: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let (client, host) = match self {
            Self::Control => (world.control(), "control.test"),
            Self::Edge => (world.edge(), "api.localhost"),
        };
        let request = Client::request(method, path, host)
            .header("authorization", format!("Bearer {bearer}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        client.send(request.body(Full::new(body)).expect("a request")).await
    }

    async fn admin(self, world: &World, method: &str, path: &str) -> Reply {
        self.call(world, ADMIN_TOKEN, method, path, None).await
    }

    /// Issues a token of a tenant's administrator.
    async fn token(self, world: &World, tenant: &TenantActor) -> Token {
        let body = json!({"role": "tenant-admin", "name": "black box"});
        let path = format!("/api/v1/tenants/{}/tokens", tenant.id);
        let issued = self.call(world, ADMIN_TOKEN, "POST", &path, Some(body)).await;
        let issued = issued.expect(201).json();
        let text = |name: &str| issued[name].as_str().expect("text").to_owned();
        Token { path: format!("{path}/{}", text("id")), text: text("token") }
    }
}

/// A token that was issued.
struct Token {
    /// Where it is revoked.
    path: String,
    text: String,
}

fn usage(tenant: &str) -> String {
    format!("/v1/tenants/{tenant}/usage")
}

/// A child of a parent.
async fn child(world: &World, parent: &TenantActor, slug: &str) -> TenantActor {
    let body = json!({
        "organization_name": slug, "slug": slug, "plan": "team", "data_residency": "us",
        "admin_email": format!("admin@{slug}.example"), "parent_tenant_id": parent.id,
    });
    world.create(body).await
}

async fn a_tenants_administrator_reads_its_own_usage_and_hears_of_nobody_else(on: Backend) {
    let world = on.world().await;
    let parent = world.tenant("parent", "enterprise", "us").await;
    let own = child(&world, &parent, "own").await;
    let sibling = child(&world, &parent, "sibling").await;
    let stranger = world.tenant("stranger", "team", "us").await;
    own.get("/").await.expect(200);
    for door in Door::ALL {
        let token = door.token(&world, &own).await.text;
        let get = async |tenant: &str| door.call(&world, &token, "GET", &usage(tenant), None).await;
        let read = get(&own.id).await.expect(200).json();
        assert_eq!(read["tenant_id"], own.id.as_str(), "{door:?}");
        assert_eq!(read["current_usage"]["api_calls_this_month"], 1, "{door:?}");
        let nobody = get("00000000-0000-7000-8000-000000000000").await.expect(404);
        for other in [&sibling, &parent, &stranger] {
            let hidden = get(&other.id).await.expect(404);
            assert_eq!(hidden.code(), "not-found", "{door:?}: {}", other.slug);
            // Not told from one that does not exist.
            assert_eq!(hidden.json()["detail"], nobody.json()["detail"], "{}", other.slug);
            assert!(!hidden.text().contains(&other.slug), "{}", hidden.text());
        }
        // The tenant is its own; what only the operator may do with it is not.
        let suspend = format!("/v1/admin/tenants/{}/suspend", own.id);
        door.call(&world, &token, "POST", &suspend, None).await.expect(403);
    }
}

async fn a_revoked_token_is_refused_as_soon_as_the_revocation_is_answered(on: Backend) {
    let world = on.world().await;
    let tenant = world.tenant("acme", "team", "us").await;
    for revoked_at in Door::ALL {
        for _ in 0..ROUNDS {
            let token = revoked_at.token(&world, &tenant).await;
            let get = async |door: Door| {
                door.call(&world, &token.text, "GET", &usage(&tenant.id), None).await
            };
            for door in Door::ALL {
                get(door).await.expect(200);
            }
            revoked_at.admin(&world, "DELETE", &token.path).await.expect(204);
            for door in Door::ALL {
                assert_eq!(get(door).await.expect(401).code(), "unauthenticated", "{door:?}");
            }
        }
    }
}

async fn a_suspended_tenant_is_refused_as_soon_as_the_suspension_is_answered(on: Backend) {
    let world = on.world().await;
    let tenant = world.tenant("acme", "team", "us").await;
    let path = format!("/v1/admin/tenants/{}", tenant.id);
    for door in Door::ALL {
        for _ in 0..ROUNDS {
            tenant.get("/").await.expect(200);
            let before = world.arrivals();
            let suspended = door.admin(&world, "POST", &format!("{path}/suspend")).await;
            let refused = tenant.get("/").await.expect(403);
            assert_eq!(suspended.expect(200).json()["status"], "suspended");
            assert_eq!(refused.code(), "tenant-suspended");
            assert_eq!(world.arrivals(), before, "nothing reached an origin");
            door.admin(&world, "POST", &format!("{path}/resume")).await.expect(200);
        }
        tenant.get("/").await.expect(200);
    }
}

async fn a_revoked_key_is_refused_as_soon_as_the_revocation_is_answered(on: Backend) {
    let world = on.world().await;
    let tenant = world.tenant("acme", "team", "us").await;
    let keys = format!("/v1/admin/tenants/{}/keys", tenant.id);
    for door in Door::ALL {
        for _ in 0..ROUNDS {
            let issued = door.admin(&world, "POST", &keys).await.expect(201).json();
            let text = |name: &str| issued[name].as_str().expect("text").to_owned();
            let (key, path) = (text("key"), format!("{keys}/{}", text("id")));
            // On the shared host it is the key that names the tenant.
            let get = async || Door::Edge.call(&world, &key, "GET", "/orders", None).await;
            get().await.expect(200);
            let before = world.arrivals();
            door.admin(&world, "DELETE", &path).await.expect(204);
            assert_eq!(get().await.expect(401).code(), "unauthenticated");
            assert_eq!(world.arrivals(), before, "nothing reached an origin");
        }
    }
}
