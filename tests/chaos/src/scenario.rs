//! What goes wrong, in which order: drawn from the seed before the run begins.
//!
//! Invariant: every fault is over when its step is, so that each one starts from a whole
//! system; what one leaves behind (old dumps, waste, sealed epochs) stays.

use std::time::Duration;

use crate::{options::Dispatch, random::Random};

/// One fault with its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An edge is killed and started again.
    EdgeKill { edge: usize, down: Duration },
    /// An edge is killed and started without its data: the machine is lost.
    MachineLoss { edge: usize, down: Duration },
    /// An edge stands still, perhaps for longer than a lease lives.
    EdgeFreeze { edge: usize, time: Duration },
    /// The Redis master is killed and comes back with its last dump, however old.
    RedisKill { down: Duration },
    /// The same without any dump.
    RedisWipe { down: Duration },
    /// The Redis master stands still.
    RedisFreeze { time: Duration },
    /// The Redis master writes a dump, for a later crash to come back with.
    RedisSave,
    /// FLUSHALL.
    Flush,
    /// The master dies, the replica takes over, the old master is back for a moment, and
    /// `edge` sees only that one.
    Failover { edge: usize, unseen: Duration, split: Duration },
    /// Two masters at once: `edge` sees only the old one, the next edge only the new one.
    SplitBrain { edge: usize, split: Duration },
    /// DEBUG SLEEP.
    DebugSleep { time: Duration },
    /// CLIENT PAUSE.
    ClientPause { time: Duration },
    /// Replies are lost on the way to one edge, or to all.
    LostReplies { edge: Option<usize>, time: Duration },
    /// Everything to and from Redis is slow.
    SlowReplies { delay: Duration, time: Duration },
    /// A reply ends in its middle.
    CutReplies { bytes: usize, time: Duration },
    /// Nothing moves between an edge (or all) and Redis.
    Stall { edge: Option<usize>, time: Duration },
    /// Every connection to Redis is cut, again and again.
    CutConnections { times: u64 },
    /// PostgreSQL is stopped in order and started.
    PostgresRestart { down: Duration },
    /// PostgreSQL is killed and recovers.
    PostgresKill { down: Duration },
    /// A limit falls below what is used, or rises.
    LimitChange,
    /// Redis loses its data and an edge its machine, at the same time.
    DoubleLoss { edge: usize, down: Duration },
}

/// A fault and the calm after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What goes wrong.
    pub fault: Fault,
    /// Time until the next one.
    pub calm: Duration,
}

/// Names of the faults that need Redis, of those that need proxies before a master and its
/// replica, and of those that need neither.
const ON_REDIS: [&str; 9] = [
    "redis-kill",
    "redis-wipe",
    "redis-freeze",
    "redis-save",
    "flush",
    "debug-sleep",
    "client-pause",
    "double-loss",
    "machine-loss",
];
const ON_PAIR: [&str; 7] = [
    "failover",
    "split-brain",
    "lost-replies",
    "slow-replies",
    "cut-replies",
    "stall",
    "cut-connections",
];
const ALWAYS: [&str; 5] =
    ["edge-kill", "edge-freeze", "postgres-restart", "postgres-kill", "limit-change"];

/// The steps of a seed, without end: each round has every fault once, in another order.
/// `only` picks some by name; unknown names pick none.
pub fn steps(
    seed: u64,
    edges: usize,
    dispatch: Dispatch,
    only: &[String],
) -> impl Iterator<Item = Step> + use<> {
    let mut random = Random::new(seed, u64::MAX);
    let redis = dispatch != Dispatch::InProcess;
    let pair = matches!(dispatch, Dispatch::Pair { .. });
    let names = ALWAYS.iter().chain(ON_REDIS.iter().filter(move |_| redis));
    let names = names.chain(ON_PAIR.iter().filter(move |_| pair));
    let picked = |name: &&&str| only.is_empty() || only.iter().any(|one| one == **name);
    let mut names: Vec<&str> = names.filter(picked).copied().collect();
    std::iter::repeat_with(move || {
        random.shuffle(&mut names);
        names.iter().filter_map(|name| step(name, edges, &mut random)).collect::<Vec<_>>()
    })
    .take_while(|round| !round.is_empty())
    .flatten()
}

fn step(name: &str, edges: usize, random: &mut Random) -> Option<Step> {
    let edge = usize::try_from(random.below(edges as u64)).unwrap_or(0);
    let some_or_all = random.chance(50).then_some(edge);
    let mut ms = |from, to| Duration::from_millis(random.between(from, to));
    let fault = match name {
        "edge-kill" => Fault::EdgeKill { edge, down: ms(0, 1_500) },
        "machine-loss" => Fault::MachineLoss { edge, down: ms(0, 1_500) },
        "edge-freeze" => Fault::EdgeFreeze { edge, time: ms(500, 12_000) },
        "redis-kill" => Fault::RedisKill { down: ms(0, 2_000) },
        "redis-wipe" => Fault::RedisWipe { down: ms(0, 2_000) },
        "redis-freeze" => Fault::RedisFreeze { time: ms(100, 3_000) },
        "redis-save" => Fault::RedisSave,
        "flush" => Fault::Flush,
        "failover" => Fault::Failover { edge, unseen: ms(200, 1_500), split: ms(500, 2_000) },
        "split-brain" => Fault::SplitBrain { edge, split: ms(500, 3_000) },
        "debug-sleep" => Fault::DebugSleep { time: ms(100, 2_000) },
        "client-pause" => Fault::ClientPause { time: ms(100, 2_000) },
        "lost-replies" => Fault::LostReplies { edge: some_or_all, time: ms(200, 1_500) },
        "slow-replies" => Fault::SlowReplies { delay: ms(3, 60), time: ms(1_000, 4_000) },
        "cut-replies" => Fault::CutReplies { bytes: 3, time: ms(200, 1_000) },
        "stall" => Fault::Stall { edge: some_or_all, time: ms(200, 2_000) },
        "cut-connections" => Fault::CutConnections { times: random.between(1, 20) },
        "postgres-restart" => Fault::PostgresRestart { down: ms(0, 2_000) },
        "postgres-kill" => Fault::PostgresKill { down: ms(0, 1_000) },
        "limit-change" => Fault::LimitChange,
        "double-loss" => Fault::DoubleLoss { edge, down: ms(0, 1_000) },
        _ => return None,
    };
    Some(Step { fault, calm: Duration::from_millis(random.between(300, 2_000)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_steps_and_every_round_has_every_fault() {
        let first =
            |seed| steps(seed, 4, Dispatch::Pair { tls: true }, &[]).take(42).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        let kinds: std::collections::HashSet<_> =
            first(3).iter().take(21).map(|step| std::mem::discriminant(&step.fault)).collect();
        assert_eq!(kinds.len(), ON_REDIS.len() + ON_PAIR.len() + ALWAYS.len());
    }

    #[test]
    fn without_redis_nothing_of_it_fails_and_some_can_be_picked() {
        let kinds = |dispatch, only: &[String]| {
            let steps = steps(5, 1, dispatch, only).take(100);
            steps
                .map(|step| std::mem::discriminant(&step.fault))
                .collect::<std::collections::HashSet<_>>()
        };
        assert_eq!(kinds(Dispatch::InProcess, &[]).len(), ALWAYS.len());
        assert_eq!(kinds(Dispatch::Cluster, &[]).len(), ON_REDIS.len() + ALWAYS.len());
        let pair = Dispatch::Pair { tls: false };
        assert_eq!(kinds(pair, &["flush".into(), "failover".into()]).len(), 2);
        assert_eq!(kinds(pair, &["no-such".into()]).len(), 0);
    }
}
