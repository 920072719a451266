//! `starts_with` and `ends_with`.
//!
//! Invariant: anything but two texts is null, never false, so that a flag whose variants
//! are called `true` and `false` falls to its default.

use datalogic_rs::{CustomOperator, DataValue, Result, bumpalo::Bump, operator::EvalContext};

/// The two operators.
pub(super) enum Affix {
    /// `starts_with`.
    Prefix,
    /// `ends_with`.
    Suffix,
}

impl CustomOperator for Affix {
    fn evaluate<'a>(
        &self,
        args: &[&'a DataValue<'a>],
        _: &mut EvalContext<'_, 'a>,
        arena: &'a Bump,
    ) -> Result<&'a DataValue<'a>> {
        Ok(arena.alloc(match args {
            [DataValue::String(text), DataValue::String(affix)] => DataValue::Bool(match self {
                Self::Prefix => text.starts_with(affix),
                Self::Suffix => text.ends_with(affix),
            }),
            _ => DataValue::Null,
        }))
    }
}
