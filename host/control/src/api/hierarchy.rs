//! `GET /tenants/{tenant_id}/hierarchy` and `…/children`: a tenant's place in its family.
//!
//! A move is a `PATCH` of `parent_tenant_id`. Invariant: whoever asks sees those relatives
//! that its token may know of, and no others: a parent its subtree, a tenant itself, the
//! operator all.

use std::collections::BTreeMap;

use axum::{extract::State, http::Uri, response::Response};
use model::tenant::{Status, TenantId};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    caller::Caller,
    fields::{Fields, query},
    json,
    path::TenantPath,
    problem::{ApiError, Conflict},
    rules,
    tenants::list::{LIMIT_DEFAULT, LIMIT_MAX, cursor, position},
};
use crate::store::{Member, MoveError};

/// Which children.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `children` reads")]
pub(super) struct ChildrenQuery {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 unless given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

/// A tenant as its family sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FamilyMember")]
struct MemberView {
    #[schemars(with = "uuid::Uuid")]
    id: TenantId,
    slug: String,
    organization_name: String,
    plan: String,
    status: Status,
    /// The status in effect: a suspension or erasure of an ancestor applies to it too.
    effective_status: Status,
    /// Levels below the tenant that was asked about.
    depth: u32,
}

/// A tenant with its children.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FamilyTree")]
struct Node {
    #[serde(flatten)]
    member: MemberView,
    /// In the order of their creation.
    children: Vec<Node>,
}

/// A tenant's place and subtree.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Hierarchy {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    /// Those that the caller may know of, nearest first.
    #[schemars(with = "Vec<uuid::Uuid>")]
    ancestors: Vec<TenantId>,
    hierarchy: Node,
    /// Whether the tree is too large for one answer; the deepest levels are left out then,
    /// and are read by `children`.
    truncated: bool,
}

/// Children in the order of their creation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChildrenPage")]
pub(super) struct Children {
    items: Vec<MemberView>,
    next_cursor: Option<String>,
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            id: member.id,
            slug: member.slug,
            organization_name: member.organization_name,
            plan: member.plan,
            status: member.status,
            effective_status: member.effective_status,
            depth: member.depth,
        }
    }
}

pub(super) async fn read(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let family = api.store.family(id).await?.ok_or(ApiError::NotFound)?;
    let knows = |relative: TenantId| caller.rights_on(&api, relative).is_some();
    let mut members = family.members.into_iter();
    let itself = members.next().ok_or(ApiError::NotFound)?;
    let mut by_parent = BTreeMap::<TenantId, Vec<Member>>::new();
    for member in members.filter(|member| knows(member.id)) {
        if let Some(parent) = member.parent {
            by_parent.entry(parent).or_default().push(member);
        }
    }
    Ok(json(Hierarchy {
        tenant_id: id,
        ancestors: family.ancestors.into_iter().filter(|ancestor| knows(*ancestor)).collect(),
        hierarchy: node(itself, &mut by_parent),
        truncated: family.truncated,
    }))
}

/// A tree of at most eight levels, as the store keeps them.
fn node(member: Member, by_parent: &mut BTreeMap<TenantId, Vec<Member>>) -> Node {
    let children = by_parent.remove(&member.id).unwrap_or_default();
    let children = children.into_iter().map(|child| node(child, by_parent)).collect();
    Node { member: member.into(), children }
}

pub(super) async fn children(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(query(&uri)?);
    let after = fields.optional("cursor", |value| {
        position(rules::text(value)?).ok_or_else(|| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| rules::number(value, 1, LIMIT_MAX.into()));
    fields.finish()?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT);
    let page = api.store.children(id, after, limit).await?.ok_or(ApiError::NotFound)?;
    let known =
        page.children.into_iter().filter(|child| caller.rights_on(&api, child.id).is_some());
    Ok(json(Children {
        items: known.map(MemberView::from).collect(),
        next_cursor: page.next_after.map(cursor),
    }))
}

impl From<MoveError> for ApiError {
    fn from(error: MoveError) -> Self {
        let detail = error.to_string();
        match error {
            MoveError::NotFound => Self::NotFound,
            MoveError::VersionMismatch { .. } => Self::VersionMismatch,
            MoveError::Erased | MoveError::ParentUnknown | MoveError::TooDeep { .. } => {
                Self::field("parent_tenant_id", detail)
            }
            MoveError::Cycle(_) => Self::Conflict(Conflict {
                code: "hierarchy-cycle",
                title: "A tenant cannot stand below itself",
                detail,
            }),
            MoveError::Billed { .. } => Self::Conflict(Conflict {
                code: "billing-consolidated",
                title: "A billing consolidation holds the tenant where it is",
                detail,
            }),
            MoveError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
