//! The requests that a version is tried on, and the tenant that stands in for those of the
//! operator's plugins.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, uri::PathAndQuery};
use model::{
    clock::UnixMs,
    directory::TenantRecord,
    plan::Plan,
    policy::{Chain, PolicyExchange, RequestHead, ResolvedBy, ResponseHead},
    quota::Quotas,
    region::{Region, ResidencyGroup},
    snapshot::TenantEntry,
    tenant::{Status, Tenant, TenantId},
};

/// A request, and what came back for it.
#[derive(Debug)]
pub(super) struct Sample {
    method: Method,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    pub(super) body: &'static [u8],
    status: StatusCode,
}

/// What most APIs get: a page, a list, a write, something that is not there.
pub(super) const ALL: &[Sample] = &[
    Sample {
        method: Method::GET,
        path: "/",
        headers: &[("accept", "text/html"), ("user-agent", "probe")],
        body: b"",
        status: StatusCode::OK,
    },
    Sample {
        method: Method::GET,
        path: "/api/v1/items?limit=1&q=%C3%A4",
        headers: &[("accept", "application/json"), ("x-probe", "1"), ("cookie", "a=b")],
        body: b"",
        status: StatusCode::OK,
    },
    Sample {
        method: Method::POST,
        path: "/api/v1/items",
        headers: &[("content-type", "application/json")],
        body: b"{\"name\":\"probe\"}",
        status: StatusCode::CREATED,
    },
    Sample {
        method: Method::DELETE,
        path: "/api/v1/items/0",
        headers: &[],
        body: b"",
        status: StatusCode::NOT_FOUND,
    },
];

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Sample {
    pub(super) fn exchange(&self, tenant: &Arc<TenantEntry>) -> Box<PolicyExchange> {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Box::new(PolicyExchange {
            request: RequestHead {
                method: self.method.clone(),
                scheme: "https",
                authority: "probe.example".into(),
                path_and_query: PathAndQuery::from_static(self.path),
                headers: headers.collect(),
            },
            response: None,
            tenant: Arc::clone(tenant),
            resolved_by: ResolvedBy::Subdomain,
            subject: None,
            claims: Arc::default(),
            quotas: smallvec::SmallVec::new(),
            client_ip: IpAddr::from([192, 0, 2, 1]),
            client_country: None,
            id: "00000000-0000-7000-8000-000000000000".into(),
            received_at: UnixMs(1_700_000_000_000),
        })
    }

    pub(super) fn response(&self) -> ResponseHead {
        let mut headers = HeaderMap::new();
        let kind = HeaderName::from_static("content-type");
        headers.insert(kind, HeaderValue::from_static("application/json"));
        ResponseHead { status: self.status, headers, served_by: None }
    }
}

/// A tenant for the operator's plugins, of no plan and of a region that serves nothing.
pub(super) fn stand_in() -> Arc<TenantEntry> {
    const NAME: &str = "probe";
    let quotas = Quotas {
        max_users: 1,
        max_projects: 1,
        max_api_calls_per_month: 1,
        max_storage_mb: 1,
        max_ai_requests_per_day: 1,
        max_concurrent_sessions: 1,
    };
    let plan = Plan {
        name: NAME.into(),
        quotas,
        trial_quotas: BTreeMap::new(),
        features: BTreeMap::new(),
        offered: false,
        charge_on: Default::default(),
        on_authority_loss: Default::default(),
        rate: None,
        chain: Vec::new(),
        price: None,
        plugins: Default::default(),
    };
    let region = Arc::new(Region { name: NAME.into(), backends: BTreeMap::new() });
    let group = ResidencyGroup { name: NAME.into(), regions: vec![Arc::clone(&region)] };
    let record =
        TenantRecord { tenant: tenant(NAME), secrets: BTreeMap::new(), pools: Default::default() };
    Arc::new(TenantEntry::new(
        Arc::new(record),
        Arc::new(plan),
        Arc::new(group),
        region,
        Arc::new(Chain::default()),
        Vec::new(),
    ))
}

#[expect(clippy::expect_used, reason = "a constant that a test parses")]
fn tenant(name: &str) -> Tenant {
    Tenant {
        id: TenantId(uuid::Uuid::nil()),
        slug: name.parse().expect("a slug"),
        organization_name: name.to_owned(),
        display_name: name.to_owned(),
        admin_email: String::new(),
        plan: name.to_owned(),
        data_residency: name.to_owned(),
        parent: None,
        status: Status::Active,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: BTreeMap::new(),
        dated_quotas: BTreeMap::new(),
        quota_anchor: Default::default(),
        attributes: BTreeMap::new(),
        created_at: UnixMs(0),
        version: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_a_request_and_the_stand_in_a_tenant() {
        let tenant = stand_in();
        for sample in ALL {
            let exchange = sample.exchange(&tenant);
            assert_eq!(exchange.request.headers.len(), sample.headers.len(), "{sample}");
        }
    }
}
