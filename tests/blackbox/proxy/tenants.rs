//! Who a request belongs to, and what the others get.

use serde_json::json;

use crate::actors::{Client, World, WorldOptions};

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_reaches_the_home_region_of_its_group() {
    let world = World::start().await;
    for (slug, group, region) in [
        ("acme", "us", "us-east-1"),
        ("euro", "eu", "eu-central-1"),
        ("brit", "uk", "eu-west-2"),
        ("maple", "ca", "ca-central-1"),
        ("aussie", "au", "ap-southeast-2"),
    ] {
        let tenant = world.tenant(slug, "enterprise", group).await;
        let reply = tenant.get("/hello").await.expect(200);
        assert_eq!(reply.json()["region"], region);
        assert_eq!(world.origin(region).last().header("x-tenant-slug"), slug);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_one_canonical_form() {
    let world = World::start().await;
    world.tenant("acme", "enterprise", "us").await;
    for (host, status) in [
        ("acme.localhost", 200),
        ("ACME.LocalHost", 200),
        ("acme.localhost.", 200),
        ("acme.localhost:8080", 200),
        ("a.acme.localhost", 404),
        ("localhost", 404),
        ("nobody.localhost", 404),
        ("acme.example", 404),
        ("127.0.0.1", 404),
        ("acme.localhost:0", 400),
        ("user@acme.localhost", 400),
        ("acme_.localhost", 404),
    ] {
        let request = Client::request("GET", "/", host).body(Default::default());
        let reply = world.edge().send(request.expect("a request")).await;
        assert_eq!(reply.status.as_u16(), status, "{host}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_names_its_tenant_on_the_shared_host_and_must_agree_elsewhere() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    world.tenant("euro", "enterprise", "eu").await;
    let key = world.key(&acme).await;
    let send = |host: &'static str, token: Option<String>| {
        let mut request = Client::request("GET", "/", host);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        world.edge().send(request.body(Default::default()).expect("a request"))
    };
    let _arrived = send("api.localhost", Some(key.clone())).await.expect(200);
    let arrived = world.origin("us-east-1").last();
    assert_eq!(arrived.header("x-tenant-slug"), "acme");
    assert_eq!(arrived.header("authorization"), "", "the edge's own credential stays here");
    send("acme.localhost", Some(key.clone())).await.expect(200);

    assert_eq!(
        send("euro.localhost", Some(key.clone())).await.expect(403).code(),
        "tenant-mismatch"
    );
    let missing = send("api.localhost", None).await.expect(401);
    assert!(missing.header("www-authenticate").starts_with("Bearer"));
    // One body for all causes: a wrong secret, a wrong checksum, an unknown key.
    let mut wrong_checksum = key.clone();
    wrong_checksum.pop();
    wrong_checksum.push(if key.ends_with('0') { '1' } else { '0' });
    let (unknown, ..) = model::key::mint(&[9; 40]);
    let detail = |reply: &crate::actors::Reply| {
        let json = reply.json();
        (json["code"].clone(), json["title"].clone(), json["detail"].clone())
    };
    let first = detail(&missing);
    for bad in [wrong_checksum, unknown, "x".into(), "a.b.c".into()] {
        for host in ["api.localhost", "acme.localhost"] {
            let reply = send(host, Some(bad.clone())).await.expect(401);
            assert_eq!(detail(&reply), first, "{bad} on {host}");
        }
    }
    assert_eq!(world.arrivals(), 2, "nothing refused reached an origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let key = world.key(&acme).await;
    let id = model::key::parse(&key).expect("a key").id.to_owned();
    let send = || {
        let request = Client::request("GET", "/", "acme.localhost")
            .header("authorization", format!("Bearer {key}"));
        world.edge().send(request.body(Default::default()).expect("a request"))
    };
    send().await.expect(200);
    let path = format!("/api/v1/admin/tenants/{}/keys/{id}", acme.id);
    assert!(world.admin("DELETE", &path, None).await.status.is_success());
    crate::actors::eventually("the key is refused", || async {
        (send().await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_not_in_force_gets_the_answer_of_its_status() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    acme.get("/").await.expect(200);
    let path = format!("/api/v1/admin/tenants/{}", acme.id);

    world
        .admin("POST", &format!("{path}/suspend"), Some(json!({"reason": "abuse"})))
        .await
        .expect(200);
    let refused = eventually_status(&acme, 403).await;
    assert_eq!(refused.code(), "tenant-suspended");
    world.admin("POST", &format!("{path}/resume"), None).await.expect(200);
    eventually_status(&acme, 200).await;

    // Day 30 of the trial: the edge looks at the time itself.
    world.clock.advance_ms(30 * 86_400_000);
    let refused = eventually_status(&acme, 403).await;
    assert_eq!(refused.code(), "trial-expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parents_suspension_holds_for_its_children() {
    let world = World::start().await;
    let parent = world.tenant("global", "enterprise", "us").await;
    let child = world
        .create(json!({
            "organization_name": "EU", "slug": "global-eu", "plan": "team",
            "admin_email": "a@b.example", "parent_tenant_id": parent.id, "data_residency": "eu",
        }))
        .await;
    child.get("/").await.expect(200);
    world
        .admin(
            "POST",
            &format!("/api/v1/admin/tenants/{}/suspend", parent.id),
            Some(json!({"reason": "operator"})),
        )
        .await
        .expect(200);
    assert_eq!(eventually_status(&child, 403).await.code(), "tenant-suspended");
}

async fn eventually_status(
    tenant: &crate::actors::TenantActor,
    status: u16,
) -> crate::actors::Reply {
    crate::actors::eventually(&format!("{} answers {status}", tenant.slug), || async {
        let reply = tenant.get("/").await;
        (reply.status == status).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_of_a_configured_issuer_names_its_tenant() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let options = WorldOptions {
        config: format!(
            "[edge.jwt]\n[[edge.jwt.issuer]]\nname = \"idp\"\nissuer = \"https://idp.example\"\n\
             audience = \"leanvibe\"\ntenant_claim = \"org.slug\"\n\
             keys = [{{ algorithm = \"HS256\", secret = \"{SECRET}\" }}]"
        ),
        prepare: None,
    };
    let world = World::with(options).await;
    world.tenant("acme", "enterprise", "us").await;
    world.tenant("euro", "enterprise", "eu").await;
    let expires = world.clock_s() + 3600;
    let sign = |secret: &str, slug: &str, exp: u64, aud: &str| {
        let claims = json!({
            "iss": "https://idp.example", "aud": aud, "exp": exp, "sub": "ann",
            "org": {"slug": slug},
        });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
    };
    let send = |host: &'static str, token: String| {
        let request =
            Client::request("GET", "/", host).header("authorization", format!("Bearer {token}"));
        world.edge().send(request.body(Default::default()).expect("a request"))
    };
    let good = sign(SECRET, "acme", expires, "leanvibe");
    send("api.localhost", good.clone()).await.expect(200);
    let got = world.origin("us-east-1").last();
    assert_eq!(got.header("x-tenant-slug"), "acme");
    assert_eq!(got.header("x-tenant-subject"), "ann");
    assert_eq!(send("euro.localhost", good).await.expect(403).code(), "tenant-mismatch");
    for bad in [
        sign(SECRET, "acme", world.clock_s() - 3600, "leanvibe"),
        sign(SECRET, "acme", expires, "another"),
        sign("another-secret-of-enough-length!!", "acme", expires, "leanvibe"),
        sign(SECRET, "nobody", expires, "leanvibe"),
    ] {
        send("api.localhost", bad).await.expect(401);
    }
}
