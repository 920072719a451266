//! The shared dispatcher: one ledger per account in Redis, changed by three scripts.
//!
//! Called once per refill. Invariant: a message is sent at most once, and a tranche too; an
//! answer that did not come means "nobody knows". The fence inside the scripts keeps a
//! server from handing out what was debited for another of its lives.

use std::sync::Arc;

use model::{
    BoxFuture,
    ledger::{
        Dispatcher, DispatcherError, EpochRef, Fence, Grant, HolderId, InstallPermit, LeaseAnswer,
        LeaseRequest, WindowKey, rules::LEASE_TTL_MS,
    },
    quota::Metric,
};
use redis::Script;
use uuid::Uuid;

use super::{
    answer::Answer,
    link::{Link, LinkError},
    servers::Servers,
};

/// Time after a window's end in which its ledger is kept, in ms: 48 h. Garbage collection
/// only; nothing hangs on it.
const KEPT_MS: u64 = 48 * 3_600_000;
/// Where edges are asked to give back what they do not need.
pub(super) const RECALLS: &str = "q:recall";

/// The dispatcher.
pub(crate) struct RedisLedger {
    servers: Arc<Servers>,
    lease: Script,
    install: Script,
    close: Script,
}

/// The names of an account in Redis. All of a family share a slot.
struct Names {
    ledger: String,
    edges: String,
}

impl Names {
    fn of(key: &WindowKey) -> Self {
        let WindowKey { tenant, metric, window } = key;
        let root = tenant;
        let ledger =
            format!("q:{{{}}}:{}:{}:{}", root.0, tenant.0, metric.as_str(), window.start.0);
        Self { edges: format!("{ledger}:edges"), ledger }
    }
}

/// Tenant, metric and start of a ledger's name.
pub(super) fn read_name(ledger: &str) -> Option<(Uuid, Metric, u64)> {
    let (_, rest) = ledger.split_once("}:")?;
    let mut parts = rest.split(':');
    let tenant = Uuid::parse_str(parts.next()?).ok()?;
    let metric = Metric::from_name(parts.next()?)?;
    Some((tenant, metric, parts.next()?.parse().ok()?))
}

impl RedisLedger {
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            lease: Script::new(include_str!("lease.lua")),
            install: Script::new(include_str!("install.lua")),
            close: Script::new(include_str!("close.lua")),
        }
    }

    async fn call(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[String],
    ) -> Result<(Arc<Link>, Answer), DispatcherError> {
        let answered = self.servers.run(script, keys, arguments).await;
        let (link, value) = answered.map_err(|error| {
            if !matches!(error, LinkError::Away) {
                tracing::debug!(%error, key = keys.first(), "a quota script has no answer");
            }
            // Without a right to its ledgers a server is of no use here, as if it were away.
            if matches!(error, LinkError::Forbidden(_))
                && let Some(link) = keys.first().and_then(|key| self.servers.of(key))
            {
                link.give_up(&error.to_string());
            }
            DispatcherError::Unavailable
        })?;
        let answer = Answer::read(value).ok_or(DispatcherError::Unavailable)?;
        if answer.code() == "NOTMASTER" {
            link.give_up("it is no master any more");
            return Err(DispatcherError::Unavailable);
        }
        // NEXT and FENCED tell the fence that the server has now.
        if let Some(Ok(Fence::Redis(fence))) = answer.text(0).map(str::parse) {
            link.learn(fence);
        }
        Ok((link, answer))
    }

    async fn lease_now(&self, request: LeaseRequest) -> Result<LeaseAnswer, DispatcherError> {
        let names = Names::of(&request.key);
        let arguments = [
            request.holder.to_string(),
            request.seq.to_string(),
            request.want.to_string(),
            request.returned.to_string(),
            request.returned_epoch.to_string(),
            request.bounds.floor.to_string(),
            request.bounds.latest.to_string(),
            LEASE_TTL_MS.to_string(),
            RECALLS.to_owned(),
        ];
        let keys = [names.ledger.as_str(), names.edges.as_str()];
        let (_, answer) = self.call(&self.lease, &keys, &arguments).await?;
        Ok(match answer.code() {
            "GRANTED" => LeaseAnswer::Granted(granted(&answer)?),
            "RETURNED" => LeaseAnswer::Returned,
            "NEXT" => LeaseAnswer::Next,
            "STALE" => LeaseAnswer::Stale { epoch: answer.number(0)? },
            "SOFT" => LeaseAnswer::Soft,
            "OLD" => LeaseAnswer::Old,
            _ => return Err(DispatcherError::Unavailable),
        })
    }

    async fn install_now(&self, permit: InstallPermit) -> Result<(), DispatcherError> {
        let key = permit.key();
        let names = Names::of(&key);
        let kept = key.window.end.ms_since(permit.issued_at()).saturating_add(KEPT_MS);
        let arguments = [
            permit.fence().to_string(),
            permit.epoch().to_string(),
            permit.tranche().to_string(),
            permit.beyond().to_string(),
            kept.to_string(),
        ];
        let keys = [names.ledger.as_str(), names.edges.as_str()];
        let (_, answer) = self.call(&self.install, &keys, &arguments).await?;
        match answer.code() {
            "OK" => Ok(()),
            "FENCED" => Err(DispatcherError::Fenced),
            "ORDER" => Err(DispatcherError::OutOfOrder),
            _ => Err(DispatcherError::Unavailable),
        }
    }

    async fn close_now(
        &self,
        of: EpochRef,
        fence: Fence,
    ) -> Result<Option<Vec<(HolderId, u64)>>, DispatcherError> {
        let names = Names::of(&of.key);
        let arguments = [fence.to_string(), of.epoch.to_string()];
        let (_, answer) = self.call(&self.close, &[names.ledger.as_str()], &arguments).await?;
        match answer.code() {
            "UNKNOWN" => Ok(None),
            "CLOSED" => answer.shares().map(Some),
            _ => Err(DispatcherError::Unavailable),
        }
    }
}

fn granted(answer: &Answer) -> Result<Grant, DispatcherError> {
    Ok(Grant {
        tokens: answer.number(0)?,
        epoch: answer.number(1)?,
        tranche: answer.number(2)?,
        free: answer.number(3)?,
        beyond: answer.number(4)?,
        low: answer.number(5)? != 0,
        ttl_ms: LEASE_TTL_MS,
    })
}

impl Dispatcher for RedisLedger {
    fn fence(&self, key: &WindowKey) -> Option<Fence> {
        self.servers.of(&Names::of(key).ledger)?.fence()
    }

    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>> {
        Box::pin(self.install_now(permit))
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>> {
        Box::pin(self.lease_now(request))
    }

    fn close(
        &self,
        of: EpochRef,
        fence: Fence,
    ) -> BoxFuture<'_, Result<Option<Vec<(HolderId, u64)>>, DispatcherError>> {
        Box::pin(self.close_now(of, fence))
    }
}
