//! The periodic work of the control plane: one job a file, run by every process.
//!
//! [`Jobs::start`] runs each job at its own pace until dropped. Invariant: a job may run in
//! several processes at once and may be cut off anywhere; what it writes is claimed by
//! unique keys and row locks, so it happens once. To add a job, give it a file with a
//! `run` and a line in [`Jobs::start`].

mod alerts;
mod deliver;
mod heads;
mod holders;
mod lifecycle;
mod partitions;
mod quotas;
mod sample;
mod sessions;
mod tokens;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use self::deliver::Courier;
pub use self::lifecycle::TrialEnd;
use crate::{api::Deps, notify::Channels};

/// What jobs work on: the same as the API.
pub(crate) type JobDeps = Deps;

/// The running jobs; dropping it ends them.
#[derive(Debug)]
pub struct Jobs {
    tasks: JoinSet<()>,
}

impl Jobs {
    /// Starts every job.
    #[must_use]
    pub fn start(deps: Deps) -> Self {
        let deps = Arc::new(deps);
        let mut jobs = Self { tasks: JoinSet::new() };
        jobs.every(&deps, "sample", sample::EVERY_MS, sample::run);
        jobs.every(&deps, "lifecycle", lifecycle::EVERY_MS, lifecycle::run);
        let reach = holders::Reach::default();
        jobs.every(&deps, "holders", holders::EVERY_MS, move |deps| {
            holders::run(deps, reach.clone())
        });
        let rounds = sessions::Rounds::default();
        jobs.every(&deps, "sessions", sessions::EVERY_MS, move |deps| {
            sessions::run(deps, rounds.clone())
        });
        let channels = Channels::new(&deps.notify);
        jobs.every(&deps, "partitions", partitions::EVERY_MS, partitions::run);
        jobs.every(&deps, "quotas", quotas::EVERY_MS, quotas::run);
        jobs.every(&deps, "heads", heads::EVERY_MS, heads::run);
        jobs.every(&deps, "tokens", tokens::EVERY_MS, tokens::run);
        jobs.every(&deps, "alerts", alerts::EVERY_MS, alerts::run);
        jobs.every(&deps, "deliver", deliver::EVERY_MS, move |deps| {
            deliver::run(Courier::new(&deps, channels.clone()))
        });
        jobs
    }

    /// Ends every job and waits until none holds the store any more.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Runs `run` every `every_ms` milliseconds, from now on; a failure is logged once until
    /// it passes.
    fn every<F, E>(
        &mut self,
        deps: &Arc<JobDeps>,
        name: &'static str,
        every_ms: u64,
        run: impl Fn(Arc<JobDeps>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send,
        E: std::fmt::Display + Send,
    {
        let deps = Arc::clone(deps);
        self.tasks.spawn(async move {
            let mut failing = false;
            loop {
                match run(Arc::clone(&deps)).await {
                    Ok(()) if failing => {
                        tracing::info!(job = name, "the job works again");
                        failing = false;
                    }
                    Err(error) if !failing => {
                        tracing::warn!(job = name, %error, "the job failed; it is tried again");
                        failing = true;
                    }
                    Ok(()) | Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(every_ms)).await;
            }
        });
    }
}
