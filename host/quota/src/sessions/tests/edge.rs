//! What one edge does with its sessions, and what it leaves to others.

use model::sessions::{HEARTBEAT_MS, MARGIN_MS, TTL_MS};

use super::*;

const FULL: SessionRefusal = SessionRefusal::Full { limit: 2 };

#[tokio::test]
async fn the_third_login_is_refused_and_the_first_two_go_on_without_a_call() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    for number in [1, 2] {
        edge.enter(number, 2).await.expect("below the limit");
    }
    assert_eq!(edge.enter(3, 2).await.err(), Some(FULL));
    edge.fault(REQUESTS_LOST);
    assert!(edge.knows(1) && edge.knows(2) && !edge.knows(3));
    assert!(matches!(edge.enter(3, 2).await, Err(SessionRefusal::Unavailable { .. })));
}

#[tokio::test]
async fn a_lowered_limit_ends_nobody_and_a_raised_one_admits_at_once() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    for number in [1, 2, 3] {
        edge.enter(number, 3).await.expect("below the limit");
    }
    assert_eq!(edge.enter(4, 2).await.err(), Some(FULL));
    clock.advance_ms(HEARTBEAT_MS);
    edge.beat().await;
    assert!([1, 2, 3].iter().all(|number| edge.knows(*number)), "renewed though above the limit");
    edge.enter(4, 4).await.expect("a raised limit");
}

#[tokio::test]
async fn heartbeats_keep_a_session_until_it_is_idle_and_then_its_slot_is_free() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    drop(edge.enter(1, 1).await.expect("the first"));
    while clock.monotonic_ms() < IDLE_MS {
        clock.advance_ms(HEARTBEAT_MS);
        edge.beat().await;
        if clock.monotonic_ms() < IDLE_MS {
            assert_eq!(registry.count(TENANT).await, Ok(1), "at {}", clock.monotonic_ms());
        }
    }
    assert!(edge.alive().is_empty());
    clock.advance_ms(TTL_MS);
    assert_eq!(registry.count(TENANT).await, Ok(0));
    edge.enter(2, 1).await.expect("a free slot");
}

#[tokio::test]
async fn a_session_with_an_open_stream_is_never_idle() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 1).await.expect("the first");
    for _ in 0..3 * IDLE_MS / HEARTBEAT_MS {
        clock.advance_ms(HEARTBEAT_MS);
        edge.beat().await;
    }
    assert!(!stream.is_lost());
    drop(stream);
    clock.advance_ms(HEARTBEAT_MS);
    edge.beat().await;
    assert_eq!(edge.alive().len(), 1, "idle counts from the end of the stream");
}

#[tokio::test]
async fn an_edge_that_cannot_renew_closes_its_sessions_before_the_registry_forgets_them() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 1).await.expect("the first");
    edge.fault(REQUESTS_LOST);
    for at in 1..=TTL_MS {
        clock.advance_ms(1);
        if at % 500 == 0 {
            edge.beat().await;
        }
        let is_served = !stream.is_lost();
        assert_eq!(is_served, at < TTL_MS - MARGIN_MS, "at {at}");
        assert!(!is_served || registry.count(TENANT).await == Ok(1), "served and not counted");
    }
    assert_eq!(registry.count(TENANT).await, Ok(0));
    edge.fault(ARRIVE);
    edge.enter(1, 1).await.expect("admitted anew");
    assert!(stream.is_lost(), "what was lost stays lost");
}

#[tokio::test]
async fn one_lost_heartbeat_costs_nothing() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 1).await.expect("the first");
    clock.advance_ms(HEARTBEAT_MS);
    edge.fault(ANSWERS_LOST);
    edge.beat().await;
    clock.advance_ms(500);
    edge.fault(ARRIVE);
    edge.beat().await;
    clock.advance_ms(HEARTBEAT_MS);
    assert!(!stream.is_lost());
}

#[tokio::test]
async fn the_sessions_of_a_dead_edge_are_free_after_the_ttl_and_not_before() {
    let (clock, registry) = world();
    let dead = Edge::new(&clock, &registry, 100);
    dead.enter(1, 2).await.expect("the first");
    dead.enter(2, 2).await.expect("the second");
    drop(dead);
    let edge = Edge::new(&clock, &registry, 100);
    clock.advance_ms(TTL_MS - 1);
    assert_eq!(edge.enter(3, 2).await.err(), Some(FULL));
    drop(edge.enter(1, 2).await.expect("a session that moved to the living edge"));
    clock.advance_ms(1);
    edge.enter(3, 2).await.expect("a free slot");
    assert_eq!(edge.enter(4, 2).await.err(), Some(FULL));
}

#[tokio::test]
async fn a_logout_frees_the_slot_at_once_and_reaches_other_edges_with_their_heartbeat() {
    let (clock, registry) = world();
    let (here, there) = (Edge::new(&clock, &registry, 100), Edge::new(&clock, &registry, 100));
    let stream = there.enter(1, 1).await.expect("the first");
    here.enter(1, 1).await.expect("the same session");
    registry.end(member(1)).await.expect("an end");
    here.enter(2, 1).await.expect("a free slot");
    clock.advance_ms(HEARTBEAT_MS);
    there.beat().await;
    assert!(stream.is_lost() && !there.knows(1));
}

#[tokio::test]
async fn the_oldest_makes_room_where_the_route_says_so() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    let oldest = edge.enter(1, 2).await.expect("the first");
    clock.advance_ms(1_000);
    edge.enter(2, 2).await.expect("the second");
    edge.enter(1, 2).await.expect("used again, and still the oldest");
    edge.enter_with(3, 2, true).await.expect("room is made");
    clock.advance_ms(HEARTBEAT_MS);
    edge.beat().await;
    assert!(oldest.is_lost() && edge.knows(2) && edge.knows(3));
    assert_eq!(edge.enter_with(1, 2, true).await.err(), Some(FULL), "not at once back");
    clock.advance_ms(TTL_MS);
    edge.beat().await;
    edge.enter_with(1, 2, true).await.expect("a new login later");
    assert_eq!(edge.enter_with(4, 0, true).await.err(), Some(SessionRefusal::Full { limit: 0 }));
}

#[tokio::test]
async fn a_full_process_refuses_new_sessions_for_now_and_keeps_the_others() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 2);
    for number in [1, 2] {
        drop(edge.enter(number, 9).await.expect("room"));
    }
    let refused = edge.enter(3, 9).await.expect_err("no room");
    assert!(matches!(refused, SessionRefusal::Unavailable { retry_after_s: 1..=5 }));
    assert!(edge.knows(1));
    assert_eq!(registry.count(TENANT).await, Ok(2), "nobody was asked");
    clock.advance_ms(IDLE_MS);
    edge.beat().await;
    edge.enter(3, 9).await.expect("room again");
    assert_eq!(edge.shared.metrics.live.get(), 1);
}

#[tokio::test]
async fn made_up_values_that_no_upstream_takes_hold_no_slot() {
    let (clock, registry) = world();
    let edge = Edge::new(&clock, &registry, 100);
    for number in 1..20 {
        let (first, second) =
            (edge.knock(number, 1, false).await, edge.knock(number, 1, false).await);
        drop(first.expect("a free slot"));
        assert_eq!(registry.count(TENANT).await, Ok(1), "one request is still open");
        drop(second.expect("the same session"));
        while registry.count(TENANT).await != Ok(0) {
            tokio::task::yield_now().await;
        }
    }
    assert!(edge.alive().is_empty());
    drop(edge.enter(1, 1).await.expect("a real one"));
    drop(edge.knock(1, 1, false).await.expect("which stays one after a refused request"));
    assert_eq!((registry.count(TENANT).await, edge.knows(1)), (Ok(1), true));
    let other = Edge::new(&clock, &registry, 100);
    drop(other.knock(1, 1, false).await.expect("one of another edge"));
    tokio::task::yield_now().await;
    assert_eq!(registry.count(TENANT).await, Ok(1), "is not this edge's to end");
}
