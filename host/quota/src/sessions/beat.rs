//! The heartbeats: twice a second, one look at every session of the process.
//!
//! Sessions whose renewal is due are renewed in batches per tenant; a batch that got no
//! answer is tried again at the next beat, until its sessions fence themselves. Sessions
//! that nobody used for long are no longer renewed, so that the registry forgets them.
//! Invariant: nothing here makes a session live longer than the registry said.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{sessions::SessionId, tenant::TenantId};
use tokio::{task::JoinSet, time::timeout};

use super::{Shared, live::Live};

/// Milliseconds between two looks (500): a heartbeat is late by at most so much.
pub(crate) const BEAT_MS: u64 = 500;
/// Sessions of one tenant in one heartbeat (256): a script of that size takes well under a
/// millisecond of Redis.
const BATCH_MAX: usize = 256;
/// Heartbeats under way at once (64): many tenants on a distant Redis are all renewed
/// within a beat or two.
const CALLS_MAX: usize = 64;

/// Beats until the task is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = tokio::time::interval(Duration::from_millis(BEAT_MS));
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        once(&shared).await;
    }
}

/// One beat.
pub(crate) async fn once(shared: &Arc<Shared>) {
    shared.registry.sweep();
    let mut calls = JoinSet::new();
    for batch in due(shared) {
        if calls.len() >= CALLS_MAX {
            calls.join_next().await;
        }
        calls.spawn(renew(Arc::clone(shared), batch));
    }
    while calls.join_next().await.is_some() {}
}

/// Sessions of one tenant whose renewal is due.
struct Batch {
    tenant: TenantId,
    lives: Vec<Arc<Live>>,
}

/// Takes out what is over, and collects what is due.
fn due(shared: &Shared) -> Vec<Batch> {
    let now = shared.clock.monotonic_ms();
    let mut tenants: HashMap<TenantId, Vec<Arc<Live>>> = HashMap::new();
    shared.map.each_shard(|shard| {
        shard.retain(|member, live| {
            if live.is_lost_at(now) {
                shared.metrics.fenced.inc();
                live.lose();
                return false;
            }
            if live.is_idle_at(now) {
                shared.metrics.idle.inc();
                live.lose();
                return false;
            }
            if live.is_due_at(now) {
                tenants.entry(member.tenant).or_default().push(Arc::clone(live));
            }
            true
        });
    });
    let batches = tenants.into_iter().flat_map(|(tenant, lives)| {
        let chunks: Vec<_> =
            lives.chunks(BATCH_MAX).map(|lives| Batch { tenant, lives: lives.to_vec() }).collect();
        chunks
    });
    batches.collect()
}

async fn renew(shared: Arc<Shared>, batch: Batch) {
    let Batch { tenant, lives } = batch;
    let ids: Vec<SessionId> = lives.iter().map(|live| live.member.id).collect();
    // The quota that the latest request saw.
    let limit = lives.iter().map(|live| live.terms()).max().map_or(0, |(_, limit)| limit);
    let asked = shared.clock.monotonic_ms();
    let answer = timeout(shared.patience(), shared.registry.renew(tenant, limit, ids)).await;
    let Ok(Ok(counted)) = answer else {
        shared.metrics.failed.inc_by(lives.len() as u64);
        return;
    };
    for (live, counts) in lives.iter().zip(counted) {
        if counts {
            shared.metrics.renewed.inc();
            live.renewed(asked);
        } else if shared.forget(live) {
            shared.metrics.closed.inc();
        }
    }
}
