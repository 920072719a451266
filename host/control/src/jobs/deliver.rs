//! Sends what is due in the outbox, every second, in every process.
//!
//! Invariant: a process that dies in here at any point loses no delivery; what it may have
//! sent is sent again under the same id when its lease ends.

use std::sync::Arc;

use model::clock::Clock;
use serde_json::json;
use tokio::task::JoinSet;

use super::JobDeps;
use crate::{
    notify::{Call, Channels, Failure, Mail, Notice, Remedy},
    store::{Channel, Claimed, Outcome, Store, StoreError},
};

/// How often it looks, in ms: nobody waits longer for what was never tried.
pub(super) const EVERY_MS: u64 = 1_000;
/// Deliveries at once: each waits for a foreign machine, none for the processor.
const AT_ONCE: u32 = 32;
/// Claims of one run, so that a run ends while new deliveries come in.
const CLAIMS_MAX: u32 = 32;

/// Who sends.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    channels: Channels,
}

/// Sends what is due, and stores how it went.
///
/// # Errors
/// The store failed; what was sent without being stored is sent again.
pub(super) async fn run(courier: Courier) -> Result<(), StoreError> {
    for _ in 0..CLAIMS_MAX {
        let claimed = courier.store.claim_deliveries(AT_ONCE).await?;
        if claimed.is_empty() {
            break;
        }
        let mut sending = JoinSet::new();
        for delivery in claimed {
            sending.spawn(deliver(courier.clone(), delivery));
        }
        let mut outcome = Ok(());
        while let Some(done) = sending.join_next().await {
            outcome = outcome.and(done.map_err(StoreError::from).flatten());
        }
        outcome?;
    }
    Ok(())
}

async fn deliver(courier: Courier, claimed: Claimed) -> Result<(), StoreError> {
    let outcome = match courier.send(&claimed).await {
        Ok(()) => Outcome::Delivered,
        Err(Failure { reason, remedy: Remedy::Again }) => Outcome::Again(reason),
        Err(Failure { reason, remedy: Remedy::None }) => Outcome::Failed(reason),
        Err(Failure { reason, remedy: Remedy::Stop }) => Outcome::Gone(reason),
    };
    let settled = courier.store.settle_delivery(&claimed, &outcome).await?;
    if !settled {
        tracing::warn!(event = %claimed.event, "a delivery took longer than its lease");
    }
    Ok(())
}

impl Courier {
    pub(super) fn new(deps: &JobDeps, channels: Channels) -> Self {
        Self { store: Arc::clone(&deps.store), clock: Arc::clone(&deps.clock), channels }
    }

    async fn send(&self, claimed: &Claimed) -> Result<(), Failure> {
        match claimed.channel {
            Channel::Email => self.channels.mailer.send(mail(claimed)).await,
            Channel::Webhook => {
                let call = Call {
                    url: &claimed.target,
                    event: claimed.event,
                    at: self.clock.now(),
                    body: &body(claimed),
                    secrets: &claimed.secrets,
                };
                self.channels.webhooks.send(call).await
            }
        }
    }
}

fn mail(claimed: &Claimed) -> Mail<'_> {
    Mail {
        event: claimed.event,
        occurred_at: claimed.occurred_at,
        to: &claimed.target,
        notice: Notice::of(&claimed.kind, &claimed.payload, &claimed.tenant_name),
    }
}

/// The body of a webhook, as the Standard Webhooks specification proposes it; the same
/// whenever the event is sent.
fn body(claimed: &Claimed) -> String {
    json!({
        "type": claimed.kind,
        "timestamp": claimed.occurred_at.rfc3339(),
        "data": claimed.payload,
    })
    .to_string()
}

#[cfg(test)]
mod tests;
