//! Who uses the other quotas: visitors with a session each, and uploads.
//!
//! There are more visitors than the quota of sessions, and more uploads than that of storage,
//! at every edge. Invariant: an answer that is not one of those that the design names is a
//! violation, and so is a refusal of the wrong shape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::Incoming,
    header::{COOKIE, HOST},
};
use tokio::time::{sleep, timeout};

use crate::{
    edges::Edges,
    live::{self, Live},
    load,
    random::Random,
    stored::{self, Stored},
    violations::Violations,
};

/// Visitors of each edge: over four edges more than twice the quota.
const VISITORS: u64 = 6;
/// Uploads of each edge at once.
const UPLOADS: u64 = 2;
/// Pause before the next try: a refusal of a session asks Redis, so they are not many.
const PAUSE: Duration = Duration::from_millis(500);
/// Time between two looks whether the backend has seen that a visitor left.
const LOOK: Duration = Duration::from_millis(20);
/// Longest that a visitor stays, in ms: longer than a heartbeat.
const STAY_MS_MAX: u64 = 6_000;
/// Largest upload, in bytes.
const UPLOAD_BYTES_MAX: u64 = 128 << 10;
/// How long the backend may take to see that a visitor has gone.
const GONE_MAX: Duration = Duration::from_secs(10);
/// What tells random choices here from those of the load.
const STREAM: u64 = 1 << 32;

/// All of them.
#[derive(Debug)]
pub struct Visitors {
    edges: Arc<Edges>,
    live: Arc<Live>,
    stored: Arc<Stored>,
    violations: Arc<Violations>,
    paused: AtomicBool,
    /// Whether visitors stay once they are in.
    linger: AtomicBool,
    pub sessions: Tally,
    pub uploads: Tally,
}

/// Answers so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Served.
    pub served: AtomicU64,
    /// Refused: the quota is used up.
    pub full: AtomicU64,
    /// Refused: nobody can say.
    pub unavailable: AtomicU64,
}

impl Visitors {
    /// Starts them; they go on until the program ends.
    pub fn start(
        edges: Arc<Edges>,
        (live, stored): (Arc<Live>, Arc<Stored>),
        violations: Arc<Violations>,
        seed: u64,
    ) -> Arc<Self> {
        live.through(&edges);
        let (sessions, uploads) = (Tally::default(), Tally::default());
        let (paused, linger) = (AtomicBool::new(false), AtomicBool::new(false));
        let all = Self { edges, live, stored, violations, paused, linger, sessions, uploads };
        let all = Arc::new(all);
        for edge in 0..all.edges.count() {
            for number in 0..VISITORS + UPLOADS {
                let stream = STREAM + edge as u64 * (VISITORS + UPLOADS) + number;
                let random = Random::new(seed, stream);
                tokio::spawn(Arc::clone(&all).run(edge, number < VISITORS, random));
            }
        }
        all
    }

    /// Whoever has a session stays from now on.
    pub fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    /// Nobody comes from now on, and everybody leaves.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>, edge: usize, visits: bool, mut random: Random) {
        loop {
            sleep(PAUSE).await;
            if self.paused.load(Ordering::Relaxed) {
                continue;
            }
            let began = Instant::now();
            let outcome = match visits {
                true => self.visit(edge, &mut random).await,
                false => self.upload(edge, &mut random).await,
            };
            if let Err(error) = outcome
                && !self.edges.disturbed(edge, began.elapsed())
            {
                let line = format!("an edge that nobody disturbed broke off: {error:#}");
                self.violations.once("visitor broken off", line);
            }
        }
    }

    /// One session, from its first request to its logout.
    async fn visit(&self, edge: usize, random: &mut Random) -> Result<()> {
        let cookie = format!("session_id={:016x}", random.next());
        let path = format!("/live/{edge}");
        let answer = self.send(edge, live::TENANT, ("GET", &path), &cookie, Vec::new()).await?;
        let (head, mut body) = answer.into_parts();
        let outcome = self.judge(&self.sessions, 429, Some(5), (head.status, &head.headers));
        if !outcome {
            return Ok(());
        }
        let number = head.headers.get(live::NUMBER).context("a stream's number")?;
        let number: u64 = number.to_str()?.parse()?;
        let stay = Duration::from_millis(random.between(200, STAY_MS_MAX));
        let began = Instant::now();
        // An end before its time is the edge's right: it may have lost the session.
        while let Ok(Some(Ok(_))) = timeout(GONE_MAX, body.frame()).await {
            let over = began.elapsed() >= stay && !self.linger.load(Ordering::Relaxed);
            if over || self.paused.load(Ordering::Relaxed) {
                break;
            }
        }
        drop(body);
        // A logout frees the slot at once, so the stream must be over by then.
        let gone = Instant::now();
        while self.live.is_open(number) && gone.elapsed() < GONE_MAX {
            sleep(LOOK).await;
        }
        self.send(edge, live::TENANT, ("POST", "/logout"), &cookie, Vec::new()).await.map(drop)
    }

    /// One upload, or a delete where there is no room.
    async fn upload(&self, edge: usize, random: &mut Random) -> Result<()> {
        let name = random.next();
        let bytes = random.between(1, UPLOAD_BYTES_MAX);
        let body = vec![b'x'; usize::try_from(bytes)?];
        let path = format!("/stored/{name}");
        let answer = self.send(edge, stored::TENANT, ("PUT", &path), "", body).await?;
        let (head, body) = answer.into_parts();
        body.collect().await?;
        let stored = self.judge(&self.uploads, 413, None, (head.status, &head.headers));
        if stored || head.status != StatusCode::PAYLOAD_TOO_LARGE {
            return Ok(());
        }
        let Some(victim) = self.stored.some(random.next()) else { return Ok(()) };
        let path = format!("/stored/{victim}");
        let answer = self.send(edge, stored::TENANT, ("DELETE", &path), "", Vec::new()).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    async fn send(
        &self,
        edge: usize,
        tenant: &str,
        (method, path): (&str, &str),
        cookie: &str,
        body: Vec<u8>,
    ) -> Result<hyper::Response<Incoming>> {
        let mut sender = load::connect(self.edges.addr(edge)).await.context("no connection")?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{tenant}.localhost"))
            .header(COOKIE, cookie)
            .body(Full::new(Bytes::from(body)))?;
        Ok(sender.send_request(request).await?)
    }

    /// Counts an answer; whether it was served.
    fn judge(
        &self,
        tally: &Tally,
        full: u16,
        retry_s: Option<u64>,
        (status, headers): (StatusCode, &HeaderMap),
    ) -> bool {
        let retry = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let counter = match status.as_u16() {
            200 => &tally.served,
            503 if retry.is_some_and(|retry| (1..=20).contains(&retry)) => &tally.unavailable,
            // The same status for a quota of calls has another length.
            status if status == full && retry == retry_s => &tally.full,
            other => {
                let line = format!("answered with {other}, Retry-After {retry:?}: {headers:?}");
                self.violations.once(&format!("visitor {other}"), line);
                return false;
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        status == StatusCode::OK
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (served, full) = (get(&self.served), get(&self.full));
        write!(f, "served {served}, full {full}, 503 {}", get(&self.unavailable))
    }
}

/// `plans.toml` of these two tenants.
#[must_use]
pub fn plans() -> String {
    let plan = |name: &str, storage_mb: u64, sessions: usize| {
        format!(
            "[[plan]]\nname = \"{name}\"\n[plan.quotas]\nmax_users = 1\nmax_projects = 1\n\
             max_storage_mb = {storage_mb}\nmax_concurrent_sessions = {sessions}\n\
             max_api_calls_per_month = 999999999\nmax_ai_requests_per_day = 1\n\n"
        )
    };
    plan(live::TENANT, 1, live::LIMIT) + &plan(stored::TENANT, stored::LIMIT_MB, 1)
}

/// `routes.toml` of these two tenants.
pub const ROUTES: &str = "
[[route]]
name = \"live\"
path = \"/live/**\"
session = { from = \"cookie:session_id\", idle_ms = 1000 }

[[route]]
name = \"logout\"
path = \"/logout\"
session = { from = \"cookie:session_id\", end = true }

[[route]]
name = \"stored\"
path = \"/stored/**\"
storage = \"body\"

[[route.meter]]
metric = \"storage\"
header = \"x-storage-delta-bytes\"
";
