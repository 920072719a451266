//! `tenant set`, `suspend`, `resume` and `move`.
//!
//! Invariant: each is sent once; `set` and `move` only onto the version that they started
//! from.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Named, view};
use crate::{
    client::{Call, ClientError, TenantName},
    commands::session::Session,
};

/// Arguments of `tenant suspend`.
#[derive(Debug, clap::Args)]
pub(super) struct Suspend {
    #[command(flatten)]
    tenant: Named,
    /// operator (unless given), unpaid, abuse, trial_expired.
    #[arg(long)]
    reason: Option<String>,
}

impl Suspend {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let id = self.tenant.id(session).await?;
        let body = self.reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
        let call = Call::post(&["admin", "tenants", &id, "suspend"]).body(body);
        session.print(&call, view::tenant).await
    }
}

/// Ends a suspension.
pub(super) async fn resume(session: &Session, tenant: &Named) -> Result<()> {
    let id = tenant.id(session).await?;
    session.print(&Call::post(&["admin", "tenants", &id, "resume"]), view::tenant).await
}

/// Arguments of `tenant set`.
#[derive(Debug, clap::Args)]
pub(super) struct Set {
    #[command(flatten)]
    tenant: Named,
    #[command(flatten)]
    changes: Changes,
    /// Refuse unless the tenant still has this version (`tenant show` prints it); without
    /// it, the one it has when the command starts.
    #[arg(long, value_name = "NUMBER")]
    if_version: Option<u64>,
}

/// What changes: at least one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Name of the organisation.
    #[arg(long)]
    name: Option<String>,
    /// Short name for people.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Where mail to its administrators goes.
    #[arg(long)]
    email: Option<String>,
    /// Another plan; its quotas are in force at once and no usage is forgotten.
    #[arg(long)]
    plan: Option<String>,
    /// Another residency group; moves the tenant's data.
    #[arg(long, value_name = "GROUP")]
    residency: Option<String>,
    /// A quota in place of the plan's, as max_users=12; max_users= is the plan's again.
    /// May be repeated.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = quota)]
    quota: Vec<(String, Value)>,
    /// Day of the month on which its quotas begin anew (1–31), from the end of the present
    /// month on.
    #[arg(long, value_name = "DAY")]
    quota_anchor_day: Option<u8>,
    /// A value that policies read, as tier=gold; tier= removes it. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, Value)>,
    /// A host of its own; may be repeated, and replaces those it had. "" removes all.
    #[arg(long, value_name = "HOST")]
    domain: Vec<String>,
}

fn quota(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=NUMBER, as max_users=12")?;
    let value = match value {
        "" => Value::Null,
        digits => digits
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| "must be a whole number, or nothing to remove it")?,
    };
    Ok((name.to_owned(), value))
}

fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE, as tier=gold")?;
    let value = if value.is_empty() { Value::Null } else { value.into() };
    Ok((name.to_owned(), value))
}

impl Changes {
    /// The JSON merge patch (RFC 7396).
    fn patch(self) -> Value {
        let mut patch = Map::new();
        for (name, value) in [
            ("organization_name", self.name),
            ("display_name", self.display_name),
            ("admin_email", self.email),
            ("plan", self.plan),
            ("data_residency", self.residency),
        ] {
            patch.extend(value.map(|value| (name.to_owned(), Value::from(value))));
        }
        let day = self.quota_anchor_day;
        patch.extend(day.map(|day| ("quota_anchor_day".to_owned(), Value::from(day))));
        for (name, members) in [("quota_overrides", self.quota), ("attributes", self.attribute)] {
            if !members.is_empty() {
                patch.insert(name.to_owned(), Value::Object(members.into_iter().collect()));
            }
        }
        if !self.domain.is_empty() {
            let hosts: Vec<_> = self.domain.into_iter().filter(|host| !host.is_empty()).collect();
            patch.insert("custom_domains".to_owned(), hosts.into());
        }
        Value::Object(patch)
    }
}

impl Set {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let id = self.tenant.id(session).await?;
        patch(session, &id, self.if_version, self.changes.patch()).await
    }
}

/// Patches the version that is asked for, or the one that the tenant has now.
async fn patch(session: &Session, id: &str, version: Option<u64>, patch: Value) -> Result<()> {
    let path = ["admin", "tenants", id];
    let etag = match version {
        Some(version) => Some(format!("\"{version}\"")),
        None => session.client.send(&Call::get(&path)).await?.etag,
    };
    let etag = etag.ok_or(ClientError::Unreadable("ETag"))?;
    session.print(&Call::patch(&path, patch).if_match(Some(etag)), view::tenant).await
}

/// Arguments of `tenant move`.
#[derive(Debug, clap::Args)]
pub(super) struct Move {
    #[command(flatten)]
    tenant: Named,
    #[command(flatten)]
    to: Place,
}

/// Where to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The new parent, by slug or id.
    #[arg(long, value_name = "TENANT")]
    parent: Option<TenantName>,
    /// No parent: the tenant becomes a root.
    #[arg(long)]
    root: bool,
}

impl Move {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let id = self.tenant.id(session).await?;
        let parent = match &self.to.parent {
            Some(parent) => Some(session.client.tenant_id(parent).await?),
            None => None,
        };
        patch(session, &id, None, json!({"parent_tenant_id": parent})).await
    }
}
