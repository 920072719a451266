//! Whose plugins a command is about, and the path of the API that has them.

use anyhow::Result;

use crate::{
    client::TenantName,
    commands::session::{ServerArgs, Session},
};

/// Server and scope.
#[derive(Debug, clap::Args)]
#[group(id = "scope", required = true, multiple = false)]
pub(super) struct ScopeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Plugins of this tenant: its slug or id.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantName>,
    /// The operator's plugins for tenants of this plan.
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// The operator's plugins for every tenant.
    #[arg(long)]
    platform: bool,
}

/// The plugins of a scope, on a server.
pub(super) struct Plugins {
    pub(super) session: Session,
    path: Vec<String>,
}

impl ScopeArgs {
    pub(super) async fn open(self) -> Result<Plugins> {
        let session = self.server.session()?;
        let path = match (self.tenant, self.plan) {
            (Some(tenant), _) => {
                vec!["tenants".to_owned(), session.client.tenant_id(&tenant).await?]
            }
            (None, Some(plan)) => vec!["admin".to_owned(), "plans".to_owned(), plan],
            (None, None) => vec!["admin".to_owned()],
        };
        Ok(Plugins { session, path })
    }
}

impl Plugins {
    /// The path of the scope's plugins, and what lies below.
    pub(super) fn path(&self, below: &[&str]) -> Vec<String> {
        let mut path = self.path.clone();
        path.push("plugins".to_owned());
        path.extend(below.iter().map(|segment| (*segment).to_owned()));
        path
    }
}
