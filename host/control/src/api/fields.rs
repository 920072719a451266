//! Reads a JSON object field by field and remembers everything that is wrong with it.
//!
//! Used by every endpoint with a body. Invariant: [`Fields::finish`] answers with all bad
//! fields at once, the unknown ones included, and nothing is used before it passed.

use std::collections::BTreeMap;

use axum::{extract::Query, http::Uri};
use model::problem::FieldError;
use serde_json::{Map, Value};

use super::problem::ApiError;
use crate::store::Members;

/// The parameters of a query, each once.
pub(crate) fn query(uri: &Uri) -> Result<Map<String, Value>, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| ApiError::field("query", "must be name=value pairs"))?;
    let mut members = Map::new();
    for (name, value) in pairs {
        if members.insert(name.clone(), Value::String(value)).is_some() {
            return Err(ApiError::field(name, "is given twice"));
        }
    }
    Ok(members)
}

/// What a rule makes of a value: the thing, or what is wrong with it.
pub(crate) type Ruled<T> = Result<T, String>;

/// The members that were not read yet, and the faults so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    members: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self { members, errors: Vec::new() }
    }

    /// Whether a member is there and not `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// The members that were not read yet.
    pub(crate) fn rest(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.members.iter()
    }

    /// Takes a member out, `null` or not.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name)
    }

    /// Puts a member back for a later rule.
    pub(crate) fn put_back(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    /// Remembers a fault.
    pub(crate) fn reject(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), detail: detail.into() });
    }

    /// A member that must be there. `None` means that a fault is remembered.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&Value) -> Ruled<T>,
    ) -> Option<T> {
        match self.take(name) {
            None | Some(Value::Null) => {
                self.reject(name, "is required");
                None
            }
            Some(value) => self.ruled(name, rule(&value)),
        }
    }

    /// A member that may be absent or `null`.
    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&Value) -> Ruled<T>,
    ) -> Option<T> {
        match self.take(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.ruled(name, rule(&value)),
        }
    }

    /// A member of a merge patch that cannot be removed, so may not be `null`.
    pub(crate) fn changed<T>(
        &mut self,
        name: &str,
        rule: impl FnOnce(&Value) -> Ruled<T>,
    ) -> Option<T> {
        match self.take(name)? {
            Value::Null => {
                self.reject(name, "may not be null");
                None
            }
            value => self.ruled(name, rule(&value)),
        }
    }

    /// A set of members to merge; `null` clears it.
    pub(crate) fn members<T>(
        &mut self,
        name: &str,
        rule: impl Fn(&str, &Value) -> Ruled<T>,
    ) -> Option<Members<T>> {
        let members = match self.take(name)? {
            Value::Null => return Some(Members::Clear),
            Value::Object(members) => members,
            _ => {
                self.reject(name, "must be an object or null");
                return None;
            }
        };
        let mut merged = BTreeMap::new();
        for (member, value) in members {
            let ruled = match &value {
                Value::Null => Ok(None),
                value => rule(&member, value).map(Some),
            };
            if let Some(value) = self.ruled(&format!("{name}.{member}"), ruled) {
                merged.insert(member, value);
            }
        }
        Some(Members::Merge(merged))
    }

    /// A list that replaces the old one; `null` empties it.
    pub(crate) fn items<T>(
        &mut self,
        name: &str,
        most: usize,
        rule: impl Fn(&Value) -> Ruled<T>,
    ) -> Option<Vec<T>> {
        let items = match self.take(name)? {
            Value::Null => return Some(Vec::new()),
            Value::Array(items) if items.len() <= most => items,
            Value::Array(_) => {
                self.reject(name, format!("may have at most {most} items"));
                return None;
            }
            _ => {
                self.reject(name, "must be a list or null");
                return None;
            }
        };
        let ruled = items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| self.ruled(&format!("{name}[{at}]"), rule(item)))
            .collect();
        Some(ruled)
    }

    /// A list of objects that must be there, each with its position; faults within are
    /// named by `name[position].`.
    pub(crate) fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<(usize, T)>> {
        let items = match self.take(name) {
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(Value::Array(_)) => {
                self.reject(name, format!("may have at most {most} items"));
                return None;
            }
            _ => {
                self.reject(name, "must be a list");
                return None;
            }
        };
        let mut objects = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let Value::Object(members) = item else {
                self.reject(format!("{name}[{at}]"), "must be an object");
                continue;
            };
            let mut fields = Self::new(members);
            objects.extend(read(&mut fields).map(|object| (at, object)));
            self.absorb(&format!("{name}[{at}]"), fields);
        }
        Some(objects)
    }

    /// Takes over the faults of an object inside, named from here: `prefix.field`.
    pub(crate) fn absorb(&mut self, prefix: &str, inner: Self) {
        for error in inner.faults() {
            self.reject(format!("{prefix}.{}", error.field), error.detail);
        }
    }

    /// Ends the reading: whatever was not taken is unknown.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.refuse() {
            ApiError::Invalid(errors) if errors.is_empty() => Ok(()),
            refusal => Err(refusal),
        }
    }

    /// The refusal that names every fault, where one is known to be.
    pub(crate) fn refuse(self) -> ApiError {
        ApiError::Invalid(self.faults())
    }

    fn faults(mut self) -> Vec<FieldError> {
        for (name, _) in std::mem::take(&mut self.members) {
            self.reject(name, "is not a field of this request");
        }
        self.errors
    }

    fn ruled<T>(&mut self, name: &str, ruled: Ruled<T>) -> Option<T> {
        ruled.map_err(|detail| self.reject(name, detail)).ok()
    }
}
