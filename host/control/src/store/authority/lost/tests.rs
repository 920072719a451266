//! Holders that are lost, or thought to be, on both databases.

use std::{collections::BTreeSet, mem};

use model::{
    ledger::{Authority, BootId, Fence, OpenRequest, Opening, Report, Stranded},
    quota::Metric,
};
use uuid::Uuid;

use super::super::{
    edges::{World, lease, redis},
    tests::key,
};
use crate::{
    store::{
        StoreError,
        db::{Purpose, sql},
    },
    testing::{Backend, on_both, report_of},
};

on_both! {
    a_lost_holder_blocks_the_credit_until_close_tells_its_share,
    what_a_lost_holder_reported_counts_if_it_is_more_than_its_share,
    lost_holders_together_never_have_more_than_the_tranche,
    a_will_replaces_a_share_that_nobody_told,
    a_will_that_comes_after_the_share_was_told_changes_nothing,
    a_will_that_misses_a_lease_leaves_the_share_to_close,
    an_answer_that_nobody_asked_for_is_ignored,
    what_was_opened_after_the_loss_waits_for_nobody,
    an_ended_holder_confirms_opens_and_reports_nothing,
    who_is_silent_is_lost_and_who_reports_is_not,
    missing_shares_are_told_of_closing_epochs_only_and_all_in_turn,
    ended_holders_are_forgotten_when_nobody_needs_them,
    an_end_without_final_figures_leaves_the_share_to_close,
    own_epochs_of_a_lost_holder_stay_charged_until_its_will,
    figures_from_before_there_were_leases_are_replaced_by_the_will_that_tells_of_them,
}

const MINUTE_MS: u64 = 60_000;

async fn a_lost_holder_blocks_the_credit_until_close_tells_its_share(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 1, true)]).await;
    two.figures(vec![lease(of, 1, 2, false)]).await;
    assert_eq!(world.account(key).await.0, 3);
    let mut heir = two.lost_to_heir("two").await;
    assert_eq!(world.account(key).await.0, 8, "nobody knows what it has");
    world.close(key).await;
    one.seal(of).await;
    assert_eq!(heir.seal(of).await.credited, 0);
    assert_eq!(world.store.sweep_epochs().await.expect("swept"), 0);
    assert_eq!(heir.figures(vec![]).await.lost, [(of, redis(1), two.id)]);
    let told = heir.tell(of, two.id, 4).await;
    assert_eq!((told.credited, told.lost), (3, vec![]), "1 spent, 4 lost of 8");
    assert_eq!(world.account(key).await, (5, 3));
    world.audit().await;
}

async fn what_a_lost_holder_reported_counts_if_it_is_more_than_its_share(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 2, true), lease(of, 2, 3, false)]).await;
    let mut heir = one.lost_to_heir("one").await;
    world.close(key).await;
    heir.tell(of, one.id, 4).await;
    assert_eq!(heir.seal(of).await.credited, 3);
    assert_eq!(world.account(key).await, (5, 3));
    world.audit().await;
}

async fn lost_holders_together_never_have_more_than_the_tranche(on: Backend) {
    let world = World::new(on).await;
    let (one, two) = (world.edge("same").await, world.edge("same").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    let mut heir = one.lost_to_heir("same").await;
    world.close(key).await;
    heir.tell(of, one.id, 6).await;
    heir.tell(of, two.id, 6).await;
    assert_eq!(heir.seal(of).await.credited, 0);
    world.audit().await;
}

async fn a_will_replaces_a_share_that_nobody_told(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 2, true), lease(of, 2, 1, false)]).await;
    let mut heir = one.lost_to_heir("one").await;
    world.close(key).await;
    heir.seal(of).await;
    let will = one.will(vec![lease(of, 2, 4, true)]);
    let inherited = world.store.inherit(will.clone()).await.expect("inherited");
    assert_eq!((inherited.epochs, inherited.credited), (1, 2));
    let again = world.store.inherit(will).await.expect("inherited");
    assert_eq!((again.epochs, again.credited), (0, 0));
    assert!(heir.tell(of, one.id, 8).await.lost.is_empty());
    assert_eq!(world.account(key).await, (6, 2));
    world.audit().await;
}

async fn a_will_that_comes_after_the_share_was_told_changes_nothing(on: Backend) {
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    let mut heir = one.lost_to_heir("one").await;
    world.close(key).await;
    heir.tell(of, one.id, 5).await;
    let will = one.will(vec![lease(of, 1, 3, true)]);
    assert_eq!(world.store.inherit(will).await.expect("inherited").credited, 0);
    assert_eq!(heir.seal(of).await.credited, 3);
    world.audit().await;
}

async fn a_will_that_misses_a_lease_leaves_the_share_to_close(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    one.figures(vec![lease(of, 1, 2, false)]).await;
    let mut heir = world.edge("two").await;
    world.close(key).await;
    heir.seal(of).await;
    let will = one.will(vec![lease(of, 2, 1, true)]);
    assert_eq!(world.store.inherit(will).await.expect("inherited").credited, 0);
    assert_eq!(heir.figures(vec![]).await.lost, [(of, redis(1), one.id)]);
    assert_eq!(heir.tell(of, one.id, 5).await.credited, 3);
    world.audit().await;
}

async fn an_answer_that_nobody_asked_for_is_ignored(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    two.figures(vec![lease(of, 1, 2, false)]).await;
    world.close(key).await;
    one.seal(of).await;
    assert_eq!(one.tell(of, two.id, 2).await.credited, 0, "it lives");
    two.figures(vec![lease(of, 1, 7, true)]).await;
    assert_eq!(two.seal(of).await.credited, 1);
    world.audit().await;
}

async fn what_was_opened_after_the_loss_waits_for_nobody(on: Backend) {
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let before = world.opened(key, redis(1), 0).await;
    let mut heir = one.lost_to_heir("one").await;
    let after = world.opened(key, redis(1), 1).await;
    world.close(key).await;
    assert_eq!(heir.seal(before).await.credited, 0);
    assert_eq!(heir.seal(after).await.credited, 8);
    world.audit().await;
}

async fn an_ended_holder_confirms_opens_and_reports_nothing(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let own = Fence::Holder(one.id);
    let of = world.opened(key, own, 0).await;
    assert!(one.bounds(key).await.is_some());
    one.lost_to_heir("one").await;
    assert_eq!(one.bounds(key).await, None);
    let shared =
        OpenRequest { key, fence: redis(1), latest: 0, limit: 50, above: None, rate_per_s: 0 };
    world.store.open(one.id, vec![shared]).await.expect_err("what it would open it may not spend");
    let request = OpenRequest { key, fence: own, latest: 1, limit: 50, above: None, rate_per_s: 0 };
    let refused = world.store.open(one.id, vec![request]).await.expect_err("refused");
    let refused = refused.0.downcast::<StoreError>().expect("a store's error");
    assert!(matches!(*refused, StoreError::HolderEnded(id) if id == one.id.0), "{refused}");
    let watched = vec![key];
    let report = Report { watched, ..report_of(one.id, 0, vec![lease(of, 1, 1, true)]) };
    let answer = one.send(report).await;
    assert!(answer.ended && answer.standings.is_empty() && answer.credited == 0, "{answer:?}");
    assert_eq!(world.account(key).await, (8, 0));
    world.audit().await;
}

async fn who_is_silent_is_lost_and_who_reports_is_not(on: Backend) {
    let world = World::new(on).await;
    let (mut silent, mut loud) = (world.edge("one").await, world.edge("two").await);
    world.clock.advance_ms(MINUTE_MS - 1);
    loud.figures(vec![]).await;
    assert_eq!(world.store.lose_silent_holders(MINUTE_MS).await.expect("none"), 0);
    world.clock.advance_ms(1);
    assert_eq!(world.store.lose_silent_holders(MINUTE_MS).await.expect("one"), 1);
    assert_eq!(world.store.lose_silent_holders(MINUTE_MS).await.expect("none"), 0);
    assert!(silent.figures(vec![]).await.ended);
    assert!(!loud.figures(vec![]).await.ended);
    // Whoever is alone keeps nobody waiting.
    world.clock.advance_ms(MINUTE_MS);
    assert_eq!(world.store.lose_silent_holders(MINUTE_MS).await.expect("none"), 0);
    assert!(!loud.figures(vec![]).await.ended);
}

async fn missing_shares_are_told_of_closing_epochs_only_and_all_in_turn(on: Backend) {
    const TENANTS: usize = 200;
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let keys: Vec<_> = (0..TENANTS).map(|_| key(Metric::ApiCalls)).collect();
    for key in &keys {
        world.opened(*key, redis(1), 0).await;
    }
    let mut heir = one.lost_to_heir("one").await;
    assert!(heir.figures(vec![]).await.lost.is_empty());
    Authority::close(&*world.store, keys).await.expect("closed");
    let mut told = BTreeSet::new();
    for _ in 0..8 {
        let lost = heir.figures(vec![]).await.lost;
        assert_eq!(lost.len(), 128, "as many as one answer may have");
        told.extend(lost.iter().map(|(of, ..)| *of));
    }
    assert_eq!(told.len(), TENANTS);
}

async fn ended_holders_are_forgotten_when_nobody_needs_them(on: Backend) {
    const DAYS_MS: u64 = 49 * 3_600_000;
    let world = World::new(on).await;
    let (needed, done) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    world.opened(key, Fence::Holder(needed.id), 0).await;
    world.store.end(done.id).await.expect("ended");
    needed.lost_to_heir("one").await;
    let holders = async || {
        world.store.forget_ended_holders().await.expect("forgotten");
        let mut tx = world.store.db.control(Purpose::Read).await.expect("begun");
        let count = sql("SELECT count(*) FROM quota_holder").one(&mut tx).await;
        let (count,): (i64,) = tx.end(count).await.expect("a count");
        count
    };
    assert_eq!(holders().await, 3);
    world.clock.advance_ms(DAYS_MS);
    assert_eq!(holders().await, 2, "one ended and was done, one ended with an open tranche");
    world.store.inherit(needed.will(vec![])).await.expect("inherited");
    assert_eq!(holders().await, 1, "the heir lives");
    world.audit().await;
}

async fn an_end_without_final_figures_leaves_the_share_to_close(on: Backend) {
    let world = World::new(on).await;
    let (mut one, mut two) = (world.edge("one").await, world.edge("two").await);
    let key = key(Metric::ApiCalls);
    let of = world.opened(key, redis(1), 0).await;
    two.figures(vec![lease(of, 1, 2, false)]).await;
    world.store.end(two.id).await.expect("ended");
    world.close(key).await;
    assert_eq!(one.seal(of).await.credited, 0);
    assert_eq!(one.figures(vec![]).await.lost, [(of, redis(1), two.id)]);
    assert_eq!(one.tell(of, two.id, 3).await.credited, 5);
    world.audit().await;
}

async fn own_epochs_of_a_lost_holder_stay_charged_until_its_will(on: Backend) {
    let world = World::new(on).await;
    let mut one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let own = Fence::Holder(one.id);
    let (first, second) = (world.opened(key, own, 0).await, world.opened(key, own, 1).await);
    one.figures(vec![lease(first, 1, 1, true), lease(first, 2, 1, false)]).await;
    let heir = world.edge("one").await;
    let stranded = world.store.strand_others(heir.id).await.expect("stranded");
    assert_eq!(stranded, Stranded { epochs: 2, tokens: 14 });
    assert_eq!(world.account(key).await, (16, 0));
    // Figures of another uptime are not believed.
    let mut will = one.will(vec![lease(first, 2, 3, true)]);
    let boot = mem::replace(&mut will.boot, BootId(Uuid::new_v4()));
    assert_eq!(world.store.inherit(will.clone()).await.expect("ignored").credited, 0);
    will.boot = boot;
    let inherited = world.store.inherit(will).await.expect("inherited");
    assert_eq!((inherited.epochs, inherited.credited), (2, 4 + 8), "{second:?} was never leased");
    assert!(matches!(world.open(key, Fence::Holder(heir.id), 0).await, Opening::Opened(_)));
    world.audit().await;
}

async fn figures_from_before_there_were_leases_are_replaced_by_the_will_that_tells_of_them(
    on: Backend,
) {
    let world = World::new(on).await;
    let one = world.edge("one").await;
    let key = key(Metric::ApiCalls);
    let own = Fence::Holder(one.id);
    let (told, untold) = (world.opened(key, own, 0).await, world.opened(key, own, 1).await);
    let mut tx = world.store.db.control(Purpose::Account).await.expect("begun");
    let before = sql("INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease,
             report_no, spent, refunded, sealed)
         SELECT tenant_id, metric, start_ms, epoch, $1, 0, 1, 2, 0, 0 FROM quota_epoch");
    let before = before.bind(one.id.0).execute(&mut tx).await;
    tx.end(before).await.expect("rows as the migration makes them");
    let will = one.will(vec![lease(told, 9, 3, true)]);
    let inherited = world.store.inherit(will).await.expect("inherited");
    assert_eq!((inherited.epochs, inherited.credited), (1, 5));
    assert_eq!(world.account(key).await, (3 + 8, 5), "{untold:?} stays charged");
    world.audit().await;
}
