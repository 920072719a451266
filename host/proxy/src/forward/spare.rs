//! A copy of a request that may be sent a second time.
//!
//! Made of idempotent requests with a body at hand (or none) before they are sent, because
//! hyper keeps what it has begun to write. The field lists are used again, so a copy costs
//! reference counts and, in the long run, no allocation. Invariant: nothing that streams and
//! nothing that may not happen twice has a copy.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::Outgoing;
use crate::worker::Worker;

/// Field lists kept for later copies (64): as many as a busy worker has under way at once
/// between request and answer's head.
const LISTS_MAX: usize = 64;

type Fields = Vec<(HeaderName, HeaderValue)>;

/// The field lists of a worker that are not in use.
#[derive(Default)]
pub(crate) struct Lists(RefCell<Vec<Fields>>);

/// A request as it was.
pub(crate) struct Spare {
    worker: Rc<Worker>,
    method: Method,
    uri: Uri,
    fields: Fields,
    body: Option<Bytes>,
}

impl Spare {
    /// A copy, of what may be sent twice.
    pub(crate) fn of(worker: &Rc<Worker>, request: &Request<Outgoing>) -> Option<Self> {
        let Outgoing::Whole(body) = request.body() else { return None };
        if !request.method().is_idempotent() || worker.config.upstreams.retries_max == 0 {
            return None;
        }
        let mut fields = worker.lists.0.borrow_mut().pop().unwrap_or_default();
        let copied = request.headers().iter();
        fields.extend(copied.map(|(name, value)| (name.clone(), value.clone())));
        Some(Self {
            worker: Rc::clone(worker),
            method: request.method().clone(),
            uri: request.uri().clone(),
            fields,
            body: body.clone(),
        })
    }

    /// The request again.
    pub(crate) fn request(mut self) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing::Whole(self.body.take()));
        *request.method_mut() = std::mem::take(&mut self.method);
        *request.uri_mut() = std::mem::take(&mut self.uri);
        for (name, value) in self.fields.drain(..) {
            request.headers_mut().append(name, value);
        }
        request
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        let mut lists = self.worker.lists.0.borrow_mut();
        if lists.len() < LISTS_MAX {
            lists.push(fields);
        }
    }
}
