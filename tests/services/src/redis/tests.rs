//! The services themselves.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{Dump, Persistence, Redis, RedisCluster, RedisError, RedisOptions, Value, redis};

fn text(value: Result<Value, RedisError>) -> String {
    value.expect("an answer").text()
}

#[test]
fn the_shared_server_is_the_same_one_and_answers_over_tcp() {
    assert_eq!(redis().port(), redis().port());
    let mut stream =
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], redis().port()))).expect("TCP");
    stream.write_all(b"PING\r\n").expect("a write");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn answers_of_every_kind_are_read() {
    let list = redis().cli(&["EVAL", "return {1, 'two', false, {3}}", "0"]).expect("a list");
    let three = Value::List(vec![Value::Int(3)]);
    assert_eq!(
        list,
        Value::List(vec![Value::Int(1), Value::Text("two".into()), Value::Nil, three])
    );
    let refused = redis().cli(&["NOSUCH"]);
    assert!(matches!(refused, Err(RedisError::Refused(line)) if line.starts_with("ERR")));
}

#[test]
fn a_killed_server_comes_back_on_its_port_with_what_was_saved_or_nothing() {
    let server = Redis::start(RedisOptions::default());
    let (port, life) = (server.port(), server.info("server", "run_id"));
    text(server.cli(&["SET", "k", "old"]));
    server.save();
    text(server.cli(&["SET", "k", "new"]));
    server.kill();
    assert!(server.cli(&["PING"]).is_err());
    server.restart(Dump::Keep);
    assert_eq!((server.port(), text(server.cli(&["GET", "k"]))), (port, "old".into()));
    assert_ne!(server.info("server", "run_id"), life);
    server.restart(Dump::Delete);
    assert_eq!(server.cli(&["GET", "k"]).expect("an answer"), Value::Nil);
}

#[test]
fn an_append_only_file_keeps_every_write() {
    let options = RedisOptions { persistence: Persistence::AppendOnly, ..RedisOptions::default() };
    let server = Redis::start(options);
    text(server.cli(&["SET", "k", "v"]));
    server.restart(Dump::Keep);
    assert_eq!(text(server.cli(&["GET", "k"])), "v");
    server.restart(Dump::Delete);
    assert_eq!(server.cli(&["DBSIZE"]).expect("an answer"), Value::Int(0));
}

#[test]
fn a_frozen_server_answers_when_it_goes_on_and_ends_even_when_frozen() {
    let server = Redis::start(RedisOptions::default());
    server.sigstop();
    let mut stream =
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server.port()))).expect("TCP");
    stream.write_all(b"PING\r\n").expect("a write");
    server.sigcont();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("an answer");
    server.sigstop();
    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn a_replica_is_promoted_and_the_old_master_follows_it() {
    let master = Redis::start(RedisOptions::default());
    let replica = master.replica();
    text(master.cli(&["SET", "k", "v"]));
    assert_eq!(master.cli(&["WAIT", "1", "5000"]).expect("an answer"), Value::Int(1));
    assert_eq!(text(replica.cli(&["GET", "k"])), "v");
    let history = replica.info("replication", "master_replid");
    replica.promote();
    assert_ne!(replica.info("replication", "master_replid"), history);
    assert_eq!(master.info("replication", "role"), "master", "two masters: a split brain");
    text(replica.cli(&["SET", "k", "w"]));
    master.demote_to(&replica);
    assert_eq!(text(master.cli(&["GET", "k"])), "w");
    master.restart(Dump::Keep);
    assert_eq!(master.info("replication", "role"), "slave", "roles outlive a restart");
    replica.restart(Dump::Keep);
    assert_eq!(replica.info("replication", "role"), "master");
}

#[test]
fn a_cluster_serves_every_slot_on_its_node() {
    let cluster = RedisCluster::start(RedisOptions::default());
    for key in ["a", "b", "c", "q:{root}:x"] {
        text(cluster.node_of(key).cli(&["SET", key, key]));
        assert_eq!(text(cluster.node_of(key).cli(&["GET", key])), key);
    }
    assert!(cluster.url().starts_with("redis+cluster://127.0.0.1:"), "{}", cluster.url());
    assert_eq!(cluster.url().matches(',').count(), 2);
}

#[test]
fn passwords_users_pauses_and_counts_work() {
    let options = RedisOptions {
        password: Some("secret".into()),
        users: vec!["edge on >pass ~q:* +@all -@dangerous".into()],
        ..RedisOptions::default()
    };
    let server = Redis::start(options);
    assert_eq!(server.url(), format!("redis://:secret@127.0.0.1:{}", server.port()));
    let users = server.cli(&["ACL", "USERS"]).expect("users");
    assert_eq!(users, Value::List(vec![Value::Text("default".into()), Value::Text("edge".into())]));
    server.client_pause(50);
    text(server.cli(&["EVAL", "return 1", "0"]));
    assert_eq!(server.command_stats().scripts(), 1);
    text(server.cli(&["SET", "k", "v"]));
    server.flush();
    assert_eq!(server.cli(&["DBSIZE"]).expect("an answer"), Value::Int(0));
}

#[test]
fn a_server_with_tls_speaks_no_plain_text_and_shows_a_certificate() {
    let server = Redis::start(RedisOptions { tls: true, ..RedisOptions::default() });
    assert!(server.url().starts_with("rediss://"), "{}", server.url());
    assert!(Redis::ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    let replica = server.replica();
    assert_eq!(replica.info("replication", "role"), "slave", "replication goes over TLS too");
    let mut stream =
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server.port()))).expect("TCP");
    stream.write_all(b"PING\r\n").expect("a write");
    let mut answer = Vec::new();
    // An alert or a reset, but never +PONG.
    let _closed = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"+"), "{answer:?}");
}
