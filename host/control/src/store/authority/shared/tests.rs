//! Epochs that several holders share, on both databases.

use model::{
    ledger::{Authority, Bounds, Fence, LateRefunds, Opening, Report, ReportAnswer, Standing},
    quota::Metric,
};

use super::super::{
    edges::{World, lease, permit, redis},
    tests::{NOON, key},
};
use crate::{
    store::db::{Purpose, sql},
    testing::{Backend, on_both, report_of},
};

on_both! {
    a_shared_epoch_is_credited_only_after_every_holder_sealed_it,
    a_holder_that_registered_late_has_to_seal_too,
    nothing_is_credited_by_seals_of_an_open_epoch,
    several_leases_of_one_tranche_sum_up,
    a_lease_that_is_not_final_keeps_the_tranche_charged,
    more_than_the_tranche_is_never_believed,
    a_token_that_was_refunded_and_went_back_is_counted_where_it_is_spent,
    both_kinds_of_epochs_have_one_numbering_and_a_latest_of_their_own,
    two_of_one_fence_stay_open,
    a_changed_fence_closes_everything_before_it,
    exhausted_closes_all_but_the_latest_and_only_once,
    closing_an_account_raises_its_floor_to_its_latest,
    what_holders_wait_for_is_ended_when_the_last_of_them_ends,
    windows_that_are_over_are_closed,
    the_answer_brings_the_standing_of_what_was_asked_for,
    own_epochs_are_recalled_until_they_are_sealed,
    the_audit_finds_a_credit_without_final_figures,
}

fn credited(answer: &ReportAnswer) -> u64 {
    answer.credited
}

async fn a_shared_epoch_is_credited_only_after_every_holder_sealed_it(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    assert!(one.figures(vec![lease(of, 1, 2, false)]).await.recalls.is_empty());
    two.figures(vec![lease(of, 1, 1, false)]).await;
    assert_eq!(world.account(key).await, (3, 0));
    world.close(key).await;
    // Both are asked, and each as long as it has not sealed.
    assert_eq!(one.figures(vec![]).await.recalls, [of]);
    assert_eq!(credited(&one.figures(vec![lease(of, 1, 2, true)]).await), 0);
    assert_eq!(credited(&one.seal(of).await), 0);
    assert!(one.figures(vec![]).await.recalls.is_empty());
    assert_eq!(two.figures(vec![lease(of, 1, 3, true)]).await.recalls, [of]);
    assert_eq!(world.account(key).await, (5, 0));
    assert_eq!(credited(&two.seal(of).await), 3);
    assert_eq!(world.account(key).await, (5, 3));
    assert_eq!(credited(&two.seal(of).await), 0, "once");
    world.audit().await;
}

async fn a_holder_that_registered_late_has_to_seal_too(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    world.close(key).await;
    let mut late = world.edge("two").await;
    let bounds = late.bounds(key).await.expect("alive");
    assert!(!bounds.allow(of.epoch), "{bounds:?}");
    assert_eq!(credited(&one.seal(of).await), 0);
    assert_eq!(credited(&late.seal(of).await), 8, "it never had a token");
    world.audit().await;
}

async fn nothing_is_credited_by_seals_of_an_open_epoch(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    assert_eq!(credited(&one.seal(of).await), 0);
    // Who comes now may have tokens of it.
    let mut two = world.edge("two").await;
    assert!(two.bounds(key).await.expect("alive").allow(of.epoch));
    world.close(key).await;
    assert_eq!(world.store.sweep_epochs().await.expect("swept"), 0);
    assert_eq!(credited(&two.figures(vec![lease(of, 1, 5, true)]).await), 0);
    assert_eq!(credited(&two.seal(of).await), 3);
    world.audit().await;
}

async fn several_leases_of_one_tranche_sum_up(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 7, 2, true), lease(of, 9, 1, false)]).await;
    assert_eq!(world.account(key).await.0, 3);
    one.figures(vec![lease(of, 9, 3, true), lease(of, 7, 0, true)]).await;
    assert_eq!(world.account(key).await.0, 5, "final figures stay");
    world.close(key).await;
    assert_eq!(credited(&one.seal(of).await), 3);
    world.audit().await;
}

async fn a_lease_that_is_not_final_keeps_the_tranche_charged(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 2, false)]).await;
    world.close(key).await;
    assert_eq!(credited(&one.seal(of).await), 0);
    assert_eq!(world.store.sweep_epochs().await.expect("swept"), 0);
    world.audit().await;
}

async fn more_than_the_tranche_is_never_believed(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 5, true)]).await;
    two.figures(vec![lease(of, 1, 2, true), lease(of, 2, 4, true)]).await;
    assert_eq!(world.account(key).await.0, 8);
    world.close(key).await;
    one.seal(of).await;
    assert_eq!(credited(&two.seal(of).await), 0);
    world.audit().await;
}

async fn a_token_that_was_refunded_and_went_back_is_counted_where_it_is_spent(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 8, false)]).await;
    // Of the 8 one was refunded, given back, granted to two and spent.
    world.close(key).await;
    two.figures(vec![lease(of, 1, 1, true)]).await;
    world.audit().await;
    two.seal(of).await;
    one.figures(vec![lease(of, 1, 7, true)]).await;
    assert_eq!(one.seal(of).await.credited, 0, "all 8 are spent");
    assert_eq!(world.account(key).await, (8, 0));
    world.audit().await;
}

async fn both_kinds_of_epochs_have_one_numbering_and_a_latest_of_their_own(on: Backend) {
    let world = World::new(on).await;
    let (one, two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = async |fence, latest| world.opened(key, fence, latest).await.epoch;
    let lost = async |fence, latest| match world.open(key, fence, latest).await {
        Opening::Lost { latest } => latest,
        other => panic!("{other:?}"),
    };
    let (first, second) = (Fence::Holder(one.id), Fence::Holder(two.id));
    assert_eq!(of(redis(1), 0).await, 1);
    assert_eq!(of(first, 0).await, 2);
    assert_eq!(of(second, 0).await, 3);
    assert_eq!(of(redis(1), 1).await, 4);
    assert_eq!(lost(redis(2), 1).await, 4, "of any server");
    assert_eq!(lost(first, 0).await, 2);
    assert_eq!(lost(second, 2).await, 3);
    assert_eq!(of(first, 2).await, 5);
    let bounds = one.bounds(key).await.expect("alive");
    assert_eq!(bounds, Bounds { floor: 0, latest: 4 });
    world.audit().await;
}

async fn two_of_one_fence_stay_open(on: Backend) {
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let bounds = async || one.bounds(key).await.expect("alive");
    assert_eq!(bounds().await, Bounds::default());
    world.opened(key, redis(1), 0).await;
    world.opened(key, Fence::Holder(one.id), 0).await;
    world.opened(key, redis(1), 1).await;
    assert_eq!(bounds().await, Bounds { floor: 0, latest: 3 });
    world.opened(key, redis(1), 3).await;
    assert_eq!(bounds().await, Bounds { floor: 1, latest: 4 });
    world.opened(key, redis(1), 4).await;
    assert_eq!(bounds().await, Bounds { floor: 3, latest: 5 });
    world.audit().await;
}

async fn a_changed_fence_closes_everything_before_it(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    for latest in 0..2 {
        world.opened(key, redis(1), latest).await;
    }
    let third = world.opened(key, redis(2), 2).await;
    assert_eq!(one.bounds(key).await, Some(Bounds { floor: 2, latest: 3 }));
    let recalls = one.figures(vec![]).await.recalls;
    assert_eq!(recalls.iter().map(|of| of.epoch).collect::<Vec<_>>(), [1, 2]);
    // The first server is back, with the same life: what it had is closed all the same.
    world.opened(key, redis(1), third.epoch).await;
    assert_eq!(one.bounds(key).await, Some(Bounds { floor: 3, latest: 4 }));
    world.audit().await;
}

async fn exhausted_closes_all_but_the_latest_and_only_once(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let open = async |latest| world.open_under(key, redis(1), latest, 16).await;
    let first = permit(open(0).await).epoch();
    let second = permit(open(1).await).epoch();
    for _ in 0..2 {
        assert!(matches!(open(2).await, Opening::Exhausted));
        assert_eq!(one.bounds(key).await, Some(Bounds { floor: first, latest: second }));
    }
    let recalls = one.figures(vec![]).await.recalls;
    assert_eq!(recalls.len(), 1);
    assert_eq!(credited(&one.seal(recalls[0]).await), 8);
    assert_eq!(permit(open(2).await).tranche(), 8, "what was parked came back");
    world.audit().await;
}

async fn closing_an_account_raises_its_floor_to_its_latest(on: Backend) {
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let (open, never) = (key(Metric::ApiCalls), key(Metric::ApiCalls));
    let own = world.opened(open, Fence::Holder(one.id), 0).await;
    world.opened(open, redis(1), 0).await;
    world.opened(open, redis(1), 2).await;
    Authority::close(&*world.store, vec![open, never]).await.expect("closed");
    assert_eq!(one.bounds(open).await, Some(Bounds { floor: 3, latest: 3 }));
    assert_eq!(one.bounds(never).await, Some(Bounds::default()));
    world.close(open).await;
    let next = world.opened(open, redis(1), 3).await;
    assert_eq!((own.epoch, next.epoch), (1, 4));
    assert_eq!(one.bounds(open).await, Some(Bounds { floor: 3, latest: 4 }));
    world.audit().await;
}

async fn what_holders_wait_for_is_ended_when_the_last_of_them_ends(on: Backend) {
    let world = World::new(on).await;
    let (mut one, two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    world.close(key).await;
    one.figures(vec![lease(of, 1, 3, true)]).await;
    assert_eq!(credited(&one.seal(of).await), 0);
    world.store.end(two.id).await.expect("ended");
    assert_eq!(world.store.sweep_epochs().await.expect("swept"), 5);
    assert_eq!(world.store.sweep_epochs().await.expect("swept"), 0);
    world.audit().await;
}

async fn windows_that_are_over_are_closed(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let (over, open) = (key(Metric::AiRequests), key(Metric::ApiCalls));
    let of = world.opened(over, redis(1), 0).await;
    world.opened(open, redis(1), 0).await;
    world.store.close_ended_windows().await.expect("closed");
    assert!(one.figures(vec![]).await.recalls.is_empty());
    world.clock.advance_ms(over.window.end.ms_since(NOON));
    for _ in 0..2 {
        world.store.close_ended_windows().await.expect("closed");
        assert_eq!(one.figures(vec![]).await.recalls, [of]);
    }
    one.seal(of).await;
    assert_eq!(world.account(over).await, (0, 8));
    world.audit().await;
}

async fn the_answer_brings_the_standing_of_what_was_asked_for(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let keys = [key(Metric::ApiCalls), key(Metric::AiRequests), key(Metric::ApiCalls)];
    world.opened(keys[2], redis(1), 0).await;
    world.clock.advance_ms(5);
    let watched = keys.to_vec();
    let answer = one.send(Report { watched, ..report_of(one.id, 0, Vec::new()) }).await;
    let bounds = Bounds { floor: 0, latest: 1 };
    let standing = Standing { bounds, available: 1_000 - 8 };
    assert_eq!(answer.standings, [None, None, Some(standing)]);
    assert_eq!((answer.now, answer.ended), (NOON.plus_ms(5), false));
    let confirmed = world.store.confirm(one.id, keys.to_vec()).await.expect("an answer");
    assert_eq!(confirmed, Some(answer.standings));
}

async fn own_epochs_are_recalled_until_they_are_sealed(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let own = Fence::Holder(one.id);
    let first = world.opened(key, own, 0).await;
    world.opened(key, own, 1).await;
    assert!(one.figures(vec![]).await.own_recalls.is_empty(), "two may be open");
    world.opened(key, own, 2).await;
    let answer = one.figures(vec![lease(first, 1, 2, true)]).await;
    assert_eq!((answer.own_recalls, answer.recalls), (vec![first], vec![]));
    assert!(two.figures(vec![]).await.own_recalls.is_empty(), "it is another's");
    assert_eq!(credited(&two.seal(first).await), 0);
    let answer = one.seal(first).await;
    assert_eq!((answer.credited, answer.own_recalls), (6, vec![]));
    let late = vec![LateRefunds { key, total: 1 }];
    let late = Report { late, ..report_of(one.id, 0, Vec::new()) };
    assert_eq!(credited(&one.send(late).await), 1);
    world.audit().await;
}

async fn the_audit_finds_a_credit_without_final_figures(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 8, false)]).await;
    let mut tx = world.store.db.control(Purpose::Account).await.expect("begun");
    let broken = sql("UPDATE quota_epoch SET state = 'reconciled'");
    let broken = broken.execute(&mut tx).await;
    tx.end(broken).await.expect("broken");
    let found = world.store.audit_quotas().await.expect("an audit");
    let rules: Vec<_> = found.iter().map(|violation| violation.rule.as_str()).collect();
    assert!(rules.contains(&"no open figures of reconciled epoch 1"), "{rules:?}");
    assert!(rules.contains(&"a closed shared epoch is at most the floor"), "{rules:?}");
}
