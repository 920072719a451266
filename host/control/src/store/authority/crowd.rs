//! Several edges in several processes at once, over shared epochs on one PostgreSQL.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::join_all;
use model::{
    clock::ManualClock,
    ledger::{
        Authority, Bounds, EpochRef, LeaseReport, OpenRequest, Opening, Report, ReportAnswer,
        WindowKey,
    },
    quota::Metric,
};

use super::{
    edges::{Edge, World, lease, redis},
    tests::{NOON, key},
};
use crate::{
    Store,
    testing::{Backend, report_of},
};

/// Tokens of the window that everybody spends.
const LIMIT: u64 = 300;
/// Edges, on two processes in turn.
const EDGES: usize = 6;
/// Races of each kind.
const RACES: usize = 30;

/// Another process on the same database.
async fn another(world: &World) -> Arc<Store> {
    let clock = Arc::new(ManualClock::at(NOON));
    Store::open(&world.database.url(), clock).await.expect("a store")
}

/// What the edges share: free tokens by epoch, and how many were spent.
#[derive(Default)]
struct Shared {
    free: Mutex<BTreeMap<u64, u64>>,
    spent: AtomicU64,
}

impl Shared {
    fn lease(&self, bounds: Bounds, want: u64) -> Option<(u64, u64)> {
        let mut ledger = self.free.lock().expect("not poisoned");
        let usable = |(epoch, free): &(&u64, &mut u64)| bounds.allow(**epoch) && **free > 0;
        let (epoch, free) = ledger.iter_mut().find(usable)?;
        let tokens = want.min(*free);
        *free -= tokens;
        Some((*epoch, tokens))
    }

    fn is_used_up(&self) -> bool {
        self.spent.load(Ordering::SeqCst) >= LIMIT
    }
}

/// An edge that spends until the window is used up, and a lease for each token or three.
struct Spender {
    edge: Edge,
    key: WindowKey,
    shared: Arc<Shared>,
    bounds: Bounds,
    held: Vec<LeaseReport>,
    seals: BTreeSet<EpochRef>,
}

impl Spender {
    async fn spend_all(mut self, want: u64) {
        while !self.shared.is_used_up() {
            match self.shared.lease(self.bounds, want) {
                Some((epoch, tokens)) => self.take(epoch, tokens),
                None => self.open().await,
            }
            // Late: until then it spends by the bounds that it has.
            if self.held.len().is_multiple_of(4) || want == 1 {
                self.report().await;
            }
        }
        self.report().await;
    }

    fn take(&mut self, epoch: u64, tokens: u64) {
        let of = EpochRef { key: self.key, epoch };
        // Late grants of what it sealed are dropped; they come back by the credit.
        if !self.seals.contains(&of) {
            self.shared.spent.fetch_add(tokens, Ordering::SeqCst);
            let number = self.held.len() as u32 + 1;
            self.held.push(lease(of, number, tokens, true));
        }
    }

    async fn open(&mut self) {
        let OpenRequest { key, fence, .. } = self.request(0);
        let latest = self.edge.bounds(key).await.expect("alive").latest;
        let request = OpenRequest { fence, ..self.request(latest) };
        let openings = self.edge.store.open(self.edge.id, vec![request]).await;
        match openings.expect("an answer").remove(0) {
            Opening::Opened(permit) => {
                let mut free = self.shared.free.lock().expect("not poisoned");
                free.insert(permit.epoch(), permit.tranche());
            }
            Opening::Lost { .. } | Opening::Exhausted | Opening::Parked => {}
        }
        self.report().await;
    }

    fn request(&self, latest: u64) -> OpenRequest {
        OpenRequest {
            key: self.key,
            fence: redis(1),
            latest,
            limit: LIMIT,
            above: None,
            rate_per_s: 0,
        }
    }

    async fn report(&mut self) {
        let seals = self.seals.iter().copied().collect();
        let report = report_of(self.edge.id, 0, self.held.clone());
        let answer = self.edge.send(Report { seals, watched: vec![self.key], ..report }).await;
        assert!(!answer.ended);
        self.bounds = self.bounds.joined(answer.standings[0].unwrap_or_default().bounds);
        self.seals.extend(answer.recalls);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_of_two_processes_spend_every_token_of_a_limit_once() {
    let world = World::new(Backend::Postgres).await;
    let there = another(&world).await;
    let key = key(Metric::ApiCalls);
    let shared = Arc::new(Shared::default());
    let mut spenders = Vec::new();
    for n in 0..EDGES {
        let store = if n % 2 == 0 { &world.store } else { &there };
        let edge = Edge::on(store, &format!("edge-{n}")).await;
        let (shared, bounds) = (Arc::clone(&shared), Bounds::default());
        let (held, seals) = (Vec::new(), BTreeSet::new());
        let spender = Spender { edge, key, shared, bounds, held, seals };
        spenders.push(tokio::spawn(spender.spend_all(1 + n as u64 % 3)));
    }
    for spender in join_all(spenders).await {
        spender.expect("no panic");
    }
    assert_eq!(shared.spent.load(Ordering::SeqCst), LIMIT);
    let (charged, _) = world.account(key).await;
    assert_eq!(charged, LIMIT);
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_registers_while_an_epoch_closes_either_has_to_seal_it_or_may_not_spend_it() {
    let world = World::new(Backend::Postgres).await;
    let there = another(&world).await;
    let mut one = world.edge("one").await;
    for race in 0..RACES {
        let key = key(Metric::ApiCalls);
        let of = world.opened(key, redis(1), 0).await;
        let closing = async {
            world.close(key).await;
            one.seal(of).await
        };
        let coming = async {
            let late = Edge::on(&there, &format!("late-{race}")).await;
            let bounds = late.bounds(key).await.expect("alive");
            (late, bounds)
        };
        let (_, (mut late, bounds)) = tokio::join!(closing, coming);
        if bounds.allow(of.epoch) {
            assert_eq!(world.account(key).await.1, 0, "it may have tokens");
            late.figures(vec![lease(of, 1, 8, true)]).await;
        }
        late.seal(of).await;
        let unspent = if bounds.allow(of.epoch) { 0 } else { 8 };
        assert_eq!(world.account(key).await.1, unspent);
        world.store.end(late.id).await.expect("ended");
    }
    world.audit().await;
}

/// Opens the next shared tranche for an edge; `None` when it was ended, or nothing is left.
async fn opened_by(edge: &Edge, key: WindowKey, latest: u64) -> Option<u64> {
    let request =
        OpenRequest { key, fence: redis(1), latest, limit: LIMIT, above: None, rate_per_s: 0 };
    let openings = edge.store.open(edge.id, vec![request]).await.ok()?;
    match openings.first() {
        Some(Opening::Opened(permit)) => Some(permit.epoch()),
        Some(Opening::Exhausted | Opening::Parked) => None,
        other => panic!("nobody else opens, and not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_holder_comes_to_know_while_it_is_declared_lost_waits_for_its_share() {
    let world = World::new(Backend::Postgres).await;
    let there = another(&world).await;
    let mut witness = world.edge("witness").await;
    for race in 0..RACES {
        let (confirmed, opened) = (key(Metric::ApiCalls), key(Metric::ApiCalls));
        let name = format!("edge-{race}");
        let (holder, heir) = (Edge::on(&there, &name).await, world.edge(&name).await);
        let opening = async {
            opened_by(&witness, confirmed, 0).await.expect("it lives");
            opened_by(&witness, confirmed, 1).await.expect("it lives");
        };
        let confirming = async {
            let mut seen = Bounds::default();
            while let Some(bounds) = holder.bounds(confirmed).await {
                seen = bounds;
            }
            seen
        };
        let opening_itself = async {
            let mut latest = 0;
            while let Some(epoch) = opened_by(&holder, opened, latest).await {
                latest = epoch;
            }
            latest
        };
        let losing = async {
            tokio::task::yield_now().await;
            world.store.strand_others(heir.id).await.expect("stranded");
        };
        let ((), seen, latest, ()) = tokio::join!(opening, confirming, opening_itself, losing);
        Authority::close(&*world.store, vec![confirmed, opened]).await.expect("closed");
        let ReportAnswer { lost, recalls, .. } = witness.figures(vec![]).await;
        let waits = |key, epoch| lost.contains(&(EpochRef { key, epoch }, redis(1), holder.id));
        for epoch in (1..=2).filter(|epoch| seen.allow(*epoch)) {
            assert!(waits(confirmed, epoch), "{epoch} of {seen:?} in race {race}");
        }
        for epoch in 1..=latest {
            assert!(waits(opened, epoch), "{epoch} of {latest} in race {race}");
        }
        // Nothing is left over for the next race.
        for (of, _, holder) in lost {
            witness.tell(of, holder, 8).await;
        }
        for of in recalls {
            witness.seal(of).await;
        }
        world.store.end(heir.id).await.expect("ended");
        world.store.sweep_epochs().await.expect("swept");
        assert!(witness.figures(vec![]).await.lost.is_empty());
    }
    world.audit().await;
}
