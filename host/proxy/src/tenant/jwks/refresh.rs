//! The thread that fetches key sets: at start, when asked, and every few minutes.
//!
//! One for all issuers, started with the workers and only where an issuer names a URL.
//! Invariant: a fetch that fails, or brings what is no key set, changes nothing but a
//! counter and the log.

use std::{io, sync::Arc, thread, time::Duration};

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use reqwest::Client;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{oneshot, watch},
    task::LocalSet,
};

use super::{KeySet, REFETCH_INTERVAL_MS, Remote, document, fetch};
use crate::server::{Command, Thread};

/// Milliseconds between refreshes (300,000): how long a withdrawn key may still be
/// believed, give or take the jitter.
const REFRESH_MS: u64 = 300_000;
/// Refreshes are spread by a tenth (30,000 ms) either way: edges do not march in step.
const JITTER_MS: u64 = REFRESH_MS / 10;
/// Milliseconds between looks at the clock (200): it is injected, so no timer follows it.
const LOOK_MS: u64 = 200;

/// What fetching leaves in the metrics; one series per issuer and outcome.
#[derive(Clone)]
pub(crate) struct Meters {
    fetches: IntCounterVec,
    keys: IntGaugeVec,
}

impl Meters {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let fetches = Opts::new("edge_jwks_fetches_total", "Fetches of key sets, by outcome");
        let fetches = IntCounterVec::new(fetches, &["issuer", "outcome"])?;
        let keys = Opts::new("edge_jwks_keys", "Keys of the set in force");
        let keys = IntGaugeVec::new(keys, &["issuer"])?;
        registry.register(Box::new(fetches.clone()))?;
        registry.register(Box::new(keys.clone()))?;
        Ok(Self { fetches, keys })
    }
}

/// Starts the thread; it ends with the first command that is not to serve.
pub(crate) fn spawn(
    remotes: Vec<Arc<Remote>>,
    meters: Meters,
    mut commands: watch::Receiver<Command>,
) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = fetch::client().map_err(io::Error::other)?;
    let (done, ended) = oneshot::channel();
    let handle = thread::Builder::new().name("edge-jwks".to_owned()).spawn(move || {
        let tasks = LocalSet::new();
        for remote in remotes {
            tasks.spawn_local(keep_fresh(remote, client.clone(), meters.clone()));
        }
        runtime.block_on(tasks.run_until(async {
            let _closed = commands.wait_for(|command| *command != Command::Serve).await.is_err();
        }));
        drop(done);
    })?;
    Ok(Thread { handle, ended })
}

async fn keep_fresh(remote: Arc<Remote>, client: Client, meters: Meters) {
    let mut random = SmallRng::from_os_rng();
    let mut due_ms = 0;
    loop {
        if remote.clock.monotonic_ms() >= due_ms {
            remote.ask();
        }
        if remote.is_wanted() {
            let outcome = fetched(&remote, &client).await;
            let good = outcome.is_ok();
            settle(&remote, &meters, outcome);
            let pause = match good {
                true => random.random_range(REFRESH_MS - JITTER_MS..=REFRESH_MS + JITTER_MS),
                false => REFETCH_INTERVAL_MS,
            };
            due_ms = remote.clock.monotonic_ms().saturating_add(pause);
        }
        let look = tokio::time::sleep(Duration::from_millis(LOOK_MS));
        tokio::select! {
            () = remote.asked.notified() => {}
            () = look => {}
        }
    }
}

/// Why a fetch changed nothing.
struct Failed {
    label: &'static str,
    why: String,
}

/// A new set; `None` when it is the one that we have.
async fn fetched(remote: &Remote, client: &Client) -> Result<Option<KeySet>, Failed> {
    let bytes = fetch::document(client, &remote.url)
        .await
        .map_err(|error| Failed { label: error.label(), why: error.to_string() })?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if remote.set().is_some_and(|set| set.digest == digest) {
        return Ok(None);
    }
    let keys = document::parse(&bytes, &remote.algorithms, &remote.name)
        .map_err(|error| Failed { label: "invalid", why: format!("the document {error}") })?;
    Ok(Some(KeySet { keys, generation: remote.generation() + 1, digest }))
}

fn settle(remote: &Remote, meters: &Meters, outcome: Result<Option<KeySet>, Failed>) {
    let issuer = &*remote.name;
    let (label, set) = match outcome {
        Ok(None) => ("unchanged", None),
        Ok(Some(set)) => {
            tracing::info!(issuer, keys = set.keys.len(), "the issuer's keys changed");
            let count = i64::try_from(set.keys.len()).unwrap_or(i64::MAX);
            meters.keys.with_label_values(&[issuer]).set(count);
            ("changed", Some(set))
        }
        Err(Failed { label, why }) => {
            tracing::warn!(issuer, url = %remote.url, why, "an issuer's keys were not fetched");
            (label, None)
        }
    };
    meters.fetches.with_label_values(&[issuer, label]).inc();
    remote.publish(set);
}
