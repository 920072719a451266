//! Walks a list through its cursors, one page at a time.
//!
//! Invariant: it ends: a server that gives the same cursor twice is refused.

use serde_json::Value;

use super::{Answer, Call, Client, ClientError};

/// The pages of a list that are still to be read.
#[derive(Debug)]
pub struct Pages<'a> {
    client: &'a Client,
    call: Call,
    names: Names,
    /// Where the next page starts; `None` once there is none.
    next: Option<Start>,
}

/// How a list calls the place where a page starts: in the query, and in the page before.
#[derive(Clone, Copy, Debug)]
struct Names {
    asked: &'static str,
    given: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    After(String),
}

impl Start {
    fn after(value: &Value) -> Option<Self> {
        match value {
            Value::String(cursor) => Some(Self::After(cursor.clone())),
            Value::Number(number) => Some(Self::After(number.to_string())),
            _ => None,
        }
    }
}

impl<'a> Pages<'a> {
    /// The pages of what `call` lists.
    #[must_use]
    pub fn new(client: &'a Client, call: Call) -> Self {
        let names = Names { asked: "cursor", given: "next_cursor" };
        Self { client, call, names, next: Some(Start::Beginning) }
    }

    /// The same for a list whose pages start after a number.
    #[must_use]
    pub fn numbered(client: &'a Client, call: Call) -> Self {
        let names = Names { asked: "after", given: "next_after" };
        Self { names, ..Self::new(client, call) }
    }

    /// Whether there are more.
    #[must_use]
    pub fn more(&self) -> bool {
        self.next.is_some()
    }

    /// Reads one page of at most `limit` items; `None` after the last.
    ///
    /// # Errors
    /// As [`Client::send`]; or the answer is no page.
    pub async fn next(&mut self, limit: Option<usize>) -> Result<Option<Answer>, ClientError> {
        let Some(start) = self.next.take() else { return Ok(None) };
        let mut call = self.call.clone().query("limit", limit);
        if let Start::After(cursor) = &start {
            call = call.query(self.names.asked, Some(cursor));
        }
        let page = self.client.send(&call).await?;
        page.items()?;
        let cursor = page.json.get(self.names.given).and_then(Start::after);
        if cursor.as_ref() == Some(&start) {
            return Err(ClientError::Unreadable(self.names.given));
        }
        self.next = cursor;
        Ok(Some(page))
    }
}
