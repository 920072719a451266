//! `tenant`: tenants of a running edge, over its API.
//!
//! One file a family of commands. Invariant: nothing here knows more than the API tells,
//! and what changes something is sent once.

mod alerts;
mod change;
mod create;
mod health;
mod hierarchy;
mod keys;
mod list;
mod reservations;
mod trends;
mod usage;
mod view;

use anyhow::Result;
use clap::Subcommand;

use super::session::{ServerArgs, Session};
use crate::client::{Call, TenantName};

/// Arguments of `tenant`.
#[derive(Debug, clap::Args)]
pub(super) struct TenantArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: TenantCommand,
}

/// Which tenant.
#[derive(Debug, clap::Args)]
struct Named {
    /// The tenant's slug, or its id.
    #[arg(value_name = "TENANT")]
    tenant: TenantName,
}

impl Named {
    async fn id(&self, session: &Session) -> Result<String> {
        Ok(session.client.tenant_id(&self.tenant).await?)
    }
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Create a tenant; it starts in its trial.
    Create(create::Create),
    /// Show a tenant.
    Show(Named),
    /// List tenants, in the order of their creation.
    List(list::List),
    /// Change a tenant: what is named here and nothing else.
    Set(change::Set),
    /// Suspend a tenant and those below it: no request of theirs is admitted from then on.
    Suspend(change::Suspend),
    /// End a suspension.
    Resume(Named),
    /// Give a tenant, and those below it, another parent.
    Move(change::Move),
    /// Show how much of its quotas a tenant has used.
    Usage(Named),
    /// Show a tenant's usage over time.
    Trends(trends::Trends),
    /// Show what a tenant wants to be told, or what it was told.
    Alerts(alerts::Alerts),
    /// Show a tenant's health.
    Health(Named),
    /// Show a tenant and those below it.
    Hierarchy(Named),
    /// Keys with which a tenant's clients call the data plane.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Room that is set aside under a tenant's quotas for requests under way.
    #[command(subcommand)]
    Reservations(reservations::ReservationsCommand),
}

pub(super) fn run(args: TenantArgs) -> Result<()> {
    let session = args.server.session()?;
    super::client_runtime()?.block_on(async {
        match args.command {
            TenantCommand::Create(create) => create.run(&session).await,
            TenantCommand::Show(named) => show(&session, &named).await,
            TenantCommand::List(list) => list.run(&session).await,
            TenantCommand::Set(set) => set.run(&session).await,
            TenantCommand::Suspend(suspend) => suspend.run(&session).await,
            TenantCommand::Resume(named) => change::resume(&session, &named).await,
            TenantCommand::Move(moving) => moving.run(&session).await,
            TenantCommand::Usage(named) => usage::usage(&session, &named).await,
            TenantCommand::Trends(trends) => trends.run(&session).await,
            TenantCommand::Alerts(alerts) => alerts.run(&session).await,
            TenantCommand::Health(named) => health::run(&session, &named).await,
            TenantCommand::Hierarchy(named) => hierarchy::run(&session, &named).await,
            TenantCommand::Keys(command) => command.run(&session).await,
            TenantCommand::Reservations(command) => command.run(&session).await,
        }
    })
}

async fn show(session: &Session, named: &Named) -> Result<()> {
    let id = named.id(session).await?;
    session.print(&Call::get(&["admin", "tenants", &id]), view::tenant).await
}
