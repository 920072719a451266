//! `leanvibe:policy/feature-flags`: flags evaluated in this process.
//!
//! What a rule reads of a request is borrowed from it. `targetingKey` is the subject of the
//! verified token, else the tenant's id: both are stable, so a fractional rollout gives
//! one caller one answer. Members: `targetingKey`, `tenant.{id,slug,plan,residency,region}`
//! and `client.{ip,country}`. What the guest adds wins, except over `tenant`: a policy
//! cannot pass for another tenant.
//!
//! Invariant: an evaluation answers the caller's default rather than failing.

use datalogic_rs::DataValue;
use model::policy::PolicyExchange;
use serde_json::Value;

use crate::{
    bindings::leanvibe::policy::feature_flags::{
        Context as Extra, ErrorCode as WitCode, EvaluationDetails, Host,
    },
    flags::{ErrorCode, Evaluation, Facts, FlagKind, Members, Verdict},
    limits::Capability,
    state::State,
};

/// The member that a policy's own context does not replace.
const TENANT: &str = "tenant";
const TARGETING_KEY: &str = "targetingKey";
const CLIENT: &str = "client";

/// What the host knows of the request, and what the guest adds.
struct Caller<'c> {
    exchange: Option<&'c PolicyExchange>,
    extra: &'c Extra,
}

impl Caller<'_> {
    /// Whether the guest says it itself.
    fn replaced(&self, name: &str) -> bool {
        name != TENANT && self.extra.iter().any(|(own, _)| own == name)
    }
}

impl Facts for Caller<'_> {
    fn add_to<'a>(&'a self, members: &mut Members<'a>) {
        // The last of several wins.
        for (at, (name, value)) in self.extra.iter().enumerate() {
            let again = self.extra.iter().skip(at + 1).any(|(later, _)| later == name);
            if name != TENANT && !again {
                members.add(name, DataValue::String(value));
            }
        }
        let Some(exchange) = self.exchange else { return };
        let tenant = &exchange.tenant.record.tenant;
        let id = members.own_text(&tenant.id.to_string());
        if !self.replaced(TARGETING_KEY) {
            members.add(TARGETING_KEY, exchange.subject.as_deref().map_or(id, DataValue::String));
        }
        let known = members.object(&[
            ("id", id),
            ("slug", DataValue::String(tenant.slug.as_str())),
            ("plan", DataValue::String(&tenant.plan)),
            ("residency", DataValue::String(&exchange.tenant.group.name)),
            ("region", DataValue::String(&exchange.tenant.home.name)),
        ]);
        members.add(TENANT, known);
        if !self.replaced(CLIENT) {
            let country = exchange.client_country.as_ref().and_then(|c| str::from_utf8(c).ok());
            let known = members.object(&[
                ("ip", members.own_text(&exchange.client_ip.to_string())),
                ("country", country.map_or(DataValue::Null, DataValue::String)),
            ]);
            members.add(CLIENT, known);
        }
    }
}

impl State {
    /// The flag's evaluation; `None` without a grant.
    fn evaluate(
        &mut self,
        key: &str,
        kind: FlagKind,
        extra: &Extra,
    ) -> wasmtime::Result<Option<Verdict<'_>>> {
        self.charge()?;
        if !self.context.grants.has(Capability::FeatureFlags) {
            return Ok(None);
        }
        let now = self.context.services.clock.now();
        let caller = Caller { exchange: self.call.as_ref().map(|call| &*call.exchange), extra };
        Ok(Some(self.context.flags.verdict(key, kind, &caller, now)))
    }

    fn value(
        &mut self,
        key: &str,
        kind: FlagKind,
        extra: &Extra,
    ) -> wasmtime::Result<Option<&Value>> {
        Ok(self.evaluate(key, kind, extra)?.and_then(|verdict| verdict.value))
    }
}

impl Host for State {
    fn boolean_value(
        &mut self,
        key: String,
        default: bool,
        extra: Extra,
    ) -> wasmtime::Result<bool> {
        let value = self.value(&key, FlagKind::Boolean, &extra)?;
        Ok(value.and_then(Value::as_bool).unwrap_or(default))
    }

    fn string_value(
        &mut self,
        key: String,
        default: String,
        extra: Extra,
    ) -> wasmtime::Result<String> {
        let value = self.value(&key, FlagKind::String, &extra)?;
        Ok(value.and_then(Value::as_str).map_or(default, str::to_owned))
    }

    fn integer_value(&mut self, key: String, default: i64, extra: Extra) -> wasmtime::Result<i64> {
        let value = self.value(&key, FlagKind::Integer, &extra)?;
        Ok(value.and_then(integer).unwrap_or(default))
    }

    fn float_value(&mut self, key: String, default: f64, extra: Extra) -> wasmtime::Result<f64> {
        let value = self.value(&key, FlagKind::Float, &extra)?;
        Ok(value.and_then(Value::as_f64).unwrap_or(default))
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
        Ok(match self.evaluate(&key, FlagKind::Any, &extra)? {
            Some(verdict) => details(verdict.with_default(&default)),
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
