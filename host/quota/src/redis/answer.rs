//! What a quota script answers: a word, then numbers or names.
//!
//! Invariant: an answer that is not of that shape is no answer.

use model::ledger::{DispatcherError, HolderId};
use redis::Value;
use uuid::Uuid;

/// A script's answer.
pub(super) struct Answer {
    code: String,
    rest: Vec<Value>,
}

impl Answer {
    pub(super) fn read(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let mut parts = parts.into_iter();
        let code = text(&parts.next()?)?.to_owned();
        Some(Self { code, rest: parts.collect() })
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    pub(super) fn text(&self, index: usize) -> Option<&str> {
        text(self.rest.get(index)?)
    }

    pub(super) fn number(&self, index: usize) -> Result<u64, DispatcherError> {
        self.rest.get(index).and_then(number).ok_or(DispatcherError::Unavailable)
    }

    /// `holder tokens holder tokens …`
    pub(super) fn shares(&self) -> Result<Vec<(HolderId, u64)>, DispatcherError> {
        let pair = |pair: &[Value]| {
            let [holder, tokens] = pair else { return None };
            let holder = Uuid::parse_str(text(holder)?).ok()?;
            Some((HolderId(holder), number(tokens)?))
        };
        let shares: Option<Vec<_>> = self.rest.chunks(2).map(pair).collect();
        shares.ok_or(DispatcherError::Unavailable)
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
