//! Load by h2load over HTTP/1.1 keep-alive connections.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cpu,
    subject::{LOAD_CORE, Subject},
};

const CONNECTIONS: u32 = 32;
/// Discarded before the first round, in seconds.
pub const WARM_UP_S: u32 = 3;
/// At the fixed rate, in seconds.
pub const PACED_S: u32 = 10;
/// Flat out, in seconds.
pub const FLAT_OUT_S: u32 = 5;

/// How fast.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Requests per second, all connections together.
    Rate(u32),
    /// As fast as answers come.
    FlatOut,
}

/// One run.
pub struct Measured {
    /// CPU µs of the subject per answered request.
    pub cpu_us: f64,
    /// Answered requests per second.
    pub per_second: f64,
}

/// Runs the load for `seconds`; every answer must be 2xx.
pub fn run(subject: &Subject, pace: Pace, seconds: u32) -> Result<Measured> {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "h2load", "--h1", "-t", "1"]);
    command.args(["-c", &CONNECTIONS.to_string(), "-D", &seconds.to_string()]);
    if let Pace::Rate(rate) = pace {
        command.args(["--rps", &(rate / CONNECTIONS).to_string()]);
    }
    command.arg(format!("--connect-to={}", subject.addr));
    command.arg("http://acme-corp.localhost/hello");
    let before = cpu::nanos(subject.pid());
    let started = Instant::now();
    let output = command.output().context("h2load")?;
    let elapsed = started.elapsed().as_secs_f64();
    let used = cpu::nanos(subject.pid()).saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let answered = statuses(&text).with_context(|| format!("h2load said: {text}"))?;
    let [ok, redirected, refused, failed] = answered;
    ensure!(redirected + refused + failed == 0, "{}: not all 2xx: {text}", subject.name);
    ensure!(ok > 0, "{}: nothing was answered: {text}", subject.name);
    Ok(Measured { cpu_us: used as f64 / 1000.0 / ok as f64, per_second: ok as f64 / elapsed })
}

/// `status codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx`.
fn statuses(text: &str) -> Result<[u64; 4]> {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("status codes: ")) else {
        bail!("no line of status codes");
    };
    let counts: Vec<u64> =
        line.split(", ").filter_map(|part| part.split_whitespace().next()?.parse().ok()).collect();
    counts.try_into().map_err(|_| anyhow::anyhow!("four counts expected: {line}"))
}
