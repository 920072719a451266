//! Random schedules of edges that live, die, stall and lose messages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EDGES: usize = 3;
const LIMIT: u64 = 2;

#[derive(Clone, Debug)]
enum Step {
    Enter {
        edge: usize,
        session: u8,
        evict: bool,
    },
    /// The oldest open stream of an edge ends.
    Leave {
        edge: usize,
    },
    End {
        edge: usize,
        session: u8,
    },
    Beat {
        edge: usize,
    },
    /// The process is killed, and started again.
    Die {
        edge: usize,
    },
    Fault {
        edge: usize,
        fault: u8,
    },
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let edge = 0..EDGES;
    prop_oneof![
        6 => (edge.clone(), 0_u8..5, any::<bool>())
            .prop_map(|(edge, session, evict)| Step::Enter { edge, session, evict }),
        1 => edge.clone().prop_map(|edge| Step::Leave { edge }),
        1 => (edge.clone(), 0_u8..5).prop_map(|(edge, session)| Step::End { edge, session }),
        6 => edge.clone().prop_map(|edge| Step::Beat { edge }),
        1 => edge.clone().prop_map(|edge| Step::Die { edge }),
        2 => (edge, 0_u8..3).prop_map(|(edge, fault)| Step::Fault { edge, fault }),
        6 => prop_oneof![1_u64..1_000, 1_000_u64..6_000, 6_000_u64..20_000]
            .prop_map(|ms| Step::Pass { ms }),
    ]
}

struct World {
    clock: Arc<ManualClock>,
    registry: Arc<dyn Registry>,
    edges: Vec<(Edge, Vec<Seat>)>,
}

impl World {
    fn new() -> Self {
        let (clock, registry) = world();
        let edge = || (Edge::new(&clock, &registry, 100), Vec::new());
        let edges = (0..EDGES).map(|_| edge()).collect();
        Self { clock, registry, edges }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Enter { edge, session, evict } => {
                let (edge, seats) = &mut self.edges[edge];
                seats.extend(edge.enter_with(session, LIMIT, evict).await.ok());
            }
            Step::Leave { edge } => {
                let seats = &mut self.edges[edge].1;
                if !seats.is_empty() {
                    drop(seats.remove(0));
                }
            }
            Step::End { edge, session } => {
                let shared = &self.edges[edge].0.shared;
                let known = shared.map.shard(member(session)).remove(&member(session));
                if let Some(live) = known {
                    live.lose();
                }
                let _may_be_lost = shared.registry.end(member(session)).await;
            }
            Step::Beat { edge } => self.edges[edge].0.beat().await,
            Step::Die { edge } => {
                let fresh = Edge::new(&self.clock, &self.registry, 100);
                self.edges[edge] = (fresh, Vec::new());
            }
            Step::Fault { edge, fault } => self.edges[edge].0.fault(fault),
            Step::Pass { ms } => self.clock.advance_ms(ms),
        }
    }

    /// What is served now, by all edges, and whether the registry counts each of it.
    async fn check(&self) -> (usize, u64) {
        let served: BTreeSet<SessionId> =
            self.edges.iter().flat_map(|(edge, _)| edge.alive()).collect();
        (served.len(), self.registry.count(TENANT).await.expect("a count"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_more_than_the_limit_are_alive(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new();
            for step in steps {
                // An eviction takes an edge's heartbeat to be heard, so it is not part of
                // this promise: `evicted_sessions_are_gone_with_the_next_heartbeat`.
                let step = match step {
                    Step::Enter { edge, session, .. } => Step::Enter { edge, session, evict: false },
                    // A logout on another edge takes as long.
                    Step::End { .. } => Step::Pass { ms: 1 },
                    step => step,
                };
                world.take(step).await;
                let (served, counted) = world.check().await;
                prop_assert!(served as u64 <= LIMIT, "{served} served");
                prop_assert!(served as u64 <= counted, "{served} served, {counted} counted");
            }
            Ok(())
        })?;
    }

    #[test]
    fn ended_and_evicted_sessions_are_gone_with_the_next_heartbeat(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
            }
            // Everybody hears everything, or fences what it cannot renew.
            for (edge, _) in &world.edges {
                edge.fault(ARRIVE);
            }
            world.clock.advance_ms(model::sessions::HEARTBEAT_MS);
            for (edge, _) in &world.edges {
                edge.beat().await;
            }
            let (served, counted) = world.check().await;
            prop_assert!(served as u64 <= LIMIT && served as u64 <= counted, "{served}, {counted}");
            Ok(())
        })?;
    }
}
