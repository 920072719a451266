//! The client against servers that misbehave: sockets that answer what a test tells them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// A server that gives its answers one connection after another, the last one for ever;
/// an empty one closes without a word.
async fn server(answers: &'static [&'static str]) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let number = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let mut request = [0; 4_096];
            let _bytes = stream.read(&mut request).await.expect("a request");
            stream.write_all(answers[number].as_bytes()).await.expect("written");
            // One request a connection: the next answer belongs to the next one.
            stream.shutdown().await.expect("closed");
        }
    });
    (client(&url), served)
}

fn client(url: &str) -> Client {
    Client::new(url.parse().expect("a URL"), &Secret::new("hunter2")).expect("a client")
}

const OK: &str = "HTTP/1.1 200 OK\r\netag: \"3\"\r\ncontent-length: 9\r\n\r\n{\"a\": 17}";

const MOVED: &str =
    "HTTP/1.1 307 Temporary Redirect\r\nlocation: /other\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn an_answer_is_kept_as_it_came() {
    let (client, _) = server(&[OK]).await;
    let answer = client.send(&Call::get(&["x"])).await.expect("an answer");
    assert_eq!((answer.text.as_str(), answer.etag.as_deref()), ("{\"a\": 17}", Some("\"3\"")));
    assert_eq!(answer.json["a"], 17);
}

#[tokio::test]
async fn a_get_is_repeated_once_when_the_connection_broke_and_nothing_else_is() {
    let (first_breaks, served) = server(&["", OK]).await;
    first_breaks.send(&Call::get(&["x"])).await.expect("an answer");
    assert_eq!(served.load(Ordering::SeqCst), 2);

    let (all_break, served) = server(&[""]).await;
    let error = all_break.send(&Call::get(&["x"])).await.expect_err("broken");
    assert!(matches!(error, ClientError::Broken { unknown: false, .. }), "{error:?}");
    assert_eq!(served.load(Ordering::SeqCst), 2);

    for call in [Call::post(&["x"]), Call::patch(&["x"], Value::Null), Call::delete(&["x"])] {
        let (breaks, served) = server(&["", OK]).await;
        let error = breaks.send(&call).await.expect_err("broken");
        assert!(matches!(error, ClientError::Broken { unknown: true, .. }), "{error:?}");
        assert!(error.to_string().contains("may have been done"), "{error}");
        assert_eq!(served.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_check() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let error = client(&url).send(&Call::get(&["x"])).await.expect_err("nobody").to_string();
    for part in [url.as_str(), "leanvibe-edge serve", "--server", "refused"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(!error.contains("hunter2"));
}

#[test]
fn what_is_not_the_api_is_said_to_be_something_else() {
    for (status, body) in [(200, "<html>"), (502, ""), (404, "{}"), (500, "{\"error\": 1}")] {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = read(status, None, body.to_owned()).expect_err("not the API");
        assert!(matches!(error, ClientError::NotTheApi { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let (client, served) = server(&[MOVED]).await;
    let error = client.send(&Call::get(&["x"])).await.expect_err("a redirect");
    assert!(matches!(error, ClientError::NotTheApi { status: 307 }), "{error:?}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[test]
fn a_path_is_escaped_and_the_servers_own_path_is_kept() {
    let client = client("http://h:1/edge/");
    let call = Call::get(&["tenants", "a/../b", "ü?#"]).query("metrics", Some("a,b&c"));
    let url = client.url(&call).expect("a URL");
    assert_eq!(
        url.as_str(),
        "http://h:1/edge/api/v1/tenants/a%2F..%2Fb/%C3%BC%3F%23?metrics=a%2Cb%26c"
    );
}

#[test]
fn a_refusal_says_title_detail_fields_and_what_to_do() {
    let problem = |status, json| {
        let status = StatusCode::from_u16(status).expect("a status");
        read(status, None, serde_json::Value::to_string(&json)).expect_err("a refusal").to_string()
    };
    let invalid = serde_json::json!({
        "title": "The request is not valid", "status": 422, "code": "validation",
        "errors": [{"field": "slug", "detail": "is \u{1b}[2Jbad"}, {"field": "plan", "detail": "no"}],
    });
    assert_eq!(
        problem(422, invalid),
        "The request is not valid\n  slug: is \\u{1b}[2Jbad\n  plan: no"
    );
    let taken = serde_json::json!({"title": "The slug is taken", "detail": "Another has it."});
    assert_eq!(problem(409, taken), "The slug is taken: Another has it.");
    let needs = serde_json::json!({
        "title": "This needs PostgreSQL", "code": "needs-postgresql", "alternatives": ["do it by hand"],
    });
    assert_eq!(problem(501, needs), "This needs PostgreSQL\n  instead: do it by hand");
    let busy = serde_json::json!({"title": "Busy", "retry_after": 3});
    assert_eq!(problem(503, busy), "Busy\n  try again in 3 s");
    let unknown = serde_json::json!({"title": "No", "code": "unauthenticated"});
    assert!(problem(401, unknown).contains("LEANVIBE_EDGE_TOKEN"));
}

#[test]
fn a_token_that_cannot_be_sent_is_refused_without_being_shown() {
    let url = DEFAULT_SERVER.parse().expect("a URL");
    let error = Client::new(url, &Secret::new("hunter2\n")).expect_err("a refusal");
    assert!(matches!(error, ClientError::Usage(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    let client = client(DEFAULT_SERVER);
    assert!(!format!("{client:?}").contains("hunter2"), "{client:?}");
}

#[test]
fn what_looks_like_an_id_is_one() {
    let name = |text: &str| text.parse::<TenantName>().expect("a name");
    assert!(matches!(name("0190a8f0-0000-7000-8000-000000000000"), TenantName::Id(_)));
    for slug in ["acme", "0190a8f0000070008000000000000000", "0190a8f0-0000-7000-8000-00000000000g"]
    {
        assert_eq!(name(slug), TenantName::Slug(slug.to_owned()));
    }
}

const FIRST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 34\r\n\r\n{\"items\": [1], \"next_cursor\": \"a\"}";
const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 35\r\n\r\n{\"items\": [2], \"next_cursor\": null}";

#[tokio::test]
async fn pages_end_with_the_last_and_a_cursor_that_leads_nowhere_is_refused() {
    let (two, served) = server(&[FIRST, LAST]).await;
    let mut pages = Pages::new(&two, Call::get(&["x"]));
    let mut seen = Vec::new();
    while let Some(page) = pages.next(Some(1)).await.expect("a page") {
        seen.extend_from_slice(page.items().expect("items"));
    }
    assert_eq!((seen, served.load(Ordering::SeqCst)), (vec![1.into(), 2.into()], 2));
    assert!(!pages.more());

    let (endless, _) = server(&[FIRST]).await;
    let mut pages = Pages::new(&endless, Call::get(&["x"]));
    assert!(pages.next(None).await.is_ok() && pages.more());
    let error = pages.next(None).await.expect_err("the same cursor again");
    assert!(matches!(error, ClientError::Unreadable("next_cursor")), "{error:?}");

    let (no_list, _) = server(&[OK]).await;
    let error = Pages::new(&no_list, Call::get(&["x"])).next(None).await.expect_err("no page");
    assert!(matches!(error, ClientError::Unreadable("items")), "{error:?}");
}
