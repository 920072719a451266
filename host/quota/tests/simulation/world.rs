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
    ledger::{BootId, WindowKey},
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
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
    population::{Change, Kind, Population},
    redis::Server,
    rules::Rules,
    trace::trace,
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
/// Records of an edge's lease file: enough for one tenant, and for a family.
const RECORDS: u32 = 32;
const FAMILY_RECORDS: u32 = 160;
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
    population: Population,
    entries: Arc<[TenantEntry]>,
    /// Edges that will hear of the limits.
    news: Vec<(Instant, usize)>,
    upkeep: Instant,
    /// Tokens that may stay charged beside those of lost holders.
    wasted: u64,
}

struct Shape {
    wall: UnixMs,
    edges: usize,
    population: Population,
    usual: bool,
}

impl World {
    pub(super) fn new(seed: u64, rules: Rules, kind: Kind, folder: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let at_end = random.random_range(0..4) == 0;
        let before = random.random_range(2_000..8_000);
        let wall = if at_end { UnixMs(MONTH.0 - before) } else { NOON };
        let edges = random.random_range(2..=4);
        let limits = [limit(&mut random), limit(&mut random)];
        let population = Population::new(kind, limits, &mut random);
        Self::of(seed, random, rules, folder, Shape { wall, edges, population, usual: false })
    }

    /// A world of one's own making, in the middle of a month, without faults.
    pub(super) fn calm(edges: usize, limit: u64, folder: &Path) -> Self {
        let population = Population::new(Kind::Lone, [limit, 0], &mut StdRng::seed_from_u64(1));
        Self::calm_with(edges, population, folder)
    }

    /// The same with other tenants.
    pub(super) fn calm_with(edges: usize, population: Population, folder: &Path) -> Self {
        let shape = Shape { wall: NOON, edges, population, usual: true };
        Self::of(1, StdRng::seed_from_u64(1), Rules::ALL, folder, shape)
    }

    fn of(seed: u64, mut random: StdRng, rules: Rules, folder: &Path, shape: Shape) -> Self {
        let Shape { wall, edges, population, usual } = shape;
        let clock = SimClock::at(wall, 0);
        let network = Network::new(seed ^ 0x9e37_79b9_7f4a_7c15);
        let truth = Truth::new(clock);
        truth.bound(population.bounds());
        let terms = population.terms().clone();
        let books = Arc::new(Mutex::new(Books::new(clock, truth.clone(), rules, terms)));
        let entries = population.entries();
        let lease_records = if entries.len() > 1 { FAMILY_RECORDS } else { RECORDS };
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
            lease_records,
        };
        let edges = (0..edges).map(|number| Edge::new(place(number))).collect();
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
            population,
            entries,
            news,
            upkeep,
            wasted,
        };
        world.edges.iter_mut().for_each(Edge::start);
        world
    }

    /// Another limit, of which the edges hear one after the other.
    pub(super) fn change_limit(&mut self) {
        let metric = Metric::CONSUMABLE[self.random.random_range(0..2)];
        let limit = limit(&mut self.random);
        let change = self.population.change(metric, limit, &mut self.random);
        trace(&self.clock, format_args!("{change:?}"));
        self.truth.bound(self.population.bounds());
        let terms = self.population.terms();
        match change {
            Change::Limit => {}
            Change::Terms => self.books.lock().unwrap().settle(terms),
            Change::Member(tenant) => self.books.lock().unwrap().moved(tenant, terms),
        }
        self.entries = self.population.entries();
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
            self.edges[edge].apply(&self.entries);
        }
        for edge in &mut self.edges {
            edge.look(&self.entries).await;
            edge.settle(false);
        }
    }

    pub(super) fn random(&mut self, below: u32) -> u32 {
        self.random.random_range(0..below)
    }

    /// Some requests at an edge.
    fn requests(&mut self, edge: usize, number: u32) {
        let tenants = self.entries.len();
        for _ in 0..number {
            let tenant = if tenants > 1 { self.random.random_range(0..tenants) } else { 0 };
            let metrics = [API, API, AI, BOTH][self.random(4) as usize];
            let fate = match self.random(10) {
                0 => Fate::Refused,
                1 => Fate::Failed,
                _ => Fate::Served,
            };
            self.edges[edge].request(tenant, metrics, fate, &mut self.random);
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
        let keys = keys(&self.entries, &self.clock);
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

    /// Tokens that need not be usable, at most.
    fn unusable(&self) -> u64 {
        let books = self.books.lock().unwrap();
        // What came back to a holder that was ended stays charged.
        let refunded = if books.lost() > 0 { self.truth.refunded() } else { 0 };
        let aside: u64 = self.keys().iter().map(|key| books.aside(key)).sum();
        self.wasted + books.wasted() + refunded + aside
    }

    fn keys(&self) -> Vec<WindowKey> {
        keys(&self.entries, &self.clock)
    }

    /// The most that a tenant could have more, by what is charged.
    fn room(&self, metric: Metric) -> u64 {
        let (books, keys) = (self.books.lock().unwrap(), self.keys());
        let used = |tenant| {
            let charged = self.truth.charged(self.truth.present(tenant, metric));
            let key = keys.iter().find(|key| (key.tenant, key.metric) == (tenant, metric));
            let (base, carried) = key.map_or((0, 0), |key| books.apart(key));
            (charged.saturating_sub(base), carried)
        };
        self.population.room(metric, used)
    }

    fn is_used_up(&self) -> bool {
        let unusable = self.unusable();
        Metric::CONSUMABLE.iter().all(|metric| self.room(*metric) <= unusable)
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
                let room = Metric::CONSUMABLE.map(|metric| self.room(metric));
                let unusable = self.unusable();
                let open = self.books.lock().unwrap().open_epochs();
                self.truth.waste(format_args!(
                    "there is room for {room:?} of {:?}, and but {unusable} may be unusable{open}",
                    self.population.limits()
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
        for edge in &mut self.edges {
            for tenant in 0..self.entries.len() {
                for metrics in [API, AI] {
                    for _ in 0..8 {
                        edge.request(tenant, metrics, Fate::Served, &mut self.random);
                    }
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
        self.calls_of(0, edge, number);
    }

    /// The same of one of several tenants.
    pub(super) fn calls_of(&mut self, tenant: usize, edge: usize, number: u64) {
        for _ in 0..number {
            self.edges[edge].request(tenant, API, Fate::Served, &mut self.random);
        }
    }

    /// Calls that are charged to all tenants together.
    pub(super) fn charged_calls(&self) -> u64 {
        let calls = |entry: &TenantEntry| self.truth.present(entry.id(), Metric::ApiCalls);
        self.entries.iter().map(|entry| self.truth.charged(calls(entry))).sum()
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
