//! `leanvibe:policy/config`: the configuration the policy is bound with.
//!
//! Invariant: available everywhere, `configure` included, and the same in all calls of
//! a binding.

use serde_json::Value;

use crate::{bindings::leanvibe::policy::config::Host, state::State};

impl Host for State {
    fn json(&mut self) -> wasmtime::Result<String> {
        self.charge()?;
        Ok(self.context.config_json.as_ref().to_owned())
    }

    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.charge()?;
        Ok(self.context.config.get(&key).map(|member| match member {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }
}
