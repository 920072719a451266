//! Listens for recalls: another edge needs tokens that this one may have parked.
//!
//! Invariant: a recall is only a hint. One that is missed costs the other edge a wait of at
//! most the lease's time; one that is made up costs this edge a refill.

use std::{sync::Weak, time::Duration};

use futures_util::StreamExt as _;
use model::{quota::Metric, tenant::TenantId};
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet, time::sleep};

use super::{
    ledger::{RECALLS, read_name},
    link::Link,
    servers::Servers,
};

/// An account whose parked tokens are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recalled {
    pub(crate) tenant: TenantId,
    pub(crate) metric: Metric,
    /// Start of the window, ms.
    pub(crate) start: u64,
}

/// Pause before a subscription that ended is made again, in ms.
const AGAIN_MS: u64 = 1_000;

/// Listens at every server until nobody needs it any more.
pub(crate) async fn listen(servers: Weak<Servers>, recalls: UnboundedSender<Recalled>) {
    let mut listening: JoinSet<()> = JoinSet::new();
    let mut known: Vec<String> = Vec::new();
    loop {
        let Some(links) = servers.upgrade().map(|servers| servers.all()) else { return };
        for link in links {
            if !known.iter().any(|name| name == link.name()) {
                known.push(link.name().to_owned());
                let recalls = recalls.clone();
                listening.spawn(async move { listen_at(&link, &recalls).await });
            }
        }
        sleep(Duration::from_millis(AGAIN_MS)).await;
        if recalls.is_closed() {
            return;
        }
    }
}

async fn listen_at(link: &Link, recalls: &UnboundedSender<Recalled>) {
    while !recalls.is_closed() {
        if let Ok(mut subscription) = link.client().get_async_pubsub().await
            && subscription.subscribe(RECALLS).await.is_ok()
        {
            let mut messages = subscription.into_on_message();
            while let Some(message) = messages.next().await {
                let name: Option<String> = message.get_payload().ok();
                if let Some((tenant, metric, start)) = name.as_deref().and_then(read_name)
                    && recalls.send(Recalled { tenant: TenantId(tenant), metric, start }).is_err()
                {
                    return;
                }
            }
        }
        sleep(Duration::from_millis(AGAIN_MS)).await;
    }
}
