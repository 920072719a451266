//! The cell of a lease under loom: take, untake, refund, grant, withdraw, seal and reuse in
//! all interleavings that the memory model allows.
//!
//! It runs the engine's own `record.rs`, compiled once more with loom's atomics, so that no
//! flag is needed. Invariant: `spent` is exact after the seal, and nothing that happens
//! later changes it. Keepers do one thing after the other, requests come from anywhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use loom::{
    sync::{self, Arc},
    thread,
};

#[path = "../../src/lease_file/record.rs"]
mod record;

use record::{Record, Taken};

const GENERATION: u32 = 7;

fn lease(tokens: u32) -> Arc<Record> {
    let record = Record {
        state: Default::default(),
        identity: Default::default(),
        cell: Default::default(),
        received: Default::default(),
        returned: Default::default(),
        refunded: Default::default(),
        spare: Default::default(),
    };
    record.start(GENERATION, tokens);
    Arc::new(record)
}

fn take(record: &Record) -> u64 {
    u64::from(matches!(record.take(GENERATION), Taken::Left(_)))
}

/// Runs `request` on threads of its own beside `keeper`. Answers what each said.
fn beside<R: Send + 'static>(
    record: &Arc<Record>,
    requests: Vec<fn(&Record) -> u64>,
    keeper: impl FnOnce(&Record) -> R,
) -> (u64, R) {
    let spawn = |request: fn(&Record) -> u64| {
        let record = Arc::clone(record);
        thread::spawn(move || request(&record))
    };
    let threads: Vec<_> = requests.into_iter().map(spawn).collect();
    let said = keeper(record);
    (threads.into_iter().map(|thread| thread.join().unwrap()).sum(), said)
}

/// Seals, and says what was spent: the figure that goes to the authority.
fn final_figure(record: &Record) -> u64 {
    record.seal(GENERATION);
    record.spent()
}

/// What was charged is what the final figure said, and still says.
fn assert_final(record: &Record, charged: u64, figure: u64) {
    assert_eq!(figure, charged, "the figure at the seal");
    assert_eq!(record.spent(), charged, "the figure after everything");
    assert_eq!(record.take(GENERATION), Taken::Gone);
    assert!(!record.refund(GENERATION) && !record.untake(GENERATION));
}

#[test]
fn one_token_is_taken_once() {
    loom::model(|| {
        let record = lease(1);
        let (taken, ()) = beside(&record, vec![take, take], |_| ());
        assert_eq!(taken, 1);
        assert_eq!(record.spent(), 1);
    });
}

#[test]
fn what_was_taken_before_the_seal_is_spent_and_nothing_after() {
    loom::model(|| {
        let record = lease(2);
        let (taken, figure) = beside(&record, vec![take, take], final_figure);
        assert_final(&record, taken, figure);
    });
}

#[test]
fn a_refund_counts_before_the_seal_or_not_at_all() {
    fn take_and_refund(record: &Record) -> u64 {
        let taken = take(record);
        let back = taken == 1 && record.refund(GENERATION);
        taken - u64::from(back)
    }
    loom::model(|| {
        let record = lease(1);
        let (charged, figure) = beside(&record, vec![take_and_refund, take], final_figure);
        assert_final(&record, charged, figure);
        assert!(record.refunded() <= 1);
    });
}

#[test]
fn a_token_that_was_not_admitted_goes_back_and_is_no_refund() {
    fn take_and_untake(record: &Record) -> u64 {
        let taken = take(record);
        let back = taken == 1 && record.untake(GENERATION);
        taken - u64::from(back)
    }
    loom::model(|| {
        let record = lease(1);
        let (charged, figure) = beside(&record, vec![take_and_untake, take], final_figure);
        assert_final(&record, charged, figure);
        assert_eq!(record.refunded(), 0);
    });
}

#[test]
fn a_grant_is_spent_to_the_last_token_beside_takers() {
    loom::model(|| {
        let record = lease(1);
        let (taken, granted) =
            beside(&record, vec![take, take], |record| record.grant(GENERATION, 1));
        assert!(granted);
        assert_eq!(record.tokens(GENERATION), Some((2 - taken) as u32));
        assert_eq!(record.spent(), taken);
    });
}

#[test]
fn a_seal_from_elsewhere_leaves_a_grant_whole_or_returned() {
    fn seal(record: &Record) -> u64 {
        record.seal(GENERATION);
        0
    }
    loom::model(|| {
        let record = lease(1);
        let (taken, _) = beside(&record, vec![seal, take], |record| record.grant(GENERATION, 2));
        assert_final(&record, taken, record.spent());
    });
}

#[test]
fn what_is_withdrawn_is_not_spent_and_nothing_is_lost() {
    loom::model(|| {
        let record = lease(2);
        let (taken, (withdrawn, figure)) = beside(&record, vec![take, take], |record| {
            (record.withdraw(GENERATION, 0), final_figure(record))
        });
        assert_final(&record, taken, figure);
        assert!(u64::from(withdrawn) + taken <= 2, "a token was spent and given back");
    });
}

#[test]
fn a_refund_beside_a_withdrawal_is_withdrawn_or_stays() {
    fn refund(record: &Record) -> u64 {
        u64::from(record.refund(GENERATION))
    }
    loom::model(|| {
        let record = lease(2);
        assert_eq!(take(&record), 1);
        let (refunded, (withdrawn, figure)) = beside(&record, vec![refund], |record| {
            (record.withdraw(GENERATION, 0), final_figure(record))
        });
        assert_final(&record, 1 - refunded, figure);
        assert!((1..=2).contains(&withdrawn));
    });
}

#[test]
fn a_late_request_never_touches_the_next_lease_of_the_record() {
    fn take_and_refund(record: &Record) -> u64 {
        let taken = take(record);
        taken - u64::from(taken == 1 && record.refund(GENERATION))
    }
    loom::model(|| {
        let record = lease(1);
        let (charged, figure) = beside(&record, vec![take_and_refund], |record| {
            let figure = final_figure(record);
            record.start(GENERATION + 1, 1);
            figure
        });
        assert_eq!(figure, charged);
        assert_eq!(record.tokens(GENERATION + 1), Some(1));
    });
}
