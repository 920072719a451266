//! `INFO commandstats`: the server's own count of what it was asked.

use std::collections::BTreeMap;

/// Calls per command in lower case, subcommands as `config|get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandStats(BTreeMap<String, u64>);

impl CommandStats {
    /// Reads the text of `INFO commandstats`: lines like `cmdstat_get:calls=21,usec=175,…`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (command, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = figures.split(',').find_map(|figure| figure.strip_prefix("calls="))?;
            Some((command.to_owned(), calls.parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Calls of one command; 0 when it was never called.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(0)
    }

    /// Calls of scripts from outside: `EVAL`, `EVALSHA`, `FCALL`. What a script calls inside
    /// is counted by Redis under its own names, not here.
    #[must_use]
    pub fn scripts(&self) -> u64 {
        ["eval", "evalsha", "fcall"].iter().map(|command| self.calls(command)).sum()
    }

    /// Every command with its calls.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(command, calls)| (command.as_str(), *calls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_redis_7_are_read() {
        let text = "# Commandstats\r\ncmdstat_evalsha:calls=21,usec=175,usec_per_call=8.33,rejected_calls=0,failed_calls=1\r\ncmdstat_config|get:calls=2,usec=9\r\n";
        let stats = CommandStats::parse(text);
        assert_eq!((stats.calls("evalsha"), stats.calls("config|get")), (21, 2));
        assert_eq!((stats.calls("get"), stats.scripts()), (0, 21));
        assert_eq!(stats.iter().count(), 2);
    }
}
