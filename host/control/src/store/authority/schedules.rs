//! Random schedules of several edges on one window, with the test as their Redis.
//!
//! Edges spend as long as the protocol lets them: they keep old bounds, spend until they
//! seal, repeat reports, lose answers, die with and without a will, and go on when they were
//! declared lost. Invariant: whatever happens, they never spend more than the largest limit.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    ledger::{
        Authority, Bounds, EpochRef, Fence, HolderId, LeaseReport, LostShare, Opening, Report,
        WindowKey,
    },
    quota::Metric,
};
use proptest::prelude::*;

use super::{
    edges::{Edge, World, redis},
    tests::key,
};
use crate::testing::{Backend, report_of};

/// Edges at a time.
const EDGES: usize = 3;
/// Limit of the window at first.
const LIMIT: u64 = 40;
/// Reports within which everybody has sealed what is closing.
const ROUNDS_MAX: usize = 20;

/// One random step; the first number chooses an edge.
#[derive(Clone, Copy, Debug)]
enum Step {
    OpenShared {
        installed: bool,
    },
    OpenOwn(usize),
    Confirm(usize),
    Lease(usize, u64),
    Spend(usize, u64),
    Return(usize),
    Finalise(usize),
    Report(usize, Delivery),
    DieWithWill(usize),
    DieWithout(usize),
    /// Declared lost, but it goes on.
    Mistaken(usize),
    Close,
    Limit(u64),
    /// Redis loses its data.
    Flush,
    Sweep,
}

/// What becomes of a report.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Once,
    Twice,
    AnswerLost,
}

fn step() -> impl Strategy<Value = Step> {
    let edge = || 0..EDGES;
    let delivery = prop_oneof![4 => Just(Delivery::Once), 1 => Just(Delivery::Twice), 1 => Just(Delivery::AnswerLost)];
    prop_oneof![
        6 => prop::bool::weighted(0.9).prop_map(|installed| Step::OpenShared { installed }),
        2 => edge().prop_map(Step::OpenOwn),
        4 => edge().prop_map(Step::Confirm),
        12 => (edge(), 1_u64..6).prop_map(|(edge, want)| Step::Lease(edge, want)),
        12 => (edge(), 1_u64..6).prop_map(|(edge, tokens)| Step::Spend(edge, tokens)),
        2 => edge().prop_map(Step::Return),
        2 => edge().prop_map(Step::Finalise),
        12 => (edge(), delivery).prop_map(|(edge, delivery)| Step::Report(edge, delivery)),
        1 => edge().prop_map(Step::DieWithWill),
        1 => edge().prop_map(Step::DieWithout),
        1 => edge().prop_map(Step::Mistaken),
        2 => Just(Step::Close),
        1 => (0_u64..80).prop_map(Step::Limit),
        1 => Just(Step::Flush),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_several_edges_do_they_spend_no_more_than_the_largest_limit(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for on in [Backend::Sqlite, Backend::Postgres] {
            runtime.block_on(play(on, &steps))?;
        }
    }
}

/// One life of a Redis server.
struct Redis {
    life: u8,
    free: BTreeMap<u64, u64>,
    out: BTreeMap<(u64, HolderId), u64>,
}

impl Redis {
    fn fence(&self) -> Fence {
        redis(self.life)
    }

    fn lease(&mut self, holder: HolderId, bounds: Bounds, want: u64) -> Option<(u64, u64)> {
        let allowed = |epoch: &u64, free: &u64| bounds.allow(*epoch) && *free > 0;
        let (epoch, free) = self.free.iter_mut().find(|(epoch, free)| allowed(epoch, free))?;
        let tokens = want.min(*free);
        *free -= tokens;
        *self.out.entry((*epoch, holder)).or_default() += tokens;
        Some((*epoch, tokens))
    }

    /// Whether the tokens were taken in.
    fn give_back(&mut self, holder: HolderId, epoch: u64, tokens: u64) -> bool {
        let (Some(free), Some(out)) =
            (self.free.get_mut(&epoch), self.out.get_mut(&(epoch, holder)))
        else {
            return false;
        };
        *free += tokens;
        *out -= tokens;
        true
    }

    /// What a holder has of an epoch; nothing more is granted of it or of those before.
    fn close(&mut self, epoch: u64, fence: Fence, holder: HolderId) -> Option<u64> {
        if fence != self.fence() {
            return None;
        }
        self.free.retain(|other, _| *other > epoch);
        Some(self.out.get(&(epoch, holder)).copied().unwrap_or(0))
    }
}

/// A lease of an edge.
#[derive(Clone, Copy)]
struct Held {
    epoch: u64,
    lease: u32,
    tokens: u64,
    spent: u64,
    sealed: bool,
}

struct Player {
    edge: Edge,
    name: String,
    bounds: Bounds,
    held: Vec<Held>,
    own: u64,
    /// Sealed, but perhaps not yet told.
    seals: BTreeSet<u64>,
    lost: Vec<LostShare>,
}

impl Player {
    fn new(edge: Edge, name: &str) -> Self {
        let (held, seals, lost) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { edge, name: name.into(), bounds: Bounds::default(), held, own: 0, seals, lost }
    }

    fn add(&mut self, epoch: u64, tokens: u64) {
        let lease = self.held.len() as u32 + 1;
        // A grant of an epoch that was sealed meanwhile is dropped.
        let sealed = self.seals.contains(&epoch);
        self.held.push(Held { epoch, lease, tokens, spent: 0, sealed });
    }

    fn spend(&mut self, tokens: u64) -> u64 {
        let usable = |held: &&mut Held| !held.sealed && held.spent < held.tokens;
        let Some(held) = self.held.iter_mut().find(usable) else { return 0 };
        let tokens = tokens.min(held.tokens - held.spent);
        held.spent += tokens;
        tokens
    }

    fn leases(&self, key: WindowKey, all_sealed: bool) -> Vec<LeaseReport> {
        let report = |held: &Held| LeaseReport {
            of: EpochRef { key, epoch: held.epoch },
            tranche: held.tokens,
            lease: held.lease,
            spent: held.spent,
            refunded: 0,
            sealed: held.sealed || all_sealed,
        };
        self.held.iter().map(report).collect()
    }

    fn report(&self, key: WindowKey) -> Report {
        let seals = self.seals.iter().map(|epoch| EpochRef { key, epoch: *epoch }).collect();
        let (lost, watched) = (self.lost.clone(), vec![key]);
        Report { seals, lost, watched, ..report_of(self.edge.id, 0, self.leases(key, false)) }
    }

    fn seal(&mut self, epoch: u64) {
        self.seals.insert(epoch);
        self.held.iter_mut().filter(|held| held.epoch == epoch).for_each(|held| held.sealed = true);
    }
}

struct Play {
    world: World,
    key: WindowKey,
    redis: Redis,
    players: Vec<Player>,
    /// Declared lost, and spending on.
    zombies: Vec<Player>,
    limit: u64,
    highest: u64,
    charged: u64,
    /// Nobody was lost, so everything unspent has to come back.
    all_told: bool,
}

async fn play(on: Backend, steps: &[Step]) -> Result<(), TestCaseError> {
    let world = World::new(on).await;
    let mut players = Vec::new();
    for n in 0..EDGES {
        let name = format!("edge-{n}");
        players.push(Player::new(world.edge(&name).await, &name));
    }
    let redis = Redis { life: 1, free: BTreeMap::new(), out: BTreeMap::new() };
    let (zombies, charged, all_told) = (Vec::new(), 0, true);
    let (limit, highest, key) = (LIMIT, LIMIT, key(Metric::ApiCalls));
    let mut play = Play { world, key, redis, players, zombies, limit, highest, charged, all_told };
    for step in steps {
        play.step(*step).await;
        prop_assert!(play.charged <= play.highest, "{} of {}", play.charged, play.highest);
    }
    play.finish().await
}

impl Play {
    async fn step(&mut self, step: Step) {
        match step {
            Step::OpenShared { installed } => self.open_shared(installed).await,
            Step::OpenOwn(n) => self.open_own(n).await,
            Step::Confirm(n) => match self.players[n].edge.bounds(self.key).await {
                Some(bounds) => self.players[n].bounds = bounds,
                None => drop(self.begin_anew(n).await),
            },
            Step::Lease(n, want) => {
                let everybody = self.players.iter_mut().skip(n).take(1).chain(&mut self.zombies);
                for player in everybody {
                    let granted = self.redis.lease(player.edge.id, player.bounds, want);
                    granted.into_iter().for_each(|(epoch, tokens)| player.add(epoch, tokens));
                }
            }
            Step::Spend(n, tokens) => {
                let everybody = self.players.iter_mut().skip(n).take(1).chain(&mut self.zombies);
                self.charged += everybody.map(|player| player.spend(tokens)).sum::<u64>();
            }
            Step::Return(n) => self.give_back(n),
            Step::Finalise(n) => {
                let open = self.players[n].held.iter_mut().find(|held| !held.sealed);
                open.into_iter().for_each(|held| held.sealed = true);
            }
            Step::Report(n, delivery) => self.report(n, delivery).await,
            Step::DieWithWill(n) => self.die_with_will(n).await,
            Step::DieWithout(n) => drop(self.lose(n).await),
            Step::Mistaken(n) => {
                let zombie = self.lose(n).await;
                self.zombies.push(zombie);
            }
            Step::Close => self.world.close(self.key).await,
            Step::Limit(limit) => {
                self.limit = limit;
                self.highest = self.highest.max(limit);
            }
            Step::Flush => {
                let life = self.redis.life + 1;
                self.redis = Redis { life, free: BTreeMap::new(), out: BTreeMap::new() };
            }
            Step::Sweep => {
                self.world.store.sweep_epochs().await.expect("swept");
            }
        }
    }

    async fn open_shared(&mut self, installed: bool) {
        let fence = self.redis.fence();
        let mut latest = 0;
        loop {
            match self.world.open_under(self.key, fence, latest, self.limit).await {
                Opening::Lost { latest: newer } => latest = newer,
                Opening::Exhausted | Opening::Parked => return,
                Opening::Opened(permit) => {
                    if installed {
                        self.redis.free.insert(permit.epoch(), permit.tranche());
                    }
                    return;
                }
            }
        }
    }

    async fn open_own(&mut self, n: usize) {
        let player = &mut self.players[n];
        let fence = Fence::Holder(player.edge.id);
        match self.world.open_under(self.key, fence, player.own, self.limit).await {
            Opening::Opened(permit) => {
                player.own = permit.epoch();
                player.add(permit.epoch(), permit.tranche());
            }
            Opening::Exhausted | Opening::Parked => {}
            Opening::Lost { .. } => panic!("nobody else opens with this fence"),
        }
    }

    fn give_back(&mut self, n: usize) {
        let Player { edge, held, .. } = &mut self.players[n];
        for held in held.iter_mut().filter(|held| !held.sealed) {
            let rest = held.tokens - held.spent;
            if self.redis.give_back(edge.id, held.epoch, rest) {
                held.tokens -= rest;
                held.sealed = true;
            }
        }
    }

    async fn report(&mut self, n: usize, delivery: Delivery) {
        let player = &mut self.players[n];
        let report = player.report(self.key);
        let mut answer = player.edge.send(report.clone()).await;
        if matches!(delivery, Delivery::Twice) {
            player.edge.number -= 1;
            answer = player.edge.send(report).await;
        }
        if answer.ended {
            return drop(self.begin_anew(n).await);
        }
        if matches!(delivery, Delivery::AnswerLost) {
            return;
        }
        player.bounds = player.bounds.joined(answer.standings[0].unwrap_or_default().bounds);
        let recalls = answer.recalls.iter().chain(&answer.own_recalls);
        recalls.for_each(|of| player.seal(of.epoch));
        player.lost.clear();
        for (of, fence, holder) in answer.lost {
            let told = self.redis.close(of.epoch, fence, holder);
            let share = told.map(|tokens| LostShare { of, holder, tokens });
            player.lost.extend(share);
        }
    }

    /// The successor on the same machine.
    async fn begin_anew(&mut self, n: usize) -> Player {
        let name = self.players[n].name.clone();
        let heir = Player::new(self.world.edge(&name).await, &name);
        std::mem::replace(&mut self.players[n], heir)
    }

    async fn die_with_will(&mut self, n: usize) {
        let dead = self.begin_anew(n).await;
        let will = dead.edge.will(dead.leases(self.key, true));
        self.world.store.inherit(will).await.expect("inherited");
    }

    async fn lose(&mut self, n: usize) -> Player {
        self.all_told = false;
        let lost = self.begin_anew(n).await;
        let heir = self.players[n].edge.id;
        self.world.store.strand_others(heir).await.expect("stranded");
        lost
    }

    /// Everybody seals; then the accounts add up, and what nobody spent came back.
    async fn finish(mut self) -> Result<(), TestCaseError> {
        self.world.close(self.key).await;
        let epochs: BTreeSet<u64> =
            self.players.iter().flat_map(|player| &player.held).map(|held| held.epoch).collect();
        for player in &mut self.players {
            epochs.iter().for_each(|epoch| player.seal(*epoch));
        }
        for _ in 0..ROUNDS_MAX {
            for n in 0..self.players.len() {
                self.report(n, Delivery::Once).await;
            }
        }
        self.world.store.sweep_epochs().await.expect("swept");
        prop_assert_eq!(self.world.store.audit_quotas().await.expect("an audit"), vec![]);
        let accounts = self.world.store.accounts(vec![self.key]).await.expect("an answer");
        let account = accounts[0].unwrap_or_default();
        prop_assert!(self.charged <= account.granted - account.credited);
        if self.all_told {
            prop_assert_eq!(account.granted - account.credited, self.charged);
        }
        Ok(())
    }
}
