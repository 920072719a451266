//! Sessions on the data plane: what is refused, what holds a seat, and what ends with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use http::Method;
use model::{
    BoxFuture,
    route::{Pattern, Route},
    sessions::{
        Enter, Held, Member, Seat, SessionRefusal, SessionRule, SessionSource, Sessions,
        SessionsUnavailable, Visit,
    },
    snapshot::TenantEntry,
    tenant::TenantId,
};

use super::world::World;

/// Routes with sessions, to be tried before the others.
pub(super) fn routes() -> Vec<Arc<Route>> {
    let rule = |from: &str, ends| SessionRule {
        source: SessionSource::parse(from).expect("a source"),
        idle_ms: 60_000,
        evict_oldest: false,
        ends,
    };
    let route = |name: &str, methods: Vec<Method>, path: &str, session| {
        let timeout_ms = (name == "short").then_some(60_000);
        Arc::new(Route {
            name: name.into(),
            methods,
            path: Pattern::parse(path).expect("a pattern"),
            tags: Vec::new(),
            timeout_ms,
            reserves: Vec::new(),
            meters: Vec::new(),
            session: Some(session),
        })
    };
    vec![
        route("logout", vec![Method::DELETE], "/status/*", rule("cookie:sid", true)),
        route("app", Vec::new(), "/app/*", rule("cookie:sid", false)),
        route("field", Vec::new(), "/field/*", rule("header:x-session", false)),
        route("socket", Vec::new(), "/socket/*", rule("connection", false)),
        route("stuck", Vec::new(), "/stuck-body", rule("cookie:sid", false)),
        route("short", Vec::new(), "/never", rule("cookie:sid", false)),
    ]
}

/// Sessions that do as they are told.
#[derive(Debug, Default)]
pub(super) struct FakeSessions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    limit: Option<usize>,
    unavailable: bool,
    lost: bool,
    alive: BTreeSet<Member>,
    seats: usize,
    confirmed: usize,
}

#[derive(Debug)]
struct FakeSeat(Arc<Mutex<State>>);

impl Held for FakeSeat {
    fn is_lost(&self) -> bool {
        self.0.lock().expect("the state").lost
    }

    fn confirm(&self) {
        self.0.lock().expect("the state").confirmed += 1;
    }

    fn leave(&self) {
        self.0.lock().expect("the state").seats -= 1;
    }
}

impl FakeSessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the state")
    }

    fn limit(&self, limit: usize) {
        self.state().limit = Some(limit);
    }

    /// Waits until so many sessions are alive and so many seats are taken.
    fn await_counts(&self, alive: usize, seats: usize) {
        for _ in 0..2_000 {
            if self.counts() == (alive, seats) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(self.counts(), (alive, seats));
    }

    fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.alive.len(), state.seats)
    }
}

impl Sessions for FakeSessions {
    fn enter(&self, tenant: &TenantEntry, visit: Visit) -> Enter {
        let member = Member { tenant: tenant.id(), id: visit.id };
        let mut state = self.state();
        if state.unavailable {
            return Enter::Refused(SessionRefusal::Unavailable { retry_after_s: 3 });
        }
        let limit = state.limit.unwrap_or(usize::MAX);
        let is_known = state.alive.contains(&member);
        if !is_known && state.alive.len() >= limit {
            return Enter::Refused(SessionRefusal::Full { limit: limit as u64 });
        }
        state.alive.insert(member);
        state.seats += 1;
        let seat = Seat::new(Arc::new(FakeSeat(Arc::clone(&self.0))));
        if is_known { Enter::In(seat) } else { Enter::Wait(Box::pin(async move { Ok(seat) })) }
    }

    fn end(&self, member: Member) -> BoxFuture<'static, ()> {
        self.state().alive.remove(&member);
        Box::pin(std::future::ready(()))
    }

    fn count(&self, _: TenantId) -> BoxFuture<'_, Result<u64, SessionsUnavailable>> {
        Box::pin(std::future::ready(Ok(self.counts().0 as u64)))
    }

    fn here(&self) -> BTreeMap<TenantId, u64> {
        let mut here = BTreeMap::new();
        for member in &self.state().alive {
            *here.entry(member.tenant).or_default() += 1;
        }
        here
    }
}

#[test]
fn a_session_above_the_quota_gets_429_and_is_not_charged() {
    let world = World::new();
    world.sessions.limit(1);
    assert_eq!(world.get("/app/a", "Cookie: sid=one\r\n").status, 200);
    let refused = world.get("/app/a", "Cookie: sid=two\r\n");
    assert_eq!((refused.status, refused.code()), (429, "quota-exceeded".to_owned()));
    assert_eq!(refused.field("retry-after").as_deref(), Some("5"));
    assert_eq!(refused.field("ratelimit"), None, "no window, so nothing to count down to");
    let problem = refused.json();
    assert_eq!(problem["type"], model::problem::QUOTA_EXCEEDED);
    assert_eq!(problem["title"], "Concurrent session quota exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["concurrent-sessions"]));
    assert_eq!(problem["retry_after"], 5);
    assert_eq!(problem["quota_limit"], 1);
    assert_eq!(problem["upgrade_options"], serde_json::json!([]), "all plans have one");
    assert_eq!(world.get("/app/b", "Cookie: x=y; sid=one\r\n").status, 200, "the live one goes on");
    assert_eq!(world.origin.seen().len(), 2);
    world.gate.await_counts((3, 1));
}

#[test]
fn without_a_value_a_request_is_nobodys_session() {
    let world = World::new();
    world.sessions.limit(0);
    for (path, field) in
        [("/app/a", ""), ("/app/a", "Cookie: sid=; x=1\r\n"), ("/field/a", "Cookie: sid=1\r\n")]
    {
        assert_eq!(world.get(path, field).status, 200, "{path} {field}");
    }
    assert_eq!(world.get("/field/a", "X-Session: 1\r\n").status, 429);
    assert_eq!(world.get("/other", "Cookie: sid=1\r\n").status, 200, "a route without sessions");
}

#[test]
fn unknown_sessions_are_a_503_that_says_when_to_come_back() {
    let world = World::new();
    world.sessions.state().unavailable = true;
    let refused = world.get("/app/a", "Cookie: sid=one\r\n");
    assert_eq!((refused.status, refused.code().as_str()), (503, "temporary-reduced-capacity"));
    assert_eq!(refused.field("retry-after").as_deref(), Some("3"));
    assert_eq!(refused.json()["retry_after"], 3);
    world.gate.await_counts((1, 1));
}

#[test]
fn a_logout_that_succeeds_ends_its_session_and_is_never_refused() {
    let world = World::new();
    world.sessions.limit(1);
    assert_eq!(world.get("/app/a", "Cookie: sid=one\r\n").status, 200);
    let logout = |status: u16, cookie: &str| {
        let head = format!("DELETE /status/{status} HTTP/1.1\r\nHost: acme.test\r\n");
        world.send(format!("{head}Cookie: sid={cookie}\r\n\r\n")).status
    };
    assert_eq!(logout(200, "unknown"), 200, "nobody's session is no reason to refuse");
    assert_eq!(logout(500, "one"), 500);
    assert_eq!(logout(401, "one"), 401);
    assert_eq!(world.sessions.counts().0, 1, "the backend refused");
    assert_eq!(logout(200, "one"), 200);
    assert_eq!(world.sessions.counts().0, 0);
    assert_eq!(world.get("/app/a", "Cookie: sid=two\r\n").status, 200);
}

#[test]
fn a_request_holds_its_seat_until_its_last_byte_or_its_clients_end() {
    let world = World::new();
    let mut client = world.client();
    client.write("GET /never HTTP/1.1\r\nHost: acme.test\r\nCookie: sid=one\r\n\r\n");
    world.origin.await_requests(1);
    world.sessions.await_counts(1, 1);
    assert_eq!(world.get("/app/a", "Cookie: sid=one\r\n").status, 200);
    world.sessions.await_counts(1, 1);
    client.hang_up();
    world.sessions.await_counts(1, 0);
}

#[test]
fn a_lost_session_ends_its_waiting_requests_and_its_streams() {
    let world = World::new();
    let mut waiting = world.client();
    waiting.write("GET /never HTTP/1.1\r\nHost: acme.test\r\nCookie: sid=one\r\n\r\n");
    let mut streaming = world.client();
    streaming.write("GET /stuck-body HTTP/1.1\r\nHost: acme.test\r\nCookie: sid=one\r\n\r\n");
    world.origin.await_requests(2);
    world.sessions.await_counts(1, 2);
    world.sessions.state().lost = true;
    let answer = waiting.read().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "temporary-reduced-capacity"));
    let cut = streaming.read().expect("a head");
    assert_eq!((cut.status, cut.text().as_str(), cut.complete), (200, "half", false));
    world.sessions.await_counts(1, 0);
    world.sessions.state().lost = false;
    world.still_serves();
}

#[test]
fn a_connection_is_a_session_until_it_closes() {
    let world = World::new();
    world.sessions.limit(2);
    let ask = |client: &mut super::client::Client| {
        client.write("GET /socket/a HTTP/1.1\r\nHost: acme.test\r\n\r\n");
        client.read().expect("an answer").status
    };
    let (mut one, mut two, mut three) = (world.client(), world.client(), world.client());
    assert_eq!([ask(&mut one), ask(&mut two), ask(&mut one)], [200, 200, 200]);
    assert_eq!(ask(&mut three), 429);
    world.sessions.await_counts(2, 2);
    one.hang_up();
    world.sessions.await_counts(1, 1);
    assert_eq!(ask(&mut three), 200);
}

#[test]
fn only_what_the_upstream_takes_confirms_a_session() {
    let world = World::new();
    let confirmed = |path: &str| {
        world.get(path, "Cookie: sid=one\r\nX-Session: 1\r\n");
        world.sessions.state().confirmed
    };
    assert_eq!(confirmed("/app/a"), 1);
    assert_eq!(confirmed("/status/401"), 1, "a logout's route, and not a session's");
    assert_eq!(confirmed("/app/status"), 2);
    world.gate.set(super::world::Mode::Exhausted);
    assert_eq!(confirmed("/app/b"), 2, "the quota refused before the session was asked");
    world.sessions.await_counts(1, 0);
}
