//! Deadlines of one worker: many slots, one ticker, no timer per state.
//!
//! A connection or an exchange holds a [`Slot`] and moves its deadline by writing a cell;
//! the ticker wakes the slots that are due. Invariant: a slot is never due early, and due
//! at most [`TICK_MS`] late plus what the worker itself is late.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Milliseconds between two looks at the deadlines (50): half of the 100 ms by which a
/// 504 may be late.
pub(crate) const TICK_MS: u64 = 50;

/// The deadlines of a worker.
pub(crate) struct Wheel {
    started: Instant,
    now_ms: Cell<u64>,
    armed: Cell<usize>,
    wake_ticker: Notify,
    entries: RefCell<Entries>,
}

#[derive(Default)]
struct Entries {
    all: Vec<Entry>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Entry {
    due_ms: Option<u64>,
    waker: Option<Waker>,
}

impl Wheel {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            now_ms: Cell::new(0),
            armed: Cell::new(0),
            wake_ticker: Notify::new(),
            entries: RefCell::default(),
        })
    }

    /// Milliseconds since the worker started, as of the last tick.
    pub(crate) fn coarse_now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn refresh(&self) {
        let elapsed = self.started.elapsed().as_millis();
        self.now_ms.set(u64::try_from(elapsed).unwrap_or(u64::MAX));
    }

    /// Ticks while any slot is armed and calls `each_tick` then; runs until dropped.
    pub(crate) async fn run(self: Rc<Self>, mut each_tick: impl FnMut(u64)) {
        loop {
            if self.armed.get() == 0 {
                each_tick(self.now_ms.get());
                self.wake_ticker.notified().await;
            }
            tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            self.refresh();
            self.wake_due();
            each_tick(self.now_ms.get());
        }
    }

    fn wake_due(&self) {
        let now = self.now_ms.get();
        let mut entries = self.entries.borrow_mut();
        let due = entries.all.iter_mut().filter(|entry| entry.due_ms.is_some_and(|at| at <= now));
        // Waking only queues the task, so the borrow ends before it runs.
        due.filter_map(|entry| entry.waker.take()).for_each(Waker::wake);
    }

    /// A new slot, disarmed.
    pub(crate) fn slot(self: &Rc<Self>) -> Slot {
        let mut entries = self.entries.borrow_mut();
        let index = entries.free.pop().unwrap_or_else(|| {
            entries.all.push(Entry::default());
            entries.all.len() - 1
        });
        Slot { wheel: Rc::clone(self), index }
    }
}

/// One deadline that can be moved.
pub(crate) struct Slot {
    wheel: Rc<Wheel>,
    index: usize,
}

impl Slot {
    fn with<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.wheel.entries.borrow_mut().all.get_mut(self.index).map(change)
    }

    /// Sets the deadline to `after_ms` from now, in place of any other.
    pub(crate) fn arm(&self, after_ms: u64) {
        if self.wheel.armed.get() == 0 {
            self.wheel.refresh();
            self.wheel.wake_ticker.notify_one();
        }
        // The coarse clock may be one tick behind.
        let due = self.wheel.now_ms.get().saturating_add(after_ms).saturating_add(TICK_MS);
        if self.with(|entry| entry.due_ms.replace(due).is_none()) == Some(true) {
            self.wheel.armed.set(self.wheel.armed.get() + 1);
        }
    }

    /// The same, unless a deadline is set already.
    pub(crate) fn arm_once(&self, after_ms: u64) {
        if self.with(|entry| entry.due_ms.is_none()) == Some(true) {
            self.arm(after_ms);
        }
    }

    /// Takes the deadline away.
    pub(crate) fn disarm(&self) {
        if self.with(|entry| entry.due_ms.take().is_some()) == Some(true) {
            self.wheel.armed.set(self.wheel.armed.get().saturating_sub(1));
        }
    }

    /// Ready when the deadline has passed; else the task is woken when it does, even if it
    /// is set only later.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let now = self.wheel.now_ms.get();
        let due = self.with(|entry| {
            if entry.due_ms.is_some_and(|at| at <= now) {
                return true;
            }
            match &entry.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => entry.waker = Some(cx.waker().clone()),
            }
            false
        });
        if due == Some(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.disarm();
        self.with(|entry| *entry = Entry::default());
        self.wheel.entries.borrow_mut().free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Bell(std::sync::atomic::AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    impl Wheel {
        /// What the ticker does, at a time that the test chooses.
        fn tick_at(&self, now_ms: u64) {
            self.now_ms.set(now_ms);
            self.wake_due();
        }
    }

    fn is_due(slot: &Slot) -> bool {
        slot.poll(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn deadlines_pass_in_their_order_and_never_early() {
        let wheel = Wheel::new();
        let slots: Vec<_> = [300, 1, 150].map(|ms| (ms, wheel.slot())).into();
        slots.iter().for_each(|(ms, slot)| slot.arm(*ms));
        let mut order = Vec::new();
        for now_ms in (0..1_000).step_by(10) {
            wheel.tick_at(now_ms);
            for (ms, slot) in slots.iter().filter(|(_, slot)| is_due(slot)) {
                assert!(now_ms >= *ms);
                slot.disarm();
                order.push(*ms);
            }
        }
        assert_eq!(order, [1, 150, 300]);
    }

    #[test]
    fn a_moved_or_removed_deadline_does_not_pass() {
        let wheel = Wheel::new();
        let (moved, removed, kept) = (wheel.slot(), wheel.slot(), wheel.slot());
        moved.arm(1);
        moved.arm(600_000);
        removed.arm(1);
        removed.disarm();
        kept.arm(1);
        kept.arm_once(600_000);
        wheel.tick_at(1_000);
        assert!(!is_due(&moved) && !is_due(&removed) && is_due(&kept));
        drop(kept);
        assert!(!is_due(&wheel.slot()), "a slot comes back disarmed");
    }

    #[test]
    fn a_waiting_task_is_woken_once_also_when_the_deadline_came_later() {
        let wheel = Wheel::new();
        let slot = wheel.slot();
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        assert!(slot.poll(&Context::from_waker(&waker)).is_pending());
        slot.arm(100);
        for now_ms in [0, 50, 200, 250] {
            wheel.tick_at(now_ms);
        }
        assert_eq!(bell.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(is_due(&slot));
    }
}
