//! The flags as the data plane answers OpenFeature clients with them.
//!
//! Invariant: an answer has a value exactly when it has a variant; the rest is the client's
//! default.

use model::{
    clock::UnixMs,
    flags::{FlagAnswer, FlagFault, FlagSet},
};
use serde_json::{Map, Value};

use super::{FlagKind, Flags};

impl FlagSet for Flags {
    fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<_> = self.flags.keys().map(|key| &**key).collect();
        keys.sort_unstable();
        keys
    }

    fn answer(&self, key: &str, context: &Map<String, Value>, now: UnixMs) -> FlagAnswer {
        let found = self.evaluate(key, FlagKind::Any, &Value::Null, context, now);
        FlagAnswer {
            value: found.variant.is_some().then_some(found.value),
            variant: found.variant,
            reason: found.reason.as_str(),
            fault: found.error.map(|(code, detail)| FlagFault { code: code.as_str(), detail }),
            metadata: found.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_variants_value_or_none() {
        let text = r#"{ "flags": {
            "b": { "state": "ENABLED", "variants": { "x": 1.5 }, "defaultVariant": "x" },
            "a": { "state": "DISABLED", "variants": { "x": true }, "defaultVariant": "x" } } }"#;
        let flags = Flags::parse(text).expect("flags");
        assert_eq!(FlagSet::keys(&flags), ["a", "b"]);
        let answer = |key| flags.answer(key, &Map::new(), UnixMs(0));
        let on = answer("b");
        assert_eq!(
            (on.value, on.variant.as_deref(), on.reason),
            (Some(1.5.into()), Some("x"), "STATIC")
        );
        let off = answer("a");
        assert_eq!((off.value, off.variant, off.reason), (None, None, "DISABLED"));
        let none = answer("c");
        assert_eq!(none.fault.map(|fault| fault.code), Some("FLAG_NOT_FOUND"));
    }
}
