//! Step 1: sockets, worker threads, connections.
//!
//! Each worker thread has its own runtime and its own listeners on the same addresses
//! (SO_REUSEPORT); a connection stays where it was accepted. TLS, on its own addresses,
//! comes between accept and the protocol. Invariant: accepting pauses, and never fails for good, when there is
//! no room.

pub(crate) mod listen;
pub(crate) mod serve;
pub(crate) mod stream;

use std::{cell::Cell, io, rc::Rc, sync::Arc, thread, time::Duration};

use model::snapshot::Snapshot;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot, watch},
    task,
};

use crate::{
    tls::Handshakes,
    worker::{Shared, Worker},
};

/// Milliseconds before accepting is tried again when the system has no more descriptors
/// (100).
const ACCEPT_PAUSE_MS: u64 = 100;

/// What the threads are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    /// Finish what is open, for so long.
    Drain(Duration),
    Stop,
}

/// A running worker thread.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) handle: thread::JoinHandle<()>,
    pub(crate) ended: oneshot::Receiver<()>,
}

/// The sockets of one worker.
pub(crate) struct Listeners {
    pub(crate) clear: Vec<std::net::TcpListener>,
    pub(crate) tls: Vec<std::net::TcpListener>,
}

/// Starts a worker thread on listeners that are already bound.
pub(crate) fn spawn(
    number: usize,
    shared: Arc<Shared>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    listeners: Listeners,
    commands: watch::Receiver<Command>,
) -> io::Result<Thread> {
    let (done, ended) = oneshot::channel();
    let handle = thread::Builder::new().name(format!("edge-{number}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(shared, snapshots, listeners, commands)),
            Err(error) => tracing::error!(%error, "a worker has no runtime"),
        }
        drop(done);
    })?;
    Ok(Thread { handle, ended })
}

async fn run(
    shared: Arc<Shared>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    listeners: Listeners,
    mut commands: watch::Receiver<Command>,
) {
    let worker = Worker::new(shared, snapshots);
    let ticks = Rc::clone(&worker);
    task::spawn_local(Rc::clone(&worker.wheel).run(move |now_ms| ticks.tick(now_ms)));
    let house = Rc::new(House::default());
    let handshakes = worker.tls.as_deref().map(Handshakes::new);
    let clear = listeners.clear.into_iter().map(|listener| (listener, None));
    let tls = listeners.tls.into_iter().map(|listener| (listener, handshakes.clone()));
    let accepting: Vec<_> = clear
        .chain(tls)
        .filter_map(|(listener, handshakes)| match TcpListener::from_std(listener) {
            Ok(listener) => Some((listener, handshakes)),
            Err(error) => {
                tracing::error!(%error, "a listener is lost");
                None
            }
        })
        .map(|(listener, handshakes)| {
            let (worker, house) = (Rc::clone(&worker), Rc::clone(&house));
            task::spawn_local(accept(worker, listener, handshakes, house, commands.clone()))
        })
        .collect();
    let command = commands.wait_for(|command| *command != Command::Serve).await;
    let command = command.map_or(Command::Stop, |command| *command);
    accepting.iter().for_each(task::JoinHandle::abort);
    if let Command::Drain(patience) = command {
        // Connections hear the command themselves; here we wait for the last to go.
        let _ = tokio::time::timeout(patience, house.empty()).await;
    }
    worker.tick(worker.wheel.coarse_now_ms());
}

/// Counts the connections of a worker.
#[derive(Default)]
pub(crate) struct House {
    guests: Cell<usize>,
    left: Notify,
}

impl House {
    fn enter(self: &Rc<Self>) -> Guest {
        self.guests.set(self.guests.get() + 1);
        Guest(Rc::clone(self))
    }

    async fn empty(&self) {
        self.below(1).await;
    }

    async fn below(&self, count: usize) {
        while self.guests.get() >= count {
            self.left.notified().await;
        }
    }
}

/// A counted connection.
pub(crate) struct Guest(Rc<House>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get().saturating_sub(1));
        self.0.left.notify_waiters();
        self.0.left.notify_one();
    }
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    handshakes: Option<Handshakes>,
    house: Rc<House>,
    commands: watch::Receiver<Command>,
) {
    loop {
        house.below(worker.config.limits.connections_max).await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "a connection was lost at accept");
            continue;
        }
        let guest = house.enter();
        let handshakes = handshakes.clone();
        let client = serve::Client { stream, peer: peer.ip(), handshakes };
        let serve = serve::connection(Rc::clone(&worker), client, commands.clone());
        task::spawn_local(async move {
            serve.await;
            drop(guest);
        });
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}
