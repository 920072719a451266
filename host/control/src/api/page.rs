//! Pages of lists that the store reads whole, because they are bounded: keys, tokens, plans.
//!
//! Longer lists are cut by the database and share only the parameters. Invariant: a cursor
//! is a place in the order, not a number of items, so whoever follows `next_cursor` sees
//! everything that was there when it began exactly once, whatever comes or goes meanwhile.

use axum::http::Uri;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    fields::{Fields, query},
    problem::ApiError,
    rules,
};

/// Items of a page unless asked otherwise.
pub(super) const LIMIT_DEFAULT: usize = 50;
/// Items of the longest page: a few hundred KB of JSON.
pub(super) const LIMIT_MAX: usize = 200;

/// Which page.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `Asked::read` reads")]
pub(super) struct PageQuery {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 unless given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// `null` on the last page.
    pub(super) next_cursor: Option<String>,
}

/// The page that a request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The place after which it begins.
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Asked {
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let mut fields = Fields::new(query(uri)?);
        let after = fields.optional("cursor", |value| {
            let refused = || "must be a next_cursor given here".to_owned();
            place(rules::text(value)?).ok_or_else(refused)
        });
        let limit = fields.optional("limit", |value| rules::number(value, 1, LIMIT_MAX as u64));
        fields.finish()?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        Ok(Self { after, limit: limit.unwrap_or(LIMIT_DEFAULT) })
    }

    /// Cuts the page out of a whole list, in the order of `place`, which no two items share.
    pub(super) fn cut<T>(&self, mut items: Vec<T>, place: impl Fn(&T) -> String) -> Page<T> {
        items.sort_by_cached_key(&place);
        if let Some(after) = &self.after {
            items.retain(|item| place(item) > *after);
        }
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items.last().filter(|_| more).map(|last| cursor(&place(last)));
        Page { items, next_cursor }
    }
}

impl<T> Page<T> {
    /// The same page, its items as they are shown.
    pub(super) fn map<U>(self, show: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(show).collect(), next_cursor: self.next_cursor }
    }
}

/// A place as clients get it.
pub(super) fn cursor(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

fn place(cursor: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// The place of something in the order of time.
pub(super) fn in_time(at: model::clock::UnixMs, id: &str) -> String {
    format!("{:016x}{id}", at.0)
}

/// The place of something in the order of time, the latest first.
pub(super) fn latest_first(at: model::clock::UnixMs, id: &str) -> String {
    format!("{:016x}{id}", u64::MAX - at.0)
}

#[cfg(test)]
mod tests;
