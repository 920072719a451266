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

impl Pools {
    pub(super) fn new(reports: &BTreeMap<Metric, PoolReport>) -> Self {
        let shared_storage_pool = reports.get(&Metric::Storage).map(StoragePool::new);
        let shared_user_pool = reports.get(&Metric::Users).map(UserPool::new);
        Self { resource_sharing: Sharing { shared_storage_pool, shared_user_pool } }
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
