//! Random draws, seals, terms and moves: what is charged through each pool, by sums of the
//! test's own, is never more than the pool, and the audit agrees after every step.

use proptest::prelude::*;

use super::*;

/// One random step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Draw(usize),
    Seal(usize, u64),
    Terms(usize),
    Move(usize, usize),
    Still,
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = || 3_usize..6;
    prop_oneof![
        8 => (1_usize..6).prop_map(Step::Draw),
        4 => (1_usize..6, 0_u64..12).prop_map(|(n, spent)| Step::Seal(n, spent)),
        2 => (0_usize..8).prop_map(Step::Terms),
        2 => (leaf(), 0_usize..3).prop_map(|(n, to)| Step::Move(n, to)),
        1 => Just(Step::Still),
    ]
}

/// Sizes of the pools of the first three; they stay.
const TOTALS: [u64; 3] = [60, 40, 30];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_becomes_of_shares_and_members_nobody_is_charged_more_than_a_pool(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for on in [Backend::Sqlite, Backend::Postgres] {
            runtime.block_on(play(on, &steps))?;
        }
    }
}

async fn play(on: Backend, steps: &[Step]) -> Result<(), TestCaseError> {
    let parents = [None, Some(0), Some(0), Some(1), Some(1), Some(2)];
    let mut bench = Bench::new(on, &parents).await;
    let mut parents = parents.map(|parent| parent.unwrap_or(0));
    assert!(bench.pool(0, TOTALS[0], Some(&[(1, 20, 50), (2, 0, 40)])).await);
    assert!(bench.pool(1, TOTALS[1], Some(&[(3, 10, 30), (4, 0, 40)])).await);
    assert!(bench.pool(2, TOTALS[2], None).await);
    // Charged by what was drawn through each pool, whoever drew it, as it was then.
    let mut through: HashMap<EpochRef, Vec<usize>> = HashMap::new();
    let mut charged = [0_u64; 3];
    for step in steps {
        match *step {
            Step::Draw(n) => {
                let member = bench.above(n).is_some();
                if let Opening::Opened(permit) = bench.answer(n).await {
                    let of = EpochRef { key: bench.key(n), epoch: permit.epoch() };
                    let owners = bench.owners(n, &parents);
                    prop_assert_eq!(member, !owners.is_empty());
                    owners.iter().for_each(|owner| charged[*owner] += permit.tranche());
                    through.insert(of, owners);
                }
            }
            Step::Seal(n, spent) => {
                if let Some((of, tranche, spent)) = bench.seal(n, spent).await {
                    for owner in &through[&of] {
                        charged[*owner] -= tranche - spent;
                    }
                }
            }
            Step::Terms(which) => {
                // Refused where they break a rule; then nothing changes.
                let _ = match which {
                    0 => bench.pool(1, TOTALS[1], None).await,
                    1 => bench.pool(1, TOTALS[1], Some(&[(3, 20, 20)])).await,
                    2 => bench.pool(1, TOTALS[1], Some(&[(4, 5, 40), (5, 5, 40)])).await,
                    3 => bench.pool(2, TOTALS[2], Some(&[(5, 0, 30), (3, 0, 10)])).await,
                    4 => bench.pool(2, TOTALS[2], None).await,
                    5 => bench.pool(0, TOTALS[0], Some(&[(1, 30, 60), (2, 20, 30)])).await,
                    6 => bench.pool(0, TOTALS[0], Some(&[(1, 20, 50), (2, 0, 40)])).await,
                    _ => bench.pool(0, TOTALS[0], None).await,
                };
            }
            Step::Move(n, to) => {
                if parents[n] != to {
                    bench.move_to(n, Some(to)).await;
                    parents[n] = to;
                }
            }
            Step::Still => drop(bench.edge.send(empty()).await),
        }
        for (charged, total) in charged.iter().zip(TOTALS) {
            prop_assert!(*charged <= total, "{step:?}: {charged} of {total}");
        }
        let audit = bench.world.store.audit_quotas().await.expect("an audit");
        prop_assert!(audit.is_empty(), "{step:?}: {audit:?}");
    }
    Ok(())
}

impl Bench {
    /// The pools that a tenant draws from now.
    fn owners(&self, n: usize, parents: &[usize; 6]) -> Vec<usize> {
        let directory = self.stores[0].directory().borrow().clone();
        let record = |n: usize| {
            let id = self.ids[n];
            directory.record(id).cloned().expect("a record")
        };
        let mut owners = Vec::new();
        let mut at = n;
        while at != 0 && record(at).pools.of(Metric::ApiCalls).share.is_some() {
            at = parents[at];
            owners.push(at);
        }
        owners
    }
}
