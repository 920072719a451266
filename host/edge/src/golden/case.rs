//! A golden case as written, and the exchange it stands for.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{
    clock::UnixMs,
    directory::TenantRecord,
    policy::{Chain, PolicyExchange, RequestHead, ResolvedBy, ResponseHead},
    secret::Secret,
    snapshot::TenantEntry,
    tenant::{Slug, Status, Tenant, TenantId},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::declare::Declarations;

use super::expect::Expect;

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// A sentence.
    pub name: String,
    /// Whose request.
    pub tenant: TenantPart,
    /// The request.
    pub request: RequestPart,
    /// Merged over the policy's config.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Present: the response hook runs.
    pub response: Option<ResponsePart>,
    /// What must come out.
    pub expect: Expect,
}

/// `[tenant]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantPart {
    slug: Slug,
    plan: String,
    group: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
}

impl TenantPart {
    pub(super) fn secrets(&self) -> BTreeMap<String, Secret> {
        self.secrets
            .iter()
            .map(|(name, value)| (name.clone(), Secret::new(value.as_str())))
            .collect()
    }
}

/// `[request]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestPart {
    #[serde(default = "get")]
    method: String,
    path: String,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    country: Option<String>,
    client_ip: Option<IpAddr>,
    subject: Option<String>,
    received_at_ms: Option<u64>,
    /// Runs the body hook too, when there is one.
    pub body: Option<String>,
}

fn get() -> String {
    "GET".into()
}

/// `[response]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponsePart {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Case {
    /// The exchange that the policy sees.
    pub(super) fn exchange(&self, declared: &Declarations) -> Result<Box<PolicyExchange>, String> {
        let request = &self.request;
        let country: Option<[u8; 2]> = match &request.country {
            Some(code) => {
                Some(code.as_bytes().try_into().map_err(|_| "request.country: two letters")?)
            }
            None => None,
        };
        let response = match &self.response {
            Some(part) => Some(ResponseHead {
                status: StatusCode::from_u16(part.status).map_err(|e| e.to_string())?,
                headers: headers(&part.headers)?,
                served_by: None,
            }),
            None => None,
        };
        let host =
            request.host.clone().unwrap_or_else(|| format!("{}.localhost", self.tenant.slug));
        Ok(Box::new(PolicyExchange {
            request: RequestHead {
                method: request.method.parse::<Method>().map_err(|e| e.to_string())?,
                scheme: "http",
                authority: host.into(),
                path_and_query: request.path.parse().map_err(|e| format!("request.path: {e}"))?,
                headers: headers(&request.headers)?,
            },
            response,
            tenant: Arc::new(self.entry(declared)?),
            resolved_by: ResolvedBy::Subdomain,
            subject: request.subject.clone().map(Into::into),
            claims: Arc::default(),
            quotas: smallvec::SmallVec::new(),
            client_ip: request.client_ip.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            client_country: country,
            id: "00000000-0000-7000-8000-000000000000".into(),
            received_at: UnixMs(request.received_at_ms.unwrap_or(1_700_000_000_000)),
        }))
    }

    fn entry(&self, declared: &Declarations) -> Result<TenantEntry, String> {
        let part = &self.tenant;
        let plan = declared.plans.get(&part.plan).ok_or("tenant.plan: no such plan")?;
        let group = declared.groups.get(&part.group).ok_or("tenant.group: no such group")?;
        let home = group.regions.first().ok_or("tenant.group: has no region")?;
        let tenant = Tenant {
            id: TenantId(uuid::Uuid::from_u128(1)),
            slug: part.slug.clone(),
            organization_name: part.slug.to_string(),
            display_name: part.slug.to_string(),
            admin_email: format!("admin@{}.example", part.slug),
            plan: part.plan.clone(),
            data_residency: part.group.clone(),
            home_region: None,
            gdpr: Default::default(),
            parent: None,
            status: Status::Active,
            suspend_reason: None,
            trial_ends_at: None,
            grace_ends_at: None,
            custom_domains: Vec::new(),
            quota_overrides: BTreeMap::new(),
            dated_quotas: BTreeMap::new(),
            quota_anchor: Default::default(),
            attributes: part.attributes.clone(),
            created_at: UnixMs(0),
            version: 1,
        };
        Ok(TenantEntry::new(
            Arc::new(TenantRecord { tenant, secrets: part.secrets(), pools: Default::default() }),
            Arc::clone(plan),
            Arc::clone(group),
            Arc::clone(home),
            Arc::new(Chain::default()),
            Vec::new(),
        ))
    }
}

fn headers(pairs: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    pairs
        .iter()
        .map(|(name, value)| {
            let parsed = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
            match parsed {
                (Ok(name), Ok(value)) => Ok((name, value)),
                _ => Err(format!("headers.{name}: is no header field")),
            }
        })
        .collect()
}
