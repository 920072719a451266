//! Reads the pools of a request, and says which field breaks a rule.

use std::collections::BTreeMap;

use model::{
    pool::{Fault, Share},
    problem::FieldError,
    quota::Metric,
};
use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::{ALLOCATIONS, SHARING, SPELLINGS, Spelling};
use crate::{
    api::{
        body::Document,
        fields::{Fields, Ruled},
        problem::ApiError,
    },
    store::{NewPool, PoolFault, PoolRule},
};

/// Shares of one pool: each is read with every claim from it.
const SHARES_MAX: usize = 1_000;
/// Largest pool, in stored units: what every JSON reader can hold exactly.
const TOTAL_MAX: u64 = (1 << 53) - 1;

/// The pools of a tenant; one that is left out is taken away.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `pools` reads")]
pub(in crate::api) struct PoolsBody {
    resource_sharing: SharingBody,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ResourceSharingBody")]
#[expect(dead_code, reason = "documents the shape that `pools` reads")]
struct SharingBody {
    shared_storage_pool: Option<StoragePoolBody>,
    shared_user_pool: Option<UserPoolBody>,
    shared_api_call_pool: Option<CallsPoolBody>,
    shared_ai_request_pool: Option<RequestsPoolBody>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `pool` reads")]
struct StoragePoolBody {
    #[schemars(range(max = 8_388_607))]
    total_allocation_gb: u64,
    /// By the slug or id of a child; without it every child uses the pool.
    child_allocations: Option<BTreeMap<String, StorageShareBody>>,
    /// Computed; accepted as it was answered.
    used_gb: Option<f64>,
    /// Computed; accepted as it was answered.
    committed_gb: Option<f64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `share` reads")]
struct StorageShareBody {
    /// Guaranteed and at most this.
    #[schemars(range(max = 8_388_607))]
    allocated_gb: Option<u64>,
    /// In the place of `allocated_gb`; 0 unless given.
    #[schemars(range(max = 8_388_607))]
    guaranteed_gb: Option<u64>,
    /// In the place of `allocated_gb`; the whole pool unless given.
    #[schemars(range(max = 8_388_607))]
    max_gb: Option<u64>,
    /// Computed; accepted as it was answered.
    used_gb: Option<f64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `pool` reads")]
struct UserPoolBody {
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    total_seats: u64,
    /// By the slug or id of a child; without it every child uses the pool.
    child_allocations: Option<BTreeMap<String, UserShareBody>>,
    /// Computed; accepted as it was answered.
    utilized_seats: Option<u64>,
    /// Computed; accepted as it was answered.
    committed_seats: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `share` reads")]
struct UserShareBody {
    /// Guaranteed and at most this.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    allocated_seats: Option<u64>,
    /// In the place of `allocated_seats`; 0 unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    guaranteed_seats: Option<u64>,
    /// In the place of `allocated_seats`; the whole pool unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    max_seats: Option<u64>,
    /// Computed; accepted as it was answered.
    used_seats: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `pool` reads")]
struct CallsPoolBody {
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    total_calls_per_month: u64,
    /// By the slug or id of a child; without it every child uses the pool.
    child_allocations: Option<BTreeMap<String, CallsShareBody>>,
    /// Computed; accepted as it was answered.
    used_calls: Option<u64>,
    /// Computed; accepted as it was answered.
    committed_calls: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `share` reads")]
struct CallsShareBody {
    /// Guaranteed and at most this.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    allocated_calls: Option<u64>,
    /// In the place of `allocated_calls`; 0 unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    guaranteed_calls: Option<u64>,
    /// In the place of `allocated_calls`; the whole pool unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    max_calls: Option<u64>,
    /// Computed; accepted as it was answered.
    used_calls: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `pool` reads")]
struct RequestsPoolBody {
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    total_requests_per_day: u64,
    /// By the slug or id of a child; without it every child uses the pool.
    child_allocations: Option<BTreeMap<String, RequestsShareBody>>,
    /// Computed; accepted as it was answered.
    used_requests: Option<u64>,
    /// Computed; accepted as it was answered.
    committed_requests: Option<u64>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `share` reads")]
struct RequestsShareBody {
    /// Guaranteed and at most this.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    allocated_requests: Option<u64>,
    /// In the place of `allocated_requests`; 0 unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    guaranteed_requests: Option<u64>,
    /// In the place of `allocated_requests`; the whole pool unless given.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    max_requests: Option<u64>,
    /// Computed; accepted as it was answered.
    used_requests: Option<u64>,
}

pub(super) fn pools(document: Document) -> Result<BTreeMap<Metric, NewPool>, ApiError> {
    let mut fields = Fields::new(document.members);
    let sharing = fields.required(SHARING, object);
    let mut pools = BTreeMap::new();
    if let Some(sharing) = sharing {
        let mut inner = Fields::new(sharing);
        for spelling in &SPELLINGS {
            if let Some(members) = inner.optional(spelling.pool, object) {
                let mut pool = Fields::new(members);
                if let Some(wanted) = spelling.read(&mut pool) {
                    pools.insert(spelling.metric, wanted);
                }
                inner.absorb(spelling.pool, pool);
            }
        }
        fields.absorb(SHARING, inner);
    }
    fields.finish()?;
    Ok(pools)
}

fn object(value: &Value) -> Ruled<Map<String, Value>> {
    value.as_object().cloned().ok_or_else(|| "must be an object".to_owned())
}

fn number(value: &Value) -> Ruled<()> {
    if value.is_number() { Ok(()) } else { Err("must be a number".to_owned()) }
}

impl Spelling {
    fn read(&self, fields: &mut Fields) -> Option<NewPool> {
        let total = fields.required(self.total, |value| self.amount(value));
        let allocations = fields.optional(ALLOCATIONS, |value| {
            object(value).and_then(|members| {
                let few = members.len() <= SHARES_MAX;
                few.then_some(members).ok_or(format!("may have at most {SHARES_MAX} members"))
            })
        });
        for computed in self.computed {
            fields.optional(computed, number);
        }
        let shares = allocations.map(|members| self.shares(fields, members, total));
        Some(NewPool { total: total?, shares })
    }

    fn shares(
        &self,
        fields: &mut Fields,
        members: Map<String, Value>,
        total: Option<u64>,
    ) -> Vec<(String, Share)> {
        let mut shares = Vec::with_capacity(members.len());
        for (child, value) in members {
            let name = format!("{ALLOCATIONS}.{child}");
            match object(&value) {
                Err(detail) => fields.reject(name, detail),
                Ok(members) => {
                    let mut inner = Fields::new(members);
                    let share = self.share(&mut inner, total);
                    fields.absorb(&name, inner);
                    shares.extend(share.map(|share| (child, share)));
                }
            }
        }
        shares
    }

    fn share(&self, fields: &mut Fields, total: Option<u64>) -> Option<Share> {
        fields.optional(self.used, number);
        let extended = fields.has(self.guaranteed) || fields.has(self.max);
        if fields.has(self.allocated) || !extended {
            if extended {
                for name in [self.guaranteed, self.max] {
                    if fields.has(name) {
                        fields.take(name);
                        fields.reject(name, format!("may not stand beside {}", self.allocated));
                    }
                }
            }
            let all = fields.required(self.allocated, |value| self.amount(value))?;
            return Some(Share { guaranteed: all, max: all });
        }
        let guaranteed = fields.optional(self.guaranteed, |value| self.amount(value));
        let max = fields.optional(self.max, |value| self.amount(value));
        Some(Share { guaranteed: guaranteed.unwrap_or(0), max: max.or(total).unwrap_or(0) })
    }

    /// A figure of the request in stored units.
    fn amount(&self, value: &Value) -> Ruled<u64> {
        let most = TOTAL_MAX / self.unit;
        let amount = value.as_u64().filter(|amount| *amount <= most);
        amount
            .map(|amount| amount * self.unit)
            .ok_or_else(|| format!("must be a whole number of {} from 0 to {most}", self.unit_name))
    }

    /// A stored figure for a person: as it was given, wherever it came from a request.
    fn shown(&self, amount: u64) -> String {
        if amount.is_multiple_of(self.unit) {
            format!("{} {}", amount / self.unit, self.unit_name)
        } else {
            format!("{:.2} {}", amount as f64 / self.unit as f64, self.unit_name)
        }
    }

    fn error(&self, fault: &PoolFault) -> FieldError {
        let pool = format!("{SHARING}.{}", self.pool);
        let field = match (&fault.member, fault.rule) {
            (Some(child), _) => format!("{pool}.{ALLOCATIONS}.{child}"),
            (None, PoolRule::Figures(Fault::AboveOwner { .. })) => format!("{pool}.{}", self.total),
            (None, _) => format!("{pool}.{ALLOCATIONS}"),
        };
        FieldError { field, detail: self.detail(fault.rule) }
    }

    fn detail(&self, rule: PoolRule) -> String {
        let shown = |amount| self.shown(amount);
        match rule {
            PoolRule::NoChild => {
                "is no child of this tenant: name a child by its slug or id".to_owned()
            }
            PoolRule::Twice => "has another share here, under its other name".to_owned(),
            PoolRule::Figures(fault) => match fault {
                Fault::AboveOwner { cap } => {
                    format!("may be at most the {} that this tenant may have itself", shown(cap))
                }
                Fault::AboveTotal { guaranteed } => {
                    format!(
                        "guarantees {} together, which is more than the pool",
                        shown(guaranteed)
                    )
                }
                Fault::AboveGuarantee { guaranteed, own } => format!(
                    "guarantees {} together; this tenant is guaranteed {} itself",
                    shown(guaranteed),
                    shown(own)
                ),
                Fault::Inverted { .. } => {
                    format!(
                        "guarantees more than it allows: {} above {}",
                        self.guaranteed, self.max
                    )
                }
                Fault::MaxAboveTotal { .. } => "allows more than the pool has".to_owned(),
                Fault::SubPoolTotal { total, .. } => format!(
                    "leaves the child less than its own pool of {}: shrink that first",
                    shown(total)
                ),
                Fault::SubPoolGuarantee { guaranteed, .. } => format!(
                    "guarantees less than the {} that the child guarantees to its own children",
                    shown(guaranteed)
                ),
            },
        }
    }
}

/// The fields of broken rules.
pub(super) fn errors(faults: Vec<PoolFault>) -> Vec<FieldError> {
    let error = |fault: &PoolFault| {
        let spelling = SPELLINGS.iter().find(|spelling| spelling.metric == fault.metric)?;
        Some(spelling.error(fault))
    };
    faults.iter().filter_map(error).collect()
}
