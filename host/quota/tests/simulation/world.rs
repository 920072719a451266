//! One schedule: a world made from a seed, a while of faults, and then peace.
//!
//! Every choice comes from the seed, so a schedule is its seed. Invariants: nothing above
//! the limit is admitted at any time; once everything answers again, all that was not
//! charged is usable, but what lost holders may have had.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    clock::UnixMs,
    ledger::BootId,
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
    tenant::TenantId,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    books::Books,
    clock::SimClock,
    edge::{Edge, Fate, Place, keys},
    faults::{Fault, Faults},
    link::{Listeners, Site},
    network::{self, Network, Weather},
    redis::Server,
    rules::Rules,
    tenants::entry,
    truth::Truth,
};

/// Noon in the middle of a month, and the first instant of another.
const NOON: UnixMs = UnixMs(1_700_049_600_000);
const MONTH: UnixMs = UnixMs(1_701_388_800_000);
/// Steps of the first part; each takes up to so many ms.
const STEPS: u32 = 120;
const STEP_MS: u64 = 60;
/// Longest time in which everything has to be usable again.
const PEACE: Duration = Duration::from_secs(60);
/// Time after that in which nothing more may be admitted.
const AFTER: Duration = Duration::from_secs(3);
/// Longest time in which an edge hears of another limit, in ms.
const HEARS_MS: u64 = 500;

const API: MetricSet = MetricSet::of(Metric::ApiCalls);
const AI: MetricSet = MetricSet::of(Metric::AiRequests);
const BOTH: MetricSet = API.with(Metric::AiRequests);

/// What a schedule came to.
pub(super) struct Outcome {
    pub(super) broken: Option<String>,
    pub(super) wasted: Option<String>,
    pub(super) admitted: u64,
    pub(super) faults: u64,
    /// Holders that were ended without their figures.
    pub(super) lost: u64,
}

pub(super) struct World {
    pub(super) random: StdRng,
    pub(super) clock: SimClock,
    pub(super) network: Arc<Network>,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) books: Arc<Mutex<Books>>,
    pub(super) truth: Truth,
    pub(super) edges: Vec<Edge>,
    tenant: TenantId,
    limits: [u64; 2],
    entry: TenantEntry,
    /// Edges that will hear of the limits.
    news: Vec<(Instant, usize)>,
    upkeep: Instant,
    /// Tokens that may stay charged beside those of lost holders.
    wasted: u64,
}

struct Shape {
    wall: UnixMs,
    edges: usize,
    limits: [u64; 2],
    usual: bool,
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules, folder: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let at_end = random.random_range(0..4) == 0;
        let before = random.random_range(2_000..8_000);
        let wall = if at_end { UnixMs(MONTH.0 - before) } else { NOON };
        let edges = random.random_range(2..=4);
        let limits = [limit(&mut random), limit(&mut random)];
        Self::of(seed, random, rules, folder, Shape { wall, edges, limits, usual: false })
    }

    /// A world of one's own making, in the middle of a month, without faults.
    pub(super) fn calm(edges: usize, limit: u64, folder: &Path) -> Self {
        let (random, limits) = (StdRng::seed_from_u64(1), [limit, 0]);
        let shape = Shape { wall: NOON, edges, limits, usual: true };
        Self::of(1, random, Rules::ALL, folder, shape)
    }

    fn of(seed: u64, mut random: StdRng, rules: Rules, folder: &Path, shape: Shape) -> Self {
        let Shape { wall, edges, limits, usual } = shape;
        let clock = SimClock::at(wall, 0);
        let network = Network::new(seed ^ 0x9e37_79b9_7f4a_7c15);
        let truth = Truth::new(clock);
        let books = Arc::new(Mutex::new(Books::new(clock, truth.clone(), rules)));
        let servers: Vec<_> =
            (0..2).map(|number| Server::new(number + 1, number == 0, clock, rules)).collect();
        let listeners = Arc::<Listeners>::default();
        let (network_, servers_) = (Arc::clone(&network), servers.clone());
        let site = Site { network: network_, servers: servers_, listeners, rules };
        let mut place = |number| Place {
            number,
            folder: folder.to_owned(),
            boot: BootId(Uuid::from_u128(random.random())),
            clock: clock.off_by(random.random_range(0..7_200_000), random.random_range(1..1 << 40)),
            site: site.clone(),
            books: Arc::clone(&books),
            truth: truth.clone(),
            usual,
        };
        let edges = (0..edges).map(|number| Edge::new(place(number))).collect();
        let tenant = TenantId(Uuid::from_u128(7));
        let entry = entry(tenant, limits[0], limits[1]);
        let upkeep = Instant::now();
        let (news, wasted) = (Vec::new(), 0);
        let mut world = Self {
            random,
            clock,
            network,
            servers,
            books,
            truth,
            edges,
            tenant,
            limits,
            entry,
            news,
            upkeep,
            wasted,
        };
        world.limit_of(Metric::ApiCalls, limits[0]);
        world.limit_of(Metric::AiRequests, limits[1]);
        world.edges.iter_mut().for_each(Edge::start);
        world
    }

    fn limit_of(&mut self, metric: Metric, limit: u64) {
        let index = usize::from(metric == Metric::AiRequests);
        self.limits[index] = limit;
        self.truth.limit(metric, limit);
    }

    /// Another limit, of which the edges hear one after the other.
    pub(super) fn change_limit(&mut self) {
        let metric = Metric::CONSUMABLE[self.random.random_range(0..2)];
        let limit = limit(&mut self.random);
        self.limit_of(metric, limit);
        self.entry = entry(self.tenant, self.limits[0], self.limits[1]);
        for edge in 0..self.edges.len() {
            let after = Duration::from_millis(self.random.random_range(0..=HEARS_MS));
            self.news.push((Instant::now() + after, edge));
        }
    }

    /// Lets some time pass.
    pub(super) async fn pass(&mut self, ms: u64) {
        sleep(Duration::from_millis(ms)).await;
        let now = Instant::now();
        if now.duration_since(self.upkeep) >= Duration::from_secs(1) {
            self.upkeep = now;
            self.books.lock().unwrap().upkeep();
        }
        for (_, edge) in self.news.extract_if(.., |(at, _)| *at <= now) {
            self.edges[edge].apply(&self.entry);
        }
        for edge in &mut self.edges {
            edge.look(&self.entry).await;
            edge.settle(false);
        }
    }

    pub(super) fn random(&mut self, below: u32) -> u32 {
        self.random.random_range(0..below)
    }

    /// Some requests at an edge.
    fn requests(&mut self, edge: usize, number: u32) {
        for _ in 0..number {
            let metrics = [API, API, AI, BOTH][self.random(4) as usize];
            let fate = match self.random(10) {
                0 => Fate::Refused,
                1 => Fate::Failed,
                _ => Fate::Served,
            };
            self.edges[edge].request(metrics, fate, &mut self.random);
        }
    }

    /// Kills an edge; what came back late and was not told is lost with it.
    pub(super) async fn kill(&mut self, edge: usize) {
        self.forget(edge);
        self.edges[edge].kill().await;
    }

    pub(super) async fn lose_machine(&mut self, edge: usize) {
        self.forget(edge);
        let boot = Uuid::from_u128(self.random.random());
        self.edges[edge].lose_machine(boot).await;
    }

    fn forget(&mut self, edge: usize) {
        let keys = keys(&self.entry, &self.clock);
        self.wasted += self.edges[edge].untold(&keys);
    }

    /// Everything answers again.
    fn heal(&mut self) {
        self.network.heal();
        if !self.servers.iter().any(|server| server.is_master()) {
            self.servers[0].promote();
        }
        self.servers.iter().for_each(|server| server.set_up(true));
        for edge in &mut self.edges {
            if edge.is_down() {
                edge.start();
            }
            edge.settle(true);
        }
    }

    /// What must be usable of a metric, at least.
    fn usable(&self, index: usize) -> u64 {
        let (wasted, lost) = {
            let books = self.books.lock().unwrap();
            (books.wasted(), books.lost())
        };
        // What came back to a holder that was ended stays charged.
        let refunded = if lost > 0 { self.truth.refunded() } else { 0 };
        self.limits[index].saturating_sub(self.wasted + wasted + refunded)
    }

    fn is_used_up(&self) -> bool {
        Metric::CONSUMABLE.iter().enumerate().all(|(index, metric)| {
            self.truth.charged(self.truth.present(*metric)) >= self.usable(index)
        })
    }

    /// Runs a schedule to its end.
    pub(super) async fn run(mut self) -> Outcome {
        let mut faults = Faults::of(&mut self.random);
        let busy = faults.load();
        for _ in 0..STEPS {
            let ms = self.random.random_range(0..=STEP_MS);
            self.pass(ms).await;
            if let Some(fault) = faults.next(&mut self.random) {
                fault.strike(&mut self).await;
            }
            // The first edge has most of the load.
            let edge = self.random(1 + self.edges.len() as u32).saturating_sub(1) as usize;
            let number = self.random(busy);
            self.requests(edge, number);
            if self.truth.broken().is_some() {
                return self.outcome(&faults);
            }
        }
        faults.end();
        self.heal();
        self.use_up().await;
        self.outcome(&faults)
    }

    async fn use_up(&mut self) {
        let began = Instant::now();
        while !self.is_used_up() && self.truth.broken().is_none() {
            if began.elapsed() > PEACE {
                let charged =
                    Metric::CONSUMABLE.map(|metric| self.truth.charged(self.truth.present(metric)));
                let open = self.books.lock().unwrap().open_epochs();
                let usable = [self.usable(0), self.usable(1)];
                self.truth.waste(format_args!(
                    "{charged:?} charged, {usable:?} should be usable of {:?}{open}",
                    self.limits
                ));
                break;
            }
            self.demand().await;
        }
        let quiet = Instant::now();
        while quiet.elapsed() < AFTER && self.truth.broken().is_none() {
            self.demand().await;
        }
    }

    /// Requests at all edges, all of which are served.
    async fn demand(&mut self) {
        self.pass(20).await;
        for edge in 0..self.edges.len() {
            for metrics in [API, AI] {
                for _ in 0..8 {
                    self.edges[edge].request(metrics, Fate::Served, &mut self.random);
                }
            }
        }
    }

    fn outcome(&self, faults: &Faults) -> Outcome {
        Outcome {
            broken: self.truth.broken(),
            wasted: self.truth.wasted(),
            admitted: self.truth.admitted(),
            faults: faults.struck(),
            lost: self.books.lock().unwrap().lost(),
        }
    }

    /// Requests of calls at an edge, all of which are served.
    pub(super) fn calls(&mut self, edge: usize, number: u64) {
        for _ in 0..number {
            self.edges[edge].request(API, Fate::Served, &mut self.random);
        }
    }

    pub(super) fn cut(&mut self, edge: usize, place: network::Place) {
        self.network.cut(edge, place);
    }

    pub(super) fn set_weather(&mut self) {
        let weather =
            Weather { lost: self.random(60), twice: self.random(120), slow: self.random(150) };
        self.network.set_weather(weather);
    }
}

/// Of every size: as many small ones as large ones.
fn limit(random: &mut StdRng) -> u64 {
    let magnitude = random.random_range(2..12);
    random.random_range(1 << magnitude..=2 << magnitude)
}

/// What ends, or begins, some time after a fault.
pub(super) type Later = (Instant, Fault);
