//! Starting: register, inherit what the predecessor left, claim the lease file.
//!
//! Runs once per process, before the first request. Invariant: the holder is registered
//! before anything else, and the predecessor's figures are durable at the authority before
//! its lease file is overwritten.

use std::sync::{Arc, RwLock};

use model::{
    clock::Clock,
    ledger::{Authority, AuthorityError, BootId, Dispatcher, Holder, HolderId},
};
use prometheus::Registry;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::AbortHandle,
};
use uuid::Uuid;

use crate::{
    config::QuotaConfig,
    gate::Quota,
    keeper::Keeper,
    lease_file::{LeaseFile, LeaseFileError, Legacy},
    meter::{Message, Shared},
    metrics::Metrics,
    redis::{RedisLedger, listen},
    window_clock::WindowClock,
};

/// Where Linux says which uptime of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the engine cannot start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The lease file is in use, or the disk refused.
    #[error(transparent)]
    LeaseFile(#[from] LeaseFileError),
    /// The authority did not take the registration or the inheritance.
    #[error("cannot register with the quota authority: {}", .0.0)]
    Authority(#[from] AuthorityError),
    /// A counter of the same name is registered already.
    #[error("cannot register the quota metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The address or the certificates of Redis cannot be used.
    #[error("cannot use Redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// The blocking pool is gone.
    #[error("the start was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Quota {
    /// Starts the engine and its background task on the current tokio runtime. Meters may
    /// be used from any thread; a wait needs a tokio runtime with time enabled.
    ///
    /// # Errors
    /// What keeps it from being exact: the lease file or the authority.
    pub async fn start(
        config: QuotaConfig,
        authority: Arc<dyn Authority>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Arc<Self>, StartError> {
        let metrics = Metrics::new(registry)?;
        let boot = config.boot.unwrap_or_else(kernel_boot);
        let path = config.lease_file.clone();
        let (file, legacy) = tokio::task::spawn_blocking(move || {
            let mut file = LeaseFile::lock(&path)?;
            let legacy = file.legacy(boot)?;
            Ok::<_, LeaseFileError>((file, legacy))
        })
        .await??;
        let clock = match &config.redis {
            None => WindowClock::own(clock),
            Some(_) => WindowClock::authority(clock),
        };
        let id = HolderId::random();
        let holder = Holder { id, edge: config.edge.clone(), boot };
        introduce(&*authority, &clock, holder, legacy, &metrics).await?;
        let capacity = config.lease_records;
        let map = tokio::task::spawn_blocking(move || file.claim(id, boot, capacity)).await??;
        let (shared, messages) = Shared::new(config, clock, map, metrics, boot);
        let common = common(&shared);
        Ok(Self::launch(shared, messages, authority, common, id))
    }

    /// Starts the keeper of a holder that is introduced and has its lease file.
    pub(crate) fn launch(
        shared: Arc<Shared>,
        messages: UnboundedReceiver<Message>,
        authority: Arc<dyn Authority>,
        common: Common,
        holder: HolderId,
    ) -> Arc<Self> {
        let Common { dispatcher, listeners } = common;
        let keeper = Keeper::new(Arc::clone(&shared), Arc::clone(&authority), dispatcher, holder);
        let keeper = tokio::spawn(keeper.run(messages)).abort_handle();
        Arc::new(Self { shared, authority, meters: RwLock::default(), keeper, listeners })
    }
}

/// Registers a holder, has it inherit what its predecessor left, and ends as lost whoever
/// else went by its edge's name.
pub(crate) async fn introduce(
    authority: &dyn Authority,
    clock: &WindowClock,
    holder: Holder,
    legacy: Legacy,
    metrics: &Metrics,
) -> Result<(), AuthorityError> {
    let (id, sent) = (holder.id, clock.monotonic_ms());
    clock.learn(sent, authority.register(holder).await?.now);
    inherit(authority, legacy, metrics).await?;
    let stranded = authority.strand_others(id).await?;
    if stranded.epochs > 0 {
        metrics.wasted.inc_by(stranded.tokens);
        tracing::warn!(
            tranches = stranded.epochs,
            tokens = stranded.tokens,
            "tranches of an earlier run stay charged: its lease file was lost"
        );
    }
    Ok(())
}

/// The dispatcher that edges share, if there is one, and the tasks that listen to it.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) dispatcher: Option<Arc<dyn Dispatcher>>,
    pub(crate) listeners: Vec<AbortHandle>,
}

/// The dispatcher over the connections of this edge, and what listens to it.
fn common(shared: &Arc<Shared>) -> Common {
    let Some(servers) = shared.config.redis.clone() else { return Common::default() };
    let (recalls, mut recalled) = mpsc::unbounded_channel();
    let subscribed = tokio::spawn(listen(Arc::downgrade(&servers), recalls));
    let found = Arc::clone(servers.found());
    let told = shared.inbox.clone();
    let passed_on = tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                recall = recalled.recv() => match recall {
                    Some(recall) => Message::Recalled(recall),
                    None => return,
                },
                () = found.notified() => Message::DispatcherFound,
            };
            if told.send(message).is_err() {
                return;
            }
        }
    });
    let listeners = vec![subscribed.abort_handle(), passed_on.abort_handle()];
    Common { dispatcher: Some(Arc::new(RedisLedger::new(servers))), listeners }
}

async fn inherit(
    authority: &dyn Authority,
    legacy: Legacy,
    metrics: &Metrics,
) -> Result<(), AuthorityError> {
    match legacy {
        Legacy::Nothing => {}
        Legacy::Will(will) => {
            let inherited = authority.inherit(will).await?;
            metrics.inherited.inc_by(inherited.credited);
            if inherited.epochs > 0 {
                tracing::info!(
                    tranches = inherited.epochs,
                    tokens = inherited.credited,
                    "inherited the leases of a run that did not end cleanly"
                );
            }
        }
        Legacy::OtherBoot(holder) => {
            tracing::warn!(%holder, "the machine restarted: the lease file is not trusted");
        }
        Legacy::Damaged(reason) => {
            tracing::warn!(reason, "the lease file is damaged and not trusted");
        }
    }
    Ok(())
}

/// The kernel's boot id; one that matches nothing where there is none, so that no lease
/// file is ever trusted.
fn kernel_boot() -> BootId {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    Uuid::parse_str(text.trim()).map_or_else(
        |_| {
            tracing::warn!(path = BOOT_ID, "no boot id: lease files will not be inherited");
            BootId(Uuid::new_v4())
        },
        BootId,
    )
}
