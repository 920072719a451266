//! The figures of quotas, from one run: Redis calls per admitted request at several rates,
//! how much of a quota is usable when one edge has a hundred times the load of the others,
//! and what an outage of Redis adds to answers.
//!
//! Four edges on the real servers, clients and a backend in this process, all on one
//! machine: rates beyond what it serves are shown as what was reached. Invariant: a figure
//! is only printed of requests that were all answered.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

use crate::{
    admin,
    authority::Authority,
    edges::{Edges, Setup},
    load,
    options::Dispatch,
    stores::Stores,
    verdict,
};

/// Edges of every measurement.
const EDGES: usize = 4;
/// Requests a second, all edges together, and the quota that goes with them: the bound of
/// 1/64 calls per admitted request is promised from 64 requests/s an edge and 100,000 on.
const RATES: [(&str, u64, u64); 3] = [
    ("calls-100", 100, 100_000),
    ("calls-1000", 1_000, 1_000_000),
    ("calls-10000", 10_000, 10_000_000),
];
/// How long each rate is measured, after as long to warm up as leases take to grow.
const MEASURE: Duration = Duration::from_secs(12);
const WARM_UP: Duration = Duration::from_secs(6);
/// The quota with skewed load, and the requests a second at the first and every other edge.
const SKEW: (&str, u64, [u64; EDGES]) = ("skew", 12_000, [1_500, 15, 15, 15]);
/// Time after the first refusal in which the rest must have become usable.
const USABLE_WITHIN: Duration = Duration::from_secs(2);
/// The tenant of the outage, its quota, its requests a second and how long it lasts: longer
/// than a lease, so that edges draw from the authority.
const OUTAGE: (&str, u64, u64, Duration) = ("outage", 1_000_000, 400, Duration::from_secs(15));
/// Requests a second of one connection: one that waits holds up few others.
const OF_CONNECTION: u64 = 50;
const CONNECTIONS_MAX: u64 = 32;

/// Measures everything and prints a table.
///
/// # Errors
/// A part does not start.
pub fn run(binary: &Path) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let backend = runtime.block_on(backend())?;
    let authority = Authority::start();
    let stores = Stores::start(Dispatch::Pair { tls: false })?.context("a Redis")?;
    let plans = plans();
    let setup = Setup {
        dir: dir.path(),
        binary,
        backend,
        store: authority.url(),
        redis: Some(&stores),
        plans: &plans,
    };
    let edges = Edges::start(EDGES, setup)?;
    let control = edges.controls().next().context("an edge")?;
    for (name, _) in tenants() {
        admin::create(control, name)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let addrs: Vec<SocketAddr> = (0..EDGES).map(|edge| edges.addr(edge)).collect();
    let measure = Measure { addrs, stores, edges };
    let mut text = String::new();
    runtime.block_on(async {
        for (name, rate, quota) in RATES {
            measure.calls(&mut text, name, rate, quota).await?;
        }
        measure.skew(&mut text).await?;
        measure.outage(&mut text).await
    })?;
    print!("{text}");
    Ok(())
}

fn tenants() -> impl Iterator<Item = (&'static str, u64)> {
    let rates = RATES.into_iter().map(|(name, _, quota)| (name, quota));
    rates.chain([(SKEW.0, SKEW.1), (OUTAGE.0, OUTAGE.1)])
}

fn plans() -> String {
    let plan = |(name, calls)| {
        format!(
            "[[plan]]\nname = \"{name}\"\n[plan.quotas]\nmax_users = 1\nmax_projects = 1\n\
             max_storage_mb = 1\nmax_concurrent_sessions = 1\nmax_api_calls_per_month = {calls}\n\
             max_ai_requests_per_day = 1\n\n"
        )
    };
    tenants().map(plan).collect()
}

/// What is measured.
struct Measure {
    addrs: Vec<SocketAddr>,
    stores: Stores,
    edges: Edges,
}

/// Clients that run until they are stopped.
struct Clients {
    counts: Arc<Counts>,
    tasks: JoinSet<Vec<(Instant, Duration)>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    served: AtomicU64,
    denied: AtomicU64,
    unavailable: AtomicU64,
    other: AtomicU64,
}

impl Measure {
    async fn calls(
        &self,
        text: &mut String,
        name: &'static str,
        rate: u64,
        quota: u64,
    ) -> Result<()> {
        let clients = self.start(name, [rate / EDGES as u64; EDGES]);
        sleep(WARM_UP).await;
        let (calls, served, began) = (self.stores.scripts(), clients.served(), Instant::now());
        sleep(MEASURE).await;
        let (calls, served) = (self.stores.scripts() - calls, clients.served() - served);
        let reached = served as f64 / began.elapsed().as_secs_f64();
        let counts = Arc::clone(&clients.counts);
        clients.stop().await;
        ensure!(served > 0, "{name}: nothing was served");
        let each = served.checked_div(calls).map_or("no call".into(), |n| format!("1/{n}"));
        writeln!(
            text,
            "Redis calls per admitted request, {rate}/s wanted, {reached:.0}/s reached, quota \
             {quota}: {each} ({calls} for {served}; 429 {}, 503 {})",
            counts.denied.load(Ordering::Relaxed),
            counts.unavailable.load(Ordering::Relaxed)
        )?;
        Ok(())
    }

    async fn skew(&self, text: &mut String) -> Result<()> {
        let (name, quota, rates) = SKEW;
        let clients = self.start(name, rates);
        let began = Instant::now();
        while clients.counts.denied.load(Ordering::Relaxed) == 0 {
            ensure!(began.elapsed() < Duration::from_secs(60), "{name}: never used up");
            sleep(Duration::from_millis(5)).await;
        }
        let at_first = clients.served();
        sleep(USABLE_WITHIN).await;
        let in_time = clients.served();
        sleep(USABLE_WITHIN * 4).await;
        let in_the_end = clients.served();
        clients.stop().await;
        let share = |served: u64| served as f64 * 100.0 / quota as f64;
        writeln!(
            text,
            "usable share of {quota} at {}:1 between edges: {:.2} % at the first refusal, {:.2} % \
             {} s later, {:.2} % in the end",
            rates[0] / rates[1],
            share(at_first),
            share(in_time),
            USABLE_WITHIN.as_secs(),
            share(in_the_end)
        )?;
        ensure!(in_the_end <= quota, "{name}: {in_the_end} served of {quota}");
        Ok(())
    }

    async fn outage(&self, text: &mut String) -> Result<()> {
        let (name, _, rate, lasts) = OUTAGE;
        let clients = self.start(name, [rate / EDGES as u64; EDGES]);
        sleep(WARM_UP).await;
        let healthy = Instant::now();
        sleep(lasts).await;
        let frozen = Instant::now();
        self.stores.target().sigstop();
        sleep(lasts).await;
        self.stores.target().sigcont();
        let whole = Instant::now();
        sleep(lasts).await;
        let counts = Arc::clone(&clients.counts);
        let samples = clients.stop().await;
        let spread = |from: Instant, to: Instant| {
            let within = samples.iter().filter(|(at, _)| *at >= from && *at < to);
            let mut waits: Vec<Duration> = within.map(|(_, wait)| *wait).collect();
            waits.sort_unstable();
            format!("{} ({} answers)", verdict::waits(&waits), waits.len())
        };
        writeln!(text, "answers at {rate}/s with Redis: {}", spread(healthy, frozen))?;
        writeln!(text, "answers with Redis stopped:     {}", spread(frozen, whole))?;
        writeln!(text, "answers with Redis back:        {}", spread(whole, whole + lasts))?;
        writeln!(
            text,
            "of these 503: {}, 429: {}, anything else: {}",
            counts.unavailable.load(Ordering::Relaxed),
            counts.denied.load(Ordering::Relaxed),
            counts.other.load(Ordering::Relaxed)
        )?;
        for line in self.edges.dead() {
            writeln!(text, "{line}")?;
        }
        Ok(())
    }

    fn start(&self, name: &'static str, rates: [u64; EDGES]) -> Clients {
        let (counts, mut tasks) = (Arc::new(Counts::default()), JoinSet::new());
        for (addr, rate) in self.addrs.iter().zip(rates) {
            let connections = rate.div_ceil(OF_CONNECTION).clamp(1, CONNECTIONS_MAX);
            let every = Duration::from_nanos(1_000_000_000 * connections / rate.max(1));
            for _ in 0..connections {
                tasks.spawn(client(*addr, name, every, Arc::clone(&counts)));
            }
        }
        Clients { counts, tasks }
    }
}

impl Clients {
    fn served(&self) -> u64 {
        self.counts.served.load(Ordering::Relaxed)
    }

    /// When each answered request began, and how long it took.
    async fn stop(self) -> Vec<(Instant, Duration)> {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn client(
    addr: SocketAddr,
    name: &'static str,
    every: Duration,
    counts: Arc<Counts>,
) -> Vec<(Instant, Duration)> {
    let mut samples = Vec::new();
    let Ok(mut sender) = load::connect(addr).await else { return samples };
    let mut due = Instant::now();
    while !counts.stop.load(Ordering::Relaxed) {
        // A connection that fell behind catches up: the rate is the offered one.
        due += every;
        let began = Instant::now();
        let Some(request) = load::request(name, false) else { break };
        let Ok((status, _)) = load::exchange(&mut sender, request).await else {
            counts.other.fetch_add(1, Ordering::Relaxed);
            break;
        };
        let counter = match status.as_u16() {
            200 => &counts.served,
            429 => &counts.denied,
            503 => &counts.unavailable,
            _ => &counts.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        samples.push((began, began.elapsed()));
        sleep(due.saturating_duration_since(Instant::now())).await;
    }
    samples
}

/// Answers everything.
async fn backend() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(
                    b"ok",
                ))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(addr)
}
