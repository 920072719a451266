//! Redis: the ledger that several edges share, and what else runs as a script there.
//!
//! [`RedisTarget`] says where; [`Servers`] keeps the one set of connections of an edge;
//! [`RedisLedger`] is the dispatcher. Only this crate speaks to Redis. Invariant: losing Redis,
//! or any data in it, can waste tokens and never create one. To add a script, put it beside
//! the others with its keys, arguments and answers in its head, make it with
//! [`Servers::script`] if it asks for `INFO`, and call it through [`Servers::run`].

mod answer;
mod fence;
mod keyvalue;
mod ledger;
mod link;
mod recall;
mod servers;
mod target;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    fence::{Probabilistic, hidden},
    ledger::RedisLedger,
    recall::{Recalled, listen},
};
pub use self::{
    keyvalue::RedisKeyvalue,
    ledger::shared_dispatcher,
    servers::Servers,
    target::{RedisFencing, RedisTarget, RedisTls, TargetError},
};
