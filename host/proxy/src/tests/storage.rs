//! Room for what is stored or made: asked for before the body, settled by the answer.

mod fake;

use model::{
    loss::OnStorageLoss,
    plan::ChargeOn,
    policy::{BodyDecision, Decision, LocalResponse, OnFailure},
    quota::Metric,
    reservation::{Amount, Outcome, STEP_BYTES},
};

pub(super) use self::fake::FakeStorage;
use super::{
    client::{Answer, Client},
    h2,
    world::{Fake, Setup, World, on_request, policy},
};

const MIB: usize = 1 << 20;

fn upload(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: acme.test\r\n{fields}\r\n")
}

fn chunked(path: &str) -> String {
    upload(path, "Transfer-Encoding: chunked\r\n")
}

fn chunk(bytes: usize) -> Vec<u8> {
    [format!("{bytes:x}\r\n").as_bytes(), &vec![b'x'; bytes], b"\r\n"].concat()
}

/// The product guide's refusal.
fn assert_full(answer: &Answer) {
    assert_eq!((answer.status, answer.code()), (413, "quota-exceeded".to_owned()));
    let problem = answer.json();
    assert_eq!(problem["type"], model::problem::QUOTA_EXCEEDED);
    assert_eq!(problem["title"], "Storage quota exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["storage"]));
    let actions = serde_json::json!(["delete_files", "upgrade_plan"]);
    assert_eq!(problem["available_actions"], actions);
    assert_eq!((&problem["current_usage_mb"], &problem["quota_limit_mb"]), (&3.into(), &3.into()));
    assert!(problem["upgrade_options"].is_array());
    assert_eq!((answer.field("retry-after"), problem.get("retry_after")), (None, None));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
}

#[test]
fn an_upload_beyond_the_quota_is_refused_before_its_body_is_asked_for() {
    let world = World::new();
    world.storage.leave(4);
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert_full(&client.read().expect("the first answer, and no 100 before it"));
    assert!(client.is_closed());
    assert!(world.origin.seen().is_empty());
    world.gate.await_counts((1, 1));
    assert_eq!(world.storage.settled(), []);
    world.still_serves();
}

#[test]
fn a_client_that_sends_without_asking_gets_the_refusal_all_the_same() {
    let world = World::new();
    world.storage.leave(0);
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 1073741824\r\n"));
    client.try_write(vec![b'x'; 32 * 1024]);
    assert_full(&client.read().expect("an answer"));
    assert!(world.origin.seen().is_empty());
    world.still_serves();
}

#[test]
fn what_fits_is_asked_for_whole_and_kept_on_success() {
    let world = World::new();
    world.storage.leave(5);
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert_eq!(client.read().expect("go on").status, 100);
    client.write("hello");
    assert_eq!(client.read().expect("an answer").status, 200);
    assert_eq!(world.storage.asked(), [(Metric::Storage, Amount::exactly(5))]);
    world.storage.await_settled(&[Outcome::Taken(5)]);
    assert!(world.levels.taken().iter().all(|change| change.metric != Metric::Storage));
    // The connection goes on.
    client.write(upload("/stored/a", "Content-Length: 1\r\n\r\nx"));
    assert_eq!(client.read().map(|answer| answer.status), Some(413));
}

#[test]
fn a_body_of_unknown_length_takes_room_in_steps() {
    let world = World::new();
    let mut client = world.client();
    client.write(chunked("/stored/a"));
    for _ in 0..9 {
        client.write(chunk(MIB));
    }
    client.write("0\r\n\r\n");
    assert_eq!(client.read().expect("an answer").status, 200);
    world.storage.await_settled(&[Outcome::Taken(9 << 20)]);
    let asked = world.storage.asked();
    assert_eq!(asked[0].1, Amount::step(1));
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|(_, amount)| amount.most == STEP_BYTES && amount.least > 0));
}

#[test]
fn a_body_of_unknown_length_may_use_the_last_byte() {
    let world = World::new();
    world.storage.leave(6);
    let mut client = world.client();
    client.write(chunked("/stored/a"));
    client.write("6\r\nabcdef\r\n0\r\n\r\n");
    assert_eq!(client.read().expect("an answer").status, 200);
    world.storage.await_settled(&[Outcome::Taken(6)]);
}

#[test]
fn a_body_that_outgrows_its_room_is_cut_off_and_charges_nothing() {
    for charge_on in [ChargeOn::Answered, ChargeOn::Admission] {
        let world = World::with(Setup { charge_on, ..Setup::default() });
        world.storage.leave(6 << 20);
        let mut client = world.client();
        client.write(chunked("/stored/a"));
        for _ in 0..7 {
            client.try_write(chunk(MIB));
        }
        assert_full(&client.read().expect("an answer"));
        world.storage.await_settled(&[Outcome::Nothing]);
        world.gate.await_counts((1, 1));
        let seen = world.origin.last();
        assert!(seen.body.is_empty(), "the origin never had a whole body");
        world.still_serves();
    }
}

#[test]
fn the_answer_says_what_is_kept_and_nothing_is_counted_twice() {
    for (path, outcome) in [
        ("/stored/status/201", Outcome::Taken(5)),
        ("/stored/status/302", Outcome::Nothing),
        ("/stored/status/404", Outcome::Nothing),
        ("/stored/status/503", Outcome::Nothing),
        ("/stored/smaller", Outcome::Taken(-7)),
        ("/stored/same", Outcome::Taken(0)),
        ("/stored/early", Outcome::Taken(5)),
    ] {
        let world = World::new();
        let mut client = world.client();
        client.write(upload(path, "Content-Length: 5\r\n"));
        client.write("hello");
        let answer = client.read().expect("an answer");
        assert_eq!(answer.field("x-storage-delta-bytes"), None, "{path}");
        world.storage.await_settled(&[outcome]);
        let levels = world.levels.taken();
        assert!(levels.iter().all(|change| change.metric != Metric::Storage), "{path} {levels:?}");
    }
}

#[test]
fn a_report_without_room_goes_the_way_of_all_reports() {
    let world = World::new();
    assert_eq!(world.get("/stored/smaller", "").status, 200);
    assert_eq!(world.storage.asked(), [], "there is no body");
    let levels = world.levels.taken();
    assert!(levels.iter().any(|change| (change.metric, change.delta) == (Metric::Storage, -7)));
    assert_eq!(world.get("/a", "Content-Length: 0\r\n").status, 200);
    let mut client = world.client();
    client.write("POST /a HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.read().expect("an answer").status, 200);
    assert_eq!(world.storage.asked(), [], "another route");
}

#[test]
fn a_client_that_leaves_in_the_middle_gives_its_room_back() {
    let world = World::new();
    for fields in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = world.client();
        let before = world.origin.seen().len();
        client.write(upload("/stored/a", fields));
        client.write("5\r\nhello\r\n");
        world.origin.await_requests(before + 1);
        client.hang_up();
        world.storage.await_settled(&[Outcome::Nothing]);
        world.storage.forget();
    }
}

#[test]
fn what_the_upstream_had_in_full_and_never_answered_is_not_known() {
    let world = World::new();
    let mut client = world.client();
    client.write(upload("/stored/hold", "Content-Length: 5\r\n"));
    client.write("hello");
    world.origin.await_requests(1);
    world.origin.await_body(0, b"hello");
    client.hang_up();
    world.storage.await_settled(&[Outcome::Unknown]);
    world.storage.forget();
    let mut client = world.client();
    client.write(upload("/stored/close", "Content-Length: 5\r\n\r\nhello"));
    assert_eq!(client.read().expect("an answer").status, 502);
    world.storage.await_settled(&[Outcome::Unknown]);
}

#[test]
fn an_upstream_that_is_not_there_got_nothing() {
    let endpoint = Some(super::upstreams::nobody());
    let world = World::with(Setup { endpoint, ..Setup::default() });
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 5\r\n\r\nhello"));
    assert_eq!(client.read().expect("an answer").status, 502);
    world.storage.await_settled(&[Outcome::Nothing]);
}

fn assert_unknown(answer: &Answer) {
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(answer.code(), "temporary-reduced-capacity");
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
}

#[test]
fn where_the_plan_allows_it_an_upload_goes_on_without_room_and_is_counted_once_it_is_stored() {
    let storage_loss = OnStorageLoss::Allow;
    let world = World::with(Setup { storage_loss, ..Setup::default() });
    world.storage.go_away();
    let counted = |world: &World| {
        let families = world.registry.gather();
        let is = |name: &str| name == "edge_uploads_unreserved_total";
        let family = families.iter().find(|family| is(family.name())).expect("the series");
        family.get_metric()[0].get_counter().get_value() as u64
    };
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 5\r\n\r\nhello"));
    assert_eq!(client.read().expect("an answer").status, 200);
    world.levels.await_storage(&[5]);
    client.write(chunked("/stored/a"));
    client.write("6\r\nabcdef\r\n0\r\n\r\n");
    assert_eq!(client.read().expect("an answer").status, 200);
    world.levels.await_storage(&[6]);
    // Nothing is stored: nothing is counted.
    client.write(upload("/stored/status/500", "Content-Length: 5\r\n\r\nhello"));
    assert_eq!(client.read().expect("an answer").status, 500);
    // What makes users or projects is not let through, whatever the plan says of bytes.
    let mut client = world.client();
    client.write(upload("/created/user", "Content-Length: 0\r\n"));
    assert_unknown(&client.read().expect("an answer"));
    assert!(world.levels.taken().iter().all(|change| change.metric != Metric::Storage));
    assert_eq!(counted(&world), 3);
    assert_eq!(world.storage.settled(), [], "nothing was set aside");
    world.still_serves();
}

#[test]
fn when_nobody_can_say_nothing_is_forwarded_or_charged() {
    let world = World::new();
    world.storage.go_away();
    let mut client = world.client();
    client.write(upload("/stored/a", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert_unknown(&client.read().expect("an answer"));
    assert!(world.origin.seen().is_empty());
    world.gate.await_counts((1, 1));
    world.still_serves();
}

#[test]
fn an_upload_ends_before_its_room_may_be_somebody_elses() {
    let world = World::new();
    let mut client = world.client();
    client.write(chunked("/stored/a"));
    client.write(chunk(5));
    world.origin.await_requests(1);
    world.storage.lapse();
    client.write(chunk(5));
    assert_unknown(&client.read().expect("an answer"));
    world.storage.await_settled(&[Outcome::Nothing]);
}

#[test]
fn one_more_of_something_is_asked_for_and_kept_on_success() {
    let world = World::new();
    world.storage.leave(1);
    let mut client = world.client();
    client.write(upload("/created/a", "Content-Length: 2\r\n\r\n{}"));
    assert_eq!(client.read().expect("an answer").status, 200);
    assert_eq!(world.storage.asked(), [(Metric::Users, Amount::exactly(1))]);
    world.storage.await_settled(&[Outcome::Taken(1)]);
    client.write(upload("/created/a", "Content-Length: 2\r\n\r\n{}"));
    let answer = client.read().expect("an answer");
    assert_eq!((answer.status, answer.code()), (403, "quota-exceeded".to_owned()));
    assert_eq!(answer.json()["title"], "User quota exceeded");
    assert!(answer.json()["upgrade_options"].is_array());
    assert_eq!(answer.field("retry-after"), None);
    world.gate.await_counts((2, 1));
    assert_eq!(world.origin.seen().len(), 1);
}

fn answers(mut client: Client, body: &str) -> u16 {
    client.write(upload("/stored/a", &format!("Content-Length: {}\r\n", body.len())));
    client.write(body);
    client.read().expect("an answer").status
}

#[test]
fn a_policy_that_refuses_gives_the_room_back() {
    let refuse = on_request("refuser", OnFailure::Closed, |_| {
        let status = http::StatusCode::FORBIDDEN;
        let (headers, body) = (http::HeaderMap::new(), bytes::Bytes::new());
        Ok(Decision::Respond(LocalResponse { status, headers, body }))
    });
    let world = World::with_policies(vec![refuse]);
    assert_eq!(answers(world.client(), "hello"), 403);
    world.storage.await_settled(&[Outcome::Nothing]);
}

#[test]
fn a_body_that_a_policy_makes_larger_needs_more_room() {
    let double = || Fake {
        body: Some(Box::new(|_, body| {
            Ok(BodyDecision::Replace([&body[..], &body].concat().into()))
        })),
        ..Fake::default()
    };
    let world = World::with_policies(vec![policy("doubler", OnFailure::Closed, double())]);
    world.storage.leave(10);
    assert_eq!(answers(world.client(), "hello"), 200);
    world.storage.await_settled(&[Outcome::Taken(10)]);
    assert_eq!(world.storage.asked().last(), Some(&(Metric::Storage, Amount::exactly(5))));
    world.storage.forget();
    world.storage.leave(9);
    assert_eq!(answers(world.client(), "hello"), 413);
    world.storage.await_settled(&[Outcome::Nothing]);
    assert_eq!(world.origin.seen().len(), 1);
}

#[test]
fn a_stream_of_http2_is_refused_alone() {
    let world = World::new();
    world.storage.leave(3);
    h2::block_on(async {
        let mut sender = h2::connect(world.address).await;
        for (path, status) in [("/stored/a", 413), ("/a", 200)] {
            let request = h2::request(&format!("http://acme.test{path}"), "hello");
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), status);
            h2::text(response).await;
        }
    });
    assert_eq!(world.origin.seen().len(), 1);
}
