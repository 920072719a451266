//! Who may do what on the control API: roles, rights, and the scopes of a token.
//!
//! Read once per API request. A role gives rights on its own tenant and on those below it;
//! a token's scopes can only take some of them away. Invariant: nothing here depends on
//! which endpoint asks, so that a right means the same everywhere. To add a right, add it
//! to [`Right`] and to the roles that have it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! rights {
    ($($(#[doc = $doc:literal])+ $right:ident = $scope:literal,)*) => {
        /// Something that a caller may do; each endpoint asks for one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Right {
            $($(#[doc = $doc])+ $right,)*
        }

        impl Right {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$right,)*];

            /// The name of the scope that stands for it: `usage:read`.
            #[must_use]
            pub const fn scope(self) -> &'static str {
                match self { $(Self::$right => $scope,)* }
            }
        }
    };
}

rights! {
    /// Create tenants.
    TenantCreate = "tenant:create",
    /// List tenants.
    TenantList = "tenant:list",
    /// Read a tenant.
    TenantRead = "tenant:read",
    /// Change anything of a tenant.
    TenantChange = "tenant:change",
    /// Change a tenant's plan.
    TenantPlan = "tenant:plan",
    /// Suspend and resume a tenant.
    TenantStatus = "tenant:status",
    /// Give a tenant another parent.
    TenantMove = "tenant:move",
    /// List data-plane keys.
    KeysRead = "keys:read",
    /// Issue and revoke data-plane keys.
    KeysManage = "keys:manage",
    /// List tokens of this API.
    TokensRead = "tokens:read",
    /// Issue, rotate and revoke tokens of this API.
    TokensManage = "tokens:manage",
    /// Read usage and trends.
    UsageRead = "usage:read",
    /// Report levels and claim from them.
    UsageReport = "usage:report",
    /// Read alert settings and events.
    AlertsRead = "alerts:read",
    /// Change alert settings.
    AlertsManage = "alerts:manage",
    /// Read billing settings and invoices.
    BillingRead = "billing:read",
    /// Change billing settings.
    BillingManage = "billing:manage",
    /// Issue invoices.
    InvoicesIssue = "invoices:issue",
    /// Read pools and shares.
    PoolsRead = "pools:read",
    /// Change pools and shares.
    PoolsManage = "pools:manage",
    /// Read a tenant's audit entries.
    AuditRead = "audit:read",
    /// Read a tenant's health.
    HealthRead = "health:read",
    /// Read plugins and download them.
    PluginsRead = "plugins:read",
    /// Upload, activate, set and remove plugins.
    PluginsManage = "plugins:manage",
    /// Read what belongs to the installation.
    PlatformRead = "platform:read",
    /// Change what belongs to the installation.
    PlatformManage = "platform:manage",
}

impl JsonSchema for Right {
    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = Self::ALL.iter().map(|right| right.scope()).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}

impl Right {
    /// The right of a scope's name.
    #[must_use]
    pub fn from_scope(scope: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|right| right.scope() == scope)
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u32);

impl Rights {
    /// None.
    pub const NONE: Self = Self(0);

    /// Every right there is.
    pub const ALL: Self = Self::of(Right::ALL);

    /// These.
    #[must_use]
    pub const fn of(rights: &[Right]) -> Self {
        let mut set = 0;
        let mut rest = rights;
        while let [right, more @ ..] = rest {
            set |= 1 << *right as u8;
            rest = more;
        }
        Self(set)
    }

    /// Whether the right is one of them.
    #[must_use]
    pub const fn contains(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.iter().copied().filter(move |right| self.contains(*right))
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The operator: everything, on every tenant.
    Admin,
    /// A tenant that manages those below it.
    ParentAdmin,
    /// A tenant that manages itself.
    TenantAdmin,
    /// A program of a tenant: what its scopes say, and nothing else.
    Service,
}

/// How a tenant relates to the tenant of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same.
    Own,
    /// It lies below, at any depth.
    Below,
}

/// What a tenant may do about itself.
const OWN: Rights = Rights::of(&[
    Right::TenantRead,
    Right::KeysRead,
    Right::KeysManage,
    Right::TokensRead,
    Right::TokensManage,
    Right::UsageRead,
    Right::AlertsRead,
    Right::AlertsManage,
    Right::BillingRead,
    Right::PoolsRead,
    Right::AuditRead,
    Right::HealthRead,
    Right::PluginsRead,
    Right::PluginsManage,
]);

/// What a parent may do about itself.
const PARENT: Rights = Rights::of(&[
    Right::TenantCreate,
    Right::TenantList,
    Right::TenantRead,
    Right::UsageRead,
    Right::AlertsRead,
    Right::BillingRead,
    Right::BillingManage,
    Right::PoolsRead,
    Right::PoolsManage,
    Right::AuditRead,
    Right::HealthRead,
    Right::PluginsRead,
    Right::PluginsManage,
]);

/// What a parent may do about the tenants below it.
const PARENT_BELOW: Rights = Rights::of(&[
    Right::TenantCreate,
    Right::TenantRead,
    Right::TenantPlan,
    Right::TokensRead,
    Right::TokensManage,
    Right::UsageRead,
    Right::BillingRead,
    Right::PoolsRead,
    Right::PoolsManage,
    Right::HealthRead,
    Right::PluginsRead,
    Right::PluginsManage,
]);

/// What a program may be given: the operator's own rights are not among them.
const SERVICE: Rights = Rights::of(&[
    Right::TenantRead,
    Right::KeysRead,
    Right::KeysManage,
    Right::UsageRead,
    Right::UsageReport,
    Right::AlertsRead,
    Right::BillingRead,
    Right::PoolsRead,
    Right::AuditRead,
    Right::HealthRead,
    Right::PluginsRead,
    Right::PluginsManage,
]);

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::ParentAdmin, Self::TenantAdmin, Self::Service];

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ParentAdmin => "parent-admin",
            Self::TenantAdmin => "tenant-admin",
            Self::Service => "service",
        }
    }

    /// The role of a name made by [`Role::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// What the role may do at most about a tenant that relates so to the token's.
    #[must_use]
    pub const fn rights(self, relation: Relation) -> Rights {
        match (self, relation) {
            (Self::Admin, _) => Rights::ALL,
            (Self::ParentAdmin, Relation::Own) => PARENT,
            (Self::ParentAdmin, Relation::Below) => PARENT_BELOW,
            (Self::TenantAdmin, Relation::Own) => OWN,
            (Self::Service, Relation::Own) => SERVICE,
            (Self::TenantAdmin | Self::Service, Relation::Below) => Rights::NONE,
        }
    }

    /// What the role does not have itself, but may give to programs of its tenant: what they
    /// report is theirs to count.
    #[must_use]
    pub const fn gives(self) -> Rights {
        match self {
            Self::TenantAdmin => Rights::of(&[Right::UsageReport]),
            Self::Admin | Self::ParentAdmin | Self::Service => Rights::NONE,
        }
    }

    /// Every right that a token of the role may have, on whichever tenant: the scopes that
    /// may be asked for.
    #[must_use]
    pub const fn rights_at_most(self) -> Rights {
        let own = self.rights(Relation::Own);
        Rights(own.0 | self.rights(Relation::Below).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_survives_its_scope_and_a_role_its_name() {
        for right in Right::ALL {
            assert_eq!(Right::from_scope(right.scope()), Some(*right));
            assert!(Rights::of(&[*right]).contains(*right));
        }
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.as_str()), Some(role));
        }
        assert_eq!(Rights::ALL.iter().count(), Right::ALL.len());
    }

    #[test]
    fn only_the_operator_changes_plans_of_itself_statuses_and_places() {
        use Right::{InvoicesIssue, PlatformManage, TenantChange, TenantMove, TenantStatus};
        let operators = [TenantChange, TenantStatus, TenantMove, PlatformManage, InvoicesIssue];
        for role in [Role::ParentAdmin, Role::TenantAdmin, Role::Service] {
            for right in operators {
                assert!(!role.rights_at_most().contains(right), "{role:?} {right:?}");
            }
            assert!(!role.rights(Relation::Own).contains(Right::TenantPlan), "{role:?}");
        }
    }

    #[test]
    fn a_tenant_does_not_report_its_own_usage_and_a_parent_issues_tokens_below_it_only() {
        assert!(!Role::TenantAdmin.rights(Relation::Own).contains(Right::UsageReport));
        assert!(Role::ParentAdmin.rights(Relation::Below).contains(Right::TokensManage));
        assert!(!Role::ParentAdmin.rights(Relation::Own).contains(Right::TokensManage));
        assert!(Role::Service.rights(Relation::Below).is_empty());
    }
}
