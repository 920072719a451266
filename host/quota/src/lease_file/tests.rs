use std::{
    sync::{Arc, Barrier},
    thread,
};

use model::{
    clock::UnixMs,
    ledger::{EpochRef, LeaseReport, Will},
    tenant::TenantId,
    window::Window,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn boot() -> BootId {
    BootId(Uuid::from_u128(1))
}

fn key() -> WindowKey {
    WindowKey {
        tenant: TenantId(Uuid::from_u128(9)),
        metric: Metric::AiRequests,
        window: Window { start: UnixMs(1), end: UnixMs(2) },
    }
}

fn of(epoch: u64) -> EpochRef {
    EpochRef { key: key(), epoch }
}

struct File {
    map: Map,
    holder: HolderId,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn file() -> File {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("leases");
    let holder = HolderId::random();
    let map = LeaseFile::lock(&path)
        .and_then(|file| file.claim(holder, boot(), 4))
        .expect("a lease file");
    File { map, holder, path, _folder: folder }
}

impl File {
    fn record(&self) -> &Record {
        self.map.record(0).expect("a record")
    }

    /// What a successor reads after this process is gone.
    fn legacy(self) -> Legacy {
        drop(self.map);
        LeaseFile::lock(&self.path)
            .and_then(|mut file| file.legacy(boot()))
            .expect("a readable file")
    }
}

#[test]
fn a_new_file_leaves_nothing_and_an_unused_one_an_empty_will() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut new = LeaseFile::lock(&folder.path().join("deep/leases")).expect("a file");
    assert_eq!(new.legacy(boot()).expect("readable"), Legacy::Nothing);
    let file = file();
    let predecessor = file.holder;
    let will = Will { predecessor, boot: boot(), leases: Vec::new() };
    assert_eq!(file.legacy(), Legacy::Will(will));
}

#[test]
fn a_will_says_what_was_spent_of_each_record_in_use() {
    let file = file();
    file.record().begin(&of(3), 100, 7, 20);
    for _ in 0..5 {
        file.record().take(7);
    }
    assert!(file.record().refund(7));
    assert!(file.record().grant(7, 10));
    let other = file.map.record(1).expect("a record");
    other.begin(&of(2), 8, 6, 8);
    other.seal(6);
    other.free();
    let Legacy::Will(will) = file.legacy() else { panic!("a will") };
    let (tranche, lease, spent, refunded, sealed) = (100, 7, 4, 1, true);
    let figures = LeaseReport { of: of(3), tranche, lease, spent, refunded, sealed };
    assert_eq!(will.leases, [figures]);
}

#[test]
fn a_sealed_lease_gives_nothing_takes_nothing_and_keeps_its_figures() {
    let file = file();
    let record = file.record();
    record.begin(&of(1), 100, 7, 20);
    assert_eq!(record.take(7), Taken::Left(19));
    record.seal(7);
    record.seal(7);
    assert_eq!(record.take(7), Taken::Gone);
    assert!(!record.refund(7));
    assert!(!record.refund(record::SEALED));
    assert!(!record.grant(7, 5));
    assert_eq!(record.tokens(7), None);
}

#[test]
fn a_grant_that_finds_a_sealed_lease_changes_no_sum() {
    let file = file();
    file.record().begin(&of(1), 100, 7, 20);
    file.record().take(7);
    file.record().seal(7);
    assert!(!file.record().grant(7, 50));
    assert_eq!(file.record().spent(), 1);
}

#[test]
fn figures_that_do_not_add_up_condemn_the_file() {
    let file = file();
    file.record().begin(&of(1), 100, 7, 20);
    file.record().received.store(5, Ordering::Relaxed);
    assert!(matches!(file.legacy(), Legacy::Damaged(_)));
}

#[test]
fn the_file_of_another_uptime_is_known_as_such() {
    let file = file();
    let (holder, path) = (file.holder, file.path.clone());
    drop(file.map);
    let mut again = LeaseFile::lock(&path).expect("a file");
    let legacy = again.legacy(BootId(Uuid::from_u128(2))).expect("readable");
    assert_eq!(legacy, Legacy::OtherBoot(holder));
}

#[test]
fn threads_and_a_seal_leave_exact_figures() {
    const THREADS: u64 = 4;
    for round in 0..50 {
        let file = file();
        file.record().begin(&of(1), 1 << 20, 7, 1_000);
        let map = Arc::new(file.map);
        let start = Arc::new(Barrier::new(THREADS as usize + 1));
        let takers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (map, start) = (Arc::clone(&map), Arc::clone(&start));
                thread::spawn(move || {
                    let record = map.record(0).expect("a record");
                    start.wait();
                    let mut kept = 0_u64;
                    loop {
                        match record.take(7) {
                            Taken::Gone => return kept,
                            Taken::Dry => thread::yield_now(),
                            // Every third token goes back, if the lease still takes it.
                            Taken::Left(left) if left % 3 == 0 => {
                                kept += u64::from(!record.refund(7));
                            }
                            Taken::Left(_) => kept += 1,
                        }
                    }
                })
            })
            .collect();
        let record = map.record(0).expect("a record");
        start.wait();
        for _ in 0..round {
            record.grant(7, 100);
        }
        record.seal(7);
        let at_seal = record.spent();
        let kept: u64 = takers.into_iter().map(|taker| taker.join().expect("a taker")).sum();
        assert_eq!(kept, at_seal);
        assert_eq!(kept, record.spent(), "nothing moved after the seal");
    }
}

proptest! {
    #[test]
    fn no_damage_to_a_file_makes_it_spend_less_or_panics(
        at in 0_usize..4096 + 4 * 128, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let file = file();
        file.record().begin(&of(1), 100, 7, 20);
        for _ in 0..12 {
            file.record().take(7);
        }
        let (path, holder) = (file.path.clone(), file.holder);
        drop(file.map);
        let mut bytes = std::fs::read(&path).expect("the file");
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        std::fs::write(&path, bytes).expect("written");
        let legacy = LeaseFile::lock(&path).and_then(|mut file| file.legacy(boot()));
        if let Legacy::Will(will) = legacy.expect("readable") {
            // What is believed has the right identity; figures have no checksum, because a
            // kill cannot tear them, but they are within the tranche.
            prop_assert_eq!(will.predecessor, holder);
            prop_assert!(!cut);
            for figures in will.leases {
                prop_assert_eq!((figures.of, figures.tranche), (of(1), 100));
                prop_assert!(figures.spent <= figures.tranche);
            }
        }
    }
}

#[test]
fn withdrawn_tokens_are_returned_and_a_refund_still_finds_its_lease() {
    let file = file();
    let record = file.record();
    record.begin(&of(1), 100, 7, 20);
    for _ in 0..3 {
        record.take(7);
    }
    assert_eq!(record.withdraw(7, 0), 17);
    assert_eq!(record.withdraw(7, 0), 0);
    assert_eq!((record.take(7), record.spent()), (Taken::Dry, 3));
    assert!(record.refund(7));
    assert_eq!(record.spent(), 2);
    record.seal(7);
    assert_eq!((record.withdraw(7, 0), record.spent()), (0, 2), "a sealed lease keeps what it has");
}

#[test]
fn a_file_that_was_handed_over_is_the_new_holders_and_holds_nothing() {
    let file = file();
    file.record().begin(&of(1), 100, 7, 20);
    let heir = HolderId::random();
    file.map.hand_over(heir, boot());
    let will = Will { predecessor: heir, boot: boot(), leases: Vec::new() };
    assert_eq!(file.legacy(), Legacy::Will(will));
}
