//! Feature flags with flagd semantics, evaluated inside the edge.
//!
//! Definitions are flagd JSON (`policies/flags.json`), parsed and compiled once per
//! publish; [`Flags::evaluate`] is called by the `feature-flags` functions of a plugin,
//! never blocks and does no IO. A new custom operator is one file beside
//! [`fractional`](self) and one line in `engine.rs`.
//!
//! Invariant: an evaluation never fails. What goes wrong is a reason and an error code
//! beside the caller's default, as OpenFeature wants it.

mod context;
mod definition;
mod engine;
mod evaluation;
mod fractional;
mod murmur3;
mod reference;
mod sem_ver;
mod set;
mod strings;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use model::clock::UnixMs;
use serde_json::{Map, Value};

pub(crate) use self::{
    context::{Facts, Members},
    evaluation::Verdict,
};
use self::{
    definition::{Flag, Targeting},
    engine::Outcome,
};
pub use self::{
    definition::{FlagProblem, FlagsError},
    evaluation::{ErrorCode, Evaluation, FlagKind, Reason},
};

/// A set of flag definitions, compiled. The default one has no flag.
#[derive(Debug, Default)]
pub struct Flags {
    flags: HashMap<Box<str>, Flag>,
    metadata: Map<String, Value>,
}

impl Flags {
    /// Parses and compiles flagd JSON. Refuses what flagd's schema refuses, and rules
    /// that flagd would only find broken when it evaluates them.
    ///
    /// # Errors
    /// Every problem found, each with the key of its flag.
    pub fn parse(text: &str) -> Result<Self, FlagsError> {
        let (flags, mut problems) = definition::parse(text)?;
        problems.extend(flags.broken());
        problems.sort();
        if problems.is_empty() { Ok(flags) } else { Err(FlagsError::Flags(problems)) }
    }

    /// Like [`Flags::parse`], but keeps a flag whose targeting is broken: evaluating it
    /// answers `PARSE_ERROR`, as flagd does. For definitions from outside, which must not
    /// lose all flags to one.
    ///
    /// # Errors
    /// Every problem that is not a targeting rule's.
    pub fn parse_tolerant(text: &str) -> Result<Self, FlagsError> {
        let (flags, problems) = definition::parse(text)?;
        if problems.is_empty() { Ok(flags) } else { Err(FlagsError::Flags(problems)) }
    }

    fn broken(&self) -> impl Iterator<Item = FlagProblem> {
        self.flags.iter().filter_map(|(key, flag)| match &flag.targeting {
            Targeting::Broken(reason) => Some(FlagProblem {
                flag: key.to_string(),
                member: "targeting",
                reason: reason.clone(),
            }),
            Targeting::None | Targeting::Rule(_) => None,
        })
    }

    /// Evaluates one flag. `context` holds `targetingKey` and whatever else rules may
    /// read; `now` becomes `$flagd.timestamp`. The value is `default` whenever the flag
    /// has none to give.
    #[must_use]
    pub fn evaluate(
        &self,
        key: &str,
        kind: FlagKind,
        default: &Value,
        context: &Map<String, Value>,
        now: UnixMs,
    ) -> Evaluation {
        self.verdict(key, kind, context, now).with_default(default)
    }

    /// The same without a copy of anything.
    pub(crate) fn verdict(
        &self,
        key: &str,
        kind: FlagKind,
        facts: &dyn Facts,
        now: UnixMs,
    ) -> Verdict<'_> {
        let Some(flag) = self.flags.get(key) else {
            let message = format!("there is no flag '{key}'");
            return Verdict::error(ErrorCode::FlagNotFound, message, &self.metadata);
        };
        let metadata = &flag.metadata;
        if !flag.enabled {
            return Verdict::without_variant(Reason::Disabled, metadata);
        }
        let default = |reason| match flag.default_variant.as_deref() {
            Some(variant) => flag.resolve(variant, kind, reason),
            None => Verdict::without_variant(Reason::Default, metadata),
        };
        match &flag.targeting {
            Targeting::None => default(Reason::Static),
            Targeting::Broken(reason) => {
                Verdict::error(ErrorCode::ParseError, reason.clone(), metadata)
            }
            Targeting::Rule(rule) => engine::run(rule, key, facts, now, |outcome| match outcome {
                Outcome::Default => default(Reason::Default),
                Outcome::Variant(variant) => flag.resolve(variant, kind, Reason::TargetingMatch),
                Outcome::Failed(message) => {
                    Verdict::error(ErrorCode::ParseError, message, metadata)
                }
            }),
        }
    }
}
