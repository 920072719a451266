//! A value that must not appear in logs, errors or API answers.

use std::{fmt, sync::Arc};

/// Text whose `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value, where it is really needed.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Replaces every `{"$secret": "name"}` in a config by the secret of that name.
///
/// # Errors
/// The first name that is not in `secrets`.
pub fn resolve_references(
    value: &mut serde_json::Value,
    secrets: &std::collections::BTreeMap<String, Secret>,
) -> Result<bool, String> {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            if let (1, Some(Value::String(name))) = (members.len(), members.get("$secret")) {
                let secret = secrets.get(name).ok_or_else(|| name.clone())?;
                *value = Value::String(secret.expose().to_owned());
                return Ok(true);
            }
            members
                .values_mut()
                .try_fold(false, |any, v| Ok(resolve_references(v, secrets)? || any))
        }
        Value::Array(items) => {
            items.iter_mut().try_fold(false, |any, v| Ok(resolve_references(v, secrets)? || any))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(false),
    }
}
