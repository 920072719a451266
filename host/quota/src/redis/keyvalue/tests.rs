//! The data in a real Redis: namespaces, room, time, and what becomes of a lost server.

use std::time::Duration;

use model::tenant::TenantId;
use services::{Redis, RedisOptions};
use uuid::Uuid;

use super::*;
use crate::redis::{RedisTarget, RedisTls};

/// Far beyond what a machine that is not broken needs.
const PATIENCE: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(20);
const ROOM: Room = Room { keys: 100, bytes: 10_000 };

fn namespace(policy: &str) -> Namespace {
    Namespace { tenant: TenantId(Uuid::new_v4()), policy: policy.into() }
}

/// An edge's store, once the server answers.
async fn edge(redis: &Redis, limit: Duration) -> RedisKeyvalue {
    let target = RedisTarget::parse(&redis.url(), RedisTls::default()).expect("a target");
    let store = RedisKeyvalue::new(Servers::connect(target, limit).expect("servers"));
    let anyone = namespace("probe");
    let until = tokio::time::Instant::now() + PATIENCE;
    while store.get(&anyone, "k").await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the server never answers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store
}

#[tokio::test]
async fn two_edges_see_each_others_writes_and_count_together() {
    let redis = services::redis();
    let (one, two) = (edge(redis, CALL).await, edge(redis, CALL).await);
    let of = namespace("p");
    let bytes = vec![0, 255, b'\r', b'\n'];
    one.set(&of, "k", bytes.clone(), None, ROOM).await.expect("stored");
    assert_eq!(two.get(&of, "k").await, Ok(Some(bytes)));
    let add = async |store: &RedisKeyvalue| {
        for _ in 0..50 {
            store.increment(&of, "n", 1, None, ROOM).await.expect("counted");
        }
    };
    tokio::join!(add(&one), add(&two));
    assert_eq!(one.increment(&of, "n", -1, None, ROOM).await, Ok(99));
    two.delete(&of, "k").await.expect("removed");
    assert_eq!(one.get(&of, "k").await, Ok(None));
}

#[tokio::test]
async fn no_key_reaches_another_tenants_data_or_another_policys() {
    let store = edge(services::redis(), CALL).await;
    let (mine, other) = (namespace("p"), namespace("p"));
    let beside = Namespace { policy: "q".into(), ..mine.clone() };
    store.set(&mine, "k", b"secret".to_vec(), None, ROOM).await.expect("stored");
    let hostile = [
        "k".to_owned(),
        "..".to_owned(),
        "../k".to_owned(),
        format!("{{{}}}", mine.tenant),
        format!("kv:{{{}}}:v:p", mine.tenant),
        "#".to_owned(),
        "=k".to_owned(),
        "\0".to_owned(),
        "k\0".to_owned(),
        "x\r\nDEL k".to_owned(),
        "x".repeat(64 << 10),
    ];
    let roomy = Room { bytes: 1 << 20, ..ROOM };
    for key in &hostile {
        assert_eq!(store.get(&other, key).await, Ok(None), "{key:.40}");
        assert_eq!(store.get(&beside, key).await, Ok(None), "{key:.40}");
        store.set(&other, key, b"other".to_vec(), None, roomy).await.expect("stored");
        assert_eq!(store.get(&other, key).await, Ok(Some(b"other".to_vec())), "{key:.40}");
    }
    assert_eq!(store.get(&mine, "k").await, Ok(Some(b"secret".to_vec())));
    for key in &hostile {
        store.delete(&other, key).await.expect("removed");
    }
    assert_eq!(store.get(&mine, "k").await, Ok(Some(b"secret".to_vec())));
}

#[tokio::test]
async fn a_namespace_holds_no_more_bytes_and_keys_than_there_is_room_for() {
    let store = edge(services::redis(), CALL).await;
    let of = namespace("p");
    // Of each entry: 1 of the key, 64 of book-keeping, and the value.
    let room = Room { keys: 3, bytes: 3 * 65 + 100 };
    store.set(&of, "a", vec![1; 100], None, room).await.expect("fits");
    store.set(&of, "b", Vec::new(), None, room).await.expect("fits");
    let full = Err(KeyvalueError::QuotaExceeded);
    assert_eq!(store.set(&of, "b", vec![1; 66], None, room).await, full);
    assert_eq!(store.get(&of, "b").await, Ok(Some(Vec::new())), "what was there stays");
    store.set(&of, "c", Vec::new(), None, room).await.expect("fits");
    assert_eq!(store.increment(&of, "d", 1, None, room).await, Err(KeyvalueError::QuotaExceeded));
    assert_eq!(store.get(&of, "d").await, Ok(None));
    // A smaller value in its place, and what is removed, make room.
    store.set(&of, "a", vec![1; 10], None, room).await.expect("fits");
    store.set(&of, "b", vec![1; 90], None, room).await.expect("fits");
    assert_eq!(store.set(&of, "c", vec![1], None, room).await, full);
    store.delete(&of, "b").await.expect("removed");
    store.delete(&of, "b").await.expect("twice is no error");
    store.set(&of, "c", vec![1; 90], None, room).await.expect("fits");
    // A number that grows by a digit counts like anything else.
    let tight = Room { keys: 9, bytes: 66 };
    let of = namespace("p");
    assert_eq!(store.increment(&of, "n", 9, None, tight).await, Ok(9));
    assert_eq!(store.increment(&of, "n", 1, None, tight).await, Err(KeyvalueError::QuotaExceeded));
    assert_eq!(store.get(&of, "n").await, Ok(Some(b"9".to_vec())));
}

#[tokio::test]
async fn numbers_are_exact_over_64_bits_and_nothing_else_is_counted() {
    let store = edge(services::redis(), CALL).await;
    let of = namespace("p");
    let add = async |delta| store.increment(&of, "n", delta, None, ROOM).await;
    assert_eq!(add(i64::MAX - 1).await, Ok(i64::MAX - 1));
    assert_eq!(add(1).await, Ok(i64::MAX));
    assert_eq!(add(1).await, Err(KeyvalueError::Overflow));
    assert_eq!(add(i64::MIN).await, Ok(-1));
    store.set(&of, "n", b"ten".to_vec(), None, ROOM).await.expect("stored");
    assert_eq!(add(1).await, Err(KeyvalueError::NotANumber));
}

#[tokio::test]
async fn what_has_run_out_is_gone_and_gives_its_room_back() {
    let store = edge(services::redis(), CALL).await;
    let of = namespace("p");
    let room = Room { keys: 2, bytes: 400 };
    store.set(&of, "stays", Vec::new(), None, room).await.expect("fits");
    store.set(&of, "goes", vec![1; 200], Some(1), room).await.expect("fits");
    let until = tokio::time::Instant::now() + PATIENCE;
    while store.get(&of, "goes").await != Ok(None) {
        assert!(tokio::time::Instant::now() < until, "it never ends");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.set(&of, "next", vec![1; 200], Some(u64::MAX), room).await.expect("there is room again");
    assert_eq!(store.get(&of, "stays").await, Ok(Some(Vec::new())));
    // A counter keeps the time that it was made with, and begins again after it.
    assert_eq!(store.increment(&of, "next", 1, None, room).await, Err(KeyvalueError::NotANumber));
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_error_at_once_and_not_a_stall() {
    let redis = Redis::start(RedisOptions::default());
    let store = edge(&redis, Duration::from_millis(100)).await;
    let of = namespace("p");
    store.set(&of, "k", Vec::new(), None, ROOM).await.expect("stored");
    redis.kill();
    let away = Err(KeyvalueError::Unavailable);
    assert_eq!(store.set(&of, "k", Vec::new(), None, ROOM).await, away);
    // The breaker is open: thousands of them take no time limit each.
    let many = async {
        for _ in 0..2_000 {
            assert_eq!(
                store.increment(&of, "n", 1, None, ROOM).await,
                Err(KeyvalueError::Unavailable)
            );
        }
    };
    tokio::time::timeout(PATIENCE, many).await.expect("no stall");
}
