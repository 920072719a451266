//! Who may run on a worker, and the instances kept for reuse.
//!
//! Every call takes a seat first and leaves it however it ends. A worker has its own
//! lock, contended only when a binding is retired. Invariant: an idle instance is handed
//! out only to the tenant and the binding it was kept for.

mod worker;

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::tenant::TenantId;

use self::worker::Worker;
use crate::{config::SandboxConfig, instance::Live};

/// Locks that threads are spread over; more than a machine has workers.
const WORKERS: usize = 64;

/// Threads that ran a policy so far.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Number of this thread among those that ran a policy.
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Whose instance: of which binding, for which tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) binding: u64,
    pub(crate) tenant: TenantId,
}

/// The seats of all workers.
#[derive(Debug)]
pub(crate) struct Seats {
    workers: Vec<Mutex<Worker>>,
    tenant_calls_max: u32,
    idle_max: usize,
    idle_ms_max: u64,
}

impl Seats {
    pub(crate) fn new(config: &SandboxConfig) -> Self {
        Self {
            workers: (0..WORKERS).map(|_| Mutex::default()).collect(),
            tenant_calls_max: config.tenant_calls_max,
            idle_max: config.idle_instances_max,
            idle_ms_max: config.idle_ms_max,
        }
    }

    /// Takes a seat on this worker, with an idle instance if one was kept. `None` when the
    /// tenant has as many calls running here as it may.
    pub(crate) fn enter(&self, owner: Owner) -> Option<(Seat<'_>, Option<Box<Live>>)> {
        let worker = self.worker_of_this_thread();
        let mut guard = lock(worker);
        guard.enter(owner.tenant, self.tenant_calls_max).then(|| {
            let live = guard.take(&owner);
            (Seat { seats: self, worker, owner, left: false }, live)
        })
    }

    /// Drops the instances kept for a binding that nobody uses any more.
    pub(crate) fn retire(&self, binding: u64) {
        for worker in &self.workers {
            let retired = lock(worker).remove_where(|owner| owner.binding == binding);
            drop(retired);
        }
    }

    /// Drops the instances kept for a tenant that is gone.
    pub(crate) fn erase(&self, tenant: TenantId) {
        for worker in &self.workers {
            let erased = lock(worker).remove_where(|owner| owner.tenant == tenant);
            drop(erased);
        }
    }

    /// Drops the longest idle instance of some worker, so that its slot is free.
    pub(crate) fn evict_one(&self) -> bool {
        let own = self.worker_of_this_thread();
        let evicted = std::iter::once(own)
            .chain(&self.workers)
            .find_map(|worker| lock(worker).evict_oldest());
        evicted.is_some()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length")]
    fn worker_of_this_thread(&self) -> &Mutex<Worker> {
        let thread = WORKER.get().unwrap_or_else(|| {
            let next = THREADS.fetch_add(1, Ordering::Relaxed);
            WORKER.set(Some(next));
            next
        });
        &self.workers[thread % WORKERS]
    }
}

/// A panic while the lock was held leaves counts and instances sound.
fn lock(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running call's place. Dropping it, also when the call is cancelled, frees it.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    seats: &'a Seats,
    worker: &'a Mutex<Worker>,
    owner: Owner,
    left: bool,
}

impl Seat<'_> {
    /// Leaves the seat and keeps the instance for the owner's next call.
    pub(crate) fn leave_with(mut self, live: Box<Live>, now_ms: u64) {
        self.left = true;
        let seats = self.seats;
        let mut worker = lock(self.worker);
        worker.leave(self.owner.tenant);
        let expired = worker.sweep(now_ms, seats.idle_ms_max);
        let evicted = worker.keep(self.owner, live, now_ms, seats.idle_max);
        drop(worker);
        // Instances are reset and freed without the lock.
        drop((expired, evicted));
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if !self.left {
            lock(self.worker).leave(self.owner.tenant);
        }
    }
}
