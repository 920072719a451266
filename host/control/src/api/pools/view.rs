//! Pools as they are answered: the product guide's members first, then what we add.

use std::collections::BTreeMap;

use model::quota::Metric;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::store::{PoolReport, ShareReport};

/// Bytes of a GB.
const GB: u64 = 1 << 30;

/// The pools of a tenant.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct Pools {
    resource_sharing: Sharing,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResourceSharing")]
struct Sharing {
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_storage_pool: Option<StoragePool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_user_pool: Option<UserPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_api_call_pool: Option<CallsPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_ai_request_pool: Option<RequestsPool>,
}

#[derive(Serialize, JsonSchema)]
struct StoragePool {
    #[schemars(with = "f64")]
    total_allocation_gb: Gb,
    /// By slug; absent where every child uses the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_allocations: Option<BTreeMap<String, StorageShare>>,
    /// What all children use.
    #[schemars(with = "f64")]
    used_gb: Gb,
    /// Guaranteed shares in full, and use beyond them.
    #[schemars(with = "f64")]
    committed_gb: Gb,
}

#[derive(Serialize, JsonSchema)]
struct StorageShare {
    /// Guaranteed and at most this.
    #[schemars(with = "Option<f64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_gb: Option<Gb>,
    #[schemars(with = "Option<f64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    guaranteed_gb: Option<Gb>,
    #[schemars(with = "Option<f64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_gb: Option<Gb>,
    #[schemars(with = "f64")]
    used_gb: Gb,
}

#[derive(Serialize, JsonSchema)]
struct UserPool {
    total_seats: u64,
    utilized_seats: u64,
    /// By slug; absent where every child uses the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_allocations: Option<BTreeMap<String, UserShare>>,
    /// Guaranteed seats in full, and use beyond them.
    committed_seats: u64,
}

#[derive(Serialize, JsonSchema)]
struct UserShare {
    /// Guaranteed and at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_seats: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guaranteed_seats: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_seats: Option<u64>,
    used_seats: u64,
}

#[derive(Serialize, JsonSchema)]
struct CallsPool {
    total_calls_per_month: u64,
    /// By slug; absent where every child uses the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_allocations: Option<BTreeMap<String, CallsShare>>,
    /// What all children used in the present window.
    used_calls: u64,
    /// Guaranteed calls in full, and use beyond them.
    committed_calls: u64,
}

#[derive(Serialize, JsonSchema)]
struct CallsShare {
    /// Guaranteed and at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guaranteed_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_calls: Option<u64>,
    used_calls: u64,
}

#[derive(Serialize, JsonSchema)]
struct RequestsPool {
    total_requests_per_day: u64,
    /// By slug; absent where every child uses the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_allocations: Option<BTreeMap<String, RequestsShare>>,
    /// What all children used in the present window.
    used_requests: u64,
    /// Guaranteed requests in full, and use beyond them.
    committed_requests: u64,
}

#[derive(Serialize, JsonSchema)]
struct RequestsShare {
    /// Guaranteed and at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guaranteed_requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_requests: Option<u64>,
    used_requests: u64,
}

impl Pools {
    pub(super) fn new(reports: &BTreeMap<Metric, PoolReport>) -> Self {
        let shared_storage_pool = reports.get(&Metric::Storage).map(StoragePool::new);
        let shared_user_pool = reports.get(&Metric::Users).map(UserPool::new);
        let shared_api_call_pool = reports.get(&Metric::ApiCalls).map(CallsPool::new);
        let shared_ai_request_pool = reports.get(&Metric::AiRequests).map(RequestsPool::new);
        Self {
            resource_sharing: Sharing {
                shared_storage_pool,
                shared_user_pool,
                shared_api_call_pool,
                shared_ai_request_pool,
            },
        }
    }
}

impl StoragePool {
    fn new(report: &PoolReport) -> Self {
        Self {
            total_allocation_gb: Gb(report.total),
            child_allocations: shares(report, StorageShare::new),
            used_gb: Gb(report.used),
            committed_gb: Gb(report.committed),
        }
    }
}

impl StorageShare {
    fn new(report: &ShareReport) -> Self {
        let (allocated, guaranteed, max) = figures(report);
        Self {
            allocated_gb: allocated.map(Gb),
            guaranteed_gb: guaranteed.map(Gb),
            max_gb: max.map(Gb),
            used_gb: Gb(report.used),
        }
    }
}

impl UserPool {
    fn new(report: &PoolReport) -> Self {
        Self {
            total_seats: report.total,
            utilized_seats: report.used,
            child_allocations: shares(report, UserShare::new),
            committed_seats: report.committed,
        }
    }
}

impl UserShare {
    fn new(report: &ShareReport) -> Self {
        let (allocated_seats, guaranteed_seats, max_seats) = figures(report);
        Self { allocated_seats, guaranteed_seats, max_seats, used_seats: report.used }
    }
}

impl CallsPool {
    fn new(report: &PoolReport) -> Self {
        Self {
            total_calls_per_month: report.total,
            child_allocations: shares(report, CallsShare::new),
            used_calls: report.used,
            committed_calls: report.committed,
        }
    }
}

impl CallsShare {
    fn new(report: &ShareReport) -> Self {
        let (allocated_calls, guaranteed_calls, max_calls) = figures(report);
        Self { allocated_calls, guaranteed_calls, max_calls, used_calls: report.used }
    }
}

impl RequestsPool {
    fn new(report: &PoolReport) -> Self {
        Self {
            total_requests_per_day: report.total,
            child_allocations: shares(report, RequestsShare::new),
            used_requests: report.used,
            committed_requests: report.committed,
        }
    }
}

impl RequestsShare {
    fn new(report: &ShareReport) -> Self {
        let (allocated_requests, guaranteed_requests, max_requests) = figures(report);
        Self { allocated_requests, guaranteed_requests, max_requests, used_requests: report.used }
    }
}

fn shares<T>(report: &PoolReport, view: impl Fn(&ShareReport) -> T) -> Option<BTreeMap<String, T>> {
    let shares = report.shares.as_ref()?;
    Some(shares.iter().map(|share| (share.slug.clone(), view(share))).collect())
}

/// The guide's one figure where it says everything, else the two of the extended form.
fn figures(report: &ShareReport) -> (Option<u64>, Option<u64>, Option<u64>) {
    let share = report.share;
    if share.guaranteed == share.max {
        (Some(share.max), None, None)
    } else {
        (None, Some(share.guaranteed), Some(share.max))
    }
}

/// Bytes, shown in GB: whole where they are, else rounded up to two decimals.
struct Gb(u64);

impl Serialize for Gb {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(GB) {
            return out.serialize_u64(self.0 / GB);
        }
        let hundredths = (u128::from(self.0) * 100).div_ceil(u128::from(GB));
        out.serialize_f64(hundredths as f64 / 100.0)
    }
}
