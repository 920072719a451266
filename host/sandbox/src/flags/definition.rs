//! Reading flagd's JSON: shape, types and references, checked before anything is served.
//!
//! Called when `policies/flags.json` is loaded. Invariant: a flag that exists has at
//! least one variant, all variants are of one type, and its default variant is one of
//! them.

use datalogic_rs::Logic;
use serde_json::{Map, Value};

use super::{
    Flags, engine,
    evaluation::{ErrorCode, FlagKind, Reason, Verdict},
    reference,
};

/// Bytes of one definition file. 4 MiB: some 10,000 flags; parsing it stays below 100 ms.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// Why definitions were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagsError {
    /// Not JSON, or not an object of the expected members.
    #[error("{0}")]
    File(String),
    /// At least one flag is wrong.
    #[error("{}", join(.0))]
    Flags(Vec<FlagProblem>),
}

/// What is wrong with one flag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("flag '{flag}': {member}: {reason}")]
pub struct FlagProblem {
    /// Key of the flag.
    pub flag: String,
    /// Member of its definition.
    pub member: &'static str,
    /// What is wrong and what is expected.
    pub reason: String,
}

fn join(problems: &[FlagProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A flag, checked and compiled.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) enabled: bool,
    pub(super) variants: Map<String, Value>,
    pub(super) default_variant: Option<Box<str>>,
    pub(super) targeting: Targeting,
    pub(super) metadata: Map<String, Value>,
}

/// The rule of a flag.
#[derive(Debug)]
pub(super) enum Targeting {
    /// There is none.
    None,
    /// Compiled.
    Rule(Box<Logic>),
    /// It can't be compiled, and why.
    Broken(String),
}

impl Flag {
    /// The value of a variant, when it is of the type asked for.
    pub(super) fn resolve(&self, variant: &str, kind: FlagKind, reason: Reason) -> Verdict<'_> {
        let Some((variant, value)) = self.variants.get_key_value(variant) else {
            let message = format!("the targeting chose '{variant}', which is no variant");
            return Verdict::error(ErrorCode::General, message, &self.metadata);
        };
        if !kind.admits(value) {
            let message = format!("variant '{variant}' holds {}, not {kind:?}", type_name(value));
            return Verdict::error(ErrorCode::TypeMismatch, message, &self.metadata);
        }
        Verdict {
            value: Some(value),
            variant: Some(variant),
            reason,
            error: None,
            metadata: &self.metadata,
        }
    }
}

/// Parses a file; problems of single flags come back beside the good ones.
pub(super) fn parse(text: &str) -> Result<(Flags, Vec<FlagProblem>), FlagsError> {
    let file = |reason: String| FlagsError::File(reason);
    if text.len() > TEXT_BYTES_MAX {
        return Err(file(format!("more than {TEXT_BYTES_MAX} bytes")));
    }
    let mut root: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| file(error.to_string()))?;
    if let Some(key) =
        root.keys().find(|key| !["$schema", "$evaluators", "flags", "metadata"].contains(&&***key))
    {
        return Err(file(format!("unknown key '{key}'")));
    }
    let mut object = |key: &str| match root.remove(key) {
        None => Ok(Map::new()),
        Some(Value::Object(members)) => Ok(members),
        Some(other) => {
            Err(FlagsError::File(format!("{key}: expected an object, found {}", type_name(&other))))
        }
    };
    let (evaluators, definitions) = (object("$evaluators")?, object("flags")?);
    let mut flags = Flags { metadata: object("metadata")?, ..Flags::default() };
    check_metadata(&flags.metadata).map_err(|reason| file(format!("metadata: {reason}")))?;
    let mut problems = Vec::new();
    for (key, definition) in definitions {
        match flag(definition, &evaluators, &flags.metadata) {
            Ok(flag) => {
                flags.flags.insert(key.into(), flag);
            }
            Err((member, reason)) => problems.push(FlagProblem { flag: key, member, reason }),
        }
    }
    Ok((flags, problems))
}

type Refusal = (&'static str, String);

fn flag(
    definition: Value,
    evaluators: &Map<String, Value>,
    set_metadata: &Map<String, Value>,
) -> Result<Flag, Refusal> {
    let Value::Object(mut members) = definition else {
        return Err((
            "definition",
            format!("expected an object, found {}", type_name(&definition)),
        ));
    };
    let enabled = match members.remove("state") {
        Some(Value::String(state)) if state == "ENABLED" => true,
        Some(Value::String(state)) if state == "DISABLED" => false,
        _ => return Err(("state", "must be \"ENABLED\" or \"DISABLED\"".to_owned())),
    };
    let variants = variants(members.remove("variants"))?;
    let default_variant = match members.remove("defaultVariant") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if variants.contains_key(&name) => Some(name.into_boxed_str()),
        Some(other) => return Err(("defaultVariant", format!("{other} is no variant"))),
    };
    let mut metadata = set_metadata.clone();
    match members.remove("metadata") {
        None => {}
        Some(Value::Object(own)) => {
            check_metadata(&own).map_err(|reason| ("metadata", reason))?;
            metadata.extend(own);
        }
        Some(_) => return Err(("metadata", "must be an object".to_owned())),
    }
    let targeting = targeting(members.remove("targeting"), evaluators);
    match members.keys().next() {
        Some(key) => Err(("definition", format!("unknown key '{key}'"))),
        None => Ok(Flag { enabled, variants, default_variant, targeting, metadata }),
    }
}

fn variants(value: Option<Value>) -> Result<Map<String, Value>, Refusal> {
    let Some(Value::Object(variants)) = value else {
        return Err(("variants", "must be an object".to_owned()));
    };
    let mut types = variants.values().map(type_name);
    let Some(first) = types.next() else {
        return Err(("variants", "must not be empty".to_owned()));
    };
    if !["a boolean", "a string", "a number", "an object"].contains(&first) {
        return Err(("variants", format!("a variant may not hold {first}")));
    }
    match types.find(|other| *other != first) {
        Some(other) => Err(("variants", format!("must be of one type; found {first} and {other}"))),
        None => Ok(variants),
    }
}

fn check_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    match metadata.iter().find(|(_, v)| !(v.is_boolean() || v.is_string() || v.is_number())) {
        Some((key, value)) => Err(format!("'{key}' may not hold {}", type_name(value))),
        None => Ok(()),
    }
}

fn targeting(rule: Option<Value>, evaluators: &Map<String, Value>) -> Targeting {
    let rule = match rule {
        None | Some(Value::Null) => return Targeting::None,
        Some(Value::Object(members)) if members.is_empty() => return Targeting::None,
        Some(rule) => rule,
    };
    match reference::expand(&rule, evaluators).and_then(|rule| engine::compile(&rule)) {
        Ok(logic) => Targeting::Rule(Box::new(logic)),
        Err(reason) => Targeting::Broken(reason),
    }
}

const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
