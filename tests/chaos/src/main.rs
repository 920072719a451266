//! The chaos run: exact quotas under faults, with real processes.
//!
//! Four edges, a Redis master with its replica, PostgreSQL, a proxy on every line between an
//! edge and a Redis, clients far above every limit, and a backend that counts what arrives:
//! the ground truth. Faults come from a seed; a month ends in the middle of the run. Then
//! all is healed, and what is left of every quota must become usable. Any violation ends the
//! program with failure. Talks to loopback only, ends only what it started, and stops by
//! itself. To add a fault, give it a name and figures in `scenario.rs` and an arm in
//! `perform.rs`; to add a rule, put it where its facts are: at an arrival (`truth.rs`), at an
//! answer (`answers.rs`) or at the end (`verdict.rs`).

#![expect(unreachable_pub, reason = "a binary has no other reader")]

mod admin;
mod answers;
mod authority;
mod edges;
mod figures;
mod limits;
mod live;
mod load;
mod options;
mod perform;
mod random;
mod scenario;
mod stored;
mod stores;
mod tenants;
mod time;
mod truth;
mod verdict;
mod violations;
mod visitors;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    answers::Answers,
    authority::Authority,
    edges::{Edges, Setup},
    limits::Limits,
    load::Load,
    options::Options,
    perform::{Losses, Stage},
    random::Random,
    stores::Stores,
    tenants::TENANTS,
    truth::Truth,
    violations::Violations,
    visitors::Visitors,
};

/// What starting everything takes, in seconds, about.
const SET_UP_S: u64 = 15;
/// Longest time after the last fault until all of every quota is used up.
const QUIET_MAX: Duration = Duration::from_secs(100);
/// When nothing was let through for so long, nothing will be: longer than "used up" is
/// believed (30 s), with time to open and grant what came back.
const NOTHING: Duration = Duration::from_secs(34);
/// After that, nothing more may pass for so long, and no refusal may cost a call of Redis.
const SETTLED: Duration = Duration::from_secs(5);
/// Longest time until all of the quota of sessions is in use: a guard, the slots of edges that
/// are gone, and some time to come.
const SESSIONS_MAX: Duration = Duration::from_secs(45);
/// Reports come every second.
const REPORTS: Duration = Duration::from_secs(3);
/// Script calls that the settled time may cost: edges ask again every 30 s per account, and
/// idle leases go back.
const SETTLED_CALLS_MAX: u64 = 100;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("figures") {
        return figures::run(&edges::binary()?).map(|()| ExitCode::SUCCESS);
    }
    let random = time::now().0 % 1_000_000;
    let options = Options::parse(std::env::args().skip(1), random)?;
    let binary = edges::binary()?;
    if let Some(code) = time::moved(SET_UP_S + options.seconds * 2 / 5)? {
        return Ok(code);
    }
    println!("seed {}; {} s of faults; {}", options.seed, options.seconds, binary.display());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let setup = || Run::start(&options, dir.path(), &binary, &runtime);
    let run = setup()?;
    let outcome = run.go(&options);
    let violations = run.stage.violations.all();
    if outcome.is_ok() && violations.is_empty() {
        println!("no violation");
        return Ok(ExitCode::SUCCESS);
    }
    let logs = kept_folder(options.seed);
    run.stage.edges.keep_logs(&logs)?;
    println!("{} violations; seed {}; logs in {}:", violations.len(), options.seed, logs.display());
    violations.iter().for_each(|line| println!("  {line}"));
    outcome.map(|()| ExitCode::FAILURE)
}

/// Where the logs of a failed run stay.
fn kept_folder(seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("leanvibe-chaos-{seed}-{}", std::process::id()))
}

/// Everything, running.
struct Run {
    stage: Stage,
    answers: Arc<Answers>,
    load: Arc<Load>,
    visitors: Arc<Visitors>,
}

impl Run {
    fn start(
        options: &Options,
        dir: &std::path::Path,
        binary: &std::path::Path,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Self> {
        let violations = Arc::new(Violations::default());
        let limits = Arc::new(Limits::new());
        let truth =
            Arc::new(Truth::new(options.seed, Arc::clone(&limits), Arc::clone(&violations)));
        let backend = runtime.block_on(truth.serve())?;
        let authority = Arc::new(Authority::start());
        let stores = Stores::start(options.dispatch)?.map(Arc::new);
        let plans = tenants::plans();
        let redis = stores.as_deref();
        let setup = Setup { dir, binary, backend, store: authority.url(), redis, plans: &plans };
        let edges = Arc::new(Edges::start(options.edges(), setup)?);
        authority.watch();
        let control = edges.controls().next().context("an edge")?;
        let ids = TENANTS.iter().map(|tenant| admin::create(control, tenant.name));
        let ids = ids.collect::<Result<Vec<String>>>()?;
        for tenant in [live::TENANT, stored::TENANT] {
            admin::create(control, tenant)?;
        }
        let answers = Arc::new(Answers::new(Arc::clone(&violations)));
        // Every edge learns of the tenants before clients ask for them.
        sleep(Duration::from_secs(2));
        let _inside = runtime.enter();
        let visitors = {
            let truth = (Arc::clone(&truth.live), Arc::clone(&truth.stored));
            Visitors::start(Arc::clone(&edges), truth, Arc::clone(&violations), options.seed)
        };
        let load = {
            let shared = (Arc::clone(&edges), Arc::clone(&answers), Arc::clone(&violations));
            Load::start(shared.0, shared.1, shared.2, (options.seed, options.rate))
        };
        let losses = Losses::default();
        let stage = Stage { edges, stores, authority, limits, truth, violations, ids, losses };
        Ok(Self { stage, answers, load, visitors })
    }

    /// Faults, then quiet, then the verdict.
    fn go(&self, options: &Options) -> Result<()> {
        let stage = &self.stage;
        let steps = scenario::steps(options.seed, options.edges(), options.dispatch, &options.only);
        let mut random = Random::new(options.seed, u64::MAX - 1);
        let performed = stage.perform(steps, Duration::from_secs(options.seconds), &mut random)?;
        println!("{} {performed} faults; now quiet", time::stamp());
        self.quiet();
        self.check_sessions();
        self.visitors.pause();
        sleep(REPORTS);
        self.settle();
        self.load.set_rate(0);
        // The last figures reach the books.
        sleep(REPORTS);
        verdict::check(stage, &self.answers);
        self.report(performed);
        Ok(())
    }

    /// Load without faults, until everything is used up or nothing passes any more.
    fn quiet(&self) {
        let (stage, began) = (&self.stage, Instant::now());
        let (mut arrived, mut since) = (stage.truth.arrivals(), Instant::now());
        while began.elapsed() < QUIET_MAX
            && since.elapsed() < NOTHING
            && !verdict::unused(&stage.truth, &stage.limits, None).is_empty()
        {
            sleep(Duration::from_millis(200));
            if stage.truth.arrivals() > arrived {
                (arrived, since) = (stage.truth.arrivals(), Instant::now());
            }
        }
        println!("{} quiet for {} s; settling", time::stamp(), began.elapsed().as_secs());
    }

    /// With everything whole, all of the quota of sessions is usable.
    fn check_sessions(&self) {
        let (live, began) = (&self.stage.truth.live, Instant::now());
        self.visitors.linger();
        let mut peak = 0;
        while peak < live::LIMIT && began.elapsed() < SESSIONS_MAX {
            sleep(Duration::from_millis(200));
            peak = live.opened_and_peak().1;
        }
        if peak < live::LIMIT {
            let line = format!("UNUSABLE: {peak} of {} sessions were alive at once", live::LIMIT);
            self.stage.violations.add(line);
        }
    }

    /// Refusals only: they are definite, and cost no call of Redis.
    fn settle(&self) {
        let unavailable = self.answers.unavailable();
        self.settle_redis();
        for ((before, after), tenant) in
            unavailable.iter().zip(self.answers.unavailable()).zip(&TENANTS)
        {
            if after > *before {
                let line =
                    format!("{}: {} × 503 with everything whole", tenant.name, after - before);
                self.stage.violations.add(line);
            }
        }
    }

    fn settle_redis(&self) {
        let Some(stores) = &self.stage.stores else { return sleep(SETTLED) };
        if !stores.whole() {
            self.stage.violations.add("Redis is not whole after the faults".into());
        }
        let (denied, scripts) = (self.answers.denied(), stores.scripts());
        sleep(SETTLED);
        let denied = self.answers.denied() - denied;
        let calls = stores.scripts().saturating_sub(scripts);
        println!("{denied} refusals at the end, {calls} calls of Redis meanwhile");
        if calls > SETTLED_CALLS_MAX {
            let line = format!("{denied} refusals cost {calls} calls of Redis");
            self.stage.violations.add(line);
        }
    }

    fn report(&self, performed: usize) {
        let stage = &self.stage;
        println!("\n{}", verdict::table(&stage.truth, &stage.limits, &stage.authority));
        for (index, tenant) in TENANTS.iter().enumerate() {
            if let Some(tally) = self.answers.of(index) {
                let get = |counter: &std::sync::atomic::AtomicU64| {
                    counter.load(std::sync::atomic::Ordering::Relaxed)
                };
                println!(
                    "{:<9} served {}, failed {}, 429 {}, 503 {}, broken off {}",
                    tenant.name,
                    get(&tally.served),
                    get(&tally.failed),
                    get(&tally.denied),
                    get(&tally.unavailable),
                    get(&tally.broken)
                );
            }
        }
        for line in stage.authority.unreconciled() {
            println!("not reconciled: {line}");
        }
        if let Some(stores) = &stage.stores {
            let (calls, admitted) = (stores.scripts(), stage.truth.arrivals());
            let each = admitted.checked_div(calls).unwrap_or(0);
            println!(
                "Redis: {calls} script calls, those of sessions too, for {admitted} admitted requests, 1 for {each}"
            );
        }
        println!("answers: {}; {performed} faults", verdict::waits(&self.answers.waits()));
        let (calm, worst) = self.answers.calm_waits();
        println!("of edges not killed or frozen: {} ({worst})", verdict::waits(&calm));
        let (opened, _) = stage.truth.live.opened_and_peak();
        println!("sessions: {}; {opened} streams", self.visitors.sessions);
        let (bytes, uploads, deletes) = stage.truth.stored.figures();
        let (used, reserved) = stage.authority.stored(stored::TENANT);
        println!(
            "storage: {}; {uploads} stored, {deletes} deleted, {bytes} bytes; in the books {used}, \
             set aside {reserved}",
            self.visitors.uploads
        );
        println!("changes of accounts noted: {}", stage.authority.history().len());
    }
}
