//! JSONLogic with flagd's operators: compiling a rule, and running it.
//!
//! Invariant: nothing of one evaluation outlives it; its memory is one arena, the thread's,
//! that is emptied before the next.

use std::{cell::RefCell, sync::LazyLock};

use datalogic_rs::{DataValue, Engine, EvaluationConfig, Logic, bumpalo::Bump};
use model::clock::UnixMs;
use serde_json::Value;

use super::{
    context::{self, Facts},
    fractional::Fractional,
    sem_ver::SemVer,
    strings::Affix,
};

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
pub(super) enum Outcome<'a> {
    /// Nothing: the default variant.
    Default,
    /// A variant by name.
    Variant(&'a str),
    /// The rule failed, and why.
    Failed(String),
}

/// Bytes of arena that a thread keeps between evaluations: what a rule over a caller's facts
/// takes is below one; a context of a client's own may take more, for the moment.
const ARENA_BYTES_KEPT: usize = 16 << 10;

thread_local! {
    static ARENA: RefCell<Bump> = RefCell::default();
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

/// Runs a rule over what is known of the caller, with `$flagd` added; what it chose lives as
/// long as `chosen` runs.
pub(super) fn run<R>(
    rule: &Logic,
    key: &str,
    facts: &dyn Facts,
    now: UnixMs,
    chosen: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    ARENA.with_borrow_mut(|arena| {
        if arena.allocated_bytes() > ARENA_BYTES_KEPT {
            *arena = Bump::new();
        }
        arena.reset();
        chosen(outcome(rule, context::build(key, facts, now, arena), arena))
    })
}

fn outcome<'a>(rule: &'a Logic, input: DataValue<'a>, arena: &'a Bump) -> Outcome<'a> {
    match ENGINE.evaluate(rule, input, arena) {
        Ok(DataValue::Null) => Outcome::Default,
        Ok(DataValue::String(variant)) => Outcome::Variant(variant),
        Ok(DataValue::Bool(variant)) => Outcome::Variant(if *variant { "true" } else { "false" }),
        Ok(DataValue::Number(variant)) => Outcome::Variant(arena.alloc_str(&variant.to_string())),
        Ok(DataValue::Array(_)) => no_variant("a list"),
        Ok(DataValue::Object(_)) => no_variant("an object"),
        Err(error) => Outcome::Failed(format!("targeting: {error}")),
    }
}

fn no_variant<'a>(what: &str) -> Outcome<'a> {
    Outcome::Failed(format!("targeting: {what} names no variant"))
}
