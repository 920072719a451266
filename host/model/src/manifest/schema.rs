//! The form of a plugin's config: a part of JSON Schema (2020-12) that is checked here.
//!
//! Read with the manifest; a config is checked when it is bound, before the plugin's own
//! `configure` sees it. Invariant: a keyword that would not be checked is refused, so a
//! schema never promises more than holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Levels of a schema: what a person writes into a manifest.
const DEPTH_MAX: usize = 8;
/// Problems that one check reports.
const PROBLEMS_MAX: usize = 32;
/// The member that stands for a tenant's secret, whose value is a string.
const SECRET_KEY: &str = "$secret";
/// Keywords that say something to people only.
const NOTES: [&str; 6] = ["$schema", "title", "description", "default", "examples", "deprecated"];
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];

/// A schema whose every keyword is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct ConfigSchema(Value);

/// A place in a schema or a config, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemaProblem {
    /// Dotted path; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl Default for ConfigSchema {
    /// Any object.
    fn default() -> Self {
        Self(json!({ "type": "object" }))
    }
}

impl ConfigSchema {
    /// Takes a schema of an object.
    ///
    /// # Errors
    /// Every keyword that is unknown here or misused.
    pub fn parse(value: Value) -> Result<Self, Vec<SchemaProblem>> {
        let mut problems = Problems::default();
        problems.schema("", &value, 0);
        if problems.0.is_empty() && value.get("type") != Some(&json!("object")) {
            problems.add("type", "must be \"object\": a config is one");
        }
        if problems.0.is_empty() { Ok(Self(value)) } else { Err(problems.0) }
    }

    /// Checks a config; `{"$secret": NAME}` counts as the string that it stands for.
    #[must_use]
    pub fn check(&self, config: &Value) -> Vec<SchemaProblem> {
        let mut problems = Problems::default();
        problems.value("", &self.0, config);
        problems.0
    }

    /// The schema as JSON.
    #[must_use]
    pub const fn as_value(&self) -> &Value {
        &self.0
    }
}

impl TryFrom<Value> for ConfigSchema {
    type Error = String;
    fn try_from(value: Value) -> Result<Self, String> {
        Self::parse(value).map_err(|problems| {
            let line = |problem: SchemaProblem| format!("{}: {}", problem.path, problem.reason);
            problems.into_iter().map(line).collect::<Vec<_>>().join("; ")
        })
    }
}

impl From<ConfigSchema> for Value {
    fn from(schema: ConfigSchema) -> Self {
        schema.0
    }
}

#[derive(Default)]
struct Problems(Vec<SchemaProblem>);

impl Problems {
    fn add(&mut self, path: &str, reason: impl Into<String>) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(SchemaProblem { path: path.to_owned(), reason: reason.into() });
        }
    }

    /// Walks a schema.
    fn schema(&mut self, path: &str, schema: &Value, depth: usize) {
        let Some(members) = schema.as_object() else {
            return self.add(path, "is no schema: a table is wanted");
        };
        if depth > DEPTH_MAX {
            return self.add(path, format!("is nested more than {DEPTH_MAX} deep"));
        }
        for (keyword, value) in members {
            let place = join(path, keyword);
            match keyword.as_str() {
                "type" if !value.as_str().is_some_and(|name| TYPES.contains(&name)) => {
                    self.add(&place, format!("is none of {}", TYPES.join(", ")));
                }
                "properties" => self.properties(&place, value, depth),
                "items" => self.schema(&place, value, depth + 1),
                "additionalProperties" if !value.is_boolean() => {
                    self.add(&place, "must be true or false here");
                }
                "required" if !is_list_of_texts(value) => {
                    self.add(&place, "must be a list of names");
                }
                "enum" if value.as_array().is_none_or(Vec::is_empty) => {
                    self.add(&place, "must be a list with an entry");
                }
                "minimum" | "maximum" if !value.is_number() => {
                    self.add(&place, "must be a number");
                }
                "minLength" | "maxLength" | "minItems" | "maxItems" if !value.is_u64() => {
                    self.add(&place, "must be a whole number from 0");
                }
                "type"
                | "additionalProperties"
                | "required"
                | "enum"
                | "const"
                | "minimum"
                | "maximum"
                | "minLength"
                | "maxLength"
                | "minItems"
                | "maxItems" => {}
                note if NOTES.contains(&note) => {}
                _ => self.add(&place, "is a keyword that is not checked here; leave it out"),
            }
        }
    }

    fn properties(&mut self, path: &str, value: &Value, depth: usize) {
        let Some(members) = value.as_object() else {
            return self.add(path, "must be a table of schemas");
        };
        for (name, schema) in members {
            self.schema(&join(path, name), schema, depth + 1);
        }
    }

    /// Holds a value against a schema that was walked before.
    fn value(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(rules) = schema.as_object() else { return };
        let wanted = rules.get("type").and_then(Value::as_str);
        if is_secret(value) {
            if wanted.is_some_and(|name| name != "string") {
                self.add(path, format!("is a secret, which is a string; {wanted:?} is wanted"));
            }
            return;
        }
        if let Some(wanted) = wanted.filter(|name| !has_type(value, name)) {
            return self.add(path, format!("is not of type {wanted}"));
        }
        self.fixed(path, rules, value);
        match value {
            Value::String(text) => {
                self.count(
                    path,
                    rules,
                    ["minLength", "maxLength"],
                    text.chars().count(),
                    "characters",
                );
            }
            Value::Array(items) => {
                self.count(path, rules, ["minItems", "maxItems"], items.len(), "entries");
                if let Some(schema) = rules.get("items") {
                    for (i, item) in items.iter().enumerate() {
                        self.value(&format!("{path}[{i}]"), schema, item);
                    }
                }
            }
            Value::Number(number) => self.range(path, rules, number.as_f64()),
            Value::Object(members) => self.members(path, rules, members),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn fixed(&mut self, path: &str, rules: &Map<String, Value>, value: &Value) {
        if let Some(values) = rules.get("enum").and_then(Value::as_array)
            && !values.contains(value)
        {
            let listed: Vec<String> = values.iter().map(Value::to_string).collect();
            self.add(path, format!("is none of {}", listed.join(", ")));
        }
        if let Some(only) = rules.get("const").filter(|only| *only != value) {
            self.add(path, format!("is not {only}"));
        }
    }

    fn count(
        &mut self,
        path: &str,
        rules: &Map<String, Value>,
        [min, max]: [&str; 2],
        found: usize,
        unit: &str,
    ) {
        let bound = |keyword: &str| rules.get(keyword).and_then(Value::as_u64);
        let found = found as u64;
        if let Some(min) = bound(min).filter(|min| found < *min) {
            self.add(path, format!("has {found} {unit}; at least {min} are wanted"));
        }
        if let Some(max) = bound(max).filter(|max| found > *max) {
            self.add(path, format!("has {found} {unit}; at most {max} are allowed"));
        }
    }

    fn range(&mut self, path: &str, rules: &Map<String, Value>, found: Option<f64>) {
        let bound = |keyword: &str| rules.get(keyword).and_then(Value::as_f64);
        let Some(found) = found else { return };
        if let Some(min) = bound("minimum").filter(|min| found < *min) {
            self.add(path, format!("is {found}; at least {min} is wanted"));
        }
        if let Some(max) = bound("maximum").filter(|max| found > *max) {
            self.add(path, format!("is {found}; at most {max} is allowed"));
        }
    }

    fn members(&mut self, path: &str, rules: &Map<String, Value>, members: &Map<String, Value>) {
        let properties = rules.get("properties").and_then(Value::as_object);
        let known = |name: &str| properties.and_then(|known| known.get(name));
        for name in rules.get("required").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !members.contains_key(name) {
                self.add(&join(path, name), "is missing");
            }
        }
        let closed = rules.get("additionalProperties") == Some(&Value::Bool(false));
        for (name, member) in members {
            match known(name) {
                Some(schema) => self.value(&join(path, name), schema, member),
                None if closed => self.add(&join(path, name), "is not a key of this config"),
                None => {}
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|entries| entries.iter().all(Value::is_string))
}

fn is_secret(value: &Value) -> bool {
    let only = value.as_object().filter(|members| members.len() == 1);
    only.is_some_and(|members| members.get(SECRET_KEY).is_some_and(Value::is_string))
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        // 3.0 is an integer to JSON Schema.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> ConfigSchema {
        let schema = json!({
            "type": "object",
            "required": ["greeting"],
            "additionalProperties": false,
            "properties": {
                "greeting": { "type": "string", "maxLength": 5 },
                "key": { "type": "string" },
                "percent": { "type": "integer", "minimum": 0, "maximum": 100 },
                "mode": { "enum": ["on", "off"] },
                "paths": { "type": "array", "minItems": 1, "items": { "type": "string" } },
            },
        });
        ConfigSchema::parse(schema).expect("a schema")
    }

    fn paths(config: &Value) -> Vec<String> {
        schema().check(config).into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_config_that_holds_passes() {
        let config = json!({
            "greeting": "héllo", "percent": 3.0, "mode": "on", "paths": ["/a"],
            "key": { "$secret": "signing" },
        });
        assert_eq!(schema().check(&config), []);
    }

    #[test]
    fn every_place_that_does_not_hold_is_named() {
        let config = json!({
            "percent": 101, "mode": "ajar", "paths": ["/a", 3], "colour": "red", "key": 7,
        });
        let mut found = paths(&config);
        found.sort();
        assert_eq!(found, ["colour", "greeting", "key", "mode", "paths[1]", "percent"]);
        assert_eq!(paths(&json!({ "greeting": "too long" })), ["greeting"]);
        assert_eq!(paths(&json!({ "greeting": "a", "paths": [] })), ["paths"]);
        assert_eq!(paths(&json!({ "greeting": "a", "percent": { "$secret": "x" } })), ["percent"]);
        assert_eq!(paths(&json!([])), [""]);
    }

    #[test]
    fn a_keyword_that_would_not_be_checked_is_refused() {
        let refused = |schema: Value| {
            let problems = ConfigSchema::parse(schema).expect_err("refused");
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert_eq!(refused(json!({ "type": "object", "oneOf": [] })), ["oneOf"]);
        assert_eq!(refused(json!({ "type": "string" })), ["type"]);
        assert_eq!(refused(json!({})), ["type"]);
        assert_eq!(refused(json!([])), [""]);
        let nested = json!({
            "type": "object",
            "properties": { "a": { "type": "text" }, "b": { "minLength": -1, "pattern": "x" } },
        });
        let mut found = refused(nested);
        found.sort();
        assert_eq!(found, ["properties.a.type", "properties.b.minLength", "properties.b.pattern"]);
    }

    #[test]
    fn a_deep_schema_is_refused() {
        let mut schema = json!({ "type": "array" });
        for _ in 0..20 {
            schema = json!({ "type": "array", "items": schema });
        }
        let schema = json!({ "type": "object", "properties": { "a": schema } });
        assert!(ConfigSchema::parse(schema).is_err());
    }
}
