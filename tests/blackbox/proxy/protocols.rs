//! HTTP/1.1 and HTTP/2 on one port.

use crate::actors::{RawClient, World};

#[tokio::test(flavor = "multi_thread")]
async fn h2c_with_prior_knowledge_is_served_on_the_same_port() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reply = acme.send_h2("POST", "/h2?x=1", &[("x-mine", "1")], "four").await.expect(200);
    assert_eq!(reply.json()["body_bytes"], 4);
    let got = world.origin("us-east-1").last();
    assert_eq!(got.path, "/h2?x=1");
    assert_eq!(got.header("x-forwarded-host"), "acme.localhost");
    assert_eq!(got.header("x-mine"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start().await;
    world.tenant("acme", "enterprise", "us").await;
    let mut requests = String::new();
    for i in 0..20 {
        requests.push_str(&format!("GET /{i} HTTP/1.1\r\nhost: acme.localhost\r\n\r\n"));
    }
    requests.push_str("GET /last HTTP/1.1\r\nhost: acme.localhost\r\nconnection: close\r\n\r\n");
    let mut client = RawClient::connect(world.edge_addr()).await;
    client.write(requests).await;
    let answers = client.read_to_end().await;
    let mut at = 0;
    for i in 0..20 {
        let found = answers[at..].find(&format!("\"path\":\"/{i}\"")).expect("in order");
        at += found;
    }
    assert!(answers[at..].contains("\"path\":\"/last\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_headers_without_a_body() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let reply = acme.send("HEAD", "/", &[], "").await.expect(200);
    assert!(reply.body.is_empty());
    assert_ne!(reply.header("content-length"), "");
}
