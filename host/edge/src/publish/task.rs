//! The task that publishes, until it is stopped.
//!
//! Invariant: a change of the directory never waits for a component to be compiled, be it a
//! policy's or an uploaded plugin's.

use std::sync::Arc;

use model::{catalog::ReloadProblem, directory::Directory};
use tokio::sync::{mpsc, oneshot, watch};

use crate::reload::{self, FileWatch};

use super::{
    Publisher,
    prepare::{Prepared, Preparer},
};

type Outcome = Result<Prepared, Vec<ReloadProblem>>;

/// Publishes a snapshot for every change of the directory or the declarations.
pub async fn run(
    mut publisher: Publisher,
    preparer: Preparer,
    mut directory: watch::Receiver<Arc<Directory>>,
    reloads: mpsc::Receiver<()>,
    mut files: Option<FileWatch>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (outcomes, mut prepared) = mpsc::channel(1);
    let preparing = prepare(preparer, reloads, outcomes);
    tokio::pin!(preparing);
    let Some(mut loads) = publisher.loads() else { return };
    loop {
        if let Some(files) = &mut files {
            files.also(publisher.component_folders());
        }
        tokio::select! {
            changed = directory.changed() => {
                if changed.is_err() {
                    return;
                }
                let current = Arc::clone(&directory.borrow_and_update());
                publisher.directory_changed(current).await;
            }
            Some(load) = loads.recv() => publisher.loaded(load).await,
            Some(outcome) = prepared.recv() => publisher.take(outcome).await,
            () = &mut preparing => return,
            _ = &mut stopped => return,
        }
    }
}

/// Prepares the declarations each time that somebody asks.
async fn prepare(
    mut preparer: Preparer,
    mut reloads: mpsc::Receiver<()>,
    outcomes: mpsc::Sender<Outcome>,
) {
    while reloads.recv().await.is_some() {
        reload::settle(&mut reloads).await;
        if outcomes.send(preparer.prepare().await).await.is_err() {
            return;
        }
    }
}
