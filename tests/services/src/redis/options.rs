//! What a test wants of its Redis, and the config file that says so.

use std::path::Path;

use super::tls::Tls;

/// What survives the end of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing, except what [`super::Redis::save`] wrote.
    #[default]
    SavedOnly,
    /// Every write, in an append-only file synced each second.
    AppendOnly,
}

/// How a server is set up. The default: plain TCP, no password, nothing persistent.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// What survives a restart.
    pub persistence: Persistence,
    /// Password of the default user.
    pub password: Option<String>,
    /// More users, as `user` lines of the config: `edge on >secret ~q:* +@all -@dangerous`.
    pub users: Vec<String>,
    /// TLS in place of plain TCP, with a certificate of the test's own CA for 127.0.0.1 and
    /// localhost.
    pub tls: bool,
    /// Port of the master to replicate from its start on; see [`super::Redis::replica`].
    pub replica_of: Option<u16>,
    /// More lines of the config.
    pub lines: Vec<String>,
    /// Variables of the server's environment.
    pub env: Vec<(String, String)>,
}

impl RedisOptions {
    /// The config file of a server on `port` that lives in `folder`; a node of a Cluster has a
    /// second port.
    pub(super) fn config(&self, folder: &Path, port: u16, bus_port: Option<u16>) -> String {
        let folder = folder.display();
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("dir {folder}"),
            format!("unixsocket {folder}/socket"),
            "unixsocketperm 777".to_owned(),
            "daemonize no".to_owned(),
            "save \"\"".to_owned(),
            "databases 16".to_owned(),
            // DEBUG SLEEP is one of the faults.
            "enable-debug-command local".to_owned(),
            // Replicas and failovers within a test's patience.
            "repl-diskless-sync-delay 0".to_owned(),
            "repl-ping-replica-period 1".to_owned(),
        ];
        if self.persistence == Persistence::AppendOnly {
            lines.push("appendonly yes".to_owned());
            lines.push("appendfsync everysec".to_owned());
        }
        if let Some(password) = &self.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        lines.extend(self.users.iter().map(|user| format!("user {user}")));
        if self.tls {
            lines.extend(Tls::config(port));
        } else {
            lines.push(format!("port {port}"));
        }
        if let Some(bus_port) = bus_port {
            lines.push("cluster-enabled yes".to_owned());
            lines.push(format!("cluster-port {bus_port}"));
            lines.push("cluster-node-timeout 2000".to_owned());
        }
        lines.extend(self.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}
