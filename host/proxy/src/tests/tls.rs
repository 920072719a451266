//! TLS towards clients: names, versions, tickets, client certificates, renewal.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
};

use super::{
    client::PATIENCE,
    world::{Setup, World},
};
use crate::config::{CertificateConfig, ClientAuthConfig};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// An authority and the files of what it signed.
struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
        Self { authority, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<file>.pem` and `<file>.key`; the certificate's bytes.
    fn sign(&self, file: &str, names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        fs::write(self.path(&format!("{file}.pem")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).expect("written");
        certificate.der().to_vec()
    }

    fn config(&self, file: &str) -> CertificateConfig {
        CertificateConfig {
            chain_file: self.path(&format!("{file}.pem")),
            key_file: self.path(&format!("{file}.key")),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        Arc::new(roots)
    }

    fn client(&self) -> ClientConfig {
        builder(self.roots()).with_no_client_auth()
    }

    fn client_with_certificate(&self) -> ClientConfig {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["someone".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain = vec![certificate.der().clone()];
        builder(self.roots()).with_client_auth_cert(chain, key).expect("a client certificate")
    }
}

fn builder(
    roots: Arc<RootCertStore>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
}

/// A proxy that serves acme.test and beta.test under TLS; `change` what is different.
fn start(pki: &Pki, change: impl FnOnce(&mut Setup)) -> World {
    pki.sign("acme", &["acme.test"]);
    pki.sign("any", &["beta.test", "*.below.test"]);
    let mut setup = Setup::default();
    setup.config.tls.listen = setup.config.listen.clone();
    setup.config.tls.certificate = vec![pki.config("acme"), pki.config("any")];
    change(&mut setup);
    World::with(setup)
}

fn open(world: &World, config: ClientConfig, name: &str) -> Tls {
    shared(world, &Arc::new(config), name)
}

fn shared(world: &World, config: &Arc<ClientConfig>, name: &str) -> Tls {
    let address = world.running.as_ref().expect("it runs").tls_addrs()[0];
    let socket = TcpStream::connect(address).expect("the edge listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    StreamOwned::new(session, socket)
}

/// One request; the whole answer, or what failed.
fn get(mut stream: Tls, host: &str) -> std::io::Result<(String, Tls)> {
    write!(stream, "GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((answer, stream))
}

fn status(answer: std::io::Result<(String, Tls)>) -> String {
    answer.expect("an answer").0.split(' ').nth(1).expect("a status").to_owned()
}

fn leaf(stream: &Tls) -> Vec<u8> {
    stream.conn.peer_certificates().expect("a certificate")[0].to_vec()
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let (answer, acme) = get(open(&world, pki.client(), "acme.test"), "acme.test").expect("served");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = world.origin.last();
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"));
    assert!(seen.field("forwarded").expect("a trail").ends_with("proto=https"));
    let (_, beta) = get(open(&world, pki.client(), "beta.test"), "beta.test").expect("served");
    assert_ne!(leaf(&acme), leaf(&beta));
    assert_eq!(world.get("/b", "").status, 200, "clear text goes on beside it");
    assert_eq!(world.origin.last().field("x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn a_client_that_names_no_host_of_ours_gets_no_certificate() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let mut silent = pki.client();
    silent.enable_sni = false;
    for (config, name) in
        [(silent, "acme.test"), (pki.client(), "acme.example"), (pki.client(), "a.b.test")]
    {
        let mut stream = open(&world, config, name);
        assert!(stream.conn.complete_io(&mut stream.sock).is_err(), "{name}");
        assert!(stream.conn.peer_certificates().is_none());
    }
    world.still_serves();
}

#[test]
fn a_request_for_another_host_than_the_connections_is_misdirected() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let arrivals = world.origin.seen().len();
    assert_eq!(status(get(open(&world, pki.client(), "acme.test"), "beta.test")), "421");
    assert_eq!(world.origin.seen().len(), arrivals);
}

#[test]
fn alpn_chooses_http_2() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let mut config = pki.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut stream = open(&world, config, "acme.test");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("written");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("a frame");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(frame[3], 4, "SETTINGS comes first");
}

#[test]
fn tls_1_2_is_spoken_unless_the_operator_says_otherwise() {
    let pki = Pki::new();
    let old = || {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("a version")
            .with_root_certificates(pki.roots())
            .with_no_client_auth()
    };
    let world = start(&pki, |_| {});
    assert_eq!(status(get(open(&world, old(), "acme.test"), "acme.test")), "200");
    let world = start(&pki, |setup| setup.config.tls.min_version = crate::MinVersion::Tls13);
    assert!(get(open(&world, old(), "acme.test"), "acme.test").is_err());
    assert_eq!(status(get(open(&world, pki.client(), "acme.test"), "acme.test")), "200");
}

#[test]
fn a_ticket_of_one_worker_is_good_at_the_others_and_only_for_its_host() {
    let pki = Pki::new();
    let world = start(&pki, |setup| setup.config.workers = Some(2));
    let config = Arc::new(pki.client());
    let mut kinds = Vec::new();
    for _ in 0..16 {
        let (_, stream) = get(shared(&world, &config, "acme.test"), "acme.test").expect("served");
        kinds.push(stream.conn.handshake_kind().expect("a handshake"));
    }
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
    let (_, stream) = get(shared(&world, &config, "beta.test"), "beta.test").expect("served");
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn a_host_that_asks_for_client_certificates_is_reached_in_no_other_way() {
    let (pki, clients, strangers) = (Pki::new(), Pki::new(), Pki::new());
    let world = start(&pki, |setup| {
        setup.config.tls.client_auth = vec![ClientAuthConfig {
            hosts: vec!["acme.test".to_owned()],
            ca_file: clients.path("ca.pem"),
        }];
        setup.config.trusted_proxies = vec!["127.0.0.1/32".parse().expect("an address")];
    });
    let with = |pki_of_client: &Pki| {
        let mut config = pki_of_client.client_with_certificate();
        let trusting = pki.client();
        config.dangerous().set_certificate_verifier(
            rustls::client::WebPkiServerVerifier::builder_with_provider(
                pki.roots(),
                Arc::clone(trusting.crypto_provider()),
            )
            .build()
            .expect("a verifier"),
        );
        config
    };
    assert_eq!(status(get(open(&world, with(&clients), "acme.test"), "acme.test")), "200");
    let arrivals = world.origin.seen().len();
    assert!(get(open(&world, with(&strangers), "acme.test"), "acme.test").is_err());
    assert!(get(open(&world, pki.client(), "acme.test"), "acme.test").is_err());
    assert_eq!(status(get(open(&world, pki.client(), "beta.test"), "acme.test")), "421");
    assert_eq!(world.get("/", "").status, 421, "clear text");
    let hidden = "GET / HTTP/1.1\r\nHost: beta.test\r\nX-Forwarded-Host: acme.test\r\n\r\n";
    assert_eq!(world.send(hidden).status, 421, "a trusted proxy in clear text");
    assert_eq!(world.origin.seen().len(), arrivals);
    assert_eq!(status(get(open(&world, pki.client(), "beta.test"), "beta.test")), "200");
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn reloads(world: &World, outcome: &str) -> u64 {
    let line = format!("edge_tls_reloads_total{{outcome=\"{outcome}\"}} ");
    let page = prometheus::TextEncoder::new().encode_to_string(&world.registry.gather());
    let page = page.expect("a page");
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[test]
fn a_renewed_certificate_is_taken_and_a_bad_one_is_not() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let served = |world: &World| {
        leaf(&get(open(world, pki.client(), "acme.test"), "acme.test").expect("served").1)
    };
    let first = served(&world);
    let running = || world.running.as_ref().expect("it runs");
    let renewed = pki.sign("acme", &["acme.test"]);
    running().reload_certificates();
    eventually("the new one is served", || served(&world) == renewed);
    assert_ne!(first, renewed);
    let good = fs::read(pki.path("acme.key")).expect("a key");
    fs::write(pki.path("acme.key"), "no key").expect("written");
    running().reload_certificates();
    eventually("the bad one is counted", || reloads(&world, "failed") >= 1);
    assert_eq!(served(&world), renewed);
    fs::write(pki.path("acme.key"), good).expect("written");
    let done = reloads(&world, "done");
    running().reload_certificates();
    eventually("it is read again", || reloads(&world, "done") > done);
    assert_eq!(served(&world), renewed);
}

#[test]
fn what_cannot_serve_is_refused_at_the_start_by_name() {
    let pki = Pki::new();
    pki.sign("acme", &["acme.test"]);
    pki.sign("other", &["acme.test"]);
    pki.sign("address", &["192.0.2.1"]);
    fs::copy(pki.path("other.key"), pki.path("stray.key")).expect("copied");
    let stray =
        CertificateConfig { chain_file: pki.path("acme.pem"), key_file: pki.path("stray.key") };
    let missing = pki.config("missing");
    for (certificates, part) in [
        (vec![pki.config("acme"), pki.config("other")], "acme.test has a certificate already"),
        (vec![stray], "stray.key: "),
        (vec![missing], "missing.pem: No such file"),
        (vec![pki.config("address")], "subjectAltName needs DNS names"),
        (Vec::new(), "needs a certificate"),
    ] {
        let mut setup = Setup::default();
        setup.config.tls.listen = setup.config.listen.clone();
        setup.config.tls.certificate = certificates;
        let error = World::try_with(setup).err().expect("a flaw").to_string();
        assert!(error.contains(part), "{error} has no {part}");
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let pki = Pki::new();
    let world = start(&pki, |setup| setup.config.tls.handshake_timeout_ms = 100);
    let address = world.running.as_ref().expect("it runs").tls_addrs()[0];
    for junk in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = TcpStream::connect(address).expect("the edge listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(junk).expect("written");
        let mut rest = Vec::new();
        let _ended = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"));
    }
    assert!((0..100).any(|_| get(open(&world, pki.client(), "acme.test"), "acme.test").is_ok()));
}

#[test]
fn a_body_cut_off_without_a_goodbye_is_never_passed_on_as_whole() {
    let pki = Pki::new();
    let world = start(&pki, |_| {});
    let mut stream = open(&world, pki.client(), "acme.test");
    let head = "POST /cut HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    write!(stream, "{head}5\r\nhello\r\n").expect("written");
    stream.flush().expect("written");
    world.origin.await_requests(1);
    stream.sock.shutdown(std::net::Shutdown::Both).expect("cut");
    world.origin.await_end(0);
    assert!(world.origin.last().body.is_empty(), "no whole body came");
    world.still_serves();
}
