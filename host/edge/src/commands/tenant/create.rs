//! `tenant create`.

use anyhow::Result;
use serde_json::{Map, Value};

use super::view;
use crate::{
    client::{Call, TenantName},
    commands::session::Session,
};

/// Arguments of `tenant create`.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Name in the tenant's address, <slug>.<base domain>; never given to another tenant.
    #[arg(long)]
    slug: String,
    /// Name of the organisation.
    #[arg(long, value_name = "NAME")]
    organization: String,
    /// Short name for people; the organisation's unless given.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Where mail to its administrators goes.
    #[arg(long)]
    email: String,
    /// One of the declared plans: developer, team, enterprise, …
    #[arg(long)]
    plan: String,
    /// Where its data may be: us, eu, uk, ca, au. A child inherits its parent's.
    #[arg(long, value_name = "GROUP")]
    residency: Option<String>,
    /// The region of that group that serves it for good; the group's first unless given.
    #[arg(long, value_name = "REGION", requires = "residency")]
    home_region: Option<String>,
    /// Parent tenant, by slug or id.
    #[arg(long, value_name = "TENANT")]
    parent: Option<TenantName>,
    /// Day of the month on which its quotas begin anew (1–31); a child has its parent's
    /// unless given, others 1.
    #[arg(long, value_name = "DAY")]
    quota_anchor_day: Option<u8>,
    /// Makes a repetition safe: the same key and fields get the first answer.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Create {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let parent = match &self.parent {
            Some(parent) => Some(session.client.tenant_id(parent).await?),
            None => None,
        };
        let call = Call::post(&["admin", "tenants"])
            .idempotency_key(self.idempotency_key.clone())
            .body(self.body(parent));
        session.print(&call, view::tenant).await
    }

    fn body(self, parent: Option<String>) -> Value {
        let members = [
            ("organization_name", Some(self.organization)),
            ("display_name", self.display_name),
            ("slug", Some(self.slug)),
            ("admin_email", Some(self.email)),
            ("plan", Some(self.plan)),
            ("data_residency", self.residency),
            ("home_region", self.home_region),
            ("parent_tenant_id", parent),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name, value?.into())));
        let day = self.quota_anchor_day.map(|day| ("quota_anchor_day", Value::from(day)));
        let named = given.chain(day).map(|(name, value)| (name.to_owned(), value));
        Value::Object(named.collect::<Map<_, _>>())
    }
}
