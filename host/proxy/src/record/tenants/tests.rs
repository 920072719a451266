//! Elections, sums and the size of a page.

use std::collections::BTreeMap;

use model::clock::ManualClock;
use prometheus::{Registry, TextEncoder};

use super::*;

struct Page {
    series: Arc<TenantSeries>,
    clock: Arc<ManualClock>,
    registry: Registry,
}

impl Page {
    fn new(tenant_top_k: usize, pinned: &[&str]) -> Self {
        let pinned_tenants = pinned.iter().map(|slug| (*slug).to_owned()).collect();
        let clock = Arc::new(ManualClock::default());
        let config = MetricsConfig { tenant_top_k, pinned_tenants };
        let series = TenantSeries::new(&config, Arc::clone(&clock) as _);
        let registry = Registry::new();
        let collected = Collected::new(Arc::clone(&series)).expect("descriptions");
        registry.register(Box::new(collected)).expect("a place");
        Self { series, clock, registry }
    }

    fn add(&self, number: u128, count: u64) {
        let route: Arc<str> = "any".into();
        self.add_on(number, &route, count);
    }

    fn add_on(&self, number: u128, route: &Arc<str>, count: u64) {
        let slug = format!("t{number}");
        let tenant = Some((TenantId(uuid::Uuid::from_u128(number)), &*slug));
        let mut times = Times::default();
        (0..count.min(3)).for_each(|_| times.observe(0.002));
        let mut table = self.series.table();
        table.add(tenant, Some(route), 2, count);
        table.observe(tenant, &times);
    }

    fn elect(&self) -> BTreeMap<String, u64> {
        self.clock.advance_ms(ELECTION_MS);
        self.sums()
    }

    /// Requests by tenant.
    fn sums(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for family in self.registry.gather() {
            for metric in family.get_metric().iter().filter(|_| family.name() == REQUESTS) {
                let tenant = metric.get_label().iter().find(|label| label.name() == "tenant");
                let tenant = tenant.expect("a label").value().to_owned();
                *sums.entry(tenant).or_default() += metric.get_counter().get_value() as u64;
            }
        }
        sums
    }

    fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text")
    }
}

const REQUESTS: &str = "tenant_requests_total";

fn sums(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(tenant, count)| ((*tenant).to_owned(), *count)).collect()
}

#[test]
fn a_free_seat_is_taken_at_once_and_others_wait_for_the_election() {
    let page = Page::new(2, &[]);
    page.add(1, 10);
    page.add(2, 5);
    page.add(3, 100);
    assert_eq!(page.sums(), sums(&[("t1", 10), ("t2", 5), ("other", 100)]));
    // The series of the loser goes; what it counted stays in the sum.
    assert_eq!(page.elect(), sums(&[("t1", 10), ("other", 105)]));
    page.add(3, 1);
    page.add(2, 1);
    assert_eq!(page.sums(), sums(&[("t1", 10), ("t3", 1), ("other", 106)]));
    assert!(!page.text().contains("t2"), "the histogram is gone too");
}

#[test]
fn tenants_of_one_size_do_not_take_turns_and_yesterdays_giants_leave() {
    let page = Page::new(1, &[]);
    page.add(1, 100);
    for _ in 0..5 {
        page.add(1, 10);
        page.add(2, 11);
        assert!(page.elect().contains_key("t1"));
    }
    let mut left = 0;
    while page.sums().contains_key("t1") {
        page.add(2, 11);
        page.elect();
        left += 1;
        assert!(left < 10, "its score halves");
    }
}

#[test]
fn the_pinned_are_always_seated_and_taken_names_never() {
    let page = Page::new(0, &["t7"]);
    page.add(1, 1_000);
    page.add(7, 1);
    let mut table = page.series.table();
    table.add(Some((TenantId(uuid::Uuid::from_u128(9)), "other")), None, 5, 2);
    table.add(Some((TenantId(uuid::Uuid::from_u128(8)), "none")), None, 5, 3);
    table.add(None, None, 4, 4);
    drop(table);
    for _ in 0..3 {
        assert_eq!(page.elect(), sums(&[("t7", 1), ("other", 1_005), ("none", 4)]));
    }
}

#[test]
fn a_hundred_thousand_tenants_make_a_bounded_page_whose_sum_is_exact() {
    let page = Page::new(100, &[]);
    let routes: Vec<Arc<str>> = (0..60).map(|n| format!("route-{n:02}").into()).collect();
    let mut total = 0;
    for round in 0..4_u128 {
        for number in 0..100_000_u128 {
            // The busiest move on from round to round, and visit every route.
            let busy = number / 100 == round;
            let visited = if busy { &routes[..] } else { &routes[..1] };
            for route in visited {
                page.add_on(number, route, 1 + u64::from(busy) * 50);
                total += 1 + u64::from(busy) * 50;
            }
        }
        let by_tenant = page.elect();
        assert_eq!(by_tenant.values().sum::<u64>(), total);
        assert!(by_tenant.len() <= 101, "{}", by_tenant.len());
        let winner = format!("t{}", round * 100);
        page.add(round * 100, 1);
        total += 1;
        assert!(page.sums().contains_key(&winner), "the busiest have the seats");
    }
    let text = page.text();
    let series = text.lines().filter(|line| line.starts_with(REQUESTS)).count();
    assert!(series <= SERIES_MAX + 400, "{series}");
    assert!(text.len() < 2 << 20, "{} bytes", text.len());
}

#[test]
fn beyond_the_bound_a_route_is_counted_as_other() {
    let page = Page::new(200, &[]);
    let mut total = 0;
    for route in 0..100 {
        let route: Arc<str> = format!("route-{route}").into();
        for number in 0..200 {
            page.add_on(number, &route, 1);
            total += 1;
        }
    }
    let text = page.text();
    let lines = text.lines().filter(|line| line.starts_with(REQUESTS));
    assert!(lines.count() <= SERIES_MAX + 201);
    assert!(text.contains("route=\"other\""));
    assert_eq!(page.sums().values().sum::<u64>(), total);
}
