//! Step 6, on routes that store or create something: room is set aside before the body is
//! read, and settled by what the upstream answers.
//!
//! A [`Hold`] is shared by the walk and the body on its way; when both are done with it,
//! dropping it settles. Costs nothing on a route that reserves nothing. Invariant: no byte
//! goes to the upstream that there is no room for; a request that the upstream had in full
//! and never answered leaves its room set aside, because nobody knows what became of it.

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::StatusCode;
use hyper::body::{Body as _, Incoming};
use model::{
    BoxFuture,
    level::{LevelChange, LevelSink},
    loss::OnStorageLoss,
    quota::Metric,
    reservation::{Amount, Exceeded, Outcome, Refused, Reservation, Reserves, Wanted},
    route::Route,
    tenant::TenantId,
};
use smallvec::SmallVec;

use crate::{exchange::Exchange, forward::Payload, rescue::Reason, response::Stop, tenant::Caller};

/// The room of a request: none on most routes.
pub(crate) type Holds = SmallVec<[Rc<Hold>; 1]>;

/// Room of one metric, for one request.
pub(crate) struct Hold {
    what: Reserves,
    kept: Kept,
    room: Cell<u64>,
    /// Bytes of the body that went on.
    sent: Cell<u64>,
    /// The body went on to its end.
    whole: Cell<bool>,
    fate: Cell<Fate>,
    refused: Cell<Option<Refused>>,
}

/// Who is told what became of the room.
enum Kept {
    /// Whoever set it aside.
    Reserved(Reservation),
    /// The journal of levels: nobody could say whether there was room, and the plan lets
    /// uploads through then.
    Unreserved(Arc<dyn LevelSink>, TenantId),
    /// Told.
    Nobody,
}

/// What the upstream did with the request, as far as is known.
#[derive(Clone, Copy)]
enum Fate {
    /// It has not seen it.
    Unsent,
    /// It may have begun to act on it.
    Forwarded,
    Failed,
    Succeeded,
    /// It says by how much the level changed.
    Reported(i64),
}

/// The second half of step 6 of the walk.
///
/// # Errors
/// There is no room, nobody can say, or the exchange's time is over.
pub(crate) async fn admit(
    exchange: &Exchange,
    caller: &Caller,
    route: &Route,
    body: &Incoming,
) -> Result<Holds, Stop> {
    let mut holds = Holds::new();
    for what in &route.reserves {
        let amount = match what {
            Reserves::Body if body.is_end_stream() => continue,
            Reserves::Body => body.size_hint().exact().map_or(Amount::step(1), Amount::exactly),
            Reserves::One(_) => Amount::exactly(1),
        };
        let wanted = Wanted { tenant: caller.entry.id(), metric: what.metric(), amount };
        match exchange.in_time(exchange.worker.storage.reserve(wanted)).await? {
            Err(Refused::Unavailable) if allowed(caller, *what) => {
                exchange.worker.series.unreserved();
                let journal = Arc::clone(&exchange.worker.levels);
                holds.push(Rc::new(Hold::unreserved(*what, journal, wanted.tenant)));
            }
            reserved => holds.push(Rc::new(Hold::new(*what, reserved?))),
        }
    }
    Ok(holds)
}

/// Whether the plan lets uploads through while nobody can say whether there is room.
fn allowed(caller: &Caller, what: Reserves) -> bool {
    let rule = caller.entry.plan.on_authority_loss.storage;
    what == Reserves::Body && rule == OnStorageLoss::Allow
}

/// After step 7: a policy may have read the body, or put a larger one in its place.
///
/// # Errors
/// As [`admit`].
pub(crate) async fn cover(
    exchange: &Exchange,
    holds: &Holds,
    payload: &Payload,
) -> Result<(), Stop> {
    let Payload::Whole(bytes) = payload else { return Ok(()) };
    if let Some(hold) = of_body(holds) {
        let bytes = bytes.len() as u64;
        let missing = bytes.saturating_sub(hold.room.get());
        if missing > 0 {
            let more = hold.more(Amount::exactly(missing));
            hold.widen(exchange.in_time(more).await??);
        }
        hold.sent.set(bytes);
    }
    ended(holds);
    Ok(())
}

/// The body went on to its end.
pub(crate) fn ended(holds: &Holds) {
    holds.iter().for_each(|hold| hold.whole.set(true));
}

/// Step 9: from here on the upstream may act on the request.
pub(crate) fn forwarded(holds: &Holds) {
    holds.iter().for_each(|hold| hold.fate.set(Fate::Forwarded));
}

/// Not one byte of it went out after all.
pub(crate) fn unsent(holds: &Holds) {
    holds.iter().for_each(|hold| hold.fate.set(Fate::Unsent));
}

/// The upstream has answered; what a metering rule reads from its answer comes after.
pub(crate) fn answered(holds: &Holds, status: StatusCode) {
    let fate = if status.is_success() { Fate::Succeeded } else { Fate::Failed };
    holds.iter().for_each(|hold| hold.fate.set(fate));
}

/// What a metering rule read from the answer about a level that room is held of; false when
/// there is none, so that it is counted by itself.
pub(crate) fn reported(holds: &Holds, metric: Metric, delta: i64) -> bool {
    let Some(hold) = holds.iter().find(|hold| hold.what.metric() == metric) else { return false };
    let told = match hold.fate.get() {
        Fate::Reported(told) => told,
        Fate::Unsent | Fate::Forwarded | Fate::Failed | Fate::Succeeded => 0,
    };
    hold.fate.set(Fate::Reported(told.saturating_add(delta)));
    true
}

/// The end of a walk that failed while it was forwarding.
pub(crate) fn stop(holds: &Holds, reason: Reason) -> Stop {
    let refused = holds.iter().find_map(|hold| hold.refused.get());
    refused.filter(|_| reason == Reason::RoomRefused).map_or(Stop::Reason(reason), Stop::from)
}

/// The room that the bytes of the body are taken from.
pub(crate) fn of_body(holds: &Holds) -> Option<&Rc<Hold>> {
    holds.iter().find(|hold| hold.what == Reserves::Body)
}

/// The reason of a refusal.
pub(crate) fn reason(why: &Exceeded) -> Reason {
    match why.metric {
        Metric::Storage => Reason::StorageExceeded,
        Metric::Users
        | Metric::Projects
        | Metric::ApiCalls
        | Metric::AiRequests
        | Metric::ConcurrentSessions => Reason::CountExceeded,
    }
}

impl Hold {
    fn new(what: Reserves, reservation: Reservation) -> Self {
        let room = reservation.amount();
        Self::of(what, Kept::Reserved(reservation), room)
    }

    /// Room without a bound, for a body that is counted only when it is stored.
    fn unreserved(what: Reserves, journal: Arc<dyn LevelSink>, tenant: TenantId) -> Self {
        Self::of(what, Kept::Unreserved(journal, tenant), u64::MAX)
    }

    fn of(what: Reserves, kept: Kept, room: u64) -> Self {
        Self {
            what,
            kept,
            room: Cell::new(room),
            sent: Cell::new(0),
            whole: Cell::new(false),
            fate: Cell::new(Fate::Unsent),
            refused: Cell::new(None),
        }
    }

    /// Whether so many bytes more fit in what is set aside; if so, they are on their way.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let sent = self.sent.get().saturating_add(bytes);
        let fits = sent <= self.room.get();
        if fits {
            self.sent.set(sent);
        }
        fits
    }

    /// A step of more room, with enough for `bytes` that are at hand.
    pub(crate) fn step(&self, bytes: u64) -> BoxFuture<'static, Result<u64, Refused>> {
        let left = self.room.get().saturating_sub(self.sent.get());
        self.more(Amount::step(bytes.saturating_sub(left)))
    }

    fn more(&self, amount: Amount) -> BoxFuture<'static, Result<u64, Refused>> {
        match &self.kept {
            Kept::Reserved(reservation) => reservation.extend(amount),
            Kept::Unreserved(..) => Box::pin(std::future::ready(Ok(amount.least))),
            Kept::Nobody => Box::pin(std::future::ready(Err(Refused::Unavailable))),
        }
    }

    /// More room was given.
    pub(crate) fn widen(&self, room: u64) {
        self.room.set(self.room.get().saturating_add(room));
    }

    /// Whether the room is known to be set aside still.
    pub(crate) fn is_live(&self) -> bool {
        match &self.kept {
            Kept::Reserved(reservation) => reservation.is_live(),
            Kept::Unreserved(..) => true,
            Kept::Nobody => false,
        }
    }

    /// Remembers why the body may not go on.
    pub(crate) fn refuse(&self, refused: Refused) -> Reason {
        self.refused.set(Some(refused));
        Reason::RoomRefused
    }

    fn outcome(&self) -> Outcome {
        match self.fate.get() {
            Fate::Unsent | Fate::Failed => Outcome::Nothing,
            Fate::Forwarded if self.whole.get() => Outcome::Unknown,
            // The upstream never had a whole request.
            Fate::Forwarded => Outcome::Nothing,
            Fate::Succeeded => Outcome::Taken(match self.what {
                Reserves::Body => i64::try_from(self.sent.get()).unwrap_or(i64::MAX),
                Reserves::One(_) => 1,
            }),
            Fate::Reported(delta) => Outcome::Taken(delta),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let outcome = self.outcome();
        match (std::mem::replace(&mut self.kept, Kept::Nobody), outcome) {
            (Kept::Reserved(reservation), outcome) => reservation.settle(outcome),
            (Kept::Unreserved(journal, tenant), Outcome::Taken(delta)) if delta != 0 => {
                let metric = self.what.metric();
                if !journal.record(LevelChange { tenant, metric, delta }) {
                    tracing::error!(%tenant, delta, "an upload without room is not counted");
                }
            }
            (Kept::Unreserved(_, tenant), Outcome::Unknown) => {
                let bytes = self.sent.get();
                tracing::warn!(%tenant, bytes, "an upload without room was never answered");
            }
            (Kept::Unreserved(..), Outcome::Taken(_) | Outcome::Nothing) | (Kept::Nobody, _) => {}
        }
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exceeded(why) => Self::NoRoom(Box::new(why)),
            Refused::Unavailable => Self::Reason(Reason::RoomUnknown),
        }
    }
}
