//! `leanvibe:policy/feature-flags`: flags evaluated in this process.
//!
//! The context of a request is built once per hook, by [`model::flags`]: `targetingKey`,
//! `tenant.{id,slug,plan,residency,region}` and `client.{ip,country}`. What the guest adds
//! wins, except over `tenant`: a policy cannot pass for another tenant.
//!
//! Invariant: an evaluation answers the caller's default rather than failing.

use model::{flags, policy::PolicyExchange};
use serde_json::{Map, Value};

use crate::{
    bindings::leanvibe::policy::feature_flags::{
        Context as Extra, ErrorCode as WitCode, EvaluationDetails, Host,
    },
    flags::{ErrorCode, Evaluation, FlagKind},
    limits::Capability,
    state::State,
};

impl State {
    /// The flag's evaluation; `None` without a grant.
    fn evaluate(
        &mut self,
        key: &str,
        kind: FlagKind,
        default: &Value,
        extra: Extra,
    ) -> wasmtime::Result<Option<Evaluation>> {
        self.charge()?;
        if !self.context.grants.has(Capability::FeatureFlags) {
            return Ok(None);
        }
        let now = self.context.services.clock.now();
        let Some(call) = self.call.as_mut() else {
            let context = with_extra(Map::new(), extra);
            return Ok(Some(self.context.flags.evaluate(key, kind, default, &context, now)));
        };
        let own = call.flag_context.get_or_insert_with(|| base(&call.exchange));
        let flags = &self.context.flags;
        Ok(Some(if extra.is_empty() {
            flags.evaluate(key, kind, default, own, now)
        } else {
            flags.evaluate(key, kind, default, &with_extra(own.clone(), extra), now)
        }))
    }

    fn value(
        &mut self,
        key: &str,
        kind: FlagKind,
        default: &Value,
        extra: Extra,
    ) -> wasmtime::Result<Option<Value>> {
        Ok(self.evaluate(key, kind, default, extra)?.map(|evaluation| evaluation.value))
    }
}

/// What the host knows of the request.
fn base(exchange: &PolicyExchange) -> Map<String, Value> {
    let (subject, tenant) = (exchange.subject.as_deref(), &exchange.tenant);
    flags::context(tenant, subject, exchange.client_ip, exchange.client_country)
}

fn with_extra(context: Map<String, Value>, extra: Extra) -> Map<String, Value> {
    flags::with_extra(context, extra.into_iter().map(|(name, value)| (name, Value::String(value))))
}

impl Host for State {
    fn boolean_value(
        &mut self,
        key: String,
        default: bool,
        extra: Extra,
    ) -> wasmtime::Result<bool> {
        let value = self.value(&key, FlagKind::Boolean, &default.into(), extra)?;
        Ok(value.and_then(|value| value.as_bool()).unwrap_or(default))
    }

    fn string_value(
        &mut self,
        key: String,
        default: String,
        extra: Extra,
    ) -> wasmtime::Result<String> {
        let fallback = Value::String(default);
        let value = self.value(&key, FlagKind::String, &fallback, extra)?.unwrap_or(fallback);
        Ok(match value {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    fn integer_value(&mut self, key: String, default: i64, extra: Extra) -> wasmtime::Result<i64> {
        let value = self.value(&key, FlagKind::Integer, &default.into(), extra)?;
        Ok(value.as_ref().and_then(integer).unwrap_or(default))
    }

    fn float_value(&mut self, key: String, default: f64, extra: Extra) -> wasmtime::Result<f64> {
        // JSON has no NaN: such a default never reaches the flag, and comes back as it is.
        let fallback = serde_json::Number::from_f64(default).map_or(Value::Null, Value::Number);
        let value = self.value(&key, FlagKind::Float, &fallback, extra)?;
        Ok(value.and_then(|value| value.as_f64()).unwrap_or(default))
    }

    fn details(
        &mut self,
        key: String,
        default_json: String,
        extra: Extra,
    ) -> wasmtime::Result<EvaluationDetails> {
        let Ok(default) = serde_json::from_str::<Value>(&default_json) else {
            self.charge()?;
            return Ok(failed(default_json, WitCode::ParseError, "the default is not JSON"));
        };
        Ok(match self.evaluate(&key, FlagKind::Any, &default, extra)? {
            Some(evaluation) => details(evaluation),
            None => failed(default_json, WitCode::General, "the policy has no grant for flags"),
        })
    }
}

/// An integer, also when the flag writes it as `5.0`.
fn integer(value: &Value) -> Option<i64> {
    let float = |number: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within the range that f64 is exact in"
        )]
        (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
    };
    value.as_i64().or_else(|| value.as_f64().and_then(float))
}

fn details(evaluation: Evaluation) -> EvaluationDetails {
    EvaluationDetails {
        value_json: evaluation.value.to_string(),
        variant_name: evaluation.variant,
        reason: evaluation.reason.as_str().to_owned(),
        error: evaluation.error.map(|(code, message)| (code.into(), message)),
        metadata_json: Value::Object(evaluation.metadata).to_string(),
    }
}

fn failed(value_json: String, code: WitCode, message: &str) -> EvaluationDetails {
    EvaluationDetails {
        value_json,
        variant_name: None,
        reason: "ERROR".into(),
        error: Some((code, message.to_owned())),
        metadata_json: "{}".into(),
    }
}

impl From<ErrorCode> for WitCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::FlagNotFound => Self::FlagNotFound,
            ErrorCode::ParseError => Self::ParseError,
            ErrorCode::TypeMismatch => Self::TypeMismatch,
            ErrorCode::General => Self::General,
        }
    }
}
