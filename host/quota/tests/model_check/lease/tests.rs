//! Safe with every rule, over the limit without any one of them.

use super::{
    OVER_ADMISSION,
    rules::{Bounds, Rules},
};
use crate::checker::check;

/// Words of an encoded state.
const WORDS: usize = 7;
const STATES_MAX: usize = 20_000_000;

const SMALL: Bounds = Bounds {
    rules: Rules::ALL,
    limit: 2,
    tranche: 2,
    small_tranches: false,
    epochs: 2,
    messages: 1,
    servers: 1,
    refunds: 0,
    kills: false,
    losses: false,
    direct: false,
};

/// With everything in it that the others have one by one; for the nightly run.
const DUPLICATES: Bounds =
    Bounds { messages: 2, servers: 2, refunds: 1, kills: true, direct: true, ..SMALL };
const MACHINES: Bounds = Bounds { epochs: 3, refunds: 1, kills: true, losses: true, ..SMALL };
const MACHINES_SPLIT: Bounds = Bounds { servers: 2, refunds: 1, losses: true, ..SMALL };
const AHEAD: Bounds =
    Bounds { small_tranches: true, messages: 2, refunds: 1, kills: true, ..SMALL };
/// States that the nightly run may need.
const NIGHTLY_STATES_MAX: usize = 40_000_000;

fn safe(title: &str, bounds: Bounds) {
    check::<WORDS, _>(title, &bounds, STATES_MAX).expect_safe();
}

#[test]
fn kills_wills_refunds_and_direct_tranches_are_safe() {
    safe(
        "kills, a refund, direct tranches",
        Bounds { refunds: 1, kills: true, direct: true, ..SMALL },
    );
}

#[test]
fn split_brain_and_lost_data_are_safe() {
    safe("two servers, kills", Bounds { servers: 2, kills: true, ..SMALL });
}

#[test]
fn lost_late_and_repeated_messages_are_safe() {
    safe("two messages per holder", Bounds { messages: 2, ..SMALL });
}

#[test]
fn an_epoch_opened_ahead_is_safe() {
    safe("tranches of every size, a refund", Bounds { small_tranches: true, refunds: 1, ..SMALL });
}

#[test]
fn three_epochs_are_safe() {
    safe("three epochs", Bounds { epochs: 3, ..SMALL });
}

#[test]
fn lost_machines_and_holders_declared_lost_alive_are_safe() {
    safe("losses", Bounds { losses: true, ..SMALL });
}

#[test]
#[ignore = "minutes and gigabytes: the nightly run, with --release"]
fn everything_but_losses_is_safe() {
    check::<WORDS, _>("nightly: duplicates", &DUPLICATES, NIGHTLY_STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes and gigabytes: the nightly run, with --release"]
fn losses_over_three_epochs_are_safe() {
    check::<WORDS, _>("nightly: machines", &MACHINES, NIGHTLY_STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes: the nightly run, with --release"]
fn losses_in_a_split_brain_are_safe() {
    check::<WORDS, _>("nightly: split", &MACHINES_SPLIT, STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes and gigabytes: the nightly run, with --release"]
fn epochs_opened_ahead_with_repeated_messages_are_safe() {
    check::<WORDS, _>("nightly: ahead", &AHEAD, NIGHTLY_STATES_MAX).expect_safe();
}

fn without(title: &str, bounds: Bounds) {
    check::<WORDS, _>(title, &bounds, STATES_MAX).expect_broken(OVER_ADMISSION);
}

macro_rules! removed {
    ($($test:ident: $rule:ident, $bounds:expr;)*) => {$(
        #[test]
        fn $test() {
            let rules = Rules { $rule: false, ..Rules::ALL };
            without(concat!("without ", stringify!($rule)), Bounds { rules, ..$bounds });
        }
    )*};
}

removed! {
    a_silent_holder_may_have_spent_what_is_taken_back: no_return_by_timeout, SMALL;
    a_process_under_its_old_name_replays_a_grant: new_holder_per_start, Bounds { kills: true, ..SMALL };
    a_late_duplicate_returns_tokens_twice: seq_rises, Bounds { messages: 2, ..SMALL };
    old_tokens_enter_a_new_epoch: returns_labelled, Bounds { small_tranches: true, messages: 2, ..SMALL };
    who_never_confirmed_spends_what_is_reconciled: confirm, SMALL;
    a_late_grant_of_a_sealed_epoch_is_spent: late_grants_dropped, SMALL;
    a_live_lease_is_credited_away: credit_after_seals, SMALL;
    a_holder_that_registered_in_between_is_missed: listed_after_closing, SMALL;
    a_refund_after_the_seal_is_credited_twice: late_refunds_apart, Bounds { refunds: 1, epochs: 3, ..SMALL };
    a_stale_lease_file_credits_what_was_spent: same_boot, Bounds { losses: true, ..SMALL };
    a_lost_holder_had_more_than_it_reported: lost_share_from_close, Bounds { losses: true, ..SMALL };
    a_lost_holder_is_granted_more_after_close: close_forbids, Bounds { losses: true, messages: 2, ..SMALL };
    an_old_dump_answers_close: close_fenced, Bounds { losses: true, ..SMALL };
    a_lost_holder_confirms_a_later_epoch: lost_cannot_confirm, Bounds { losses: true, epochs: 3, ..SMALL };
}
