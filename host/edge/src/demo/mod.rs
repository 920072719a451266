//! The demo: origins for every region, seeded tenants, and lines to try.
//!
//! Runs the same program as `serve`. Invariant: it seeds only an empty store, and prints
//! only commands that work when pasted.

mod guide;
pub mod origins;
mod seed;

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use control::Store;
use model::clock::{Clock, SystemClock};

use crate::{
    config::{self, Config},
    declare::Declarations,
    publish,
    run::{self, Running},
};

/// Starts origins and program, seeds, prints; returns the running program.
///
/// # Errors
/// What is missing, wrong or taken.
pub async fn start(config: &Config) -> Result<Running> {
    let declared = Declarations::load(&config.policies.dir)
        .map_err(|problems| anyhow!(publish::lines(&config.policies.dir, &problems)))?;
    std::fs::create_dir_all(&config.data.dir)?;
    let token = match config::admin_token_from_env()? {
        Some(token) => token,
        None => seed::kept_admin_token(&config.data.dir)?,
    };
    origins::start(&declared).await?;
    let clock = Arc::new(SystemClock::default());
    let tenants = seeded(config, Arc::clone(&clock) as _).await?;
    let running = run::start(config.clone(), clock, Some(token.clone())).await?;
    guide::print(config, &running, &token, &tenants);
    Ok(running)
}

/// Seeds before the program starts, so that it never sees half a tenant.
async fn seeded(config: &Config, clock: Arc<dyn Clock>) -> Result<seed::Keys> {
    let keys = config.keys().context("data.keys_dir")?;
    let store = Store::open_with_keys(&config.store_url(), clock, keys).await?;
    let keys = seed::seed(&store, &config.data.dir).await;
    store.close().await;
    keys
}
