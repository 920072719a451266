//! Sends what is due in the outbox, every second, in every process.
//!
//! Places are filled again as deliveries end, and looked for every second while some run, so
//! that nobody waits for the slowest receiver; how many one tenant has at once is the
//! claim's limit. Invariant: a process that dies in here at any point loses no delivery;
//! what it may have sent is sent again under the same id when its lease ends.

use std::{pin::pin, sync::Arc, time::Duration};

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
/// Deliveries at once: each waits for a foreign machine, none for the processor. It takes
/// 16 tenants whose receivers all hang to fill them, for as long as a channel waits.
const AT_ONCE: u32 = 64;
/// Deliveries that end before the next claim, unless a second passes first: a claim reads
/// all that is due, so it should not bring one delivery only.
const REFILL: u32 = 8;

/// Who sends.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    channels: Channels,
}

/// Sends until nothing is due or under way, and stores how it went.
///
/// # Errors
/// The store failed, and this is its first failure; what could be sent was, and what was
/// sent without being stored is sent again.
pub(super) async fn run(courier: Courier) -> Result<(), StoreError> {
    let mut sending = JoinSet::new();
    let mut outcome = Ok(());
    loop {
        outcome = outcome.and(logged(refill(&courier, &mut sending).await));
        if sending.is_empty() {
            return outcome;
        }
        outcome = outcome.and(some_ended(&mut sending).await);
    }
}

type Sending = JoinSet<Result<(), StoreError>>;

/// Begins as many deliveries as there is room for.
async fn refill(courier: &Courier, sending: &mut Sending) -> Result<(), StoreError> {
    let busy = u32::try_from(sending.len()).unwrap_or(AT_ONCE);
    let room = AT_ONCE.saturating_sub(busy);
    if room > 0 {
        for delivery in courier.store.claim_deliveries(room).await? {
            sending.spawn(deliver(courier.clone(), delivery));
        }
    }
    Ok(())
}

/// Waits until it is time for the next claim; the first failure of what ended.
async fn some_ended(sending: &mut Sending) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    let mut next_look = pin!(tokio::time::sleep(Duration::from_millis(EVERY_MS)));
    for _ in 0..REFILL {
        tokio::select! {
            ended = sending.join_next() => match ended {
                Some(done) => {
                    let done = done.map_err(StoreError::from).flatten();
                    outcome = outcome.and(logged(done));
                }
                None => break,
            },
            () = &mut next_look => break,
        }
    }
    outcome
}

/// Logs a failure at once: while others are sent, the run does not end.
fn logged(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    outcome.inspect_err(|error| tracing::warn!(%error, "deliveries were not claimed or stored"))
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
        tracing::warn!(event = %claimed.event, "a delivery lost its lease, or its endpoint is gone");
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
