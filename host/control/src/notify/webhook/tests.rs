use std::net::Ipv4Addr;

use super::*;
use crate::notify::{
    Remedy,
    testing::{Receiver, nobody},
};

const BODY: &str = r#"{"type":"quota.warning"}"#;
const AT: UnixMs = UnixMs(1_705_314_600_999);

fn loopback() -> AllowedNetworks {
    AllowedNetworks::new(vec!["127.0.0.0/8".parse().expect("a network")])
}

fn secret(byte: u8) -> Secret {
    Secret::new(format!("{SECRET_PREFIX}{}", STANDARD.encode([byte; 32])))
}

async fn send(
    allowed: AllowedNetworks,
    url: &str,
    secrets: &[Secret],
) -> (Uuid, Result<(), Failure>) {
    let event = Uuid::new_v4();
    let call = Call { url, event, at: AT, body: BODY, secrets };
    (event, Webhooks::new(allowed).send(call).await)
}

/// HMAC-SHA256 as RFC 2104 defines it, from the hash alone.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    use sha2::Digest;
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let hash = |pad: u8, text: &[u8]| {
        let padded: Vec<u8> = block.iter().map(|byte| byte ^ pad).collect();
        Sha256::digest([padded.as_slice(), text].concat()).to_vec()
    };
    hash(0x5c, &hash(0x36, text.as_bytes()))
}

#[test]
fn the_signature_is_the_specifications_example() {
    let call = Call {
        url: "",
        event: Uuid::nil(),
        at: UnixMs(1_614_265_330_000),
        body: r#"{"test": 2432232314}"#,
        secrets: &[Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    };
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
    let signed = format!("{}.1614265330.{}", Uuid::nil(), call.body);
    let expected = format!("v1,{}", STANDARD.encode(hmac(&key, &signed)));
    assert_eq!(signatures(&call), Some(expected));
    // The specification's own figure, whose id is no UUID.
    let published = hmac(&key, r#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#);
    assert_eq!(STANDARD.encode(published), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[tokio::test]
async fn a_receiver_can_verify_what_it_gets_by_each_live_secret() {
    let receiver = Receiver::start().await;
    let url = receiver.url("/hook?a=b");
    let (event, outcome) = send(loopback(), &url, &[secret(1), secret(2)]).await;
    outcome.expect("delivered");
    let [got] = &receiver.received()[..] else { panic!("one request") };
    assert_eq!((got.path.as_str(), got.body.as_str()), ("/hook", BODY));
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("webhook-id"), event.to_string());
    assert_eq!(got.header("webhook-timestamp"), "1705314600");
    let signed = format!("{event}.1705314600.{BODY}");
    let by = |byte: u8| format!("v1,{}", STANDARD.encode(hmac(&[byte; 32], &signed)));
    assert_eq!(got.header("webhook-signature"), format!("{} {}", by(1), by(2)));
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_told() {
    let receiver = Receiver::start().await;
    let url = receiver.url("/hook");
    for (status, body, remedy, reason) in [
        (
            503,
            "out\r\nof order\u{7}",
            Remedy::Again,
            "answered 503 Service Unavailable: out of order",
        ),
        (400, "", Remedy::Again, "answered 400 Bad Request"),
        (302, "", Remedy::Again, "answered 302 Found; redirects are not followed"),
        (410, "x", Remedy::Stop, "answered 410 Gone: nothing is sent there any more"),
    ] {
        receiver.answer(status, body);
        let failure = send(loopback(), &url, &[secret(1)]).await.1.expect_err("a failure");
        assert_eq!(failure, Failure { reason: reason.to_owned(), remedy });
    }
    assert!(receiver.received().iter().all(|got| got.path == "/hook"), "no redirect is followed");
    receiver.answer(204, "");
    send(loopback(), &url, &[secret(1)]).await.1.expect("any 2xx is a success");
}

#[tokio::test]
async fn of_a_long_answer_only_the_beginning_is_kept() {
    let receiver = Receiver::start().await;
    receiver.answer(500, Box::leak("long ".repeat(1 << 20).into_boxed_str()));
    let failure = send(loopback(), &receiver.url("/"), &[secret(1)]).await.1.expect_err("500");
    assert_eq!(failure.reason.chars().count(), super::super::REASON_CHARS_MAX);
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let url = format!("http://{}/", nobody());
    let failure = send(loopback(), &url, &[secret(1)]).await.1.expect_err("nobody there");
    assert_eq!(failure.remedy, Remedy::Again);
    assert!(failure.reason.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn no_connection_is_made_to_a_private_address() {
    let receiver = Receiver::start().await;
    let port = receiver.port();
    let elsewhere = AllowedNetworks::new(vec!["10.9.0.0/16".parse().expect("a network")]);
    for (allowed, hosts) in [
        (AllowedNetworks::default(), ["localhost", "127.0.0.1", "[::ffff:7f00:1]", "2130706433"]),
        (elsewhere, ["localhost", "127.0.0.1", "0x7f.1", "[::1]"]),
    ] {
        for host in hosts {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}:{port}/");
                let failure =
                    send(allowed.clone(), &url, &[secret(1)]).await.1.expect_err("refused");
                assert_eq!(failure.remedy, Remedy::None, "{url}: {failure:?}");
                assert!(!failure.reason.contains("127.0.0.1"), "{failure:?}");
            }
        }
    }
    assert_eq!(receiver.received().len(), 0);
    // The control: the same host by its name, once its network is open. It may have an
    // IPv6 address beside, which has to be open too.
    let networks = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
    let url = format!("http://localhost:{port}/");
    let open = AllowedNetworks::new(networks.to_vec());
    send(open, &url, &[secret(1)]).await.1.expect("delivered");
}

#[test]
fn one_private_address_spoils_a_name() {
    let at = |octets: [u8; 4]| SocketAddr::from((Ipv4Addr::from(octets), 0));
    let checked = |plain| Checked { allowed: Arc::new(loopback()), plain };
    let public = at([1, 1, 1, 1]);
    assert!(checked(false).permitted(vec![public, at([127, 0, 0, 1])]).is_ok());
    assert!(checked(false).permitted(vec![public, at([10, 0, 0, 1])]).is_err());
    assert!(checked(true).permitted(vec![at([127, 0, 0, 1])]).is_ok());
    assert!(checked(true).permitted(vec![public]).is_err(), "plain text to a public address");
}

#[test]
fn urls_are_checked_as_far_as_their_text_tells() {
    let none = AllowedNetworks::default();
    for good in ["https://hooks.example/x", "https://1.1.1.1:8443/", "https://[2606:4700::1]/"] {
        WebhookUrl::parse(good, &none).expect(good);
    }
    let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
    for (bad, error) in [
        ("", WebhookUrlError::Malformed),
        ("/hook", WebhookUrlError::Malformed),
        ("ftp://a.example/", WebhookUrlError::Malformed),
        ("file:///etc/passwd", WebhookUrlError::Malformed),
        (long.as_str(), WebhookUrlError::Malformed),
        ("https://user@a.example/", WebhookUrlError::Parts),
        ("https://user:pw@a.example/", WebhookUrlError::Parts),
        ("https://a.example/#x", WebhookUrlError::Parts),
        ("http://a.example/", WebhookUrlError::Plain),
        ("http://1.1.1.1/", WebhookUrlError::Plain),
        ("https://169.254.169.254/latest", WebhookUrlError::Closed),
        ("https://0177.0.0.1/", WebhookUrlError::Closed),
        ("https://[::ffff:10.0.0.1]/", WebhookUrlError::Closed),
    ] {
        assert_eq!(WebhookUrl::parse(bad, &none).expect_err(bad), error, "{bad}");
    }
    WebhookUrl::parse("http://127.0.0.1:1/", &loopback()).expect("an open network");
    WebhookUrl::parse("http://inside.example/", &loopback()).expect("known when resolved");
}

#[tokio::test]
async fn nothing_is_sent_unsigned() {
    let receiver = Receiver::start().await;
    for secrets in [vec![], vec![Secret::new("whsec_%%"), Secret::new("plain")]] {
        let failure = send(loopback(), &receiver.url("/"), &secrets).await.1.expect_err("unsigned");
        assert_eq!(failure.remedy, Remedy::None);
    }
    assert_eq!(receiver.received().len(), 0);
}
