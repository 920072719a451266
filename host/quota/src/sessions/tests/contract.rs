//! What every registry must do, whatever it is made of; each test runs on both.

use super::*;

/// Runs each test on the registry in this process and on one in Redis.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_process() {
                let (_, registry) = crate::sessions::tests::world();
                super::$test(&*registry).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_redis() {
                let (_redis, server) = crate::sessions::tests::server::own().await;
                super::$test(&server.registry()).await;
            }
        }
    )*};
}

on_both![
    the_limit_is_kept_and_a_present_member_is_a_heartbeat,
    a_batch_renews_what_counts_and_says_what_does_not,
    an_ended_session_frees_its_slot_and_is_not_renewed,
    the_oldest_are_evicted_until_there_is_room,
    tenants_are_counted_apart,
    many_at_once_get_exactly_the_limit,
];

async fn the_limit_is_kept_and_a_present_member_is_a_heartbeat(registry: &dyn Registry) {
    assert_eq!(registry.count(TENANT).await, Ok(0));
    for answer in [Admission::Admitted, Admission::Present] {
        for number in [1, 2] {
            assert_eq!(registry.admit(member(number), terms(2)).await, Ok(answer));
        }
    }
    assert_eq!(registry.admit(member(3), terms(2)).await, Ok(Admission::Full));
    assert_eq!(registry.admit(member(1), terms(1)).await, Ok(Admission::Present), "lowered");
    assert_eq!(registry.count(TENANT).await, Ok(2));
    assert_eq!(registry.admit(member(3), terms(3)).await, Ok(Admission::Admitted), "raised");
    assert_eq!(registry.admit(member(4), terms(0)).await, Ok(Admission::Full));
}

async fn a_batch_renews_what_counts_and_says_what_does_not(registry: &dyn Registry) {
    assert_eq!(registry.admit(member(1), terms(9)).await, Ok(Admission::Admitted));
    // 2 to 4 were forgotten: they come back as far as there is room.
    let ids = [1, 2, 3, 4].map(session).to_vec();
    assert_eq!(registry.renew(TENANT, 3, ids).await, Ok(vec![true, true, true, false]));
    assert_eq!(registry.count(TENANT).await, Ok(3));
    let ids = [3, 4].map(session).to_vec();
    assert_eq!(registry.renew(TENANT, 1, ids).await, Ok(vec![true, false]), "a lowered limit");
}

async fn an_ended_session_frees_its_slot_and_is_not_renewed(registry: &dyn Registry) {
    assert_eq!(registry.admit(member(1), terms(1)).await, Ok(Admission::Admitted));
    registry.end(member(1)).await.expect("an end");
    assert_eq!(registry.count(TENANT).await, Ok(0));
    assert_eq!(registry.renew(TENANT, 9, vec![session(1)]).await, Ok(vec![false]));
    assert_eq!(registry.admit(member(2), terms(1)).await, Ok(Admission::Admitted));
    registry.end(member(2)).await.expect("an end");
    registry.end(member(3)).await.expect("an end of nobody");
    assert_eq!(registry.admit(member(1), terms(1)).await, Ok(Admission::Admitted), "a new login");
    assert_eq!(registry.renew(TENANT, 1, vec![session(1)]).await, Ok(vec![true]));
}

async fn the_oldest_are_evicted_until_there_is_room(registry: &dyn Registry) {
    let evicting = |limit| Terms { limit, evict_oldest: true };
    for number in [1, 2, 3] {
        assert_eq!(registry.admit(member(number), terms(3)).await, Ok(Admission::Admitted));
    }
    assert_eq!(registry.admit(member(1), terms(3)).await, Ok(Admission::Present), "as old as ever");
    assert_eq!(registry.admit(member(4), evicting(2)).await, Ok(Admission::Admitted));
    assert_eq!(registry.count(TENANT).await, Ok(2));
    let ids = [1, 2, 3, 4].map(session).to_vec();
    assert_eq!(registry.renew(TENANT, 9, ids).await, Ok(vec![false, false, true, true]));
    assert_eq!(registry.admit(member(1), evicting(2)).await, Ok(Admission::Full), "not at once");
    assert_eq!(registry.admit(member(5), evicting(0)).await, Ok(Admission::Full));
}

async fn tenants_are_counted_apart(registry: &dyn Registry) {
    let other = TenantId(Uuid::from_u128(8));
    let elsewhere = Member { tenant: other, id: session(1) };
    assert_eq!(registry.admit(member(1), terms(1)).await, Ok(Admission::Admitted));
    assert_eq!(registry.admit(elsewhere, terms(1)).await, Ok(Admission::Admitted));
    registry.end(elsewhere).await.expect("an end");
    assert_eq!((registry.count(TENANT).await, registry.count(other).await), (Ok(1), Ok(0)));
}

async fn many_at_once_get_exactly_the_limit(registry: &dyn Registry) {
    // The first makes the guard where there is one.
    assert_eq!(registry.admit(member(0), terms(7)).await, Ok(Admission::Admitted));
    let all = (1..40).map(|number| registry.admit(member(number), terms(7)));
    let answers = futures_util::future::join_all(all).await;
    let admitted = answers.iter().filter(|answer| **answer == Ok(Admission::Admitted)).count();
    assert_eq!(admitted, 6);
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Admission::Full)).count(), 33);
    assert_eq!(registry.count(TENANT).await, Ok(7));
}
