//! `leanvibe:policy/tenant`: whose request it is. Read-only.
//!
//! Invariant: everything here was resolved by the host before any policy ran. Outside a
//! hook there is no tenant, and every call traps.

use model::{gate::QuotaStatus, policy::ResolvedBy, tenant::Tenant};

use crate::{
    bindings::leanvibe::policy::tenant::{self as wit, Host, Resolution},
    state::State,
};

impl State {
    fn tenant(&mut self) -> wasmtime::Result<&Tenant> {
        Ok(&self.exchange()?.tenant.record.tenant)
    }

    fn exchange(&mut self) -> wasmtime::Result<&model::policy::PolicyExchange> {
        Ok(&self.hook("tenant")?.exchange)
    }
}

impl Host for State {
    fn id(&mut self) -> wasmtime::Result<String> {
        Ok(self.tenant()?.id.to_string())
    }

    fn slug(&mut self) -> wasmtime::Result<String> {
        Ok(self.tenant()?.slug.as_str().to_owned())
    }

    fn plan(&mut self) -> wasmtime::Result<String> {
        Ok(self.tenant()?.plan.clone())
    }

    fn resolved_by(&mut self) -> wasmtime::Result<Resolution> {
        Ok(match self.exchange()?.resolved_by {
            ResolvedBy::Subdomain => Resolution::Subdomain,
            ResolvedBy::CustomDomain => Resolution::CustomDomain,
            ResolvedBy::Token => Resolution::Token,
        })
    }

    fn residency(&mut self) -> wasmtime::Result<Vec<String>> {
        let group = &self.exchange()?.tenant.group;
        Ok(group.regions.iter().map(|region| region.name.as_ref().to_owned()).collect())
    }

    fn has_feature(&mut self, name: String) -> wasmtime::Result<bool> {
        Ok(self.exchange()?.tenant.plan.features.get(&name).is_some_and(|granted| *granted))
    }

    /// Takes a quota by its `RateLimit` name (`monthly-api`) or its metric (`api_calls`).
    fn quota(&mut self, name: String) -> wasmtime::Result<Option<wit::QuotaStatus>> {
        let exchange = self.exchange()?;
        let named = |quota: &&QuotaStatus| {
            quota.metric.rate_limit_name() == name || quota.metric.as_str() == name
        };
        let now = exchange.received_at;
        Ok(exchange.quotas.iter().find(named).map(|quota| status(quota, now)))
    }

    fn quotas(&mut self) -> wasmtime::Result<Vec<wit::QuotaStatus>> {
        let exchange = self.exchange()?;
        let now = exchange.received_at;
        Ok(exchange.quotas.iter().map(|quota| status(quota, now)).collect())
    }

    fn subject(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.exchange()?.subject.as_deref().map(str::to_owned))
    }

    fn claim(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.exchange()?.claims.get(&name).map(ToString::to_string))
    }

    /// Consents have names of their own, which no operator's attribute can take.
    fn attribute(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let tenant = self.tenant()?;
        let consent = tenant.gdpr.attribute(&name).map(str::to_owned);
        Ok(consent.or_else(|| tenant.attributes.get(&name).cloned()))
    }
}

/// The figures as they stood when the request arrived.
fn status(quota: &QuotaStatus, now: model::clock::UnixMs) -> wit::QuotaStatus {
    wit::QuotaStatus {
        name: quota.metric.rate_limit_name().to_owned(),
        limit: quota.limit,
        window_seconds: quota.window.seconds(),
        remaining: quota.remaining,
        resets_in_seconds: quota.window.seconds_left(now),
    }
}
