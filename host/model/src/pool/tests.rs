use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn id(n: usize) -> TenantId {
    TenantId(Uuid::from_u128(n as u128 + 1))
}

const TOP: usize = 0;

/// A family of three levels: 0 owns a pool for 1–3, of which 1 owns one for 4–6. It keeps
/// the rules of [`Terms`] and starts unused.
#[derive(Clone, Debug)]
struct Setting {
    plan: u64,
    members: Vec<Member>,
}

fn share() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..8, 0_u64..8).prop_map(|(guaranteed, more)| (guaranteed, guaranteed + more))
}

fn setting() -> impl Strategy<Value = Setting> {
    let shares = prop::collection::vec(share(), 6);
    (shares, 0_u64..10, 0_u64..10, 0_u64..10).prop_map(|(mut shares, spare, below, plan)| {
        let inner: u64 = shares[3..].iter().map(|(guaranteed, _)| guaranteed).sum();
        shares[0].0 = shares[0].0.max(inner);
        shares[0].1 = shares[0].1.max(shares[0].0 + below);
        let outer: u64 = shares[..3].iter().map(|(guaranteed, _)| guaranteed).sum();
        let totals = [outer + spare, (inner + below).min(shares[0].1)];
        let member = |n: usize, owner: usize| {
            let (guaranteed, max) = shares[n - 1];
            let max = max.min(totals[owner]);
            let share = Share { guaranteed, max };
            let pool = (n == 1).then(|| totals[1].min(max));
            let membership = Some(Membership { owner: id(owner), share });
            Member { tenant: id(n), membership, used: 0, pool }
        };
        let top = Member { tenant: id(TOP), membership: None, used: 0, pool: Some(totals[0]) };
        let members = std::iter::once(top)
            .chain((1..4).map(|n| member(n, 0)))
            .chain((4..7).map(|n| member(n, 1)))
            .collect();
        Setting { plan: totals[0] + plan, members }
    })
}

/// A change of one member's use.
#[derive(Clone, Copy, Debug)]
enum Step {
    Claim(usize, u64),
    Release(usize, u64),
    Fact(usize, u64),
}

fn steps(facts: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = (0_usize..7, 0_u64..9, 0_u8..10).prop_map(move |(n, amount, kind)| match kind {
        0..7 => Step::Claim(n, amount),
        9 if facts => Step::Fact(n, amount * 5),
        _ => Step::Release(n, amount),
    });
    prop::collection::vec(step, 0..60)
}

impl Setting {
    /// Takes a step; whether it was a claim that passed.
    fn take(&mut self, step: Step) -> bool {
        let used = |members: &mut Vec<Member>, n: usize| members[n].used;
        match step {
            Step::Claim(n, amount) => {
                let passes = Family::new(&self.members).claim(id(n), amount, self.plan).is_ok();
                if passes {
                    self.members[n].used += amount;
                }
                return passes;
            }
            Step::Release(n, amount) => {
                self.members[n].used = used(&mut self.members, n).saturating_sub(amount);
            }
            Step::Fact(n, amount) => self.members[n].used = amount,
        }
        false
    }

    fn family(&self) -> Family {
        Family::new(&self.members)
    }

    /// What a member demands, computed the long way.
    fn demand(&self, n: usize) -> u64 {
        let below = self.members.iter().enumerate().filter_map(|(m, member)| {
            let held = member.membership.filter(|held| held.owner == id(n))?;
            Some(self.demand(m).max(held.share.guaranteed))
        });
        self.members[n].used + below.sum::<u64>()
    }

    fn a_guaranteed_share_can_be_had(&self) -> Result<(), TestCaseError> {
        let family = self.family();
        for (n, member) in self.members.iter().enumerate() {
            let Some(Membership { share, .. }) = member.membership else { continue };
            let left = share.guaranteed.saturating_sub(self.demand(n));
            prop_assert_eq!(family.claim(id(n), left, self.plan), Ok(()));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn by_claims_alone_no_pool_and_no_plan_is_ever_exceeded(
        mut setting in setting(), steps in steps(false),
    ) {
        for step in steps {
            setting.take(step);
            let family = setting.family();
            for (n, member) in setting.members.iter().enumerate() {
                if let Some(total) = member.pool {
                    prop_assert!(family.used_below(id(n)) <= family.committed(id(n)));
                    prop_assert!(family.committed(id(n)) <= total);
                }
                prop_assert!(member.used <= family.limit(id(n), setting.plan));
            }
            prop_assert!(setting.demand(TOP) <= setting.plan);
            setting.a_guaranteed_share_can_be_had()?;
        }
    }

    #[test]
    fn within_its_room_nobody_takes_more_than_a_pool_has_and_a_guarantee_can_be_had(
        mut setting in setting(), steps in prop::collection::vec((0_usize..7, 0_u64..9), 0..60),
    ) {
        for (n, amount) in steps {
            let room = setting.family().room(id(n), setting.plan);
            setting.members[n].used += amount.min(room);
            let family = setting.family();
            for (n, member) in setting.members.iter().enumerate() {
                let room = family.room(id(n), setting.plan);
                prop_assert_eq!(family.claim(id(n), room, setting.plan), Ok(()));
                prop_assert!(family.claim(id(n), room + 1, setting.plan).is_err());
                if let Some(Membership { share, .. }) = member.membership {
                    prop_assert!(setting.demand(n) + room >= share.guaranteed);
                }
                prop_assert!(family.used_below(id(n)) <= member.pool.unwrap_or(0));
            }
        }
    }

    #[test]
    fn room_is_never_more_than_what_the_pools_have_left_whatever_they_were_before(
        mut setting in setting(), facts in prop::collection::vec(0_u64..20, 7),
    ) {
        for (member, used) in setting.members.iter_mut().zip(facts) {
            member.used = used;
        }
        for n in 0..setting.members.len() {
            let room = setting.family().room(id(n), setting.plan);
            if room == 0 {
                continue;
            }
            let mut after = setting.clone();
            after.members[n].used += room;
            let family = after.family();
            let mut owner = family.membership(id(n)).map(|held| held.owner);
            while let Some(above) = owner {
                let pool = after.members.iter().find(|member| member.tenant == above);
                prop_assert!(family.used_below(above) <= pool.and_then(|pool| pool.pool).unwrap_or(0));
                owner = family.membership(above).map(|held| held.owner);
            }
        }
    }

    #[test]
    fn facts_may_exceed_a_pool_and_then_claims_draw_nothing_more_from_it(
        mut setting in setting(), steps in steps(true),
    ) {
        for step in steps {
            let before = setting.family();
            if setting.take(step) {
                let after = setting.family();
                for (n, member) in setting.members.iter().enumerate() {
                    let most = member.pool.unwrap_or(0).max(before.committed(id(n)));
                    prop_assert!(after.committed(id(n)) <= most);
                }
            }
            setting.a_guaranteed_share_can_be_had()?;
        }
    }

    #[test]
    fn sums_are_those_of_the_definition(mut setting in setting(), steps in steps(true)) {
        for step in steps {
            setting.take(step);
        }
        let family = setting.family();
        for (n, member) in setting.members.iter().enumerate() {
            prop_assert_eq!(member.used + family.committed(id(n)), setting.demand(n));
        }
        let all: u64 = setting.members[1..].iter().map(|member| member.used).sum();
        prop_assert_eq!(family.used_below(id(TOP)), all);
    }

    #[test]
    fn what_the_rules_accept_is_what_the_invariants_need(
        total in 0_u64..20, shares in prop::collection::vec(share(), 0..4),
        cap in 0_u64..20, guaranteed in prop::option::of(0_u64..20),
    ) {
        let shares: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(n, (guaranteed, max))| (id(n), Share { guaranteed, max }))
            .collect();
        let sum: u64 = shares.iter().map(|(_, share)| share.guaranteed).sum();
        let good = total <= cap
            && sum <= total
            && guaranteed.is_none_or(|own| sum <= own)
            && shares.iter().all(|(_, share)| share.max <= total);
        let terms = Terms { total, shares: Some(shares) };
        prop_assert_eq!(faults(Some(&terms), Owner { cap, guaranteed }, &[]).is_empty(), good);
    }
}

const GB: u64 = 1 << 30;

/// The guide's pool of 1000 GB for three children.
fn guide(used: [u64; 3]) -> Family {
    let top = Member { tenant: id(TOP), membership: None, used: 0, pool: Some(1_000 * GB) };
    let child = |n: usize, gb: u64| {
        let share = Share { guaranteed: gb * GB, max: gb * GB };
        let membership = Some(Membership { owner: id(TOP), share });
        Member { tenant: id(n), membership, used: used[n - 1] * GB, pool: None }
    };
    Family::new(&[top, child(1, 400), child(2, 300), child(3, 300)])
}

#[test]
fn the_guides_allocations_replace_the_plans_and_are_all_guaranteed() {
    let family = guide([350, 150, 200]);
    let plan = 1_024 * GB;
    assert_eq!(family.used_below(id(TOP)), 700 * GB);
    assert_eq!(family.committed(id(TOP)), 1_000 * GB);
    assert_eq!(family.limit(id(1), plan), 400 * GB);
    assert_eq!(family.claim(id(1), 50 * GB, plan), Ok(()));
    assert_eq!(family.claim(id(1), 50 * GB + 1, plan), Err(Bound::Share));
    // What is left of the plan beside the pool is the owner's own.
    assert_eq!(family.claim(id(TOP), 24 * GB, plan), Ok(()));
    assert_eq!(family.claim(id(TOP), 24 * GB + 1, plan), Err(Bound::Plan));
}

#[test]
fn a_pool_of_a_member_lies_within_its_share_and_its_guarantee() {
    let owner = Owner { cap: 100, guaranteed: Some(40) };
    let share = |guaranteed, max| Share { guaranteed, max };
    let terms = |total, shares| Terms { total, shares: Some(shares) };
    let good = terms(100, vec![(id(1), share(40, 100))]);
    assert_eq!(faults(Some(&good), owner, &[]), []);
    let bad = terms(101, vec![(id(1), share(41, 101)), (id(2), share(1, 0))]);
    assert_eq!(
        faults(Some(&bad), owner, &[]),
        [
            Fault::AboveOwner { cap: 100 },
            Fault::AboveGuarantee { guaranteed: 42, own: 40 },
            Fault::Inverted { child: id(2) },
        ]
    );
}

#[test]
fn a_change_that_breaks_a_pool_further_down_is_refused() {
    let owner = Owner { cap: 100, guaranteed: None };
    let below = SubPool { owner: id(1), total: 50, guaranteed: 30, plan: 10 };
    let terms = |guaranteed, max| Terms {
        total: 100,
        shares: Some(vec![(id(1), Share { guaranteed, max })]),
    };
    assert_eq!(faults(Some(&terms(30, 50)), owner, &[below]), []);
    let total = Fault::SubPoolTotal { child: id(1), total: 50 };
    let guarantee = Fault::SubPoolGuarantee { child: id(1), guaranteed: 30 };
    assert_eq!(faults(Some(&terms(29, 49)), owner, &[below]), [total, guarantee]);
    // Without the pool above, the plan of the child caps its own.
    assert_eq!(faults(None, owner, &[below]), [total]);
    let open = Terms { total: 100, shares: None };
    assert_eq!(faults(Some(&open), owner, &[below]), [guarantee]);
}
