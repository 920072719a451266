use proptest::prelude::*;
use serde_json::json;
use time::macros::datetime;

use super::*;

const DAY_MS: u64 = 86_400_000;

fn at(instant: OffsetDateTime) -> UnixMs {
    UnixMs::from_date_time(instant)
}

fn shown(window: Window) -> (String, String) {
    let date = |at: UnixMs| at.date_time().date().to_string();
    assert_eq!((window.start.0 % DAY_MS, window.end.0 % DAY_MS), (0, 0), "whole days");
    (date(window.start), date(window.end))
}

#[test]
fn months_begin_on_the_anchors_day_or_the_last_one_of_a_shorter_month() {
    for (day, now, start, end) in [
        // Calendar months: February, leap years, the end of a year.
        (1, datetime!(2024-02-29 23:59:59 UTC), "2024-02-01", "2024-03-01"),
        (1, datetime!(2023-02-01 0:00 UTC), "2023-02-01", "2023-03-01"),
        (1, datetime!(2024-12-31 23:59:59 UTC), "2024-12-01", "2025-01-01"),
        // The middle of a month, on both sides of the day and over the end of a year.
        (15, datetime!(2026-03-15 0:00 UTC), "2026-03-15", "2026-04-15"),
        (15, datetime!(2026-03-14 23:59:59 UTC), "2026-02-15", "2026-03-15"),
        (15, datetime!(2026-01-03 12:00 UTC), "2025-12-15", "2026-01-15"),
        (15, datetime!(2025-12-20 12:00 UTC), "2025-12-15", "2026-01-15"),
        (28, datetime!(2023-02-28 0:00 UTC), "2023-02-28", "2023-03-28"),
        // 29 to 31 clamp to the end of February, a day later in a leap year.
        (29, datetime!(2023-02-27 12:00 UTC), "2023-01-29", "2023-02-28"),
        (29, datetime!(2023-02-28 12:00 UTC), "2023-02-28", "2023-03-29"),
        (29, datetime!(2024-02-28 12:00 UTC), "2024-01-29", "2024-02-29"),
        (30, datetime!(2024-02-29 12:00 UTC), "2024-02-29", "2024-03-30"),
        (30, datetime!(2100-02-28 12:00 UTC), "2100-02-28", "2100-03-30"),
        (31, datetime!(2023-01-31 0:00 UTC), "2023-01-31", "2023-02-28"),
        (31, datetime!(2023-03-01 0:00 UTC), "2023-02-28", "2023-03-31"),
        (31, datetime!(2026-04-30 0:00 UTC), "2026-04-30", "2026-05-31"),
        (31, datetime!(2026-08-15 0:00 UTC), "2026-07-31", "2026-08-31"),
        (31, datetime!(2025-12-31 0:00 UTC), "2025-12-31", "2026-01-31"),
        (31, datetime!(2026-01-30 23:59:59 UTC), "2025-12-31", "2026-01-31"),
    ] {
        let month = Anchor::on(day).expect("an anchor").month(at(now)).expect("a month");
        assert_eq!(shown(month), (start.to_owned(), end.to_owned()), "{day} at {now}");
    }
}

#[test]
fn a_change_counts_from_the_end_of_the_present_month() {
    let now = at(datetime!(2026-11-23 18:00 UTC));
    let moved = Anchor::default().moved(15, now).expect("an anchor");
    assert_eq!((moved.day(), moved.since()), (15, at(datetime!(2026-12-01 0:00 UTC))));
    for (now, start, end) in [
        (datetime!(2026-10-31 23:00 UTC), "2026-10-01", "2026-11-01"),
        (datetime!(2026-11-30 23:00 UTC), "2026-11-01", "2026-12-01"),
        (datetime!(2026-12-01 0:00 UTC), "2026-12-01", "2026-12-15"),
        (datetime!(2026-12-14 23:00 UTC), "2026-12-01", "2026-12-15"),
        (datetime!(2026-12-15 0:00 UTC), "2026-12-15", "2027-01-15"),
    ] {
        let month = moved.month(at(now)).expect("a month");
        assert_eq!(shown(month), (start.to_owned(), end.to_owned()), "{now}");
    }
}

#[test]
fn a_change_within_the_short_month_of_the_last_one_waits_for_its_end() {
    let first = Anchor::default().moved(15, at(datetime!(2026-11-23 18:00 UTC)));
    let first = first.expect("an anchor");
    let end = at(datetime!(2026-12-15 0:00 UTC));
    let too_soon = first.moved(31, at(datetime!(2026-12-10 0:00 UTC)));
    assert_eq!(too_soon, Err(AnchorError::TooSoon(end)));
    let second = first.moved(31, end).expect("an anchor");
    for (now, start, end) in [
        (datetime!(2026-12-10 0:00 UTC), "2026-12-01", "2026-12-15"),
        (datetime!(2026-12-20 0:00 UTC), "2026-12-15", "2027-01-15"),
        (datetime!(2027-01-20 0:00 UTC), "2027-01-15", "2027-01-31"),
        (datetime!(2027-02-01 0:00 UTC), "2027-01-31", "2027-02-28"),
    ] {
        let month = second.month(at(now)).expect("a month");
        assert_eq!(shown(month), (start.to_owned(), end.to_owned()), "{now}");
    }
}

#[test]
fn a_change_taken_back_in_time_changes_nothing() {
    let now = at(datetime!(2026-11-23 18:00 UTC));
    let back = Anchor::default().moved(15, now).and_then(|moved| moved.moved(1, now));
    let back = back.expect("an anchor");
    for day in 0..900 {
        let then = now.plus_ms(day * DAY_MS);
        assert_eq!(back.month(then), Anchor::default().month(then));
    }
}

#[test]
fn only_days_of_a_month_are_anchors() {
    for day in [0, 32, 255] {
        assert_eq!(Anchor::on(day), Err(AnchorError::NotADay));
        assert_eq!(Anchor::default().moved(day, UnixMs(0)), Err(AnchorError::NotADay));
    }
    let read = serde_json::from_value::<Anchor>;
    assert_eq!(read(json!({})).expect("an anchor"), Anchor::default());
    assert_eq!(read(json!({"day": 7, "before": 7})).expect("one"), Anchor::on(7).expect("one"));
    assert!(read(json!({"day": 32})).is_err());
    assert!(read(json!({"since": 3, "before_since": 4})).is_err());
}

/// The anchor after a change, or as it was when it is too soon for one.
fn changed(anchor: Anchor, day: u8, now: UnixMs) -> Anchor {
    anchor.moved(day, now).unwrap_or_else(|error| {
        assert!(matches!(error, AnchorError::TooSoon(end) if end > now), "{error}");
        anchor
    })
}

fn any_changes() -> impl Strategy<Value = Vec<(u64, u8)>> {
    // Hours until the change, and to which day.
    prop::collection::vec((1_u64..2_000, 1_u8..=31), 0..12)
}

proptest! {
    #[test]
    fn months_tile_the_time_line_whatever_the_anchor(
        start in 0_u64..3_000_000_000_000, changes in any_changes(),
    ) {
        let mut now = UnixMs(start);
        let mut anchor = Anchor::default();
        for (hours, day) in changes {
            now = now.plus_ms(hours * 3_600_000);
            anchor = changed(anchor, day, now);
        }
        let mut month = anchor.month(UnixMs(start.saturating_sub(400 * DAY_MS))).expect("one");
        while month.start < now.plus_ms(400 * DAY_MS) {
            prop_assert!(month.start < month.end);
            prop_assert_eq!(anchor.month(month.start), Some(month));
            prop_assert_eq!(anchor.month(UnixMs(month.end.0 - 1)), Some(month));
            let next = anchor.month(month.end).expect("a month");
            prop_assert_eq!(next.start, month.end);
            month = next;
        }
    }

    /// A tenant that lives through its changes never sees a month begin again, nor time in
    /// none: what was promised when a month began stays.
    #[test]
    fn every_month_that_has_begun_keeps_its_bounds(
        start in 0_u64..3_000_000_000_000, changes in any_changes(),
    ) {
        let mut now = UnixMs(start);
        let mut anchor = Anchor::default();
        let mut month = anchor.month(now).expect("a month");
        for (hours, day) in changes {
            for _ in 0..hours {
                now = now.plus_ms(3_600_000);
                let seen = anchor.month(now).expect("a month");
                prop_assert!(seen == month || seen.start == month.end);
                month = seen;
            }
            let moved = changed(anchor, day, now);
            prop_assert_eq!(moved.month(now), Some(month));
            // Nor does a clock that is behind see another month before this one.
            let before = UnixMs(month.start.0.saturating_sub(1));
            prop_assert_eq!(moved.month(before), anchor.month(before));
            anchor = moved;
        }
    }

    #[test]
    fn a_month_is_as_long_as_one_unless_a_change_cut_it(
        day in 1_u8..=31, now in 0_u64..4_000_000_000_000,
    ) {
        let month = Anchor::on(day).expect("an anchor").month(UnixMs(now)).expect("a month");
        let days = (month.end.0 - month.start.0) / DAY_MS;
        // The first month since 1970 began in 1969.
        prop_assert!((28..=31).contains(&days) || month.start.0 == 0, "{days}");
        prop_assert!(month.contains(UnixMs(now)));
    }

    #[test]
    fn one_word_holds_an_anchor(start in 0_u64..3_000_000_000_000, changes in any_changes()) {
        let mut now = UnixMs(start);
        let mut anchor = Anchor::default();
        for (hours, day) in changes {
            now = now.plus_ms(hours * 3_600_000);
            anchor = changed(anchor, day, now);
            prop_assert_eq!(Anchor::from_bits(anchor.to_bits()), anchor);
            let json = serde_json::to_string(&anchor).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Anchor>(&json).expect("an anchor"), anchor);
        }
    }
}
