//! Step 6, its second half: the session that the request belongs to.
//!
//! Only on routes whose class declares one. The request holds its seat until its last byte
//! is handed on; a seat that is lost (the session ended, or the edge could not renew it)
//! ends the request through its [`Timers`](crate::exchange::Timers). Invariants: a request
//! that its session refuses is not charged; the value that names a session goes nowhere.

use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{COOKIE, RETRY_AFTER},
};
use model::{
    gate::Permit,
    plan::upgrade_options,
    problem::{Problem, QUOTA_EXCEEDED},
    quota::Metric,
    route::Route,
    sessions::{
        Enter, Member, Seat, SessionClaim, SessionId, SessionRefusal, SessionRule, SessionSource,
        Sessions, Visit,
    },
};
use smallvec::SmallVec;

use crate::{
    exchange::Exchange, request::NormalRequest, rescue::Reason, response::Stop, tenant::Caller,
    timer::Slot,
};

/// Seconds after which a client that met too many sessions may try again (5).
pub(crate) const RETRY_AFTER_S: u64 = 5;
/// Seconds of a `Retry-After` while sessions are unknown, at most (20): a new guard's hold.
const RETRY_UNKNOWN_S_MAX: u64 = 20;
/// Milliseconds between two looks at the seat of a request that waits (1,000): a fifth of
/// the margin by which an edge closes its sessions early.
const CHECK_MS: u64 = 1_000;

/// Admits the request to its session. With the permit comes the session that its answer
/// may end.
///
/// # Errors
/// The refusal; the permit's tokens are given back.
pub(crate) async fn admit(
    exchange: &mut Exchange,
    caller: &Caller,
    route: &Route,
    request: &NormalRequest,
    permit: Permit,
) -> Result<(Permit, Option<Member>), Stop> {
    let Some(rule) = &route.session else { return Ok((permit, None)) };
    let Some(id) = named(exchange, caller, rule, request) else { return Ok((permit, None)) };
    let member = Member { tenant: caller.entry.id(), id };
    if rule.ends {
        return Ok((permit, Some(member)));
    }
    match enter(exchange, caller, visit(rule, id)).await {
        Ok(seat) => {
            exchange.timers.attend(Attendance::new(seat, exchange.worker.wheel.slot()));
            Ok((permit, None))
        }
        Err(stop) => {
            exchange.record.refuse();
            Err(stop)
        }
    }
}

/// What the upstream's answer means for the session: below 400 a new one is confirmed, and a
/// logout's has ended, its slot free before the answer goes on.
pub(crate) async fn answered(
    exchange: &Exchange,
    caller: &Caller,
    route: &Route,
    leaving: Option<Member>,
    status: StatusCode,
) {
    let Some(rule) = &route.session else { return };
    if status.is_client_error() || status.is_server_error() {
        return;
    }
    if let Some(member) = leaving {
        let ended = exchange.worker.sessions.end(member);
        // Out of time: it ends all the same.
        let _late = exchange.in_time(ended).await;
        return;
    }
    exchange.timers.confirm_session();
    if rule.source == SessionSource::Connection {
        keep(exchange, caller, rule).await;
    }
}

async fn enter(exchange: &Exchange, caller: &Caller, visit: Visit) -> Result<Seat, Stop> {
    match exchange.worker.sessions.enter(&caller.entry, visit) {
        Enter::In(seat) => Ok(seat),
        Enter::Refused(refusal) => Err(Stop::Session(refusal)),
        Enter::Wait(admission) => exchange.in_time(admission).await?.map_err(Stop::Session),
    }
}

const fn visit(rule: &SessionRule, id: SessionId) -> Visit {
    Visit { id, idle_ms: rule.idle_ms, evict_oldest: rule.evict_oldest }
}

/// The session of the request; `None` when it names none.
fn named(
    exchange: &Exchange,
    caller: &Caller,
    rule: &SessionRule,
    request: &NormalRequest,
) -> Option<SessionId> {
    let headers = &request.head.headers;
    let token = caller.token.as_ref();
    let source = &rule.source;
    match source {
        SessionSource::Cookie(name) => of_values(source, cookies(headers, name)),
        SessionSource::Header(name) => of_values(source, fields(headers, name)),
        SessionSource::Claim(SessionClaim::Sid) => {
            of_values(source, token.and_then(|token| token.sid.as_deref()).map(str::as_bytes))
        }
        SessionSource::Claim(SessionClaim::Sub) => {
            of_values(source, token.and_then(|token| token.subject.as_deref()).map(str::as_bytes))
        }
        SessionSource::Connection => Some(of_connection(exchange, rule)),
    }
}

/// The session that the connection is.
fn of_connection(exchange: &Exchange, rule: &SessionRule) -> SessionId {
    let worker = &exchange.worker;
    rule.source.session(&exchange.connection.sessions.name(|bytes| worker.random(bytes)))
}

/// Values of one name together name the session: which of several a backend reads is not
/// known, and none of them may hide another.
fn of_values<'a>(
    source: &SessionSource,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Option<SessionId> {
    let values: SmallVec<[&[u8]; 2]> =
        values.into_iter().filter(|value| !value.is_empty()).collect();
    match values.as_slice() {
        [] => None,
        [one] => Some(source.session(one)),
        several => Some(source.session(&several.join(&0))),
    }
}

fn fields<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(|value| value.as_bytes().trim_ascii())
}

/// RFC 6265 4.2.1: `name=value` pairs, separated by semicolons.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii));
    pairs.filter_map(move |pair| {
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::trim_ascii)
    })
}

/// The response to a refusal: its reason, body, and fields.
pub(crate) fn refusal(
    exchange: &Exchange,
    refusal: SessionRefusal,
) -> (Reason, Problem, HeaderMap) {
    let (reason, problem, seconds) = match refusal {
        SessionRefusal::Full { limit } => {
            let row = Reason::SessionsFull.row();
            let metric = Metric::ConcurrentSessions;
            let upgrades = upgrade_options(&exchange.snapshot().plans, limit, metric);
            let problem = Problem::new(row.status.as_u16(), row.code, metric.exceeded_title())
                .of_type(QUOTA_EXCEEDED)
                .detail(format!(
                    "{limit} sessions may be alive at once; this one would be one more."
                ))
                .with("violated-policies", vec![metric.rate_limit_name()])
                .with("quota_limit", limit)
                .with("upgrade_options", upgrades);
            (Reason::SessionsFull, problem, RETRY_AFTER_S)
        }
        SessionRefusal::Unavailable { retry_after_s } => {
            let reason = Reason::SessionsUnavailable;
            (reason, reason.problem(), retry_after_s.clamp(1, RETRY_UNKNOWN_S_MAX))
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, seconds.into());
    (reason, problem.with("retry_after", seconds), headers)
}

/// A request's seat, looked at while the request waits.
pub(crate) struct Attendance {
    seat: Seat,
    check: Slot,
}

impl Attendance {
    fn new(seat: Seat, check: Slot) -> Self {
        check.arm(CHECK_MS);
        Self { seat, check }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.seat.is_lost()
    }

    pub(crate) fn confirm(&self) {
        self.seat.confirm();
    }

    /// Ready when the seat is lost; else the task is woken to look again.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_lost() {
            return Poll::Ready(());
        }
        if self.check.poll(cx).is_ready() {
            self.check.arm(CHECK_MS);
            // Armed anew it cannot be due: this leaves the waker.
            let _due_later = self.check.poll(cx);
        }
        Poll::Pending
    }
}

/// The sessions that a connection itself is, one per tenant that it speaks to; they end
/// with it.
#[derive(Default)]
pub(crate) struct OfConnection {
    name: RefCell<Option<[u8; 16]>>,
    held: RefCell<SmallVec<[(Member, Seat); 1]>>,
    port: RefCell<Option<Arc<dyn Sessions>>>,
}

impl OfConnection {
    /// What tells this connection from every other.
    fn name(&self, fill: impl FnOnce(&mut [u8])) -> [u8; 16] {
        *self.name.borrow_mut().get_or_insert_with(|| {
            let mut name = [0; 16];
            fill(&mut name);
            name
        })
    }

    fn holds(&self, member: Member) -> bool {
        let mut held = self.held.borrow_mut();
        held.retain(|(_, seat)| !seat.is_lost());
        held.iter().any(|(known, _)| *known == member)
    }

    fn hold(&self, port: &Arc<dyn Sessions>, member: Member, seat: Seat) {
        self.held.borrow_mut().push((member, seat));
        self.port.borrow_mut().get_or_insert_with(|| Arc::clone(port));
    }
}

/// Takes a seat for the connection beside that of its request.
async fn keep(exchange: &Exchange, caller: &Caller, rule: &SessionRule) {
    let id = of_connection(exchange, rule);
    let member = Member { tenant: caller.entry.id(), id };
    let sessions = &exchange.connection.sessions;
    if sessions.holds(member) {
        return;
    }
    // The session is known by now, so this does not wait; when it was lost in between, the
    // request ends.
    if let Ok(seat) = enter(exchange, caller, visit(rule, id)).await {
        sessions.hold(&exchange.worker.sessions, member, seat);
    }
}

impl Drop for OfConnection {
    fn drop(&mut self) {
        let Some(port) = self.port.get_mut().take() else { return };
        for (member, seat) in self.held.get_mut().drain(..) {
            drop(seat);
            // Nobody waits for it here.
            drop(port.end(member));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(cookie: &[&'static str]) -> Option<SessionId> {
        let mut headers = HeaderMap::new();
        for value in cookie {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        let source = SessionSource::Cookie("sid".into());
        of_values(&source, cookies(&headers, "sid"))
    }

    #[test]
    fn a_cookie_is_found_among_others_and_only_by_its_whole_name() {
        let want = of(&["sid=a1"]);
        assert!(want.is_some());
        for same in ["x=1; sid=a1", "sid=a1;y=2", "xsid=9;  sid=a1 ; sidx=8"] {
            assert_eq!(of(&[same]), want, "{same}");
        }
        for none in ["xsid=a1", "sid", "sid=", "sidx=a1", "SID=a1", ""] {
            assert_eq!(of(&[none]), None, "{none}");
        }
    }

    #[test]
    fn a_repeated_cookie_hides_no_session_behind_another() {
        let shared_first = [of(&["sid=shared; sid=a"]), of(&["sid=shared; sid=b"])];
        assert_ne!(shared_first[0], shared_first[1]);
        let shared_last = [of(&["sid=a; sid=shared"]), of(&["sid=b", "sid=shared"])];
        assert_ne!(shared_last[0], shared_last[1]);
        assert_ne!(shared_first[0], of(&["sid=shared"]));
    }
}
