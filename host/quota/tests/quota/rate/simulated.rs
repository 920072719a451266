//! Properties over delays, pauses and who asks when.

use std::sync::Arc;

use model::{
    clock::{Clock, ManualClock},
    rate::Rate,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    assert_within, edge,
    store::{Fate, Simulated},
    take, tenant,
};

/// What an edge does next: which one, after how long, and how often.
type Step = (usize, u64, u32);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![4 => 0_u64..20, 1 => 0_u64..3_000];
    prop::collection::vec((0_usize..3, pause, 1_u32..40), 1..80)
}

/// Delays that the store's caller would put up with.
fn delays() -> impl Strategy<Value = Vec<Fate>> {
    prop::collection::vec((0_u64..15, 0_u64..15).prop_map(|(a, b)| Fate::Answered(a, b)), 0..200)
}

/// The rates that the edges can keep exactly: room for two, and for 50 ms.
fn rates() -> impl Strategy<Value = Rate> {
    (1_u32..2_000, 2_u32..500).prop_map(|(per_second, burst)| {
        Rate::new(per_second, burst.max(per_second / 20)).expect("a rate")
    })
}

/// When each admission was, all edges together.
fn admissions(rate: Rate, steps: &[Step], fates: Vec<Fate>) -> Vec<(u64, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::default());
        // Nobody's clock begins at zero.
        clock.advance_ms(5_000_000);
        let store = Simulated::new(Arc::clone(&clock), fates);
        let id = Uuid::new_v4();
        let edges = ["a", "b", "c"].map(|name| {
            (edge(name, Arc::clone(&store) as _, Arc::clone(&clock) as _), tenant(id, rate))
        });
        let mut admitted = Vec::new();
        for (at, pause, count) in steps {
            clock.advance_ms(*pause);
            let (rates, tenant) = &edges[*at];
            for _ in 0..*count {
                if take(rates, tenant).await.allowed {
                    let now = clock.monotonic_ms();
                    admitted.push((now, now));
                }
            }
            // Refills in the background get their turn.
            tokio::task::yield_now().await;
        }
        admitted
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn edges_together_never_admit_more_than_burst_and_rate(
        rate in rates(), steps in steps(), fates in delays(),
    ) {
        assert_within(rate, &admissions(rate, &steps, fates), 1_000);
    }

    #[test]
    fn nothing_is_admitted_of_an_answer_that_was_lost(steps in steps()) {
        // Each edge goes by its share, with nothing saved up, from the first moment on.
        let rate = Rate::new(1, 100).expect("a rate");
        let most: u64 = 3 * (steps.iter().map(|(_, pause, _)| pause).sum::<u64>() / 1_000 + 1);
        let admitted = admissions(rate, &steps, vec![Fate::Lost; 10_000]);
        prop_assert!(admitted.len() as u64 <= most, "{} of {most}", admitted.len());
    }
}

#[test]
fn a_rate_of_which_one_edge_is_asked_for_all_is_used_up() {
    let rate = Rate::new(100, 100).expect("a rate");
    // Ten seconds of far more than the rate, at one edge.
    let steps: Vec<Step> = (0..1_000).map(|_| (0, 10, 4)).collect();
    let admitted = admissions(rate, &steps, Vec::new());
    let span_ms = admitted.last().expect("one").0 - admitted[0].0;
    let earned = span_ms * 100 / 1_000;
    let admitted = admitted.len() as u64;
    assert!(admitted >= earned * 95 / 100, "{admitted} of {earned} earned in {span_ms} ms");
}
