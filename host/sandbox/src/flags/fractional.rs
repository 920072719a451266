//! `fractional`: the same subject always gets the same variant, in the declared shares.
//!
//! flagd's operation, version 2: `bucket = murmur3(key) * total >> 32`, looked up in the
//! cumulated weights. Invariant: a malformed operation is null, so that the flag's
//! default variant is served.

use datalogic_rs::{CustomOperator, DataValue, Result, bumpalo::Bump, operator::EvalContext};

use super::{context, murmur3};

/// Sum of the weights of one operation. 2^31 - 1 by flagd's specification.
const TOTAL_WEIGHT_MAX: u64 = i32::MAX as u64;

/// The operator.
pub(super) struct Fractional;

impl CustomOperator for Fractional {
    fn evaluate<'a>(
        &self,
        args: &[&'a DataValue<'a>],
        ctx: &mut EvalContext<'_, 'a>,
        arena: &'a Bump,
    ) -> Result<&'a DataValue<'a>> {
        let null = || &*arena.alloc(DataValue::Null);
        Ok(choose(args, ctx.root_input()).unwrap_or_else(null))
    }
}

/// One share: what is chosen, and its weight.
type Bucket<'a> = (&'a DataValue<'a>, u64);

fn choose<'a>(args: &[&'a DataValue<'a>], root: &'a DataValue<'a>) -> Option<&'a DataValue<'a>> {
    let (first, rest) = args.split_first()?;
    let (hash, shares) = match first {
        DataValue::String(key) => (murmur3::hash(key.as_bytes()), rest),
        DataValue::Null => (subject_hash(root)?, rest),
        _ => (subject_hash(root)?, args),
    };
    let buckets: Vec<Bucket<'a>> =
        shares.iter().map(|share| bucket(share)).collect::<Option<_>>()?;
    let total = buckets.iter().map(|(_, weight)| weight).sum::<u64>();
    if total > TOTAL_WEIGHT_MAX {
        return None;
    }
    let mut left = (u64::from(hash) * total) >> 32;
    buckets.into_iter().find_map(|(variant, weight)| {
        if left < weight {
            Some(variant)
        } else {
            left -= weight;
            None
        }
    })
}

/// Without a key of its own, an operation buckets by flag and subject.
fn subject_hash(root: &DataValue<'_>) -> Option<u32> {
    let subject = context::text(root, context::TARGETING_KEY).filter(|key| !key.is_empty())?;
    let flag = context::text(context::member(root, context::FLAGD)?, context::FLAG_KEY)?;
    Some(murmur3::hash([flag, subject].concat().as_bytes()))
}

/// `["variant", weight]`; the weight is 1 when absent, 0 when negative.
fn bucket<'a>(share: &'a DataValue<'a>) -> Option<Bucket<'a>> {
    match share.as_array()? {
        [variant] => Some((variant, 1)),
        [variant, weight] => {
            let weight = weight.as_i64()?.max(0).cast_unsigned();
            (weight <= TOTAL_WEIGHT_MAX).then_some((variant, weight))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(root: &str, subject: &str, weights: &[i64]) -> Option<String> {
        let arena = Bump::new();
        let root = DataValue::from_str(root, &arena).expect("JSON");
        let rule = weights.iter().enumerate().map(|(at, weight)| format!("[\"v{at}\", {weight}]"));
        let shares: Vec<_> = rule
            .map(|text| {
                let text = arena.alloc_str(&text);
                &*arena.alloc(DataValue::from_str(text, &arena).expect("JSON"))
            })
            .collect();
        let key = &*arena.alloc(DataValue::String(arena.alloc_str(subject)));
        let args: Vec<_> = std::iter::once(key).chain(shares).collect();
        choose(&args, arena.alloc(root)).and_then(|v| v.as_str()).map(ToOwned::to_owned)
    }

    #[test]
    fn a_weight_beyond_the_limit_makes_the_operation_void() {
        assert_eq!(share("{}", "s", &[i64::from(i32::MAX), 1]), None);
        assert_eq!(share("{}", "s", &[i64::MAX, i64::MAX]), None);
        assert_eq!(share("{}", "s", &[i64::from(i32::MAX)]).as_deref(), Some("v0"));
    }

    #[test]
    fn the_shares_come_out_over_many_subjects() {
        let count = (0..10_000)
            .filter(|n| share("{}", &format!("user-{n}"), &[20, 80]).as_deref() == Some("v0"))
            .count();
        assert!((1_900..2_100).contains(&count), "{count} of 10,000 for a weight of 20 %");
    }

    proptest! {
        #[test]
        fn a_positive_total_always_chooses_a_variant_with_a_weight(
            subject in ".*", weights in prop::collection::vec(-5_i64..100, 1..6),
        ) {
            let chosen = share("{}", &subject, &weights);
            if weights.iter().all(|w| *w <= 0) {
                prop_assert_eq!(chosen, None);
            } else {
                let chosen = chosen.expect("a variant");
                let at: usize = chosen[1..].parse().expect("a number");
                prop_assert!(weights[at] > 0);
            }
        }
    }
}
