use proptest::prelude::*;

use super::{data::Own, *};
use crate::config::KeyvalueConfig;

const ROOM: Room = Room { keys: 3, bytes: 400 };

fn namespace(tenant: u128, policy: &str) -> Namespace {
    Namespace { tenant: TenantId(uuid::Uuid::from_u128(tenant)), policy: policy.into() }
}

fn small() -> Keyvalue {
    Keyvalue::new(600)
}

#[test]
fn a_namespace_sees_only_its_own_keys() {
    let data = small();
    let mine = namespace(1, "p");
    data.set(&mine, "k", b"v".to_vec(), None, (ROOM, 0)).expect("fits");
    assert_eq!(data.get(&mine, "k", 0), Some(b"v".to_vec()));
    assert_eq!(data.get(&namespace(2, "p"), "k", 0), None);
    assert_eq!(data.get(&namespace(1, "q"), "k", 0), None);
}

#[test]
fn an_entry_ends_with_its_time_to_live() {
    let (data, mine) = (small(), namespace(1, "p"));
    data.set(&mine, "k", b"v".to_vec(), Some(10), (ROOM, 5)).expect("fits");
    assert!(data.get(&mine, "k", 14).is_some());
    assert_eq!(data.get(&mine, "k", 15), None);
}

#[test]
fn a_counter_keeps_the_time_to_live_it_was_made_with() {
    let (data, mine) = (small(), namespace(1, "p"));
    assert_eq!(data.increment(&mine, "n", 2, Some(10), (ROOM, 0)), Ok(2));
    assert_eq!(data.increment(&mine, "n", -5, Some(10), (ROOM, 9)), Ok(-3));
    assert_eq!(data.get(&mine, "n", 9), Some(b"-3".to_vec()));
    assert_eq!(data.increment(&mine, "n", 1, Some(10), (ROOM, 10)), Ok(1));
    data.set(&mine, "n", i64::MAX.to_string().into_bytes(), None, (ROOM, 10)).expect("fits");
    assert_eq!(data.increment(&mine, "n", 1, None, (ROOM, 10)), Err(KeyvalueError::Overflow));
    data.set(&mine, "n", b"x".to_vec(), None, (ROOM, 10)).expect("fits");
    assert_eq!(data.increment(&mine, "n", 1, None, (ROOM, 10)), Err(KeyvalueError::NotANumber));
}

#[test]
fn spaces_and_the_whole_are_bounded() {
    let (data, mine) = (small(), namespace(1, "p"));
    for key in ["a", "b", "c"] {
        data.set(&mine, key, vec![], Some(10), (ROOM, 0)).expect("fits");
    }
    assert_eq!(data.set(&mine, "d", vec![], None, (ROOM, 0)), Err(KeyvalueError::QuotaExceeded));
    data.set(&mine, "d", vec![], None, (ROOM, 10)).expect("the expired keys make room");
    data.set(&namespace(2, "p"), "a", vec![0; 100], None, (ROOM, 10)).expect("fits");
    data.set(&namespace(2, "p"), "b", vec![0; 100], None, (ROOM, 10)).expect("fits");
    let third = namespace(3, "p");
    data.set(&third, "a", vec![0; 100], None, (ROOM, 10)).expect("fits");
    assert_eq!(
        data.set(&third, "b", vec![0; 100], None, (ROOM, 10)),
        Err(KeyvalueError::QuotaExceeded)
    );
    data.erase(namespace(2, "p").tenant);
    data.set(&third, "b", vec![0; 100], None, (ROOM, 10)).expect("the erased tenant makes room");
}

#[tokio::test]
async fn keys_and_values_are_bounded_wherever_they_are_kept() {
    let config = KeyvalueConfig { key_bytes_max: 8, value_bytes_max: 100, ..Default::default() };
    let data = Data::new(config, None);
    let own = Own { namespace: namespace(1, "p"), bytes: 400, now_ms: 0 };
    for key in ["", "123456789"] {
        assert_eq!(data.set(&own, key, vec![], None).await, Err(KeyvalueError::Key(8)));
        assert_eq!(data.get(&own, key).await, Err(KeyvalueError::Key(8)));
        assert_eq!(data.delete(&own, key).await, Err(KeyvalueError::Key(8)));
        assert_eq!(data.increment(&own, key, 1, None).await, Err(KeyvalueError::Key(8)));
    }
    assert_eq!(data.set(&own, "k", vec![0; 101], None).await, Err(KeyvalueError::Value(100)));
    data.set(&own, "12345678", vec![0; 100], None).await.expect("fits");
    let tight = Own { bytes: 200, ..own };
    assert_eq!(data.set(&tight, "k", vec![0; 100], None).await, Err(KeyvalueError::QuotaExceeded));
}

proptest! {
    #[test]
    fn the_total_is_the_sum_of_the_spaces(
        steps in proptest::collection::vec((0..4_u8, 1..4_u128, 0..4_usize, 0..120_usize), 0..60),
    ) {
        let data = small();
        for (now, (step, tenant, key, size)) in (0_u64..).zip(steps) {
            let (mine, key) = (namespace(tenant, "p"), ["a", "b", "c", "d"][key]);
            match step {
                0 => drop(data.set(&mine, key, vec![0; size], Some(size as u64), (ROOM, now))),
                1 => data.delete(&mine, key),
                2 => drop(data.increment(&mine, key, 1, Some(5), (ROOM, now))),
                _ => data.erase(mine.tenant),
            }
            let sum: usize = data.shards.iter().flat_map(|shard| {
                lock(shard).values().map(Space::bytes).collect::<Vec<_>>()
            }).sum();
            prop_assert_eq!(data.bytes.load(Ordering::Relaxed), sum);
            prop_assert!(sum <= 600);
        }
    }
}
