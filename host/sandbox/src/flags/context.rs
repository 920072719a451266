//! The evaluation context in the form that rules read: what is known of the caller, and
//! `$flagd`.
//!
//! Built per evaluation of a flag with targeting, in an arena. Text is borrowed, not copied.
//! Invariant: `$flagd` is ours; a caller's own member of that name is not seen.

use datalogic_rs::{DataValue, bumpalo::Bump};
use model::clock::UnixMs;
use serde_json::{Map, Value};

/// The member that flagd adds.
pub(super) const FLAGD: &str = "$flagd";
/// Its member with the flag's key.
pub(super) const FLAG_KEY: &str = "flagKey";
/// The caller's member that identifies the subject.
pub(super) const TARGETING_KEY: &str = "targetingKey";

/// What is known of a caller.
pub(crate) trait Facts {
    /// Adds its members, each name once.
    fn add_to<'a>(&'a self, members: &mut Members<'a>);
}

/// The members of an object that is being built.
pub(crate) struct Members<'a> {
    pub(crate) arena: &'a Bump,
    list: Vec<(&'a str, DataValue<'a>)>,
}

impl<'a> Members<'a> {
    pub(crate) fn add(&mut self, name: &'a str, value: DataValue<'a>) {
        if name != FLAGD {
            self.list.push((name, value));
        }
    }

    /// Text that nothing else keeps.
    pub(crate) fn own_text(&self, text: &str) -> DataValue<'a> {
        DataValue::String(self.arena.alloc_str(text))
    }

    pub(crate) fn object(&self, members: &[(&'a str, DataValue<'a>)]) -> DataValue<'a> {
        DataValue::Object(self.arena.alloc_slice_copy(members))
    }
}

impl Facts for Map<String, Value> {
    fn add_to<'a>(&'a self, members: &mut Members<'a>) {
        for (name, value) in self {
            let value = convert(value, members.arena);
            members.add(name, value);
        }
    }
}

/// The context as a value of the arena.
pub(super) fn build<'a>(
    key: &'a str,
    facts: &'a dyn Facts,
    now: UnixMs,
    arena: &'a Bump,
) -> DataValue<'a> {
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    let flagd = arena.alloc_slice_copy(&[
        (FLAG_KEY, DataValue::String(key)),
        ("timestamp", DataValue::from_i64(seconds)),
    ]);
    let mut members = Members { arena, list: vec![(FLAGD, DataValue::Object(flagd))] };
    facts.add_to(&mut members);
    DataValue::Object(arena.alloc_slice_copy(&members.list))
}

/// serde_json bounds the nesting of what it parses (128), so this recursion is bounded.
fn convert<'a>(value: &'a Value, arena: &'a Bump) -> DataValue<'a> {
    match value {
        Value::Null => DataValue::Null,
        Value::Bool(value) => DataValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => DataValue::from_i64(integer),
            None => DataValue::from_f64(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => DataValue::String(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| convert(item, arena)).collect();
            DataValue::Array(arena.alloc_slice_copy(&items))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| (name.as_str(), convert(value, arena)))
                .collect();
            DataValue::Object(arena.alloc_slice_copy(&members))
        }
    }
}

/// A text member of an object.
pub(super) fn text<'a>(object: &'a DataValue<'a>, name: &str) -> Option<&'a str> {
    member(object, name)?.as_str()
}

/// A member of an object.
pub(super) fn member<'a>(object: &'a DataValue<'a>, name: &str) -> Option<&'a DataValue<'a>> {
    object.as_object()?.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
