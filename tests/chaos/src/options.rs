//! The command line.

use anyhow::{Context, Result, bail, ensure};

/// What dispatches quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// The edge itself; there is one.
    InProcess,
    /// A Redis master with a replica.
    Pair { tls: bool },
    /// A Redis Cluster of three masters.
    Cluster,
}

/// How the run is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of everything that is random; printed, so that a run can be repeated.
    pub seed: u64,
    /// How long faults happen, in seconds.
    pub seconds: u64,
    /// Requests a second that all connections together try.
    pub rate: u64,
    /// What dispatches.
    pub dispatch: Dispatch,
    /// Only these faults, by name; all when empty.
    pub only: Vec<String>,
}

const USAGE: &str = "usage: leanvibe-chaos [--seed N] [--seconds N] [--rate N] [--embedded | --cluster | --plain] \
    [--only FAULT,FAULT…] | leanvibe-chaos figures";
/// Long enough for every kind of fault to happen, several of them twice.
const SECONDS: u64 = 90;
/// Far above every limit, and within what four debug builds on two cores serve.
const RATE: u64 = 1_500;

impl Options {
    /// Reads the arguments; `random` is the seed when none is given.
    ///
    /// # Errors
    /// An unknown argument, or a value that is none.
    pub fn parse(arguments: impl Iterator<Item = String>, random: u64) -> Result<Self> {
        let dispatch = Dispatch::Pair { tls: true };
        let mut options =
            Self { seed: random, seconds: SECONDS, rate: RATE, dispatch, only: Vec::new() };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(USAGE);
            match argument.as_str() {
                "--seed" => options.seed = value()?.parse().context(USAGE)?,
                "--seconds" => options.seconds = value()?.parse().context(USAGE)?,
                "--rate" => options.rate = value()?.parse().context(USAGE)?,
                "--embedded" => options.dispatch = Dispatch::InProcess,
                "--cluster" => options.dispatch = Dispatch::Cluster,
                "--plain" => options.dispatch = Dispatch::Pair { tls: false },
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                _ => bail!("{USAGE}"),
            }
        }
        ensure!(options.rate > 0 && options.seconds > 0, "{USAGE}");
        Ok(options)
    }

    /// Edge processes.
    #[must_use]
    pub const fn edges(&self) -> usize {
        match self.dispatch {
            Dispatch::InProcess => 1,
            Dispatch::Pair { .. } | Dispatch::Cluster => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned), 7);
        let options = parse("--seconds 5 --embedded --only flush,failover").expect("options");
        assert_eq!((options.seed, options.seconds, options.edges()), (7, 5, 1));
        assert_eq!(options.only, ["flush", "failover"]);
        for bad in ["--seed", "--seed x", "--rate 0", "fast"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
