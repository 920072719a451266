//! The run itself: mutants in, and one reading of what comes out.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    mutants,
    readers::{self, Found, Reader},
    recorder::{Recorded, Recorder},
};
use crate::actors::{World, WorldOptions};

/// Requests of a run, unless `DIFFERENTIAL_REQUESTS` says otherwise; `make differential` does.
const REQUESTS: usize = 3_000;
/// The seed, unless `DIFFERENTIAL_SEED` says otherwise.
const SEED: u64 = 2026;
/// Clients at once.
const CLIENTS: usize = 32;
/// Requests of one stream to a reader: one that is refused is looked for in few.
const GROUP: usize = 100;
/// Characters of a request that a report shows.
const SHOWN: usize = 1_000;
/// A client waits no longer for what a broken request will never get.
const SILENCE: Duration = Duration::from_millis(150);

/// What the clients of a run saw.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicUsize,
    refused: AtomicUsize,
    strangers: AtomicUsize,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_reaches_an_origin_has_one_reading() {
    let requests = usize::try_from(number("DIFFERENTIAL_REQUESTS", REQUESTS as u64)).expect("some");
    let seed = number("DIFFERENTIAL_SEED", SEED);
    let recorder = Recorder::start().await;
    let world = world(recorder.addr).await;
    let _acme = world.tenant("acme", "enterprise", "us").await;
    let readers = readers::start().await;
    let tally = send_all(&world, seed, requests).await;

    let record = recorder.take();
    assert_eq!(record.faults, [""; 0], "the edge wrote what is not canonical");
    let (mut apart, refused) = compare(&readers, &record.requests).await;
    for wire in &record.unfinished {
        // The other servers answer before a body, or wait for one that never comes.
        for reader in readers.iter().filter(|reader| reader.reads_to_the_end()) {
            let whole = reader.read_unfinished(wire).await.requests;
            if !whole.is_empty() {
                let shown = String::from_utf8_lossy(wire);
                let _ = writeln!(apart, "{} found {whole:?} in unfinished {shown:?}", reader.name);
            }
        }
    }
    let whole = record.requests.len();
    println!(
        "differential: {requests} mutants (seed {seed}), {} answers of the origin, {} refusals; \
         {whole} whole and {} unfinished requests at the origin; read by {}; refused: {refused:?}",
        tally.answered.load(Ordering::Relaxed),
        tally.refused.load(Ordering::Relaxed),
        record.unfinished.len(),
        readers.iter().map(|reader| reader.name).collect::<Vec<_>>().join(", "),
    );
    assert!(apart.is_empty(), "{apart}");
    assert_eq!(tally.strangers.load(Ordering::Relaxed), 0, "answers to others' requests");
    // The run is worth something only if much passes and much does not.
    assert!(refused.values().all(|refused| *refused < whole / 5), "{refused:?}");
    assert!(whole > requests / 5 && tally.refused.load(Ordering::Relaxed) > requests / 5);
}

/// Everything on, every region at the recorder.
async fn world(origin: std::net::SocketAddr) -> World {
    let prepare = move |policies: &Path| {
        let path = policies.join("regions.toml");
        let text = std::fs::read_to_string(&path).expect("regions");
        let mut value = edge::strict::toml_value(&text).expect("TOML");
        for region in value["region"].as_array_mut().expect("regions") {
            region["upstreams"] = json!([origin.to_string()]);
        }
        let table: edge::strict::Toml = serde_json::from_value(value).expect("a table");
        std::fs::write(path, table.to_string()).expect("a file");
    };
    World::with(WorldOptions { config: String::new(), prepare: Some(Box::new(prepare)) }).await
}

async fn send_all(world: &World, seed: u64, requests: usize) -> Arc<Tally> {
    let (tally, next) = (Arc::<Tally>::default(), Arc::<AtomicUsize>::default());
    let addr = world.edge_addr();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (tally, next) = (Arc::clone(&tally), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= requests {
                        return;
                    }
                    let answer = exchange(addr, seed, index).await;
                    count(&tally, seed, index, &answer);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client");
    }
    tally
}

/// Sends a mutant and a good request behind it; reads until the connection ends, the good
/// one is answered, or nothing comes.
async fn exchange(addr: std::net::SocketAddr, seed: u64, index: usize) -> String {
    let last = format!("/last/{}", mutants::mark(seed, index));
    let mut wire = mutants::mutant(seed, index);
    let _ = write!(
        Wire(&mut wire),
        "GET {last} HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(addr).await.expect("the edge accepts");
    // It may close before it has read everything.
    let _closed = stream.write_all(&wire).await;
    let mut answer = Vec::new();
    while let Ok(Ok(read)) = tokio::time::timeout(SILENCE, stream.read_buf(&mut answer)).await {
        if read == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bytes as a place to write text to.
struct Wire<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Wire<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn count(tally: &Tally, seed: u64, index: usize, answer: &str) {
    for line in answer.lines() {
        if let Some(seen) = line.strip_prefix("x-seen: ") {
            tally.answered.fetch_add(1, Ordering::Relaxed);
            if mutants::owner(seed, seen).is_some_and(|owner| owner != index) {
                tally.strangers.fetch_add(1, Ordering::Relaxed);
            }
        } else if line.starts_with("HTTP/1.1 4") || line.starts_with("HTTP/1.1 5") {
            tally.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Who reads something else, and what, as text (empty when all agree), and how many requests
/// each reader would not read: methods that it does not know are its own business.
async fn compare(
    readers: &[Reader],
    requests: &[Recorded],
) -> (String, BTreeMap<&'static str, usize>) {
    let (mut apart, mut refused) = (String::new(), BTreeMap::new());
    for group in requests.chunks(GROUP) {
        for reader in readers {
            if reader.read(group).await == Found::all(group) {
                continue;
            }
            for one in group {
                let found = reader.read(std::slice::from_ref(one)).await;
                if found == Found::all(std::slice::from_ref(one)) {
                    continue;
                }
                // Refusing is safe: nothing else was found, and nothing behind it.
                if found.requests.is_empty() && found.refusals > 0 {
                    *refused.entry(reader.name).or_default() += 1;
                    continue;
                }
                let wire: String = String::from_utf8_lossy(&one.wire).chars().take(SHOWN).collect();
                let _ = writeln!(apart, "{}: {found:?} in {wire:?}", reader.name);
            }
        }
    }
    (apart, refused)
}
