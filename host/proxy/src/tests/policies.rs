//! Chains: order, edits, decisions, failures, residency.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, uri::PathAndQuery};
use model::policy::{
    BodyDecision, Chain, Decision, LocalResponse, OnFailure, Policy, PolicyExchange, PolicyFailure,
    ResolvedBy, ResponseDecision, Target,
};

use super::world::{Fake, NOW, Setup, World, on_request, policy};

fn respond(status: u16, body: &'static str) -> LocalResponse {
    let mut headers = HeaderMap::new();
    headers.insert("x-made-by", HeaderValue::from_static("policy"));
    let status = StatusCode::from_u16(status).expect("a status");
    LocalResponse { status, headers, body: Bytes::from_static(body.as_bytes()) }
}

fn broken() -> Result<Decision, PolicyFailure> {
    Err(PolicyFailure::Trap("unreachable".to_owned()))
}

fn mark(name: &'static str) -> Policy {
    on_request(name, OnFailure::Closed, move |seen: &mut PolicyExchange| {
        seen.request.headers.append("x-order", HeaderValue::from_static(name));
        Ok(Decision::Continue)
    })
}

#[test]
fn policies_run_in_order_and_edit_what_is_forwarded() {
    let rewrite = on_request("rewrite", OnFailure::Closed, |seen| {
        seen.request.path_and_query = PathAndQuery::from_static("/new/./path?q=1");
        Ok(Decision::Continue)
    });
    let world = World::with_policies(vec![mark("one"), rewrite, mark("two")]);
    assert_eq!(world.get("/old", "").status, 200);
    let seen = world.origin.last();
    assert_eq!(seen.field("x-order").as_deref(), Some("one, two"));
    assert_eq!(seen.target(), "/new/path?q=1");
}

#[test]
fn a_policy_sees_the_request_as_the_edge_read_it() {
    let facts = Arc::new(Mutex::new(None));
    let log = Arc::clone(&facts);
    let spy = on_request("spy", OnFailure::Closed, move |seen| {
        *log.lock().expect("the log") = Some((
            (seen.request.authority.clone(), seen.request.path_and_query.clone()),
            seen.request.headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>(),
            (seen.resolved_by, seen.subject.clone(), seen.claims.clone()),
            (seen.client_ip, seen.quotas.len(), seen.received_at, seen.id.clone()),
        ));
        Ok(Decision::Continue)
    });
    let mut setup = Setup { chain: Arc::new(Chain::new(vec![spy])), ..Setup::default() };
    setup.config.jwt = super::tenants::jwt();
    let world = World::with(setup);
    let answer = world.send(format!(
        "GET /a/./b HTTP/1.1\r\nHost: API.test:80\r\nAuthorization: Bearer {}\r\nX_Tenant: evil\r\n\
         X-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n",
        super::tenants::token("acme"),
    ));
    assert_eq!(answer.status, 200);
    let (target, fields, identity, rest) = facts.lock().expect("the log").take().expect("a call");
    assert_eq!((&*target.0, target.1.as_str()), ("api.test:80", "/a/b"));
    assert_eq!(fields, ["authorization"]);
    assert_eq!((identity.0, identity.1.as_deref()), (ResolvedBy::Token, Some("user-1")));
    assert_eq!(
        *identity.2,
        serde_json::json!({"role": "admin"}).as_object().expect("claims").clone()
    );
    assert_eq!((rest.0.to_string().as_str(), rest.1, rest.2), ("127.0.0.1", 1, NOW));
    assert_eq!(Some(&*rest.3), answer.field("x-request-id").as_deref());
}

#[test]
fn a_policys_answer_ends_the_walk_and_costs_no_token() {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let world = World::with_policies(vec![
        on_request("no", OnFailure::Closed, |_| Ok(Decision::Respond(respond(403, "not today")))),
        on_request("after", OnFailure::Closed, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Decision::Continue)
        }),
    ]);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.text()), (403, "not today".to_owned()));
    assert_eq!(answer.field("x-made-by").as_deref(), Some("policy"));
    assert!(answer.field("x-request-id").is_some());
    assert_eq!(world.gate.counts(), (1, 1));
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    assert!(world.origin.seen().is_empty());
}

#[test]
fn a_failure_follows_the_policys_own_rule() {
    let closed = World::with_policies(vec![on_request("p", OnFailure::Closed, |_| broken())]);
    let answer = closed.get("/a", "");
    assert_eq!((answer.status, answer.code()), (503, "policy-unavailable".to_owned()));
    assert!(!answer.text().contains("unreachable"), "the cause is not the client's business");
    assert_eq!(closed.gate.counts(), (1, 1));
    assert!(closed.origin.seen().is_empty());

    let open =
        World::with_policies(vec![on_request("p", OnFailure::Open, |_| broken()), mark("two")]);
    assert_eq!(open.get("/a", "").status, 200);
    assert_eq!(open.origin.last().field("x-order").as_deref(), Some("two"));
}

#[test]
fn the_last_target_of_a_chain_counts_and_stays_in_the_group() {
    let to = |name: &'static str, target: Target, on_failure| {
        on_request(name, on_failure, move |_| Ok(Decision::Route(target.clone())))
    };
    let region = |name: &str| Target::Region(name.into());
    let backend = |name: &str| Target::Backend(name.into());
    use OnFailure::{Closed, Open};
    for (chain, want) in [
        (vec![to("a", region("eu-2"), Closed)], Some("eu-2")),
        (vec![to("a", region("eu-2"), Closed), to("b", region("eu-1"), Closed)], Some("eu-1")),
        (vec![to("a", backend("canary"), Closed)], Some("eu-1")),
        (vec![to("a", region("us-1"), Closed)], None),
        (vec![to("a", backend("nowhere"), Closed)], None),
        (vec![to("a", region("us-1"), Open)], Some("eu-1")),
        (vec![to("a", region("eu-2"), Closed), to("b", region("us-1"), Open)], Some("eu-2")),
    ] {
        let shown = format!("{chain:?}");
        let world = World::with_policies(chain);
        let answer = world.get("/a", "");
        let seen: Vec<_> = world.origin.seen().into_iter().chain(world.far_origin.seen()).collect();
        match want {
            Some(want) => {
                assert_eq!(seen[0].field("x-tenant-region").as_deref(), Some(want), "{shown}");
                assert_eq!(world.far_origin.seen().len(), usize::from(want == "eu-2"), "{shown}");
            }
            None => {
                assert_eq!(answer.code(), "policy-unavailable");
                assert!(seen.is_empty(), "{shown}");
            }
        }
    }
}

#[test]
fn a_path_without_a_normal_form_is_a_broken_rule() {
    let evil = |on_failure| {
        on_request("p", on_failure, |seen| {
            seen.request.path_and_query = PathAndQuery::from_static("/../admin");
            Ok(Decision::Continue)
        })
    };
    let closed = World::with_policies(vec![evil(OnFailure::Closed)]);
    assert_eq!(closed.get("/a", "").status, 503);
    let open = World::with_policies(vec![evil(OnFailure::Open)]);
    assert_eq!(open.get("/a", "").status, 200);
    assert_eq!(open.origin.last().target(), "/a");
}

#[test]
fn a_body_hook_sees_the_whole_body_and_may_replace_it() {
    let shout = Fake {
        body: Some(Box::new(|_, body| Ok(BodyDecision::Replace(body.to_ascii_uppercase().into())))),
        ..Fake::default()
    };
    let stay = Fake { body: Some(Box::new(|_, _| Ok(BodyDecision::Continue))), ..Fake::default() };
    let mut setup = Setup::default();
    setup.config.limits.policy_body_bytes_max = 16;
    setup.chain = Arc::new(Chain::new(vec![
        policy("shout", OnFailure::Closed, shout),
        policy("stay", OnFailure::Closed, stay),
    ]));
    let world = World::with(setup);
    let answer = world.send(
        "POST /a HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = world.origin.last();
    assert_eq!((&*seen.body, seen.field("content-length").as_deref()), (&b"HELLO"[..], Some("5")));
    for framing in [
        "Content-Length: 17\r\n\r\n12345678901234567",
        "Transfer-Encoding: chunked\r\n\r\n11\r\n12345678901234567\r\n0\r\n\r\n",
    ] {
        let answer = world.send(format!("POST /a HTTP/1.1\r\nHost: acme.test\r\n{framing}"));
        assert_eq!((answer.status, answer.code()), (413, "body-too-large".to_owned()));
    }
    assert_eq!(world.gate.counts(), (3, 2));
}

#[test]
fn response_hooks_run_in_reverse_and_only_on_upstream_answers() {
    let stamp = |name: &'static str| Fake {
        response: Some(Box::new(move |seen: &mut PolicyExchange| {
            assert_eq!(seen.request.path_and_query.path().split('/').nth(1), Some("status"));
            let response = seen.response.as_mut().expect("a response");
            assert_eq!(&*response.served_by.as_ref().expect("an origin").0, "eu-1");
            response.headers.append("x-order", HeaderValue::from_static(name));
            Ok(ResponseDecision::Continue)
        })),
        ..Fake::default()
    };
    let world = World::with_policies(vec![
        policy("one", OnFailure::Closed, stamp("one")),
        policy("two", OnFailure::Closed, stamp("two")),
    ]);
    let answer = world.get("/status/418", "");
    assert_eq!((answer.status, answer.field("x-order").as_deref()), (418, Some("two, one")));
    let rescued = world.get("/close", "");
    assert_eq!((rescued.status, rescued.field("x-order")), (502, None));
}

#[test]
fn a_response_hook_may_answer_instead_and_may_fail() {
    let hook = |hook: fn() -> Result<ResponseDecision, PolicyFailure>, on_failure| {
        let fake = Fake { response: Some(Box::new(move |_| hook())), ..Fake::default() };
        World::with_policies(vec![policy("p", on_failure, fake)])
    };
    let other = hook(|| Ok(ResponseDecision::Respond(respond(451, "gone"))), OnFailure::Closed);
    let answer = other.get("/a", "");
    assert_eq!((answer.status, answer.text()), (451, "gone".to_owned()));
    assert_eq!(other.gate.counts(), (1, 0), "the upstream did answer");
    let fails = || Err(PolicyFailure::Deadline);
    assert_eq!(hook(fails, OnFailure::Closed).get("/a", "").code(), "policy-unavailable");
    assert_eq!(hook(fails, OnFailure::Open).get("/a", "").status, 200);
}

#[test]
fn a_panic_costs_one_request() {
    let panics = on_request("p", OnFailure::Closed, |seen| {
        assert!(!seen.request.headers.contains_key("x-panic"), "as told");
        Ok(Decision::Continue)
    });
    let world = World::with_policies(vec![panics]);
    let mut client = world.client();
    client.write("GET /a HTTP/1.1\r\nHost: acme.test\r\nX-Panic: 1\r\n\r\n");
    let answer = client.read().expect("an answer");
    assert_eq!((answer.status, answer.code()), (500, "internal".to_owned()));
    client.write("GET /b HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    assert_eq!(client.read().expect("the same connection goes on").status, 200);
    assert_eq!(world.gate.counts(), (2, 1), "the permit came back");
}

#[test]
fn a_reload_changes_later_exchanges_only() {
    let world = World::with_policies(vec![mark("old")]);
    let mut held = world.client();
    held.write("GET /hold HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(1);
    world.publish(vec![mark("new")]);
    assert_eq!(world.get("/a", "").status, 200);
    assert_eq!(world.origin.last().field("x-order").as_deref(), Some("new"));
    world.origin.release.send(()).expect("the origin waits");
    assert!(held.read().expect("an answer").text().contains("x-order: old"));
}
