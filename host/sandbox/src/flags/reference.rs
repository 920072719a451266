//! `{"$ref": "name"}` in a rule, replaced by the shared rule of `$evaluators`.
//!
//! Called when definitions are loaded. Invariant: the result is bounded in depth and
//! size, whatever the definitions say: shared rules can refer to each other, and a
//! few lines of that would otherwise grow without end.

use serde_json::{Map, Value};

/// Shared rules inside shared rules. 8: nobody reads deeper ones; ends a cycle.
const DEPTH_MAX: usize = 8;
/// Values in one expanded rule. 10,000: bounds the compiled rule and its evaluation.
const NODES_MAX: usize = 10_000;

/// The rule with every reference replaced.
///
/// # Errors
/// The missing name, or the limit that was passed.
pub(super) fn expand(rule: &Value, evaluators: &Map<String, Value>) -> Result<Value, String> {
    Expansion { evaluators, nodes: 0 }.value(rule, 0)
}

struct Expansion<'a> {
    evaluators: &'a Map<String, Value>,
    nodes: usize,
}

impl Expansion<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<Value, String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(format!("more than {NODES_MAX} values after its references are replaced"));
        }
        match value {
            Value::Object(members) => match (members.len(), members.get("$ref")) {
                (1, Some(Value::String(name))) => self.shared(name, depth),
                (_, Some(_)) => Err("a \"$ref\" stands alone and names a rule".to_owned()),
                (_, None) => members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), self.value(value, depth)?)))
                    .collect::<Result<_, _>>()
                    .map(Value::Object),
            },
            Value::Array(items) => items
                .iter()
                .map(|item| self.value(item, depth))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value.clone()),
        }
    }

    fn shared(&mut self, name: &str, depth: usize) -> Result<Value, String> {
        if depth == DEPTH_MAX {
            return Err(format!("\"$ref\": \"{name}\" is nested deeper than {DEPTH_MAX}"));
        }
        let evaluators = self.evaluators;
        let rule = evaluators
            .get(name)
            .ok_or_else(|| format!("\"$ref\": \"{name}\" is not in $evaluators"))?;
        self.value(rule, depth + 1)
    }
}
