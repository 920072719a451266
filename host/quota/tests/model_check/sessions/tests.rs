//! Never more alive than the limit; more without any one of the rules.

use super::{Rules, Sessions, TOO_MANY};
use crate::checker::check;

const STATES_MAX: usize = 20_000_000;

const ONE: Sessions = Sessions {
    rules: Rules::ALL,
    limit: 1,
    sessions: 2,
    registries: 1,
    clock_steps: 1,
    first_late: true,
};
const SPLIT: Sessions = Sessions { registries: 2, clock_steps: 0, first_late: false, ..ONE };
const TWO: Sessions = Sessions { limit: 2, sessions: 3, clock_steps: 0, first_late: false, ..ONE };

/// States that the nightly run may need.
const NIGHTLY_STATES_MAX: usize = 40_000_000;

#[test]
fn never_more_sessions_are_alive_than_the_limit() {
    check::<2, _>("sessions, one registry", &ONE, STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes: the nightly run, with --release"]
fn never_more_sessions_are_alive_in_a_split_brain() {
    check::<2, _>("nightly: split brain", &SPLIT, NIGHTLY_STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes: the nightly run, with --release"]
fn never_more_than_two_sessions_are_alive() {
    check::<2, _>("nightly: a limit of two", &TWO, NIGHTLY_STATES_MAX).expect_safe();
}

macro_rules! removed {
    ($($test:ident: $rule:ident, $model:expr;)*) => {$(
        #[test]
        fn $test() {
            let model = Sessions { rules: Rules { $rule: false, ..Rules::ALL }, ..$model };
            let title = concat!("sessions without ", stringify!($rule));
            check::<2, _>(title, &model, STATES_MAX).expect_broken(TOO_MANY);
        }
    )*};
}

removed! {
    without_a_guard_a_lost_set_admits_again: guard, ONE;
    a_new_guard_that_admits_at_once_forgets_who_is_alive: hold, ONE;
    a_new_guard_that_waits_too_short_forgets_who_is_alive: hold_long, ONE;
    a_first_guard_that_comes_late_holds_at_once_over_a_lost_set: guard_in_time, ONE;
    a_registry_that_was_left_behind_goes_on_admitting: guard_confirmed, SPLIT;
    a_guard_made_again_confirms_an_answer_of_the_one_before: guard_numbered, SPLIT;
    a_late_renewal_makes_room_for_a_session_that_was_closed: members_held, ONE;
    an_edge_that_was_cut_off_serves_for_ever: self_closing, ONE;
    without_a_margin_a_stepped_clock_forgets_who_is_alive: margin, ONE;
    a_slow_answer_lets_a_session_outlive_its_member: from_send, ONE;
    a_member_that_is_gone_comes_back_over_the_limit: readded_below_limit, ONE;
    a_late_renewal_opens_a_closed_session: closed_stays_closed, ONE;
}
