//! Buffered edits of header fields, laid over the fields of the message.
//!
//! Nothing is copied from the message: per edited name there is one entry that says
//! whether the message's own values stay and which come after them. Invariant: reads see
//! exactly what [`FieldEdits::apply`] would make of the message.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::{Refusal, checked_name, checked_value};

type Values = SmallVec<[HeaderValue; 1]>;

#[derive(Debug)]
struct FieldEdit {
    name: HeaderName,
    /// Whether the message's own values stay, before `values`.
    keeps: bool,
    values: Values,
}

/// The edits of one message's fields; empty and without allocation at first.
#[derive(Debug, Default)]
pub(crate) struct FieldEdits {
    edits: Vec<FieldEdit>,
}

/// What bounds an edit.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    /// Fields that the message may have.
    pub(crate) fields: usize,
    /// Bytes that the call may still write; counted down.
    pub(crate) bytes: &'a mut usize,
}

impl FieldEdits {
    /// Replaces all values of a field; no value deletes it.
    pub(crate) fn set<'v>(
        &mut self,
        message: &HeaderMap,
        room: Room<'_>,
        name: &str,
        values: impl Iterator<Item = &'v [u8]>,
    ) -> Result<(), Refusal> {
        let name = checked_name(name)?;
        let values = values.map(checked_value).collect::<Result<Values, _>>()?;
        let written = values.iter().map(|value| size(&name, value)).sum();
        self.put(message, room, written, FieldEdit { name, keeps: false, values })
    }

    /// Adds one value after the others.
    pub(crate) fn append(
        &mut self,
        message: &HeaderMap,
        room: Room<'_>,
        name: &str,
        value: &[u8],
    ) -> Result<(), Refusal> {
        let name = checked_name(name)?;
        let added = checked_value(value)?;
        let (keeps, mut values) = match self.find(name.as_str()) {
            Some(edit) => (edit.keeps, edit.values.clone()),
            None => (true, Values::new()),
        };
        let written = size(&name, &added);
        values.push(added);
        self.put(message, room, written, FieldEdit { name, keeps, values })
    }

    /// Removes a field.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        self.replace(FieldEdit { name: checked_name(name)?, keeps: false, values: Values::new() });
        Ok(())
    }

    fn put(
        &mut self,
        message: &HeaderMap,
        room: Room<'_>,
        written: usize,
        edit: FieldEdit,
    ) -> Result<(), Refusal> {
        let left = room.bytes.checked_sub(written).ok_or(Refusal::Size)?;
        let others = self.count(message) - self.values(message, edit.name.as_str()).count();
        let own = if edit.keeps { message.get_all(&edit.name).iter().count() } else { 0 };
        if others + own + edit.values.len() > room.fields {
            return Err(Refusal::Size);
        }
        *room.bytes = left;
        self.replace(edit);
        Ok(())
    }

    fn replace(&mut self, edit: FieldEdit) {
        match self.edits.iter_mut().find(|earlier| earlier.name == edit.name) {
            Some(earlier) => *earlier = edit,
            None => self.edits.push(edit),
        }
    }

    fn find(&self, name: &str) -> Option<&FieldEdit> {
        self.edits.iter().find(|edit| edit.name.as_str().eq_ignore_ascii_case(name))
    }

    /// Fields of the message as edited.
    fn count(&self, message: &HeaderMap) -> usize {
        self.edits.iter().fold(message.len(), |count, edit| {
            let gone = if edit.keeps { 0 } else { message.get_all(&edit.name).iter().count() };
            count - gone + edit.values.len()
        })
    }

    /// The values of one field as edited, in order.
    pub(crate) fn values<'a>(
        &'a self,
        message: &'a HeaderMap,
        name: &str,
    ) -> impl Iterator<Item = &'a HeaderValue> {
        let edit = self.find(name);
        let own = edit.is_none_or(|edit| edit.keeps).then(|| message.get_all(name).into_iter());
        own.into_iter().flatten().chain(edit.into_iter().flat_map(|edit| &edit.values))
    }

    /// Every field as edited.
    pub(crate) fn all<'a>(
        &'a self,
        message: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let stays = |name: &HeaderName| self.find(name.as_str()).is_none_or(|edit| edit.keeps);
        let own = message.iter().filter(move |(name, _)| stays(name));
        let added =
            self.edits.iter().flat_map(|edit| edit.values.iter().map(|value| (&edit.name, value)));
        own.chain(added)
    }

    /// Makes the edits on the message.
    pub(crate) fn apply(self, message: &mut HeaderMap) {
        for edit in self.edits {
            if !edit.keeps {
                message.remove(&edit.name);
            }
            for value in edit.values {
                // Fails beyond 24,576 fields only; a message never has as many.
                let _ = message.try_append(edit.name.clone(), value);
            }
        }
    }
}

fn size(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> HeaderMap {
        let mut message = HeaderMap::new();
        for (name, value) in [("a", "1"), ("a", "2"), ("b", "3"), ("c", "4")] {
            message.append(name, HeaderValue::from_static(value));
        }
        message
    }

    fn texts<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<&'a str> {
        values.map(|value| value.to_str().expect("ASCII")).collect()
    }

    #[test]
    fn reads_see_the_edits_before_they_are_applied() {
        let (mut message, mut edits, mut bytes) = (message(), FieldEdits::default(), 1000);
        let room = Room { fields: 10, bytes: &mut bytes };
        edits.append(&message, room, "A", b"5").expect("fits");
        let room = Room { fields: 10, bytes: &mut bytes };
        edits.set(&message, room, "b", [&b"x"[..], b"y"].into_iter()).expect("fits");
        edits.delete("C").expect("allowed");
        let room = Room { fields: 10, bytes: &mut bytes };
        edits.append(&message, room, "c", b"z").expect("fits");
        assert_eq!(texts(edits.values(&message, "a")), ["1", "2", "5"]);
        assert_eq!(texts(edits.values(&message, "B")), ["x", "y"]);
        assert_eq!(texts(edits.values(&message, "c")), ["z"]);
        assert_eq!(texts(edits.values(&message, "d")), [""; 0]);
        assert_eq!(edits.all(&message).count(), 6);
        edits.apply(&mut message);
        assert_eq!(texts(message.get_all("a").iter()), ["1", "2", "5"]);
        assert_eq!(texts(message.get_all("b").iter()), ["x", "y"]);
        assert_eq!(texts(message.get_all("c").iter()), ["z"]);
    }

    #[test]
    fn a_refused_edit_changes_nothing() {
        let (message, mut edits, mut bytes) = (message(), FieldEdits::default(), 8);
        let long = Room { fields: 10, bytes: &mut bytes };
        assert_eq!(edits.append(&message, long, "d", b"12345678"), Err(Refusal::Size));
        let many = Room { fields: 4, bytes: &mut bytes };
        assert_eq!(edits.append(&message, many, "d", b"1"), Err(Refusal::Size));
        let bad = Room { fields: 10, bytes: &mut bytes };
        let values = [&b"1"[..], b"2\r\n"];
        assert_eq!(edits.set(&message, bad, "a", values.into_iter()), Err(Refusal::Syntax));
        assert_eq!(edits.all(&message).count(), 4);
        assert_eq!(bytes, 8);
    }

    proptest! {
        #[test]
        fn reads_and_apply_agree(steps in proptest::collection::vec((0..3_u8, 0..4_usize, 0..3_usize), 0..12)) {
            let (mut message, mut edits, mut bytes) = (message(), FieldEdits::default(), 1 << 16);
            for (step, name, count) in steps {
                let name = ["a", "b", "c", "d"][name];
                let room = Room { fields: 100, bytes: &mut bytes };
                match step {
                    0 => edits.append(&message, room, name, b"n"),
                    1 => edits.set(&message, room, name, std::iter::repeat_n(&b"s"[..], count)),
                    _ => edits.delete(name),
                }.expect("within the limits");
            }
            let read: Vec<Vec<HeaderValue>> = ["a", "b", "c", "d"]
                .map(|name| edits.values(&message, name).cloned().collect()).into();
            let (all, count) = (edits.all(&message).count(), edits.count(&message));
            edits.apply(&mut message);
            for (name, read) in ["a", "b", "c", "d"].into_iter().zip(read) {
                prop_assert_eq!(message.get_all(name).iter().cloned().collect::<Vec<_>>(), read);
            }
            prop_assert_eq!(message.len(), all);
            prop_assert_eq!(message.len(), count);
        }
    }
}
