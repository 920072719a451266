//! The thread that takes renewed certificates into use.
//!
//! One per proxy with TLS. Files are compared by time and size, through links (Kubernetes
//! swaps a link, ACME clients write files in place). Invariant: a reading that fails keeps
//! everything as it was, is counted, and is said once per change.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time,
};

use super::{Tls, config::TlsConfig, material::Material};
use crate::server::{Command, Thread};

/// Asks for a look at the files now.
#[derive(Clone, Default)]
pub(crate) struct Reload(Arc<Notify>);

impl Reload {
    pub(crate) fn ask(&self) {
        self.0.notify_one();
    }
}

/// Time and size of every file; a missing one has none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<Option<(SystemTime, u64)>>);

impl Stamps {
    pub(crate) fn of(config: &TlsConfig) -> Self {
        let pairs = config.certificate.iter().flat_map(|one| [&one.chain_file, &one.key_file]);
        let files = pairs.chain(config.client_auth.iter().map(|one| &one.ca_file));
        Self(files.map(|file| stamp(file)).collect())
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Starts the thread; it ends with the first command that is not to serve.
pub(crate) fn spawn(
    tls: Arc<Tls>,
    read: Stamps,
    asked: Reload,
    mut commands: watch::Receiver<Command>,
) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    let handle = thread::Builder::new().name("edge-tls".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = commands.wait_for(|command| *command != Command::Serve) => {}
                () = watch_files(&tls, read, &asked) => {}
            }
        });
        drop(done);
    })?;
    Ok(Thread { handle, ended })
}

async fn watch_files(tls: &Tls, mut read: Stamps, asked: &Reload) {
    let interval = Duration::from_millis(tls.config.reload_interval_ms);
    loop {
        let now = time::timeout(interval, asked.0.notified()).await.is_ok();
        let found = Stamps::of(&tls.config);
        if now || found != read {
            tls.reload();
            read = found;
        }
    }
}

impl Tls {
    /// Reads the files again.
    fn reload(&self) {
        match Material::read(&self.config, &self.tickets) {
            Ok(material) => {
                self.meters.in_force(&material.shown);
                self.material.store(Arc::new(material));
                self.meters.reloaded();
                tracing::info!("certificates read again");
            }
            Err(error) => {
                self.meters.kept();
                tracing::error!(%error, "the certificates in force are kept");
            }
        }
    }
}
