//! The test-bed's steps, against [`Flags`].

use model::clock::UnixMs;
use serde_json::{Map, Value, json};

use super::gherkin::{Row, Scenario, Step};
use crate::flags::{Evaluation, FlagKind, Flags};

#[derive(Default)]
struct World {
    flag: Option<(String, FlagKind, Value)>,
    context: Map<String, Value>,
    got: Option<Evaluation>,
}

/// Runs one scenario.
///
/// # Errors
/// What came out instead.
pub(super) fn run(flags: &Flags, scenario: &Scenario) -> Result<(), String> {
    let mut world = World::default();
    scenario.steps.iter().try_for_each(|step| world.step(flags, step))
}

impl World {
    fn step(&mut self, flags: &Flags, step: &Step) -> Result<(), String> {
        let (words, arguments) = quoted(&step.text);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match (words.as_str(), arguments.as_slice()) {
            ("an evaluator", []) => Ok(()),
            (words, [key, fallback])
                if words.ends_with("-flag with key \"\" and a fallback value \"\"") =>
            {
                let kind = words.split_whitespace().nth(1).unwrap_or_default();
                let kind = kind.trim_end_matches("-flag");
                self.flag = Some(((*key).to_owned(), flag_kind(kind)?, typed(kind, fallback)?));
                Ok(())
            }
            ("a context containing a targeting key with value \"\"", [value]) => {
                self.add("targetingKey", json!(value))
            }
            ("a context containing a key \"\", with type \"\" and with value \"\"", [k, t, v]) => {
                self.add(k, typed(t, v)?)
            }
            (
                "a context containing a nested property with outer key \"\" and inner key \"\", with value \"\"",
                [outer, inner, value],
            ) => self.add(outer, json!({ *inner: value })),
            ("the flag was evaluated with details", []) => self.evaluate(flags),
            ("the resolved details value should be \"\"", [want]) => {
                let (_, kind, _) = self.flag.as_ref().ok_or("no flag")?;
                same("value", &self.got()?.value, &typed(&format!("{kind:?}"), want)?)
            }
            ("the reason should be \"\"", [want]) => {
                same("reason", &self.got()?.reason.as_str(), want)
            }
            ("the error-code should be \"\"", [want]) => {
                let code = self.got()?.error.as_ref().map(|(code, _)| code.as_str());
                same("error", &code, &Some(*want))
            }
            ("the resolved metadata should contain", []) => self.metadata(&step.table),
            ("the resolved metadata is empty", []) => {
                same("metadata", &self.got()?.metadata, &Map::new())
            }
            _ => Err(format!("unknown step: {}", step.text)),
        }
    }

    fn add(&mut self, key: &str, value: Value) -> Result<(), String> {
        self.context.insert(key.to_owned(), value);
        Ok(())
    }

    fn evaluate(&mut self, flags: &Flags) -> Result<(), String> {
        let (key, kind, fallback) = self.flag.as_ref().ok_or("no flag")?;
        self.got = Some(flags.evaluate(key, *kind, fallback, &self.context, UnixMs(0)));
        Ok(())
    }

    fn got(&self) -> Result<&Evaluation, String> {
        self.got.as_ref().ok_or_else(|| "not evaluated".to_owned())
    }

    fn metadata(&self, table: &[Row]) -> Result<(), String> {
        let (_, rows) = table.split_first().ok_or("no table")?;
        let got = self.got()?;
        rows.iter().try_for_each(|row| match row.as_slice() {
            [key, kind, value] => same(key, &got.metadata.get(key), &Some(&typed(kind, value)?)),
            _ => Err(format!("no row of metadata: {row:?}")),
        })
    }
}

fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
    what: &str,
    got: &T,
    want: &U,
) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what} is {got:?}, expected {want:?}")) }
}

fn flag_kind(name: &str) -> Result<FlagKind, String> {
    match name {
        "Boolean" => Ok(FlagKind::Boolean),
        "String" => Ok(FlagKind::String),
        "Integer" => Ok(FlagKind::Integer),
        "Float" => Ok(FlagKind::Float),
        "Object" => Ok(FlagKind::Object),
        _ => Err(format!("unknown type {name}")),
    }
}

fn typed(kind: &str, text: &str) -> Result<Value, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{text} is no {kind}: {error}");
    match flag_kind(kind)? {
        FlagKind::String | FlagKind::Any => Ok(json!(text)),
        FlagKind::Boolean => text.parse::<bool>().map(Value::from).map_err(|e| wrong(&e)),
        FlagKind::Integer => text.parse::<i64>().map(Value::from).map_err(|e| wrong(&e)),
        FlagKind::Float => text.parse::<f64>().map(Value::from).map_err(|e| wrong(&e)),
        FlagKind::Object => serde_json::from_str(text).map_err(|e| wrong(&e)),
    }
}

/// The step with empty quotes, and what was in them.
fn quoted(text: &str) -> (String, Vec<String>) {
    let (mut words, mut arguments, mut inside) = (String::new(), Vec::new(), None::<String>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, &mut inside) {
            ('"', None) => inside = Some(String::new()),
            ('"', Some(_)) => {
                arguments.extend(inside.take());
                words.push_str("\"\"");
            }
            ('\\', Some(argument)) => argument.extend(chars.next()),
            (c, Some(argument)) => argument.push(c),
            (c, None) => words.push(c),
        }
    }
    (words, arguments)
}
