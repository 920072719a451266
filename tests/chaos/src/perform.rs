//! Makes faults happen, one after the other, and keeps book of what they may waste.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use model::{anchor::Anchor, clock::UnixMs, quota::Metric, window::Window};
use services::{Dump, Fault as Line};

use crate::{
    admin,
    authority::Authority,
    edges::Edges,
    limits::{FALL_GRACE_MS, Limits},
    random::Random,
    scenario::{Fault, Step},
    stores::Stores,
    tenants::TENANTS,
    time,
    truth::Truth,
    violations::Violations,
};

/// Time between two changes of a limit, in ms: a fall must be in force for a while.
const CHANGE_EVERY_MS: u64 = FALL_GRACE_MS + 8_000;

/// How long before a window's start an edge may hold tokens of it, in ms: a minute.
const LOSS_REACHES_MS: u64 = 60_000;

/// Everything that can be broken.
#[derive(Debug)]
pub struct Stage {
    pub edges: Arc<Edges>,
    /// `None` with the dispatcher in the process.
    pub stores: Option<Arc<Stores>>,
    pub authority: Arc<Authority>,
    pub limits: Arc<Limits>,
    pub truth: Arc<Truth>,
    pub violations: Arc<Violations>,
    /// Ids of the tenants.
    pub ids: Vec<String>,
    pub losses: Losses,
}

/// When quota may have been wasted.
#[derive(Debug, Default)]
pub struct Losses(Mutex<Vec<(UnixMs, Loss)>>);

/// What may have been wasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// An edge was killed: what was in flight stays charged.
    Killed,
    /// A machine was lost, and the leases on it.
    Machine,
}

impl Losses {
    /// One more, now.
    pub fn add(&self, loss: Loss) {
        self.lock().push((time::now(), loss));
    }

    /// How many there were in a window. One just before its start reaches into it.
    #[must_use]
    pub fn within(&self, window: Window, loss: Loss) -> u64 {
        let before = window.start.0.saturating_sub(LOSS_REACHES_MS);
        let all = self.lock();
        all.iter().filter(|(at, of)| *of == loss && at.0 >= before).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(UnixMs, Loss)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lowered limit, to be looked at once it must be in force.
#[derive(Clone, Copy, Debug)]
struct Fall {
    at: Instant,
    tenant: usize,
    limit: u64,
    /// What was charged when it came into force.
    charged: Option<u64>,
}

impl Stage {
    /// Performs steps until the time is over; gives how many there were.
    ///
    /// # Errors
    /// A part does not come back.
    pub fn perform(
        &self,
        steps: impl Iterator<Item = Step>,
        time: Duration,
        random: &mut Random,
    ) -> Result<usize> {
        let (began, mut performed) = (Instant::now(), 0);
        let (mut changed, mut fall): (Option<Instant>, Option<Fall>) = (None, None);
        for step in steps.take_while(|_| began.elapsed() < time) {
            println!("{} {:?}", time::stamp(), step.fault);
            if step.fault == Fault::LimitChange {
                let due = Duration::from_millis(CHANGE_EVERY_MS);
                if changed.is_none_or(|changed| changed.elapsed() > due) {
                    self.check_fall(&mut fall, true);
                    fall = self.change_limit(random)?;
                    changed = Some(Instant::now());
                }
            } else {
                self.inflict(step.fault)?;
            }
            performed += 1;
            let calm = Instant::now();
            while calm.elapsed() < step.calm {
                self.check_fall(&mut fall, false);
                self.check_alive();
                sleep(Duration::from_millis(100));
            }
        }
        self.check_fall(&mut fall, true);
        Ok(performed)
    }

    fn inflict(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::EdgeKill { edge, down } => {
                self.losses.add(Loss::Killed);
                self.edges.kill(edge);
                sleep(down);
                self.edges.restart(edge, false)
            }
            Fault::MachineLoss { edge, down } => {
                self.losses.add(Loss::Machine);
                self.edges.kill(edge);
                sleep(down);
                self.edges.restart(edge, true)
            }
            Fault::EdgeFreeze { edge, time } => {
                self.edges.freeze(edge, time);
                Ok(())
            }
            Fault::PostgresRestart { down } => {
                self.authority.restart(down);
                Ok(())
            }
            Fault::PostgresKill { down } => {
                self.authority.crash(down);
                Ok(())
            }
            Fault::LimitChange => Ok(()),
            other => match &self.stores {
                Some(stores) => self.inflict_on_redis(stores, other),
                None => Ok(()),
            },
        }
    }

    fn inflict_on_redis(&self, stores: &Stores, fault: Fault) -> Result<()> {
        match fault {
            Fault::RedisKill { down } => stores.crash(down, Dump::Keep),
            Fault::RedisWipe { down } => stores.crash(down, Dump::Delete),
            Fault::RedisFreeze { time } => stores.freeze(time),
            Fault::RedisSave => stores.target().save(),
            Fault::Flush => stores.target().flush(),
            Fault::Failover { edge, unseen, split } => {
                self.truth.live.split();
                stores.fail_over(unseen);
                self.take_sides(stores, edge, split);
            }
            Fault::SplitBrain { edge, split } => {
                self.truth.live.split();
                stores.split();
                self.take_sides(stores, edge, split);
            }
            Fault::DebugSleep { time } => {
                let seconds = time.as_secs_f64().to_string();
                stores.target().cli(&["DEBUG", "SLEEP", &seconds])?;
            }
            Fault::ClientPause { time } => {
                stores.target().client_pause(u64::try_from(time.as_millis())?);
                sleep(time);
            }
            Fault::LostReplies { edge, time } => self.on_lines(edge, Line::DropReplies, time),
            Fault::SlowReplies { delay, time } => self.on_lines(None, Line::Delay(delay), time),
            Fault::CutReplies { bytes, time } => {
                self.on_lines(None, Line::CutReplies(bytes), time);
            }
            Fault::Stall { edge, time } => self.on_lines(edge, Line::Stall, time),
            Fault::CutConnections { times } => {
                for _ in 0..times {
                    self.edges.proxies(None).for_each(services::FaultProxy::drop_connections);
                    sleep(Duration::from_millis(50));
                }
            }
            Fault::DoubleLoss { edge, down } => {
                self.losses.add(Loss::Machine);
                self.edges.kill(edge);
                stores.crash(down, Dump::Delete);
                self.edges.restart(edge, true)?;
            }
            Fault::EdgeKill { .. }
            | Fault::MachineLoss { .. }
            | Fault::EdgeFreeze { .. }
            | Fault::PostgresRestart { .. }
            | Fault::PostgresKill { .. }
            | Fault::LimitChange => {}
        }
        Ok(())
    }

    /// While there are two masters, one edge sees only the old one, and the next edge only
    /// the new one.
    fn take_sides(&self, stores: &Stores, edge: usize, split: Duration) {
        let (old, new) = (stores.master_index(), 1 - stores.master_index());
        let next = (edge + 1) % self.edges.count();
        let cut = [(edge, new), (next, old)];
        let cut: Vec<_> =
            cut.iter().filter_map(|(edge, server)| self.edges.proxy(*edge, *server)).collect();
        for proxy in &cut {
            proxy.set(Line::Refuse);
            proxy.drop_connections();
        }
        sleep(split);
        stores.heal();
        self.truth.live.healed();
        cut.iter().for_each(|proxy| proxy.set(Line::None));
    }

    /// A fault on the lines of one edge, or of all, for a while.
    fn on_lines(&self, edge: Option<usize>, fault: Line, time: Duration) {
        self.edges.proxies(edge).for_each(|proxy| proxy.set(fault));
        sleep(time);
        self.edges.proxies(edge).for_each(|proxy| proxy.set(Line::None));
    }

    /// Raises or lowers the limit of the tenant whose limit changes.
    fn change_limit(&self, random: &mut Random) -> Result<Option<Fall>> {
        let tenant = TENANTS.iter().position(|tenant| tenant.changing).context("a tenant")?;
        let before = self.limits.now(tenant);
        let lower = before > 800 && random.chance(50);
        let limit = if lower { before / 2 } else { before + before / 2 };
        println!("{} the limit of `changing`: {before} to {limit}", time::stamp());
        if !lower {
            self.limits.change(tenant, time::now(), limit);
        }
        self.set_limit(tenant, limit)?;
        if !lower {
            return Ok(None);
        }
        self.limits.change(tenant, time::now(), limit);
        Ok(Some(Fall { at: Instant::now(), tenant, limit, charged: None }))
    }

    fn set_limit(&self, tenant: usize, limit: u64) -> Result<()> {
        let id = self.ids.get(tenant).context("an id")?;
        let mut last = None;
        for control in self.edges.controls() {
            match admin::set_calls(control, id, limit) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Once a fall must be in force, nothing more is charged than what was already, or than
    /// the lowered limit.
    fn check_fall(&self, fall: &mut Option<Fall>, over: bool) {
        let Some(of) = fall else { return };
        if of.at.elapsed() < Duration::from_millis(FALL_GRACE_MS) {
            return;
        }
        let Some(window) = Window::of(Metric::ApiCalls, time::now(), Anchor::default()) else {
            return;
        };
        let charged = self.truth.count(of.tenant, Metric::ApiCalls, window).charged();
        let then = *of.charged.get_or_insert(charged);
        if charged > then.max(of.limit) {
            let line = format!(
                "a limit that fell to {} when {then} were charged let {charged} pass",
                of.limit
            );
            self.violations.once("fall", line);
        }
        if over {
            *fall = None;
        }
    }

    fn check_alive(&self) {
        for line in self.edges.dead() {
            self.violations.once("dead", line);
        }
    }
}
