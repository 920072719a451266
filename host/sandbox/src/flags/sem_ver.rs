//! `sem_ver`: compares versions by SemVer 2.0, with flagd's liberties.
//!
//! A leading `v`, missing parts, numbers and build metadata are taken; see
//! <https://flagd.dev/reference/custom-operations/semver-operation/>. Invariant: what
//! can't be read is null, never false.

use std::borrow::Cow;

use datalogic_rs::{CustomOperator, DataValue, Result, bumpalo::Bump, operator::EvalContext};
use semver::Version;

/// The operator.
pub(super) struct SemVer;

impl CustomOperator for SemVer {
    fn evaluate<'a>(
        &self,
        args: &[&'a DataValue<'a>],
        _: &mut EvalContext<'_, 'a>,
        arena: &'a Bump,
    ) -> Result<&'a DataValue<'a>> {
        Ok(arena.alloc(compare(args).map_or(DataValue::Null, DataValue::Bool)))
    }
}

fn compare(args: &[&DataValue<'_>]) -> Option<bool> {
    let [left, operator, right] = args else { return None };
    let (left, right) = (version(left)?, version(right)?);
    Some(match operator.as_str()? {
        "=" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "^" => left.major == right.major,
        "~" => left.major == right.major && left.minor == right.minor,
        _ => return None,
    })
}

fn version(value: &DataValue<'_>) -> Option<Version> {
    let text = match value {
        DataValue::String(text) => Cow::Borrowed(*text),
        DataValue::Number(number) => Cow::Owned(number.to_string()),
        _ => return None,
    };
    let text = text.strip_prefix(['v', 'V']).unwrap_or(&text);
    // Precedence ignores build metadata (SemVer 10); `Version` would compare it.
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (core, pre) = text.find('-').map_or((text, ""), |at| text.split_at(at));
    let missing = match core.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    Version::parse(&[core, missing, pre].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(left: &str, operator: &str, right: &str) -> Option<bool> {
        let [left, operator, right] = [left, operator, right].map(DataValue::String);
        compare(&[&left, &operator, &right])
    }

    #[test]
    fn versions_compare_by_precedence() {
        for (left, operator, right, want) in [
            ("1.2.3", "=", "v1.2.3+build", Some(true)),
            ("1", "=", "1.0.0", Some(true)),
            ("1.2-rc.1", "<", "1.2", Some(true)),
            ("1.10.0", ">", "1.9.0", Some(true)),
            ("1.2.3", "~", "1.2.9", Some(true)),
            ("1.3.0", "~", "1.2.9", Some(false)),
            ("1.3.0", "^", "1.2.9", Some(true)),
            ("1.0.0.0", "=", "1.0.0", None),
            ("1.0.0", "==", "1.0.0", None),
            ("", "=", "1.0.0", None),
        ] {
            assert_eq!(holds(left, operator, right), want, "{left} {operator} {right}");
        }
    }
}
