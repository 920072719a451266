//! A Redis Cluster of three masters that share the slots.

use super::{Redis, RedisOptions, Value};

/// Slots of every cluster.
const SLOTS: u32 = 16_384;
/// Masters: the fewest that a cluster can vote with.
const MASTERS: u32 = 3;

/// A private cluster.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// A cluster of the caller's own, with all slots served. Blocks while it forms.
    ///
    /// # Panics
    /// There is no Redis, or the cluster does not form.
    #[must_use]
    pub fn start(options: RedisOptions) -> Self {
        let nodes: Vec<Redis> = (0..MASTERS).map(|_| Redis::node(options.clone())).collect();
        for (node, n) in nodes.iter().zip(0..) {
            let (first, last) = (SLOTS * n / MASTERS, SLOTS * (n + 1) / MASTERS - 1);
            let (first, last) = (first.to_string(), last.to_string());
            must(node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            must(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
        }
        let mut others = nodes.iter();
        if let Some(one) = others.next() {
            for other in others {
                let (port, bus) =
                    (other.port().to_string(), other.bus_port().unwrap_or(0).to_string());
                must(one, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
        let cluster = Self { nodes };
        cluster.until_whole();
        cluster
    }

    /// Its three masters.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One of them; numbers go round.
    ///
    /// # Panics
    /// Never: there are three.
    #[must_use]
    pub fn node(&self, number: usize) -> &Redis {
        self.nodes.iter().cycle().nth(number % self.nodes.len()).expect("three nodes")
    }

    /// `redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT,…`, or `rediss+cluster://`.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = String::new();
        for node in &self.nodes {
            match node.url().split_once("://") {
                Some((scheme, rest)) if url.is_empty() => {
                    url = format!("{scheme}+cluster://{rest}");
                }
                _ => url.push_str(&format!(",127.0.0.1:{}", node.port())),
            }
        }
        url
    }

    /// Waits until every node serves and knows every other.
    ///
    /// # Panics
    /// That never comes true.
    pub fn until_whole(&self) {
        for node in &self.nodes {
            node.until("part of a whole cluster", |node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let text = info.as_ref().map(Value::text).unwrap_or_default();
                text.contains("cluster_state:ok")
                    && text.contains(&format!("cluster_known_nodes:{MASTERS}"))
            });
        }
    }

    /// The node that serves a key.
    ///
    /// # Panics
    /// No node answers.
    #[must_use]
    pub fn node_of(&self, key: &str) -> &Redis {
        let slot = |node: &Redis| match must(node, &["CLUSTER", "KEYSLOT", key]) {
            Value::Int(slot) => u32::try_from(slot).unwrap_or(0),
            _ => 0,
        };
        let mut ends = self.nodes.iter().zip(1..);
        ends.find(|(node, n)| slot(node) < SLOTS * n / MASTERS)
            .map(|(node, _)| node)
            .expect("a node")
    }
}

fn must(node: &Redis, command: &[&str]) -> Value {
    node.cli(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
