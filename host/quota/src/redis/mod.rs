//! Redis: the ledger that several edges share, and what else runs as a script there.
//!
//! [`RedisTarget`] says where; [`Servers`] keeps the connections; [`RedisLedger`] is the
//! dispatcher. Only this crate speaks to Redis. Invariant: losing Redis, or any data in it,
//! can waste tokens and never create one. To add a script, put it beside the others with
//! its keys, arguments and answers in its head, and call it through [`Servers::run`].

mod answer;
mod fence;
mod ledger;
mod link;
mod recall;
mod servers;
mod target;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    fence::{FenceKey, Probabilistic, hidden},
    ledger::RedisLedger,
    recall::{Recalled, listen},
    servers::Servers,
};
pub use self::{
    ledger::shared_dispatcher,
    target::{RedisFencing, RedisTarget, RedisTls, TargetError},
};
