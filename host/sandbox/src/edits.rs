//! The edits of one hook call, held back until the hook returns `ok`.
//!
//! Called per edit and per read after one. Invariant: what is in an [`Edits`] has passed
//! the rules for clients' messages; applying it can no longer fail.

mod fields;
mod path;
mod rules;

use http::{StatusCode, uri::PathAndQuery};

pub(crate) use self::{
    fields::{FieldEdits, Room},
    path::parse_path,
    rules::{Refusal, checked_name, checked_status, checked_value},
};

/// Which message the hook in progress may edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Before forwarding: the request.
    Request,
    /// Before the response's head is sent: the response.
    Response,
}

/// Buffered edits of the message of the hook in progress.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub(crate) fields: FieldEdits,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) status: Option<StatusCode>,
}
