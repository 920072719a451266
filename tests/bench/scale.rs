//! What 100,000 tenants cost: the start of an edge, its memory, the first request of a
//! tenant that nobody asked for yet, and creates beside them.
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
    edge, nginx,
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
    let (empty, ..) = start(&setup, origin.addr, &url)?;
    let without = resident_bytes(&empty)?;
    drop(empty);
    cluster.superuser(&url, &fill(tenants));
    let begun = Instant::now();
    let (subject, addr, control) = start(&setup, origin.addr, &url)?;
    println!("{tenants} tenants with a key each, on PostgreSQL:");
    println!("  start to the first accepted connection: {} ms", begun.elapsed().as_millis());
    let with = resident_bytes(&subject)?;
    let each = with.saturating_sub(without) / tenants as u64;
    println!("  memory: {} MiB, {each} bytes a tenant ({} MiB without)", with >> 20, without >> 20);
    let cold: Vec<usize> = (0..COLD).map(|n| 1 + n * (tenants / COLD)).collect();
    println!("  first request of a tenant: {}", spread(&requests(addr, &cold)?));
    println!("  second request of it:      {}", spread(&requests(addr, &cold)?));
    let (creates, at_once) = creates(addr, control)?;
    println!("  create, answered:          {}", spread(&creates));
    println!("  served by the edge at once: {at_once} of {CREATES} created tenants");
    println!("  memory at the end: {} MiB", resident_bytes(&subject)? >> 20);
    Ok(())
}

fn start(
    setup: &Setup,
    origin: SocketAddr,
    store: &str,
) -> Result<(Subject, SocketAddr, SocketAddr)> {
    let dir = setup.dir.join("scale");
    let policies = edge::policies(setup, origin, edge::Mode::QuotaOnly, &dir)?;
    let (addr, control) = (free_addr()?, free_addr()?);
    let mut env = edge::environment(&dir, &policies, addr, control);
    env.push(("LEANVIBE_EDGE__STORE__URL".into(), store.into()));
    let binary = setup.edge.display().to_string();
    let command = [binary.as_str(), "serve"];
    let log = dir.join("log");
    let subject = Subject::start("edge", SUBJECT_CORE, addr, &command, &env, &log)?;
    Ok((subject, addr, control))
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
fn requests(addr: SocketAddr, tenants: &[usize]) -> Result<Vec<Duration>> {
    tenants
        .iter()
        .map(|tenant| {
            let begun = Instant::now();
            let answer = get(addr, &format!("t{tenant}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "tenant t{tenant}: {answer}");
            Ok(begun.elapsed())
        })
        .collect()
}

fn creates(addr: SocketAddr, control: SocketAddr) -> Result<(Vec<Duration>, usize)> {
    let (mut times, mut at_once) = (Vec::with_capacity(CREATES), 0);
    for n in 0..CREATES {
        let body = format!(
            r#"{{"organization_name":"New","slug":"new-{n}","admin_email":"a@new.example","plan":"team","data_residency":"eu"}}"#
        );
        let begun = Instant::now();
        let answer = edge::exchange(control, "POST /api/v1/admin/tenants", &body)?;
        times.push(begun.elapsed());
        ensure!(answer.starts_with("HTTP/1.1 201"), "no tenant: {answer}");
        at_once += usize::from(get(addr, &format!("new-{n}"))?.starts_with("HTTP/1.1 200"));
    }
    Ok((times, at_once))
}

fn get(addr: SocketAddr, slug: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET /hello HTTP/1.1\r\nhost: {slug}.localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn resident_bytes(subject: &Subject) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", subject.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |part: usize| {
        let index = (sorted.len() * part / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms", at(50), at(99), at(100))
}
