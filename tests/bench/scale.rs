//! What 100,000 tenants cost: the start of an edge, its memory, the first request of a
//! tenant that nobody asked for yet, creates beside them, and how soon another edge knows.
//!
//! On a private PostgreSQL; the tenants are put there by one SQL statement. Talks to
//! loopback only and stops by itself after a minute or two.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    edge, nginx, publishing,
    subject::{SUBJECT_CORE, Setup, Subject, free_addr},
};

/// Tenants whose first request is measured, spread over all.
const COLD: usize = 500;
/// Tenants that are created one after the other.
const CREATES: usize = 200;

pub fn run(tenants: usize) -> Result<()> {
    ensure!(tenants >= COLD, "at least {COLD} tenants");
    let dir = tempfile::tempdir()?;
    let setup = Setup::new(dir.path())?;
    let origin = nginx::origin(&setup)?;
    let cluster = services::postgres();
    let url = cluster.database();
    let settings = [("STORE__URL", url.clone())];
    let empty = Edge::start(&setup, origin.addr, "scale", &settings)?;
    let without = resident_bytes(&empty.subject)?;
    drop(empty);
    cluster.superuser(&url, &fill(tenants));
    let begun = Instant::now();
    let edge = Edge::start(&setup, origin.addr, "scale", &settings)?;
    println!("{tenants} tenants with a key each, on PostgreSQL:");
    println!("  start to the first accepted connection: {} ms", begun.elapsed().as_millis());
    let with = resident_bytes(&edge.subject)?;
    let each = with.saturating_sub(without) / tenants as u64;
    println!("  memory: {} MiB, {each} bytes a tenant ({} MiB without)", with >> 20, without >> 20);
    let cold: Vec<usize> = (0..COLD).map(|n| 1 + n * (tenants / COLD)).collect();
    println!("  first request of a tenant: {}", spread(&requests(&edge, &cold)?));
    println!("  second request of it:      {}", spread(&requests(&edge, &cold)?));
    let (creates, at_once) = creates(&edge)?;
    println!("  create, answered:          {}", spread(&creates));
    println!("  served by the edge at once: {at_once} of {CREATES} created tenants");
    println!("  memory at the end: {} MiB", resident_bytes(&edge.subject)? >> 20);
    drop(edge);
    publishing::run(&setup, origin.addr, &url)
}

/// A running edge without policies.
pub struct Edge {
    subject: Subject,
    /// Where tenants are served.
    pub addr: SocketAddr,
    /// Where they are changed.
    pub control: SocketAddr,
}

impl Edge {
    /// Starts one in a folder of that name, with these settings beside its own.
    pub fn start(
        setup: &Setup,
        origin: SocketAddr,
        name: &str,
        settings: &[(&str, String)],
    ) -> Result<Self> {
        let dir = setup.dir.join(name);
        let policies = edge::policies(setup, origin, edge::Mode::QuotaOnly, &dir)?;
        let (addr, control) = (free_addr()?, free_addr()?);
        let mut env = edge::environment(&dir, &policies, addr, control);
        env.extend(
            settings.iter().map(|(key, value)| (format!("LEANVIBE_EDGE__{key}"), value.clone())),
        );
        let binary = setup.edge.display().to_string();
        let command = [binary.as_str(), "serve"];
        let log = dir.join("log");
        let subject = Subject::start("edge", SUBJECT_CORE, addr, &command, &env, &log)?;
        Ok(Self { subject, addr, control })
    }

    /// The status of a request to a tenant, on a connection of its own.
    pub fn status(&self, slug: &str, path: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(self.addr)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {slug}.localhost\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("no answer for {slug}: {answer}"))
    }

    /// Creates a tenant; its id.
    pub fn create(&self, slug: &str) -> Result<String> {
        let body = format!(
            r#"{{"organization_name":"New","slug":"{slug}","admin_email":"a@new.example","plan":"team","data_residency":"eu"}}"#
        );
        let answer = edge::exchange(self.control, "POST /api/v1/admin/tenants", &body)?;
        ensure!(answer.starts_with("HTTP/1.1 201"), "no tenant: {answer}");
        let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        Ok(id.context("an id")?.to_owned())
    }
}

fn fill(tenants: usize) -> String {
    format!(
        "INSERT INTO edge.tenant (id, slug, organization_name, display_name, admin_email, plan,
             data_residency, status, created_at, version)
         SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid, 't' || t,
             'Tenant ' || t, 'Tenant ' || t, 'admin@example.com', 'team', 'eu', 'active', 0, 1
         FROM generate_series(1, {tenants}) t;
         INSERT INTO edge.tenant_closure (tenant_id, ancestor, depth)
         SELECT id, id, 0 FROM edge.tenant;
         INSERT INTO edge.api_key (tenant_id, id, hash, created_at)
         SELECT id, 'key' || slug, sha256(slug::bytea), 0 FROM edge.tenant;
         ANALYZE edge.tenant, edge.api_key, edge.tenant_closure;"
    )
}

/// The time of one request to each tenant.
fn requests(edge: &Edge, tenants: &[usize]) -> Result<Vec<Duration>> {
    tenants
        .iter()
        .map(|tenant| {
            let begun = Instant::now();
            let status = edge.status(&format!("t{tenant}"), "/hello")?;
            ensure!(status == 200, "tenant t{tenant} gets {status}");
            Ok(begun.elapsed())
        })
        .collect()
}

fn creates(edge: &Edge) -> Result<(Vec<Duration>, usize)> {
    let (mut times, mut at_once) = (Vec::with_capacity(CREATES), 0);
    for n in 0..CREATES {
        let slug = format!("new-{n}");
        let begun = Instant::now();
        edge.create(&slug)?;
        times.push(begun.elapsed());
        at_once += usize::from(edge.status(&slug, "/hello")? == 200);
    }
    Ok((times, at_once))
}

fn resident_bytes(subject: &Subject) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", subject.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// Quantiles of times, as text.
pub fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |part: usize| {
        let index = (sorted.len() * part / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms", at(50), at(99), at(100))
}
