//! An edge's way to the servers: one of them at a time, a time limit, and a breaker.
//!
//! As the real link does: the first call without an answer opens the breaker, and a probe
//! finds a server that answers and is a master. Invariant: a message is sent once.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use model::{
    BoxFuture,
    ledger::{
        Dispatcher, DispatcherError, EpochRef, Fence, InstallPermit, LeaseAnswer, LeaseRequest,
        Shares, WindowKey,
    },
};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{sleep, timeout},
};

use super::{
    network::{Network, Place},
    redis::{Said, Server},
    rules::Rules,
};
use crate::{meter::Message, redis::Recalled};

/// Longest call, and the pause between probes.
const CALL: Duration = Duration::from_millis(25);
const PROBE: Duration = Duration::from_millis(60);

pub(super) struct Link {
    edge: usize,
    network: Arc<Network>,
    servers: Vec<Arc<Server>>,
    listeners: Arc<Listeners>,
    rules: Rules,
    inbox: UnboundedSender<Message>,
    /// The server in use and its fence; `None` while the breaker is open.
    live: Mutex<Option<(usize, Fence)>>,
    /// The server that is tried first.
    nearest: usize,
    me: Weak<Self>,
}

/// Who hears of recalls.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Option<UnboundedSender<Message>>>>);

impl Listeners {
    pub(super) fn set(&self, edge: usize, inbox: Option<UnboundedSender<Message>>) {
        let mut listeners = self.0.lock().unwrap();
        let length = listeners.len().max(edge + 1);
        listeners.resize(length, None);
        listeners[edge] = inbox;
    }

    fn tell(&self, key: &WindowKey) {
        let WindowKey { tenant, metric, window } = *key;
        for inbox in self.0.lock().unwrap().iter().flatten() {
            let recalled = Recalled { tenant, metric, start: window.start.0 };
            let _ = inbox.send(Message::Recalled(recalled));
        }
    }
}

/// What a link needs beside its own edge.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) network: Arc<Network>,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) rules: Rules,
}

impl Link {
    pub(super) fn new(
        edge: usize,
        nearest: usize,
        site: Site,
        inbox: UnboundedSender<Message>,
    ) -> Arc<Self> {
        let Site { network, servers, listeners, rules } = site;
        Arc::new_cyclic(|me| {
            let live = Mutex::new(None);
            let me = Weak::clone(me);
            Self { edge, network, servers, listeners, rules, inbox, live, nearest, me }
        })
    }

    /// Looks for a server; ends when it has one, or nobody needs it.
    pub(super) async fn seek(link: Weak<Self>) {
        let mut turn = 0;
        while let Some(link) = link.upgrade() {
            let number = (link.nearest + turn) % link.servers.len();
            let server = Arc::clone(&link.servers[number]);
            let place = Place::Server(number);
            let probe = link.network.call(link.edge, place, move || server.probe());
            if let Ok(Said::Answer((), fence)) = timeout(CALL, probe).await {
                *link.live.lock().unwrap() = Some((number, fence));
                let _ = link.inbox.send(Message::DispatcherFound);
                return;
            }
            drop(link);
            turn += 1;
            sleep(PROBE).await;
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        mut act: impl FnMut(&Server) -> Option<Said<T>> + Send + 'static,
    ) -> Result<T, DispatcherError> {
        let Some((number, fence)) = *self.live.lock().unwrap() else {
            return Err(DispatcherError::Unavailable);
        };
        let server = Arc::clone(&self.servers[number]);
        let act = move || act(&server);
        let call = self.network.call(self.edge, Place::Server(number), act);
        match timeout(CALL, call).await {
            Ok(Said::Answer(answer, now)) => {
                let mut live = self.live.lock().unwrap();
                if now != fence && live.is_some() {
                    *live = Some((number, now));
                }
                Ok(answer)
            }
            Ok(Said::NotMaster) | Err(_) => {
                if self.live.lock().unwrap().take().is_some() {
                    tokio::spawn(Self::seek(Weak::clone(&self.me)));
                }
                Err(DispatcherError::Unavailable)
            }
        }
    }

    /// What must not be: the tranche arrives once more, some time later.
    fn install_again(&self, permit: &InstallPermit) {
        if self.rules.install_once {
            return;
        }
        let of = EpochRef { key: permit.key(), epoch: permit.epoch() };
        let (fence, tranche) = (permit.fence(), permit.tranche());
        let (beyond, at) = (permit.beyond(), permit.issued_at());
        let servers = self.servers.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(700)).await;
            for server in servers {
                server.install(InstallPermit::issue(of, fence, tranche, beyond, at));
            }
        });
    }
}

impl Dispatcher for Link {
    fn fence(&self, _: &WindowKey) -> Option<Fence> {
        self.live.lock().unwrap().map(|(_, fence)| fence)
    }

    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>> {
        self.install_again(&permit);
        let mut permit = Some(permit);
        // A copy of the message finds it gone: the type allows no second.
        let install = move |server: &Server| server.install(permit.take()?);
        Box::pin(async move { self.call(install).await? })
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>> {
        let listeners = Arc::clone(&self.listeners);
        Box::pin(self.call(move |server: &Server| {
            let said = server.lease(request);
            if let Some(Said::Answer(LeaseAnswer::Soft, _)) = said {
                listeners.tell(&request.key);
            }
            said
        }))
    }

    fn close(
        &self,
        of: EpochRef,
        fence: Fence,
    ) -> BoxFuture<'_, Result<Option<Shares>, DispatcherError>> {
        Box::pin(self.call(move |server: &Server| server.close(of, fence)))
    }
}
