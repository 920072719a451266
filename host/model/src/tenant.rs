//! A tenant: who it is, in what state, and whether the edge admits its requests.
//!
//! Read on every request (`admission`). Invariant: a status changes only along
//! [`Status::may_become`]; admission looks at timestamps itself, so a late job never
//! admits an expired trial.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{anchor::Anchor, clock::UnixMs, gdpr::GdprSettings, quota::Quotas};

/// Days of a trial, from creation. The product guide's figure.
pub const TRIAL_DAYS: u64 = 30;

/// A tenant's identity; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TenantId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Levels of a family, its root included: deep enough for every organisation chart seen,
/// shallow enough that an ancestor walk is free.
pub const FAMILY_DEPTH_MAX: u32 = 8;

/// Slugs that name parts of the service itself.
pub const RESERVED_SLUGS: [&str; 16] = [
    "www",
    "api",
    "admin",
    "app",
    "auth",
    "billing",
    "cdn",
    "console",
    "docs",
    "edge",
    "internal",
    "localhost",
    "mail",
    "root",
    "static",
    "status",
];

/// A tenant's DNS label: 1–63 characters of `a–z 0–9 -`, no hyphen at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(Box<str>);

/// Why a text is no slug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Empty, or longer than a DNS label.
    #[error("must have 1 to 63 characters")]
    Length,
    /// A character outside the alphabet.
    #[error("may hold only a-z, 0-9 and '-'")]
    Alphabet,
    /// Hyphen at an end.
    #[error("may not start or end with '-'")]
    Hyphen,
    /// In [`RESERVED_SLUGS`].
    #[error("is reserved for the service itself")]
    Reserved,
}

impl Slug {
    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = SlugError;
    fn from_str(text: &str) -> Result<Self, SlugError> {
        if text.is_empty() || text.len() > 63 {
            return Err(SlugError::Length);
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(SlugError::Alphabet);
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(SlugError::Hyphen);
        }
        if RESERVED_SLUGS.contains(&text) {
            return Err(SlugError::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;
    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0.into()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a tenant is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SuspendReason {
    /// The trial ended without a plan.
    TrialExpired,
    /// An invoice stayed open past its grace.
    Unpaid,
    /// The service was abused.
    Abuse,
    /// An operator's decision.
    Operator,
}

impl SuspendReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TrialExpired, Self::Unpaid, Self::Abuse, Self::Operator];

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrialExpired => "trial_expired",
            Self::Unpaid => "unpaid",
            Self::Abuse => "abuse",
            Self::Operator => "operator",
        }
    }

    /// The reason of a name made by [`SuspendReason::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Where a tenant stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Storage and keys are being made.
    Provisioning,
    /// 30 days from creation.
    Trial,
    /// In force.
    Active,
    /// An invoice is open.
    PastDue,
    /// Not served; the reason is on the tenant.
    Suspended,
    /// Data is going.
    Erasing,
    /// Only a tombstone is left.
    Erased,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Provisioning,
        Self::Trial,
        Self::Active,
        Self::PastDue,
        Self::Suspended,
        Self::Erasing,
        Self::Erased,
    ];

    /// The status of a name made by [`Status::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// The statuses that this one may change to by an operator's or a job's decision.
    #[must_use]
    pub const fn may_become(self) -> &'static [Self] {
        match self {
            Self::Provisioning => &[Self::Trial, Self::Active],
            Self::Trial => &[Self::Active, Self::Suspended, Self::Erasing],
            Self::Active => &[Self::PastDue, Self::Suspended, Self::Erasing],
            Self::PastDue => &[Self::Active, Self::Suspended, Self::Erasing],
            Self::Suspended => &[Self::Trial, Self::Active, Self::Erasing],
            Self::Erasing => &[Self::Erased],
            Self::Erased => &[],
        }
    }

    /// Whether it applies to the whole subtree of whoever has it.
    #[must_use]
    pub const fn applies_below(self) -> bool {
        matches!(self, Self::Suspended | Self::Erasing | Self::Erased)
    }

    /// The status in effect below ancestors with these statuses, nearest first: its own if
    /// that alone refuses service, else what the nearest such ancestor imposes.
    #[must_use]
    pub fn effective(self, ancestors: impl IntoIterator<Item = Self>) -> Self {
        if self == Self::Provisioning || self.applies_below() {
            return self;
        }
        ancestors.into_iter().find(|status| status.applies_below()).unwrap_or(self)
    }

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Trial => "trial",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Suspended => "suspended",
            Self::Erasing => "erasing",
            Self::Erased => "erased",
        }
    }
}

/// Why a resolved tenant is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Still provisioning: come back in a moment.
    #[error("the tenant is being provisioned")]
    Provisioning,
    /// The trial is over.
    #[error("the trial has expired")]
    TrialExpired,
    /// Unpaid, or past due beyond its grace.
    #[error("payment is required")]
    PaymentRequired,
    /// Suspended for another reason.
    #[error("the tenant is suspended")]
    Suspended,
    /// Erasing or erased.
    #[error("the tenant was erased")]
    Erased,
}

/// A tenant as stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tenant {
    /// Identity.
    pub id: TenantId,
    /// DNS label under the base domain.
    pub slug: Slug,
    /// Legal name.
    pub organization_name: String,
    /// Name to show; the organisation's name when none was given.
    pub display_name: String,
    /// Where notices go.
    pub admin_email: String,
    /// Name of the plan, as declared in `policies/`.
    pub plan: String,
    /// Name of the residency group, as declared in `policies/` (`us`, `eu`, …).
    pub data_residency: String,
    /// The member of the group that serves it while it can: chosen at the creation, and kept
    /// whatever the group's order becomes. `None` (of an earlier release) is the first member.
    pub home_region: Option<String>,
    /// What holds for the personal data in it.
    pub gdpr: GdprSettings,
    /// The parent, for a child organisation.
    pub parent: Option<TenantId>,
    /// Stored status.
    pub status: Status,
    /// Set while `status` is suspended.
    pub suspend_reason: Option<SuspendReason>,
    /// End of the trial.
    pub trial_ends_at: Option<UnixMs>,
    /// End of the grace of a past-due tenant.
    pub grace_ends_at: Option<UnixMs>,
    /// Exact hosts beside `<slug>.<base domain>`.
    pub custom_domains: Vec<String>,
    /// Quotas that replace the plan's, by metric.
    pub quota_overrides: BTreeMap<String, u64>,
    /// Those of its overrides with dates that are in force; they go over the ones without.
    pub dated_quotas: BTreeMap<String, u64>,
    /// On which day of the month its quotas begin anew.
    pub quota_anchor: Anchor,
    /// Operator-defined attributes that policies may read.
    pub attributes: BTreeMap<String, String>,
    /// Creation time.
    pub created_at: UnixMs,
    /// Rises with every change.
    pub version: u64,
}

impl Tenant {
    /// Whether a request of this tenant may go on at `now`, by its own status. The
    /// statuses of its ancestors are the snapshot's business.
    ///
    /// # Errors
    /// The reason, which decides the answer.
    pub fn admission(&self, now: UnixMs) -> Result<(), NotAdmitted> {
        match self.status {
            Status::Provisioning => Err(NotAdmitted::Provisioning),
            Status::Trial => match self.trial_ends_at {
                Some(end) if now >= end => Err(NotAdmitted::TrialExpired),
                _ => Ok(()),
            },
            Status::Active => Ok(()),
            Status::PastDue => match self.grace_ends_at {
                Some(end) if now < end => Ok(()),
                _ => Err(NotAdmitted::PaymentRequired),
            },
            Status::Suspended => Err(match self.suspend_reason {
                Some(SuspendReason::TrialExpired) => NotAdmitted::TrialExpired,
                Some(SuspendReason::Unpaid) => NotAdmitted::PaymentRequired,
                Some(SuspendReason::Abuse | SuspendReason::Operator) | None => {
                    NotAdmitted::Suspended
                }
            }),
            Status::Erasing | Status::Erased => Err(NotAdmitted::Erased),
        }
    }

    /// The plan's quotas with this tenant's own in their place.
    #[must_use]
    pub fn effective_quotas(&self, plan: &Quotas) -> Quotas {
        let mut quotas = *plan;
        for (name, value) in self.quota_overrides.iter().chain(&self.dated_quotas) {
            quotas.set_by_name(name, *value);
        }
        quotas
    }
}
