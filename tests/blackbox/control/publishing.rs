//! What is changed at one edge is in force at another: by push, by looking when the push is
//! lost, and after the database was away.
//!
//! Two edges on one PostgreSQL and one Redis; A is where changes are made, B the other one.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use services::{Fault, FaultProxy};
use tokio::{net::TcpStream, process::Command};

use crate::actors::{
    ADMIN_TOKEN, Client, Reply, TenantActor, World, WorldOptions, binary, eventually,
    eventually_within,
};

/// How soon a change is to be in force at B: a second, and what a machine that builds and
/// tests at the same time adds to it. Less than the poll takes where it is to be the push.
const IN_FORCE: Duration = Duration::from_secs(10);

struct Edges {
    a: World,
    b: World,
    url: String,
    /// Between B and the database.
    way: FaultProxy,
}

impl Edges {
    async fn start() -> Self {
        let url = services::postgres().database();
        let server = url.split(['@', '/']).find_map(|part| part.parse::<SocketAddr>().ok());
        let server = server.expect("an address");
        let way = FaultProxy::start(server);
        let a = World::with(on(&url)).await;
        let behind = url.replace(&server.to_string(), &way.addr().to_string());
        let b = World::with(on(&behind)).await;
        Self { a, b, url, way }
    }

    /// A tenant, made at A, as B serves it.
    async fn tenant(&self, slug: &str, plan: &str) -> TenantActor {
        let at_b = self.a.tenant(slug, plan, "us").await.at(self.b.edge());
        answers(&at_b, 200).await;
        at_b
    }

    async fn suspend(&self, tenant: &TenantActor) {
        let path = format!("/api/v1/admin/tenants/{}/suspend", tenant.id);
        self.a.admin("POST", &path, Some(json!({"reason": "abuse"}))).await.expect(200);
    }

    async fn resume(&self, tenant: &TenantActor) {
        let path = format!("/api/v1/admin/tenants/{}/resume", tenant.id);
        self.a.admin("POST", &path, None).await.expect(200);
    }

    fn superuser(&self, statements: &str) -> String {
        services::postgres().superuser(&self.url, statements)
    }
}

fn on(database: &str) -> WorldOptions {
    let redis = services::redis().url();
    let config = format!("[store]\nurl = \"{database}\"\n[quota]\nurl = \"{redis}\"");
    WorldOptions { config, prepare: None }
}

/// Waits until the tenant gets that answer.
async fn answers(tenant: &TenantActor, status: u16) -> Reply {
    eventually_within(IN_FORCE, &format!("{} gets {status}", tenant.slug), || async {
        let reply = tenant.get("/").await;
        (reply.status == status).then_some(reply)
    })
    .await
}

/// From the first refusal on there is no other answer.
async fn is_refused_for_good(tenant: &TenantActor) {
    answers(tenant, 403).await;
    for _ in 0..20 {
        assert_eq!(tenant.get("/").await.expect(403).code(), "tenant-suspended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_at_one_edge_is_in_force_at_the_other() {
    let edges = Edges::start().await;
    let acme = edges.tenant("acme", "developer").await;

    acme.get("/sso/login").await.expect(403);
    let path = format!("/api/v1/admin/tenants/{}", acme.id);
    edges.a.admin("PATCH", &path, Some(json!({"plan": "enterprise"}))).await.expect(200);
    eventually_within(IN_FORCE, "the new plan is in force at B", || async {
        acme.get("/sso/login").await.status.is_success().then_some(())
    })
    .await;

    let key = edges.a.key(&acme).await;
    let bearer = format!("Bearer {key}");
    let with_key = async |status: u16| {
        eventually_within(IN_FORCE, &format!("the key gets {status} at B"), || async {
            let reply = acme.send("GET", "/", &[("authorization", &bearer)], "").await;
            (reply.status == status).then_some(())
        })
        .await;
    };
    with_key(200).await;
    let id = model::key::parse(&key).expect("a key").id.to_owned();
    let revoked = edges.a.admin("DELETE", &format!("{path}/keys/{id}"), None).await;
    assert!(revoked.status.is_success(), "{}", revoked.text());
    with_key(401).await;

    edges.suspend(&acme).await;
    is_refused_for_good(&acme).await;
    edges.resume(&acme).await;
    answers(&acme, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_at_one_edge_is_worth_nothing_at_the_other() {
    let edges = Edges::start().await;
    let issue = json!({"role": "admin", "name": "ops"});
    let issued = edges.a.admin("POST", "/api/v1/admin/tokens", Some(issue)).await.expect(201);
    let issued = issued.json();
    let token = issued["token"].as_str().expect("a token").to_owned();
    let list = || {
        let request = Client::request("GET", "/api/v1/admin/tenants", "control.test")
            .header("authorization", format!("Bearer {token}"));
        edges.b.control().send(request.body(Default::default()).expect("a request"))
    };
    list().await.expect(200);
    let path = format!("/api/v1/admin/tokens/{}", issued["id"].as_str().expect("an id"));
    let revoked = edges.a.admin("DELETE", &path, None).await;
    assert!(revoked.status.is_success(), "{}", revoked.text());
    // No cache between it and the database: the next call already.
    list().await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_announcement_was_lost_is_found_by_looking() {
    let edges = Edges::start().await;
    let acme = edges.tenant("acme", "enterprise").await;
    // As a change is stored, but nobody is told.
    edges.superuser(
        "UPDATE edge.directory_head SET revision = revision + 1;
         UPDATE edge.tenant SET status = 'suspended', suspend_reason = 'abuse',
             revision = (SELECT revision FROM edge.directory_head) WHERE slug = 'acme'",
    );
    is_refused_for_good(&acme).await;
    // And while nobody listens: the connections that do are ended just before.
    edges.superuser(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query ILIKE 'LISTEN%'",
    );
    edges.resume(&acme).await;
    answers(&acme, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_lost_the_database_serves_what_it_knew_says_so_at_once_and_catches_up() {
    let edges = Edges::start().await;
    let (acme, beta) =
        (edges.tenant("acme", "enterprise").await, edges.tenant("beta", "enterprise").await);
    edges.way.set(Fault::Stall);
    eventually("B notices", || async {
        let reply = edges.b.admin("GET", "/api/v1/admin/tenants", None).await;
        (reply.status == 503).then_some(())
    })
    .await;
    edges.suspend(&acme).await;
    // Both kinds of call, each well within the patience for one connection.
    for (method, path, body) in [
        ("GET", "/api/v1/admin/tenants".to_owned(), None),
        ("POST", format!("/api/v1/admin/tenants/{}/suspend", beta.id), Some(json!({}))),
    ] {
        let refused = edges.b.admin(method, &path, body).await.expect(503);
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.code(), "temporary-reduced-capacity");
    }
    let cli = Command::new(binary())
        .args(["tenant", "list", "--server", &format!("http://{}", edges.b.control().addr)])
        .env("LEANVIBE_EDGE_TOKEN", ADMIN_TOKEN)
        .output()
        .await
        .expect("the program");
    let said = String::from_utf8_lossy(&cli.stderr).into_owned();
    assert_eq!(cli.status.code(), Some(1), "{said}");
    assert!(said.contains("database does not answer") && said.contains("again in 1 s"), "{said}");
    // B knows nothing of the suspension, and serves both.
    acme.get("/").await.expect(200);
    beta.get("/").await.expect(200);

    edges.way.set(Fault::None);
    is_refused_for_good(&acme).await;
    beta.get("/").await.expect(200);
    eventually("B answers again", || async {
        let reply = edges.b.admin("GET", "/api/v1/admin/tenants", None).await;
        reply.status.is_success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_the_use_of_connections_that_stand() {
    let edges = Edges::start().await;
    let acme = edges.tenant("acme", "enterprise").await;
    let request = |uri: String| {
        let request = Request::builder().uri(uri).header("host", &acme.host);
        request.body(Full::<Bytes>::default()).expect("a request")
    };
    let connect =
        async || TokioIo::new(TcpStream::connect(edges.b.edge_addr()).await.expect("a connection"));
    let (mut one, connection) =
        hyper::client::conn::http1::handshake(connect().await).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let (mut two, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), connect().await)
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut both = async || {
        let response = one.send_request(request("/".into())).await.expect("an answer");
        let first = response.status().as_u16();
        // The connection is free for the next one when the body was read.
        response.into_body().collect().await.expect("a body");
        let mut over_two = request(format!("http://{}/", acme.host));
        over_two.headers_mut().remove("host");
        let second = two.send_request(over_two).await.expect("an answer").status().as_u16();
        (first, second)
    };
    assert_eq!(both().await, (200, 200));
    edges.suspend(&acme).await;
    answers(&acme, 403).await;
    assert_eq!(both().await, (403, 403), "on the same connections");
    edges.resume(&acme).await;
    answers(&acme, 200).await;
    assert_eq!(both().await, (200, 200), "still on the same connections");
}
