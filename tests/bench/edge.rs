//! This edge, with more or less switched on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::subject::{SUBJECT_CORE, Setup, Subject, free_addr};

const TOKEN: &str = "bench-admin-token";

/// What is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Tenant resolution and quota lease.
    QuotaOnly,
    /// And the three first-party policies on warm instances.
    Reused,
    /// And the three on a fresh instance each, per request.
    Fresh,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::QuotaOnly => "edge: tenant + quota",
            Self::Reused => "edge: + 3 policies, reused",
            Self::Fresh => "edge: + 3 policies, fresh",
        }
    }
}

/// Starts it with one enterprise tenant.
pub fn start(setup: &Setup, origin: SocketAddr, mode: Mode) -> Result<Subject> {
    let dir = setup.dir.join(format!("edge-{}", mode as u8));
    let policies = policies(setup, origin, mode, &dir)?;
    let (addr, control) = (free_addr()?, free_addr()?);
    let env = environment(&dir, &policies, addr, control);
    let binary = setup.edge.display().to_string();
    let subject = Subject::start(
        mode.name(),
        SUBJECT_CORE,
        addr,
        &[&binary, "serve"],
        &env,
        &dir.join("log"),
    )?;
    create_tenant(control)?;
    until_served(addr)?;
    Ok(subject)
}

/// The shipped declarations below `dir`, with every region at `origin`.
pub fn policies(setup: &Setup, origin: SocketAddr, mode: Mode, dir: &Path) -> Result<PathBuf> {
    let policies = dir.join("policies");
    copy(&setup.checkout.join("policies"), &policies, &setup.checkout, mode)?;
    point_at(&policies.join("regions.toml"), origin)?;
    if mode == Mode::QuotaOnly {
        without_chains(&policies)?;
    }
    Ok(policies)
}

/// The settings of an edge with one worker.
pub fn environment(
    dir: &Path,
    policies: &Path,
    addr: SocketAddr,
    control: SocketAddr,
) -> Vec<(String, String)> {
    let env = [
        ("EDGE__LISTEN", addr.to_string()),
        ("EDGE__WORKERS", "1".into()),
        ("CONTROL__LISTEN", control.to_string()),
        ("POLICIES__DIR", policies.display().to_string()),
        ("DATA__DIR", dir.join("data").display().to_string()),
        ("LOG__LEVEL", "error".into()),
    ];
    let mut env: Vec<(String, String)> =
        env.into_iter().map(|(key, value)| (format!("LEANVIBE_EDGE__{key}"), value)).collect();
    env.push(("LEANVIBE_EDGE_ADMIN_TOKEN".into(), TOKEN.into()));
    env
}

fn create_tenant(control: SocketAddr) -> Result<()> {
    let body = r#"{"organization_name":"Acme","slug":"acme-corp","admin_email":"a@acme.example","plan":"enterprise","data_residency":"us"}"#;
    let answer = exchange(control, "POST /api/v1/admin/tenants", body)?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "no tenant: {answer}");
    let id = answer
        .split("\"id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .context("an id")?;
    let secret = r#"{"secrets":{"request-signing":"a-secret-for-the-benchmark-only"}}"#;
    let answer = exchange(control, &format!("PATCH /api/v1/admin/tenants/{id}"), secret)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "no secret: {answer}");
    Ok(())
}

/// One request of the operator; the whole answer.
pub fn exchange(addr: SocketAddr, what: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    write!(
        stream,
        "{what} HTTP/1.1\r\nhost: acme-corp.localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn until_served(addr: SocketAddr) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = TcpStream::connect(addr)?;
        write!(
            stream,
            "GET /hello HTTP/1.1\r\nhost: acme-corp.localhost\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the edge does not serve the tenant: {answer}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn copy(from: &Path, to: &Path, checkout: &Path, mode: Mode) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target, checkout, mode)?;
            continue;
        }
        let mut text = std::fs::read_to_string(entry.path())?;
        if entry.file_name() == "policy.toml" {
            let dist = checkout.join("plugins/dist").display().to_string();
            text = text.replace("../../plugins/dist", &dist);
            let instances = if mode == Mode::Fresh { "fresh" } else { "reuse" };
            text = with_key(&text, "instances", instances)?;
        }
        std::fs::write(target, text)?;
    }
    Ok(())
}

fn with_key(text: &str, key: &str, value: &str) -> Result<String> {
    let mut table: toml::Table = text.parse()?;
    table.insert(key.into(), value.into());
    Ok(table.to_string())
}

fn point_at(regions: &Path, origin: SocketAddr) -> Result<()> {
    let mut table: toml::Table = std::fs::read_to_string(regions)?.parse()?;
    let list = table.get_mut("region").and_then(toml::Value::as_array_mut).context("regions")?;
    for region in list.iter_mut().filter_map(toml::Value::as_table_mut) {
        region.insert("upstreams".into(), vec![origin.to_string()].into());
    }
    Ok(std::fs::write(regions, table.to_string())?)
}

fn without_chains(policies: &Path) -> Result<()> {
    let plans = policies.join("plans.toml");
    let mut table: toml::Table = std::fs::read_to_string(&plans)?.parse()?;
    let list = table.get_mut("plan").and_then(toml::Value::as_array_mut).context("plans")?;
    for plan in list.iter_mut().filter_map(toml::Value::as_table_mut) {
        plan.remove("chain");
    }
    std::fs::write(&plans, table.to_string())?;
    match std::fs::remove_dir_all(policies.join("tenants")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
