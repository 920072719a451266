use model::{clock::UnixMs, quota::Metric, window::Window};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::testing::{Backend, Control, acme, id_of, on_both, path_of, tenant};

on_both![
    quotas_begin_anew_on_the_first_unless_another_day_is_given,
    a_change_of_the_day_counts_from_the_end_of_the_present_month,
    a_second_change_waits_for_the_end_of_the_short_month,
    a_day_that_is_in_no_month_is_named_with_the_fix,
    a_child_has_the_day_of_its_parent_unless_it_names_its_own,
];

const DAY_MS: u64 = 86_400_000;

/// The month of quotas that the data plane sees for a tenant.
fn month(control: &Control, tenant: &Value) -> Window {
    let directory = control.store.directory().borrow().clone();
    let record = directory.record(id_of(tenant));
    let anchor = record.expect("a tenant").tenant.quota_anchor;
    let now = model::clock::Clock::now(&*control.clock);
    Window::of(Metric::ApiCalls, now, anchor).expect("a window")
}

fn dates(start: time::OffsetDateTime, end: time::OffsetDateTime) -> Window {
    Window { start: UnixMs::from_date_time(start), end: UnixMs::from_date_time(end) }
}

async fn quotas_begin_anew_on_the_first_unless_another_day_is_given(on: Backend) {
    let control = Control::start(on).await;
    let plain = control.create(&acme()).await;
    assert_eq!(
        (&plain["quota_anchor_day"], &plain["quota_anchor_since"]),
        (&json!(1), &json!(null))
    );
    let of_january = dates(datetime!(2024-01-01 0:00 UTC), datetime!(2024-02-01 0:00 UTC));
    assert_eq!(month(&control, &plain), of_january);
    let mut late = tenant("late");
    late["quota_anchor_day"] = json!(31);
    let late = control.create(&late).await;
    assert_eq!(
        (&late["quota_anchor_day"], &late["quota_anchor_since"]),
        (&json!(31), &json!(null))
    );
    let month = month(&control, &late);
    assert_eq!(month, dates(datetime!(2023-12-31 0:00 UTC), datetime!(2024-01-31 0:00 UTC)));
}

async fn a_change_of_the_day_counts_from_the_end_of_the_present_month(on: Backend) {
    let control = Control::start(on).await;
    let before = control.create(&acme()).await;
    control.clock.advance_ms(22 * DAY_MS);
    let held = month(&control, &before);
    let answer = control.patch(&before, &json!({"quota_anchor_day": 15})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["quota_anchor_day"], 15);
    assert_eq!(answer.json["quota_anchor_since"], "2024-02-01T00:00:00Z");
    assert_eq!(control.get(&path_of(&before)).await.json, answer.json);
    assert_eq!(month(&control, &before), held, "the present month is as it was");
    control.clock.advance_ms(9 * DAY_MS);
    let short = dates(datetime!(2024-02-01 0:00 UTC), datetime!(2024-02-15 0:00 UTC));
    assert_eq!(month(&control, &before), short);
    control.clock.advance_ms(14 * DAY_MS);
    let whole = dates(datetime!(2024-02-15 0:00 UTC), datetime!(2024-03-15 0:00 UTC));
    assert_eq!(month(&control, &before), whole);
    // An answer that is sent back changes nothing.
    let shown = control.get(&path_of(&before)).await.json;
    let again = control.patch(&before, &shown).await.json;
    assert_eq!(again["quota_anchor_since"], shown["quota_anchor_since"]);
}

async fn a_second_change_waits_for_the_end_of_the_short_month(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    control.patch(&tenant, &json!({"quota_anchor_day": 15})).await;
    let other = control.patch(&tenant, &json!({"quota_anchor_day": 20})).await;
    assert_eq!(other.json["quota_anchor_day"], 20, "the first one never came");
    control.clock.advance_ms(31 * DAY_MS);
    let patch = json!({"quota_anchor_day": 3});
    let refused = control.patch(&tenant, &patch).await;
    assert_eq!((refused.status, refused.bad_fields()), (422, vec!["quota_anchor_day"]));
    assert!(refused.text.contains("from 2024-02-20T00:00:00Z on"), "{}", refused.text);
    control.clock.advance_ms(19 * DAY_MS);
    let taken = control.patch(&tenant, &patch).await.json;
    assert_eq!(taken["quota_anchor_since"], "2024-03-20T00:00:00Z");
}

async fn a_day_that_is_in_no_month_is_named_with_the_fix(on: Backend) {
    let control = Control::start(on).await;
    let created = control.create(&acme()).await;
    for day in [json!(0), json!(32), json!(-1), json!(1.5), json!("15"), json!(300)] {
        let mut other = tenant("other");
        other["quota_anchor_day"] = day.clone();
        for answer in [
            control.json("POST", "/api/v1/admin/tenants", &other).await,
            control.patch(&created, &json!({"quota_anchor_day": day})).await,
        ] {
            assert_eq!(answer.status, 422, "{day}: {}", answer.text);
            assert_eq!(answer.bad_fields(), ["quota_anchor_day"], "{day}");
            assert!(answer.text.contains("from 1 to 31"), "{}", answer.text);
        }
    }
    let read_only = json!({"quota_anchor_since": "2024-01-15T00:00:00Z"});
    let refused = control.patch(&created, &read_only).await;
    assert_eq!(refused.bad_fields(), ["quota_anchor_since"]);
}

async fn a_child_has_the_day_of_its_parent_unless_it_names_its_own(on: Backend) {
    let control = Control::start(on).await;
    let mut parent = tenant("parent");
    parent["quota_anchor_day"] = json!(9);
    let parent = control.create(&parent).await;
    control.patch(&parent, &json!({"quota_anchor_day": 12})).await;
    let child = |slug: &str| {
        let mut child = tenant(slug);
        child["parent_tenant_id"] = parent["id"].clone();
        child
    };
    let inherits = control.create(&child("inherits")).await;
    assert_eq!(inherits["quota_anchor_day"], 12);
    assert_eq!(inherits["quota_anchor_since"], "2024-01-09T00:00:00Z");
    assert_eq!(month(&control, &inherits), month(&control, &parent));
    let mut own = child("own");
    own["quota_anchor_day"] = json!(1);
    assert_eq!(control.create(&own).await["quota_anchor_day"], 1);
}
