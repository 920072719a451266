//! The lease protocol, checked state by state (`quotas.md` 4.1).
//!
//! Four models and one [`checker`]. Each says what may happen, one atomic step at a time;
//! the checker tries every order of steps, breadth first, and prints the shortest schedule
//! that breaks the property. Each rule of the protocol is also taken away in turn (a
//! `Rules` of booleans in every model), and the checker must then find the limit broken: a
//! model in which nothing can go wrong would prove nothing.
//!
//! | model | what happens in it | property |
//! | --- | --- | --- |
//! | [`fence`] | two Redis servers: snapshot, flush, restart from it, promote, demote, replicate; two concurrent installers; limit 3, tranches of 1 or 2, 3 epochs | spent ≤ Σ tranches ≤ limit |
//! | [`lease`] | two holders, one registers late; lost, late and repeated messages and answers; returns; epochs opened ahead; lost data, two servers at once; kills with a will, lost machines, holders declared lost while alive; CLOSE; refunds in and after the lease; direct tranches; close → seal → report → reconcile → credit; limit 2 | charged + at hand ≤ Σ tranches − credits ≤ limit |
//! | [`pool`] | two children with guaranteed shares and a maximum, the parent's own traffic; own and shared parts; one atomic grant over the path; epochs, floors and reconciling per level | Σ max(used, guaranteed) ≤ pool, used ≤ maximum |
//! | [`sessions`] | sets with heartbeats at one or two registries that lose them, guards, slow and lost messages, dying edges, a stepped clock | sessions alive ≤ limit |
//!
//! The models stand on each other: `lease` lets a server only forget, as `fence` proves that
//! data with a foreign fence serves nothing; `pool` delivers at once, as `lease` proves that
//! late and repeated messages do no harm.
//!
//! Not modelled: sizes of tranches and grants (any size that the rules permit is tried), a
//! limit that changes, late reports (one process reports over one connection at a time, in
//! order, and `report_no` is a comparison in one SQL transaction), the authority's own
//! transactions (each is one step), more than two holders, evicting the oldest session, and
//! time in any model but `sessions`.
//!
//! What the models ask for beyond the text of `quotas.md`, each with a test that shows why:
//! - CLOSE forbids later grants also to a holder that was declared lost, answers only under
//!   the fence that the epoch was opened for, and its figures, not the reported ones, are a
//!   lost holder's share.
//! - While a new session guard holds, an *admission* is refused even to a session that is in
//!   the set: a renewal that was long on its way (a stopped server reads it when it goes on)
//!   may have put a session there that was closed meanwhile.
//! - In a split brain an edge may serve a session only as long as the authority confirmed
//!   that the guard is the latest one, by its number: the session's deadline is the earlier
//!   of the two, from the message's and from the confirmation's sending.
//!
//! Bounds: what runs by default takes about a minute on two cores without optimisation; the
//! larger spaces are a nightly run of minutes and gigabytes:
//! `cargo test --release -p leanvibe-quota --test model_check -- --ignored --nocapture --test-threads 1`.
//! A search that meets its bound of states fails.
//!
//! | space, exhausted and safe | states | seconds, optimised, on a busy core |
//! | --- | --- | --- |
//! | base model | 758,525 | 5 |
//! | leases by default: six spaces | 91,373 to 374,963 | 1 to 4 each |
//! | leases: 2 epochs, 2 messages each, 2 servers, kills, direct tranches, a refund | 23,207,013 | 162 |
//! | leases: tranches of every size, 2 epochs, 2 messages each, kills, a refund | 27,298,255 | 407 |
//! | leases: losses, 3 epochs, 1 message each, kills, a refund | 18,480,115 | 285 |
//! | leases: losses, 2 epochs, 1 message each, 2 servers, a refund | 3,902,314 | 61 |
//! | pool by default; 2 epochs of each level | 118,559 and 156,930; 1,827,226 | 1; 11 |
//! | sessions, one registry | 290,777 | 3 |
//! | sessions, split brain; limit 2 with 3 sessions | 8,282,141; 10,372,951 | 73; 109 |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod checker;
mod codec;
mod fence;
mod lease;
mod pool;
mod seen;
mod sessions;
