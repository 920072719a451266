//! The hierarchy's rule holds; it breaks without any one of the protocol's.

use super::{OVER_ADMISSION, Pool, Rules};
use crate::checker::check;

const WORDS: usize = 5;
const STATES_MAX: usize = 20_000_000;

/// Two guaranteed one each, and one token that is anybody's.
const FAMILY: Pool = Pool {
    rules: Rules::ALL,
    pool: 3,
    guaranteed: [1, 1],
    maximum: [3, 2],
    tranche: 2,
    epochs: 2,
    pool_epochs: 2,
};

/// Tranches of one token, so that the parent has two epochs open at once.
const NARROW: Pool = Pool {
    pool: 2,
    guaranteed: [0, 0],
    maximum: [1, 1],
    tranche: 1,
    epochs: 1,
    pool_epochs: 3,
    ..FAMILY
};

#[test]
fn a_guaranteed_share_is_obtainable_at_every_moment() {
    check::<WORDS, _>("pool", &Pool { epochs: 1, ..FAMILY }, STATES_MAX).expect_safe();
}

#[test]
fn a_pool_without_guarantees_is_never_exceeded() {
    check::<WORDS, _>("pool without guarantees", &NARROW, STATES_MAX).expect_safe();
}

#[test]
#[ignore = "minutes: the nightly run, with --release"]
fn guaranteed_shares_are_obtainable_over_two_epochs_of_each_level() {
    check::<WORDS, _>("nightly: pool", &FAMILY, STATES_MAX).expect_safe();
}

macro_rules! removed {
    ($($test:ident: $rule:ident, $model:expr;)*) => {$(
        #[test]
        fn $test() {
            let model = Pool { rules: Rules { $rule: false, ..Rules::ALL }, ..$model };
            let title = concat!("pool without ", stringify!($rule));
            check::<WORDS, _>(title, &model, STATES_MAX).expect_broken(OVER_ADMISSION);
        }
    )*};
}

removed! {
    what_is_guaranteed_is_handed_out_to_others: reserved, FAMILY;
    a_guarantee_is_granted_anew_with_every_epoch: own_net, FAMILY;
    a_shared_token_is_not_missed_by_the_parent: path_debited, FAMILY;
    the_parents_epoch_is_credited_under_a_live_lease: every_level_sealed, FAMILY;
    a_shared_token_comes_back_as_an_own_one: returns_by_part, FAMILY;
    a_token_comes_back_into_the_parents_new_epoch: returns_by_epoch, NARROW;
    shared_tokens_are_credited_to_the_guarantee: credits_by_part, FAMILY;
}
