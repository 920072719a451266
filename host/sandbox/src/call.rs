//! One hook call: a seat, an instance, the guest, its decision, and the exchange back.
//!
//! The hot path: no lookup by name, no string, no allocation of ours but the future's.
//! Invariant: the exchange comes back however the guest ended, with its edits only when
//! the hook returned `ok` and its decision kept the rules; an instance is kept only
//! after such a call.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use model::policy::{PolicyExchange, PolicyFailure};

use crate::{
    bind::Binding,
    failure::{classify, is_exhausted},
    hook::Hook,
    instance::{Live, NotStarted},
    limits::Instances,
    seats::Owner,
    text::quoted,
};

/// What a call gives back.
type Outcome<D> = (Box<PolicyExchange>, Result<D, PolicyFailure>);

impl Binding {
    /// Calls a hook that the version has.
    pub(crate) async fn call<H: Hook>(
        &self,
        exchange: Box<PolicyExchange>,
        hook: H,
    ) -> Outcome<H::Decision> {
        let owner = Owner { binding: self.id, tenant: exchange.tenant.id() };
        let Some((seat, mut live)) = self.sandbox.seats.enter(owner) else {
            return (exchange, Err(PolicyFailure::NoSlot));
        };
        // Both live outside the future that the timeout drops, so that neither is lost.
        let mut waiting = Some(exchange);
        let returned =
            within(self.context.limits.wall_ms, self.run(&mut live, &mut waiting, &hook)).await;
        let raw = match returned {
            Some(Ok(Ok(raw))) => H::check(raw, &self.context.limits)
                .map_err(|rule| PolicyFailure::BrokenRule(quoted(&rule.0))),
            Some(Ok(Err(text))) => Err(PolicyFailure::Reported(quoted(&text))),
            Some(Err(failure)) => Err(failure),
            None => Err(PolicyFailure::Deadline),
        };
        let exchange = recover(live.as_deref_mut(), waiting, raw.is_ok());
        if let (Some(live), Instances::Reuse { requests_max }, true) =
            (live, self.instances, raw.is_ok())
            && live.served < requests_max
        {
            seat.leave_with(live, self.context.services.clock.monotonic_ms());
        }
        (exchange, raw)
    }

    async fn run<H: Hook>(
        &self,
        live: &mut Option<Box<Live>>,
        waiting: &mut Option<Box<PolicyExchange>>,
        hook: &H,
    ) -> Result<Result<H::Raw, String>, PolicyFailure> {
        let live = match live {
            Some(kept) => {
                kept.store.data_mut().refill();
                kept.store.set_epoch_deadline(1);
                kept
            }
            None => live.insert(Box::new(self.start().await?)),
        };
        live.served = live.served.saturating_add(1);
        if let Some(exchange) = waiting.take() {
            live.store.data_mut().begin(exchange, H::PHASE);
        }
        let limits = &self.context.limits;
        let extra = hook.extra_bytes(limits);
        if extra > 0 {
            let always = self.context.services.config.hostcall_bytes;
            live.store.set_hostcall_fuel(always.saturating_add(extra));
        }
        let returned = hook.call(live).await;
        if extra > 0 {
            live.store.set_hostcall_fuel(self.context.services.config.hostcall_bytes);
        }
        returned.map_err(|error| classify(&error))
    }

    /// A new instance. When every slot is taken, an idle one elsewhere gives way.
    async fn start(&self) -> Result<Live, PolicyFailure> {
        let engine = self.sandbox.engine();
        let mut started = Live::start(engine, &self.version, &self.context).await;
        if matches!(&started, Err(NotStarted::Failed(error)) if is_exhausted(error))
            && self.sandbox.seats.evict_one()
        {
            started = Live::start(engine, &self.version, &self.context).await;
        }
        started.map_err(|reason| match reason {
            NotStarted::Failed(error) => classify(&error),
            NotStarted::Rejected(text) => PolicyFailure::Reported(quoted(&text)),
        })
    }
}

/// The exchange from wherever the call left it.
#[expect(clippy::expect_used, reason = "it is in one of the two; losing it would be our bug")]
fn recover(
    live: Option<&mut Live>,
    waiting: Option<Box<PolicyExchange>>,
    accepted: bool,
) -> Box<PolicyExchange> {
    let running = live.and_then(|live| live.store.data_mut().call.take());
    running
        .map(|call| call.finish(accepted))
        .or(waiting)
        .expect("the exchange waits or is in the store")
}

/// Runs a future for at most `wall_ms`; `None` when that was not enough. The timer is
/// armed only when the future has to wait, so that a call which does not costs none.
pub(crate) async fn within<F: Future>(wall_ms: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let wall = Duration::from_millis(u64::from(wall_ms));
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wall)));
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}
