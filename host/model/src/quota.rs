//! The six quotas of a plan, their names in every notation, and the arithmetic on them.
//!
//! Used by the gate on every request and by the usage API. Invariant: one table
//! ([`Metric`]) holds every name, so that no two parts of the product spell a metric
//! differently.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From this plan figure on, a quota of [`Metric::ApiCalls`] means "unlimited" to the
/// guide's readers. It is still enforced as the number it is, but no `RateLimit` item
/// is sent for it.
pub const UNLIMITED_API_CALLS: u64 = 999_999_999;
/// The same for users and projects.
pub const UNLIMITED_COUNT: u64 = 999_999;
/// Bytes of the MB of quotas and usage figures.
pub const BYTES_PER_MB: u64 = 1 << 20;

/// Bytes as the MB of usage figures: rounded up, so that what is stored is never shown as
/// nothing.
#[must_use]
pub const fn whole_mb(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_MB)
}

/// What a plan allots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Admitted requests per calendar month, UTC.
    ApiCalls,
    /// Admitted requests on routes tagged `ai` per UTC day.
    AiRequests,
    /// Sessions alive at once.
    ConcurrentSessions,
    /// Stored MiB.
    Storage,
    /// Users of the tenant.
    Users,
    /// Projects of the tenant.
    Projects,
}

impl Metric {
    /// All of them, in the guide's order.
    pub const ALL: [Self; 6] = [
        Self::Users,
        Self::Projects,
        Self::ApiCalls,
        Self::Storage,
        Self::AiRequests,
        Self::ConcurrentSessions,
    ];

    /// The metrics that a tenant's backends report as levels.
    pub const REPORTED: [Self; 3] = [Self::Users, Self::Projects, Self::Storage];

    /// The metrics that the edge takes tokens for, with a window.
    pub const CONSUMABLE: [Self; 2] = [Self::ApiCalls, Self::AiRequests];

    /// Name in usage figures, metrics and storage: `api_calls`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiCalls => "api_calls",
            Self::AiRequests => "ai_requests",
            Self::ConcurrentSessions => "concurrent_sessions",
            Self::Storage => "storage",
            Self::Users => "users",
            Self::Projects => "projects",
        }
    }

    /// The metric of a name made by [`Metric::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }

    /// Name in a plan: `max_api_calls_per_month`.
    #[must_use]
    pub const fn quota_name(self) -> &'static str {
        match self {
            Self::ApiCalls => "max_api_calls_per_month",
            Self::AiRequests => "max_ai_requests_per_day",
            Self::ConcurrentSessions => "max_concurrent_sessions",
            Self::Storage => "max_storage_mb",
            Self::Users => "max_users",
            Self::Projects => "max_projects",
        }
    }

    /// Name in the `RateLimit` fields: `monthly-api`.
    #[must_use]
    pub const fn rate_limit_name(self) -> &'static str {
        match self {
            Self::ApiCalls => "monthly-api",
            Self::AiRequests => "daily-ai",
            Self::ConcurrentSessions => "concurrent-sessions",
            Self::Storage => "storage",
            Self::Users => "users",
            Self::Projects => "projects",
        }
    }

    /// The same of a share of a pool: `monthly-api-pool`.
    #[must_use]
    pub const fn pool_rate_limit_name(self) -> &'static str {
        match self {
            Self::ApiCalls => "monthly-api-pool",
            Self::AiRequests => "daily-ai-pool",
            other => other.rate_limit_name(),
        }
    }

    /// Title of a refusal, in the guide's words where it has them.
    #[must_use]
    pub const fn exceeded_title(self) -> &'static str {
        match self {
            Self::ApiCalls => "Monthly API call quota exceeded",
            Self::AiRequests => "Daily AI request quota exceeded",
            Self::ConcurrentSessions => "Concurrent session quota exceeded",
            Self::Storage => "Storage quota exceeded",
            Self::Users => "User quota exceeded",
            Self::Projects => "Project quota exceeded",
        }
    }
}

/// A small set of metrics; what one request needs tokens of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MetricSet(u8);

impl MetricSet {
    /// The set of one.
    #[must_use]
    pub const fn of(metric: Metric) -> Self {
        Self(1 << metric as u8)
    }

    /// The set with one more.
    #[must_use]
    pub const fn with(self, metric: Metric) -> Self {
        Self(self.0 | 1 << metric as u8)
    }

    /// Whether the metric is in the set.
    #[must_use]
    pub const fn contains(self, metric: Metric) -> bool {
        self.0 & (1 << metric as u8) != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A plan's quotas, with the guide's names and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Users.
    pub max_users: u64,
    /// Projects.
    pub max_projects: u64,
    /// Requests per calendar month, UTC.
    pub max_api_calls_per_month: u64,
    /// Stored MiB (2^20 bytes).
    pub max_storage_mb: u64,
    /// AI requests per UTC day.
    pub max_ai_requests_per_day: u64,
    /// Sessions at once.
    pub max_concurrent_sessions: u64,
}

impl Quotas {
    /// The quota of one metric.
    #[must_use]
    pub const fn of(&self, metric: Metric) -> u64 {
        match metric {
            Metric::ApiCalls => self.max_api_calls_per_month,
            Metric::AiRequests => self.max_ai_requests_per_day,
            Metric::ConcurrentSessions => self.max_concurrent_sessions,
            Metric::Storage => self.max_storage_mb,
            Metric::Users => self.max_users,
            Metric::Projects => self.max_projects,
        }
    }

    /// The quota of one metric in the unit in which levels are counted: bytes for storage,
    /// which a plan gives in MB.
    #[must_use]
    pub const fn level_limit(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Storage => self.max_storage_mb.saturating_mul(BYTES_PER_MB),
            other => self.of(other),
        }
    }

    /// Whether the figure stands for "unlimited" (no `RateLimit` item is sent).
    #[must_use]
    pub const fn shown_as_unlimited(&self, metric: Metric) -> bool {
        match metric {
            Metric::ApiCalls => self.max_api_calls_per_month >= UNLIMITED_API_CALLS,
            Metric::Users => self.max_users >= UNLIMITED_COUNT,
            Metric::Projects => self.max_projects >= UNLIMITED_COUNT,
            Metric::AiRequests | Metric::ConcurrentSessions | Metric::Storage => false,
        }
    }

    /// Sets the quota called `name` (a [`Metric::quota_name`]); false when there is none.
    pub fn set_by_name(&mut self, name: &str, value: u64) -> bool {
        let field = match name {
            "max_users" => &mut self.max_users,
            "max_projects" => &mut self.max_projects,
            "max_api_calls_per_month" => &mut self.max_api_calls_per_month,
            "max_storage_mb" => &mut self.max_storage_mb,
            "max_ai_requests_per_day" => &mut self.max_ai_requests_per_day,
            "max_concurrent_sessions" => &mut self.max_concurrent_sessions,
            _ => return false,
        };
        *field = value;
        true
    }
}

/// `used` as a percentage of `limit`, rounded half up: two decimals from 0.01 on, two
/// significant digits below. A quota of 0 is 0 % when unused, else 100 %.
#[must_use]
pub fn utilization_percent(used: u64, limit: u64) -> f64 {
    if limit == 0 {
        return if used == 0 { 0.0 } else { 100.0 };
    }
    if used == 0 {
        return 0.0;
    }
    // Exact integer rounding: percent = used * 100 / limit, scaled by 10^decimals.
    let hundred_used = u128::from(used) * 100;
    let limit = u128::from(limit);
    let mut scale: u128 = 100;
    if hundred_used * 100 < limit {
        // Below 0.01 %: the scale at which two digits stand before the point.
        while hundred_used * scale < limit * 10 {
            scale *= 10;
        }
    }
    let rounded = (hundred_used * scale * 2 + limit) / (limit * 2);
    rounded as f64 / scale as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_guides_utilisation_figures_come_out() {
        assert_eq!(utilization_percent(45, 999_999), 0.0045);
        assert_eq!(utilization_percent(23, 999_999), 0.0023);
        assert_eq!(utilization_percent(85_000, 999_999_999), 0.0085);
        assert_eq!(utilization_percent(8_500, 1_048_576), 0.81);
        assert_eq!(utilization_percent(750, 10_000), 7.5);
        assert_eq!(utilization_percent(12, 100), 12.0);
    }

    #[test]
    fn a_quota_of_zero_is_unused_or_full() {
        assert_eq!(utilization_percent(0, 0), 0.0);
        assert_eq!(utilization_percent(3, 0), 100.0);
    }

    proptest! {
        #[test]
        fn utilisation_is_within_half_a_unit_of_the_quotient(
            used in 0_u64..2_000_000_000, limit in 1_u64..2_000_000_000,
        ) {
            let exact = used as f64 * 100.0 / limit as f64;
            let shown = utilization_percent(used, limit);
            let unit = if exact >= 0.01 { 0.01 } else { exact / 10.0 };
            prop_assert!((shown - exact).abs() <= unit * 0.5000001 + 1e-12, "{shown} for {exact}");
        }
    }
}
