//! Who is charged: a few tenants, each for one thing that may go wrong.

use model::quota::Metric;

/// A tenant of the run.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    /// Its slug, and its plan's.
    pub name: &'static str,
    /// Calls a month.
    pub calls: u64,
    /// AI requests a day.
    pub ai: u64,
    /// Share of its requests that are AI requests, in percent.
    pub ai_percent: u64,
    /// Share of its requests that the backend answers with 503, in percent.
    pub failing_percent: u64,
    /// Whether failures are charged too.
    pub charged_on_admission: bool,
    /// How much of the load is its.
    pub weight: u64,
    /// Of 101 of its requests, how many go to the first edge; the rest is spread.
    pub skewed: bool,
    /// Whether its limit changes during the run.
    pub changing: bool,
}

const PLAIN: Tenant = Tenant {
    name: "",
    calls: 0,
    ai: 1_000_000,
    ai_percent: 0,
    failing_percent: 0,
    charged_on_admission: false,
    weight: 1,
    skewed: false,
    changing: false,
};

/// All of them. Limits are such that each is used up within half of a run.
pub const TENANTS: [Tenant; 7] = [
    Tenant { name: "tiny", calls: 40, ..PLAIN },
    Tenant { name: "small", calls: 700, ..PLAIN },
    Tenant { name: "large", calls: 6_000, weight: 4, ..PLAIN },
    Tenant { name: "thinking", calls: 1_200, ai: 400, ai_percent: 60, ..PLAIN },
    Tenant { name: "failing", calls: 1_500, failing_percent: 30, ..PLAIN },
    Tenant {
        name: "strict",
        calls: 1_500,
        failing_percent: 30,
        charged_on_admission: true,
        ..PLAIN
    },
    Tenant { name: "changing", calls: 1_500, skewed: true, changing: true, ..PLAIN },
];

/// The metrics that a request of a kind is charged for.
#[must_use]
pub const fn metrics(ai: bool) -> &'static [Metric] {
    if ai { &[Metric::ApiCalls, Metric::AiRequests] } else { &[Metric::ApiCalls] }
}

impl Tenant {
    /// Its quota of a metric at the start.
    #[must_use]
    pub const fn quota(&self, metric: Metric) -> u64 {
        match metric {
            Metric::AiRequests => self.ai,
            _ => self.calls,
        }
    }

    /// The metrics that it is watched for: those that its load can use up.
    #[must_use]
    pub const fn watched(&self) -> &'static [Metric] {
        metrics(self.ai_percent > 0)
    }
}

/// `plans.toml`: a plan for each.
#[must_use]
pub fn plans() -> String {
    let plan = |tenant: &Tenant| {
        let charge_on = if tenant.charged_on_admission { "admission" } else { "answered" };
        format!(
            "[[plan]]\nname = \"{}\"\ncharge_on = \"{charge_on}\"\n[plan.quotas]\n\
             max_users = 1\nmax_projects = 1\nmax_storage_mb = 1\nmax_concurrent_sessions = 1\n\
             max_api_calls_per_month = {}\nmax_ai_requests_per_day = {}\n\n",
            tenant.name, tenant.calls, tenant.ai
        )
    };
    TENANTS.iter().map(plan).chain([crate::visitors::plans()]).collect()
}
