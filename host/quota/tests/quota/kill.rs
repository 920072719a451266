//! Real processes, really killed: this test binary starts itself as a child that admits
//! requests until it is killed, again and again.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use control::Store;
use model::{
    clock::{Clock, SystemClock},
    gate::{Gate, UsageSource},
    tenant::TenantId,
};
use quota::{Quota, QuotaConfig};
use uuid::Uuid;

use crate::bench::{API, entry, is_exhausted, store_url, take};

const FOLDER: &str = "LEANVIBE_QUOTA_TEST_FOLDER";
const LIMIT: u64 = 6_000;
const THREADS: usize = 3;
const TENANT: TenantId = TenantId(Uuid::from_u128(7));

/// What the child says; bytes that the test harness does not print.
const ADMITTED: u8 = b'#';
const EXHAUSTED: u8 = b'!';

/// Runs only as a child: one byte on stdout per admitted request, another at exhaustion.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(admit_until_killed(Path::new(&folder)));
}

async fn open(folder: &Path) -> (Arc<Store>, Arc<Quota>, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let store = Store::open(&store_url(folder), Arc::clone(&clock)).await.unwrap();
    let mut config = QuotaConfig::new(folder.join("leases"));
    config.lease_records = 64;
    config.admit_wait_ms_max = 60_000;
    config.authority_timeout_ms = 60_000;
    let registry = prometheus::Registry::new();
    let quota =
        Quota::start(config, Arc::clone(&store) as _, Arc::clone(&clock), &registry).await.unwrap();
    (store, quota, clock)
}

async fn admit_until_killed(folder: &Path) {
    let (_store, quota, clock) = open(folder).await;
    let meter = quota.meter(&entry(TENANT, LIMIT, 0));
    let tasks: Vec<_> = (0..THREADS)
        .map(|_| {
            let (meter, clock) = (Arc::clone(&meter), Arc::clone(&clock));
            tokio::spawn(async move {
                loop {
                    match take(&meter, API, clock.now()).await {
                        Ok(permit) => {
                            drop(permit.spend());
                            say(ADMITTED);
                        }
                        Err(denial) => {
                            assert!(is_exhausted(denial), "{denial:?}");
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    say(EXHAUSTED);
    std::future::pending::<()>().await;
}

/// One unbuffered byte: it is with the parent when this returns.
fn say(byte: u8) {
    use std::{fs::File, io::Write, os::fd::AsFd};
    let mut file = File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    file.write_all(&[byte]).unwrap();
}

fn start(folder: &PathBuf) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads admitted requests until so many, or the end; kills; reads what was still in the
/// pipe. Whether the child saw exhaustion.
fn live_and_kill(folder: &PathBuf, admissions: u64) -> (u64, bool) {
    let mut child = start(folder);
    let mut output = child.stdout.take().unwrap();
    let (mut admitted, mut exhausted) = (0, false);
    let mut buffer = [0; 512];
    while admitted < admissions && !exhausted {
        let read = output.read(&mut buffer).unwrap();
        assert!(read > 0, "the child ended by itself");
        count(&buffer[..read], &mut admitted, &mut exhausted);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    count(&rest, &mut admitted, &mut exhausted);
    (admitted, exhausted)
}

fn count(bytes: &[u8], admitted: &mut u64, exhausted: &mut bool) {
    *admitted += bytes.iter().filter(|byte| **byte == ADMITTED).count() as u64;
    *exhausted |= bytes.contains(&EXHAUSTED);
}

#[test]
fn killed_processes_together_admit_the_limit_and_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (mut admitted, mut kills, mut exhausted) = (0, 0, false);
    while !exhausted {
        let (more, end) = live_and_kill(&path, 300 + 37 * kills);
        admitted += more;
        exhausted = end;
        kills += 1;
        assert!(admitted <= LIMIT, "{admitted} of {LIMIT} after {kills} kills");
    }
    assert!(kills >= 5, "{kills} kills");
    // A request that was in flight when its process was killed is charged, not counted.
    let in_flight = kills * THREADS as u64;
    assert!(admitted + in_flight >= LIMIT, "{admitted} of {LIMIT} after {kills} kills");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (store, quota, clock) = open(&path).await;
        assert_eq!(
            quota.usage(TENANT, Default::default()).await.unwrap().api_calls_this_month,
            LIMIT
        );
        let meter = quota.meter(&entry(TENANT, LIMIT, 0));
        assert!(is_exhausted(take(&meter, API, clock.now()).await.unwrap_err()));
        assert_eq!(store.audit_quotas().await.unwrap(), []);
        tokio::time::timeout(Duration::from_secs(10), quota.shutdown()).await.unwrap();
    });
}

#[test]
fn killed_processes_without_their_lease_files_admit_less_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (mut admitted, mut kills, mut exhausted) = (0, 0, false);
    while !exhausted {
        let (more, end) = live_and_kill(&path, 700);
        admitted += more;
        exhausted = end;
        kills += 1;
        assert!(admitted <= LIMIT, "{admitted} of {LIMIT} after {kills} kills");
        std::fs::remove_file(path.join("leases")).unwrap();
    }
    let bound = kills * (LIMIT / 50 + THREADS as u64);
    assert!(admitted + bound >= LIMIT, "{admitted} of {LIMIT}: wasted more than 2 % per kill");
}
