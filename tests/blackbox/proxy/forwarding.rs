//! What the upstream receives, and what comes back.

use crate::actors::{RawClient, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_learns_who_called_and_how() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reply = acme
        .send(
            "POST",
            "/v1/things?q=1",
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-tenant-id", "spoofed"),
                ("x_tenant_id", "twin"),
                ("x-tenant-anything", "spoofed"),
                ("connection", "x-secret-hop, x-tenant-id"),
                ("x-secret-hop", "1"),
                ("x-mine", "kept"),
            ],
            "body",
        )
        .await
        .expect(200);
    let got = world.origin("us-east-1").last();
    assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", "/v1/things?q=1"));
    assert_eq!(got.body, "body");
    assert_eq!(got.header("x-tenant-id"), acme.id);
    assert_eq!(got.header("x-tenant-plan"), "enterprise");
    assert_eq!(got.header("x-tenant-region"), "us-east-1");
    assert_eq!(got.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(got.header("x-forwarded-proto"), "http");
    assert_eq!(got.header("x-forwarded-host"), "acme.localhost");
    assert!(got.header("forwarded").contains("for=127.0.0.1"), "{}", got.header("forwarded"));
    assert!(got.header("via").starts_with("1.1 "));
    assert_eq!(got.header("x-mine"), "kept");
    for gone in ["x-secret-hop", "x_tenant_id", "x-tenant-anything"] {
        assert_eq!(got.header(gone), "", "{gone}");
    }
    let id = got.header("x-request-id");
    assert!(!id.is_empty());
    assert_eq!(reply.header("x-request-id"), id);
    let trace = got.header("traceparent");
    assert!(trace.starts_with("00-") && trace.len() == 55, "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_with_a_new_span() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    acme.send("GET", "/", &[("traceparent", parent)], "").await.expect(200);
    let got = world.origin("us-east-1").last().header("traceparent");
    assert!(got.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && got != parent, "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let body = "x".repeat(3 << 20);
    let reply = acme.send("PUT", "/big", &[], &body).await.expect(200);
    assert_eq!(reply.json()["body_bytes"], 3 << 20);

    // Chunked, in pieces; the origin sees one body.
    let mut client = RawClient::connect(world.edge_addr()).await;
    client.write("POST /c HTTP/1.1\r\nhost: acme.localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").await;
    client.write("5\r\nhello\r\n").await;
    client.write("6\r\n world\r\n0\r\n\r\n").await;
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.origin("us-east-1").last().body, "hello world");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_failures_are_well_formed_and_the_next_request_is_served() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reset = acme.send("GET", "/", &[("x-origin-do", "reset")], "").await.expect(502);
    assert_eq!(reset.header("content-type"), "application/problem+json");
    acme.send("GET", "/", &[("x-origin-do", "status=503")], "").await.expect(503);
    acme.get("/").await.expect(200);
    world.origin("us-east-1").stop();
    crate::actors::eventually("the other region of the group serves", || async {
        acme.get("/").await.expect(200);
        (world.origin("us-west-2").arrivals() > 0).then_some(())
    })
    .await;
    assert_eq!(world.origin("us-west-2").last().header("x-tenant-region"), "us-west-2");
    world.origin("us-west-2").stop();
    crate::actors::eventually("no region of the group is left", || async {
        (acme.get("/").await.status.is_server_error()).then_some(())
    })
    .await;
    assert_eq!(world.origin("eu-central-1").arrivals(), 0, "the group is never left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_is_given_up_with_504() {
    let options = crate::actors::WorldOptions {
        config: "[edge]\nlimits = { first_byte_timeout_ms = 300 }".into(),
        prepare: None,
    };
    let world = World::with(options).await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reply = acme.send("GET", "/", &[("x-origin-do", "hang")], "").await.expect(504);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    acme.get("/").await.expect(200);
}
