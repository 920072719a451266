//! An edge for one plugin: loopback only, echo origins, one tenant, gone with its value.
//!
//! The program is the one that serves; only its declarations and its tenant are made here.
//! Invariant: it listens on loopback and keeps nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use control::{Actor, Store, store::NewTenant};
use model::clock::{Clock, SystemClock};

use super::{Project, Stage, stage};
use crate::{
    config::Config,
    demo::origins,
    run::{self, Running},
};

/// The tenant that every request of the edge's host belongs to.
pub const TENANT: &str = "acme";
/// Its plan and residency group, of those that this release ships.
const PLAN: &str = "team";
const GROUP: &str = "eu";

/// The edge with the folder that it reads.
pub struct LocalEdge {
    /// The program.
    pub running: Running,
    /// Its declarations.
    pub stage: Stage,
}

impl LocalEdge {
    /// Starts it, with the component that the project has built.
    ///
    /// # Errors
    /// An address that is taken or not loopback, or a plugin that does not hold.
    pub async fn start(project: &Project, listen: SocketAddr) -> Result<Self> {
        ensure!(listen.ip().is_loopback(), "--listen {listen}: only loopback addresses are served");
        let mut upstreams = BTreeMap::new();
        for region in stage::region_names()? {
            let addr = origins::serve(([127, 0, 0, 1], 0).into(), region.as_str().into()).await?;
            upstreams.insert(region, addr);
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let stage = Stage::new(project, |region| *upstreams.get(region).unwrap_or(&nowhere))?;
        let config = config(&stage, listen);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        make_tenant(&config, Arc::clone(&clock)).await?;
        let running = run::start(config, clock, None).await?;
        Ok(Self { running, stage })
    }

    /// Where the tenant is served.
    ///
    /// # Errors
    /// Never, while it runs.
    pub fn url(&self) -> Result<String> {
        let addr = self.running.edge.first().context("the edge listens nowhere")?;
        Ok(format!("http://{TENANT}.localhost:{}", addr.port()))
    }

    /// Stops it and removes what it wrote.
    ///
    /// # Errors
    /// What could not be finished.
    pub async fn stop(self) -> Result<()> {
        self.running.stop().await
    }
}

fn config(stage: &Stage, listen: SocketAddr) -> Config {
    let mut config = Config::default();
    config.edge.listen = vec![listen];
    config.control.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.policies.dir = stage.policies();
    config.data.dir = stage.data();
    // Ctrl-C means now.
    config.edge.drain_timeout_ms = 1_000;
    config
}

/// Before the program starts, so that it never serves without its tenant.
async fn make_tenant(config: &Config, clock: Arc<dyn Clock>) -> Result<()> {
    std::fs::create_dir_all(&config.data.dir)?;
    let store = Store::open(&config.store_url(), clock).await?;
    let tenant = NewTenant {
        slug: TENANT.parse()?,
        organization_name: "Acme".into(),
        display_name: None,
        admin_email: "admin@acme.example".into(),
        plan: PLAN.into(),
        data_residency: Some(GROUP.into()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    };
    let made = store.create_tenant(&Actor::Program, tenant).await;
    store.close().await;
    made.map(drop).map_err(Into::into)
}
