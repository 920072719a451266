//! JSONLogic with flagd's operators: compiling a rule, and running it.
//!
//! Invariant: nothing of one evaluation outlives it; its memory is one arena that is
//! freed with it.

use std::sync::LazyLock;

use datalogic_rs::{DataValue, Engine, EvaluationConfig, Logic, bumpalo::Bump};
use model::clock::UnixMs;
use serde_json::{Map, Value};

use super::{context, fractional::Fractional, sem_ver::SemVer, strings::Affix};

/// flagd's rules of comparison are lenient: comparing text with a list is false, not an
/// error.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::builder()
        .with_config(EvaluationConfig::default().with_loose_equality_errors(false))
        .add_operator("fractional", Fractional)
        .add_operator("sem_ver", SemVer)
        .add_operator("starts_with", Affix::Prefix)
        .add_operator("ends_with", Affix::Suffix)
        .build()
});

/// What a rule chose.
pub(super) enum Outcome {
    /// Nothing: the default variant.
    Default,
    /// A variant by name.
    Variant(String),
    /// The rule failed, and why.
    Failed(String),
}

/// Compiles a rule without references.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compile(rule: &Value) -> Result<Logic, String> {
    check_operators(rule)?;
    ENGINE.compile(rule.to_string().as_str()).map_err(|error| error.to_string())
}

/// An unknown operator is found now and not by the first request.
fn check_operators(rule: &Value) -> Result<(), String> {
    match rule {
        Value::Object(members) => {
            let (Some((name, arguments)), 1) = (members.iter().next(), members.len()) else {
                return Err(format!("an operation has one key, found {}", members.len()));
            };
            let known = ENGINE.has_custom_operator(name)
                || ENGINE.builtin_operator_names().any(|builtin| builtin == name);
            if known {
                check_operators(arguments)
            } else {
                Err(format!("unknown operator '{name}'"))
            }
        }
        Value::Array(items) => items.iter().try_for_each(check_operators),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Runs a rule over the caller's context with `$flagd` added.
pub(super) fn run(rule: &Logic, key: &str, context: &Map<String, Value>, now: UnixMs) -> Outcome {
    let arena = Bump::new();
    let input = context::build(key, context, now, &arena);
    match ENGINE.evaluate(rule, input, &arena) {
        Ok(DataValue::Null) => Outcome::Default,
        Ok(DataValue::String(variant)) => Outcome::Variant((*variant).to_owned()),
        Ok(DataValue::Bool(variant)) => Outcome::Variant(variant.to_string()),
        Ok(DataValue::Number(variant)) => Outcome::Variant(variant.to_string()),
        Ok(DataValue::Array(_)) => no_variant("a list"),
        Ok(DataValue::Object(_)) => no_variant("an object"),
        Err(error) => Outcome::Failed(format!("targeting: {error}")),
    }
}

fn no_variant(what: &str) -> Outcome {
    Outcome::Failed(format!("targeting: {what} names no variant"))
}
