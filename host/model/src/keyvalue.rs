//! The port between policies' key-value data and where several edges share it.
//!
//! Called by host functions of a running policy, whose request waits: a store gives up within
//! a time limit of its own (tens of milliseconds). One edge alone keeps the data in its
//! sandbox. Invariant: an entry is reachable only through the namespace that it was written
//! in, whatever a key holds.

use std::{fmt, sync::Arc};

use crate::{BoxFuture, tenant::TenantId};

/// Bytes of book-keeping that each entry counts beside its key and value.
pub const ENTRY_BYTES: usize = 64;

/// Whose data: a tenant's, in one policy. Survives a new version of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// The tenant.
    pub tenant: TenantId,
    /// The policy's name.
    pub policy: Arc<str>,
}

/// What a namespace may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Entries.
    pub keys: usize,
    /// Bytes of keys and values, and [`ENTRY_BYTES`] for each entry.
    pub bytes: usize,
}

/// Why an operation was refused, or is not known to have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalueError {
    /// The key is empty or too long.
    #[error("the key must have 1 to {0} bytes")]
    Key(usize),
    /// The value is too long.
    #[error("the value has more than {0} bytes")]
    Value(usize),
    /// What is to be incremented is no decimal number.
    #[error("the value is not a number")]
    NotANumber,
    /// The sum has no place in 64 bits.
    #[error("the number does not fit 64 bits")]
    Overflow,
    /// There is no room in the namespace.
    #[error("the space for this policy's data is used up")]
    QuotaExceeded,
    /// The store does not answer; a write may have happened.
    #[error("the store of the data does not answer")]
    Unavailable,
}

/// The future of a call: of a value, or of nothing.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, KeyvalueError>>;

/// Data that edges share. Sizes of keys and values are checked by the caller.
pub trait KeyvalueStore: Send + Sync + fmt::Debug {
    /// The value of a key that has not run out.
    fn get<'a>(&'a self, of: &'a Namespace, key: &'a str) -> Stored<'a, Option<Vec<u8>>>;
    /// Writes a key; for `ttl_ms` from now, for ever without one.
    fn set<'a>(
        &'a self,
        of: &'a Namespace,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
        room: Room,
    ) -> Stored<'a, ()>;
    /// Removes a key.
    fn delete<'a>(&'a self, of: &'a Namespace, key: &'a str) -> Stored<'a, ()>;
    /// Adds to a number kept as decimal text, atomically. A missing key counts as 0 and gets
    /// the time to live.
    fn increment<'a>(
        &'a self,
        of: &'a Namespace,
        key: &'a str,
        delta: i64,
        ttl_ms: Option<u64>,
        room: Room,
    ) -> Stored<'a, i64>;
}
