//! The benchmark: what a request costs here, beside nginx, in the same run.
//!
//! Subjects take turns in every round (ABBA order), on one core, with the generator and
//! the origin on the other: nginx passthrough, this edge with tenant and quota only, the
//! three policies on reused and on fresh instances. Figures: CPU µs of the subject's
//! process per request at a fixed rate, and requests per second flat out, each as the
//! median over the rounds of the ratio to nginx in the same round. Logs are off for all;
//! all add the same forwarding headers.
//!
//! Needs Debian's `nginx` and `nghttp2-client` (h2load). Talks to loopback only, takes
//! about `rounds × subjects × 16 s`, and stops by itself.

#![expect(unreachable_pub, reason = "a binary has no other reader")]

mod cpu;
mod edge;
mod load;
mod nginx;
mod publishing;
mod scale;
mod stats;
mod subject;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};

use subject::{Setup, Subject};

/// Requests per second offered at the fixed rate: about a third of what nginx does on
/// one core here, so that nobody queues.
const RATE: u32 = 8_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    const USAGE: &str = "usage: leanvibe-bench [ROUNDS] | leanvibe-bench scale [TENANTS]";
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = match arguments.next().as_deref() {
        Some("scale") => {
            let tenants = arguments.next().map_or(Ok(100_000), |text| text.parse());
            return scale::run(tenants.context(USAGE)?);
        }
        Some(text) => text.parse().context(USAGE)?,
        None => 5,
    };
    ensure!(rounds > 0, "at least one round");
    let dir = tempfile::tempdir()?;
    let setup = Setup::new(dir.path())?;
    let origin = nginx::origin(&setup)?;
    let subjects = [
        nginx::passthrough(&setup, origin.addr)?,
        edge::start(&setup, origin.addr, edge::Mode::QuotaOnly)?,
        edge::start(&setup, origin.addr, edge::Mode::Reused)?,
        edge::start(&setup, origin.addr, edge::Mode::Fresh)?,
    ];
    let mut figures: Vec<stats::Figures> =
        subjects.iter().map(|_| stats::Figures::default()).collect();
    for subject in &subjects {
        load::run(subject, load::Pace::Rate(RATE), load::WARM_UP_S)?;
    }
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            if let (Some(subject), Some(figures)) = (subjects.get(i), figures.get_mut(i)) {
                measure(subject, figures, round)?;
            }
        }
    }
    let table = stats::table(&subjects, &figures, rounds, RATE);
    println!("{table}");
    let out = results_path()?;
    std::fs::write(&out, &table).with_context(|| out.display().to_string())?;
    println!("written to {}", out.display());
    Ok(())
}

fn measure(subject: &Subject, figures: &mut stats::Figures, round: usize) -> Result<()> {
    let paced = load::run(subject, load::Pace::Rate(RATE), load::PACED_S)?;
    let flat_out = load::run(subject, load::Pace::FlatOut, load::FLAT_OUT_S)?;
    eprintln!(
        "round {round}: {:<28} {:6.1} µs CPU per request at {:.0}/s; flat out {:.0}/s",
        subject.name, paced.cpu_us, paced.per_second, flat_out.per_second
    );
    figures.cpu_us.push(paced.cpu_us);
    figures.flat_out_cpu_us.push(flat_out.cpu_us);
    figures.per_second.push(flat_out.per_second);
    Ok(())
}

fn results_path() -> Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let folder = binary.parent().context("the binary has a folder")?;
    Ok(folder.join("leanvibe-bench.md"))
}
