//! What upstreams' answers say about levels.

use model::{
    level::{Delta, LevelChange, MeterRule, StatusRange},
    policy::{OnFailure, ResponseDecision},
    quota::Metric,
};

use super::world::{Fake, World, policy, tenant_id};

/// The rules of the route `/metered/*`.
pub(super) fn rules() -> Vec<MeterRule> {
    let on = |range| StatusRange::parse(range).expect("a range");
    let header = |name: &'static str, strip| Delta::Header {
        name: http::HeaderName::from_static(name),
        strip,
    };
    vec![
        MeterRule { metric: Metric::Users, on_status: on("200"), delta: Delta::Fixed(1) },
        MeterRule {
            metric: Metric::Storage,
            on_status: on("2xx"),
            delta: header("x-storage-delta-bytes", true),
        },
        MeterRule {
            metric: Metric::Projects,
            on_status: on("2xx"),
            delta: header("x-projects-delta", false),
        },
    ]
}

fn change(metric: Metric, delta: i64) -> LevelChange {
    LevelChange { tenant: tenant_id(1), metric, delta }
}

#[test]
fn a_metered_answer_is_counted_and_stripped() {
    let world = World::new();
    let answer = world.get("/metered/plain", "X-Storage-Delta-Bytes: 99\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(world.levels.taken(), [change(Metric::Users, 1)], "a client's field says nothing");
    let answer = world.get("/metered/fields", "");
    assert_eq!(answer.field("x-storage-delta-bytes"), None);
    assert_eq!(answer.field("x-projects-delta").as_deref(), Some("2"));
    let told =
        [change(Metric::Users, 1), change(Metric::Storage, -4_096), change(Metric::Projects, 2)];
    assert_eq!(world.levels.taken(), told);
}

#[test]
fn what_is_not_an_answer_of_the_upstream_is_not_counted() {
    let world = World::new();
    world.gate.set(super::world::Mode::Exhausted);
    assert_eq!(world.get("/metered/fields", "").status, 429);
    world.gate.set(super::world::Mode::Grant);
    assert_eq!(world.get("/metered/close", "").status, 502);
    assert_eq!(world.get("/fields", "").status, 200, "another route");
    let answer = world.get("/metered/failed", "");
    assert_eq!((answer.status, answer.field("x-storage-delta-bytes")), (500, None));
    assert!(world.levels.taken().is_empty());
}

#[test]
fn a_field_that_says_nothing_is_counted_as_such() {
    let world = World::new();
    assert_eq!(world.get("/metered/nonsense", "").field("x-storage-delta-bytes"), None);
    assert_eq!(world.levels.taken(), [change(Metric::Users, 1)]);
    world.levels.fill();
    assert_eq!(world.get("/metered/plain", "").status, 200, "the work is done, so it is told");
    let families = world.registry.gather();
    let reports = families.iter().find(|f| f.name() == "edge_level_reports_total").expect("some");
    let told: Vec<String> = reports
        .get_metric()
        .iter()
        .map(|metric| {
            let labels: Vec<&str> = metric.get_label().iter().map(|l| l.value()).collect();
            format!("{} {}", labels.join(" "), metric.get_counter().get_value())
        })
        .collect();
    assert_eq!(told, ["storage malformed 1", "users lost 1", "users recorded 1"]);
}

#[test]
fn policies_neither_see_nor_change_what_is_counted() {
    let seen = Fake {
        response: Some(Box::new(|exchange| {
            let response = exchange.response.as_mut().expect("a response");
            assert!(!response.headers.contains_key("x-storage-delta-bytes"));
            response.headers.insert("x-storage-delta-bytes", 1.into());
            Ok(ResponseDecision::Continue)
        })),
        ..Fake::default()
    };
    let world = World::with_policies(vec![policy("forger", OnFailure::Closed, seen)]);
    assert_eq!(world.get("/metered/fields", "").status, 200);
    assert!(world.levels.taken().contains(&change(Metric::Storage, -4_096)));
}
