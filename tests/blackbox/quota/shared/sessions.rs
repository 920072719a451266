//! Concurrent sessions over two edges: one registry, in Redis.

use std::time::Duration;

use crate::actors::{Client, Reply, Site, TenantActor, eventually, eventually_within};

/// What the shipped `routes.toml` reads sessions from.
const COOKIE: &str = "session_id";
/// Longest that a slot of a killed edge, or a guard, may hold, with time for a busy machine.
const HELD_MAX: Duration = Duration::from_secs(60);
/// Seconds for which a new guard may hold.
const GUARD_S_MAX: u64 = model::sessions::GUARD_HOLD_MS.div_ceil(1000);

async fn visit(tenant: &TenantActor, edge: Client, session: &str) -> Reply {
    let cookie = format!("{COOKIE}={session}");
    tenant.at(edge).send("GET", "/", &[("cookie", &cookie)], "").await
}

async fn status(tenant: &TenantActor, edge: Client, session: &str) -> u16 {
    visit(tenant, edge, session).await.status.as_u16()
}

/// Sessions that the registry counts now, past the product.
fn counted(site: &Site, tenant: &TenantActor) -> u64 {
    let time = site.redis.cli(&["TIME"]).expect("an answer");
    let services::Value::List(time) = time else { panic!("no time") };
    let part = |index: usize| time[index].text().parse::<u64>().expect("a number");
    let now = format!("({}", part(0) * 1000 + part(1) / 1000);
    let key = format!("s:{{{0}}}:{0}", tenant.id);
    let count = site.redis.cli(&["ZCOUNT", &key, &now, "+inf"]).expect("an answer");
    count.text().parse().expect("a count")
}

async fn ends(tenant: &TenantActor, edge: Client, session: &str) {
    let cookie = format!("{COOKIE}={session}");
    let fields = [("cookie", cookie.as_str())];
    tenant.at(edge).send("POST", "/api/v1/auth/logout", &fields, "").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_share_one_limit_and_one_count() {
    let site = Site::start().await;
    let tenant = site.tenant("roamer", "developer").await;
    let (one, two) = (site.edge(0), site.edge(1));
    visit(&tenant, one, "laptop").await.expect(200);
    visit(&tenant, two, "phone").await.expect(200);
    for edge in [one, two] {
        let refused = visit(&tenant, edge, "tablet").await.expect(429);
        assert_eq!(refused.header("retry-after"), "5");
        assert_eq!(refused.json()["quota_limit"], 2);
    }
    // A session may go to any edge: it is one all the same.
    visit(&tenant, two, "laptop").await.expect(200);
    visit(&tenant, one, "phone").await.expect(200);
    for edge in [0, 1] {
        assert_eq!(site.usage(edge, &tenant).await["concurrent_sessions"], 2);
    }
    ends(&tenant, two, "laptop").await;
    assert_eq!(counted(&site, &tenant), 1, "the logout's slot is free before it is answered");
    visit(&tenant, one, "tablet").await.expect(200);
    eventually("the other edge hears of the logout with its heartbeat", || async {
        (status(&tenant, one, "laptop").await == 429).then_some(())
    })
    .await;
    assert_eq!(counted(&site, &tenant), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logins_at_once_at_two_edges_get_exactly_the_quota() {
    let site = Site::start().await;
    let tenant = site.tenant("rush", "team").await;
    let logins = (0..40).map(|number| {
        let (tenant, edge) = (tenant.clone(), site.edge(number % 2));
        tokio::spawn(async move { status(&tenant, edge, &format!("s{number}")).await })
    });
    let logins: Vec<_> = logins.collect();
    let mut statuses = Vec::new();
    for login in logins {
        statuses.push(login.await.expect("no panic"));
    }
    let count = |status| statuses.iter().filter(|got| **got == status).count();
    assert_eq!((count(200), count(429)), (10, 30), "{statuses:?}");
    assert_eq!(counted(&site, &tenant), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_killed_edge_are_free_after_the_ttl_and_not_before() {
    let mut site = Site::start().await;
    let tenant = site.tenant("victim", "developer").await;
    for session in ["laptop", "phone"] {
        visit(&tenant, site.edge(0), session).await.expect(200);
    }
    site.edges[0].kill().await;
    let other = site.edge(1);
    visit(&tenant, other, "tablet").await.expect(429);
    eventually_within(HELD_MAX, "the dead edge's sessions expire", || async {
        let answer = status(&tenant, other, "tablet").await;
        assert!(counted(&site, &tenant) <= 2);
        (answer == 200).then_some(())
    })
    .await;
    // Its other slot expired with the same heartbeat, or the one after.
    eventually("both slots are free", || async {
        (status(&tenant, other, "watch").await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&tenant, other, "laptop").await, 429);
    assert_eq!(counted(&site, &tenant), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_redis_forgets_sessions_go_on_new_ones_wait_and_the_limit_holds() {
    let site = Site::start().await;
    let tenant = site.tenant("forgotten", "developer").await;
    let (one, two) = (site.edge(0), site.edge(1));
    visit(&tenant, one, "laptop").await.expect(200);
    visit(&tenant, two, "phone").await.expect(200);
    site.redis.flush();
    for edge in [one, two] {
        let refused = visit(&tenant, edge, "tablet").await.expect(503);
        let retry: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=GUARD_S_MAX).contains(&retry), "{retry}");
    }
    // Nobody new while it is not known who is alive, and nobody alive is turned away.
    eventually_within(HELD_MAX, "the guard's time is over", || async {
        assert_eq!(status(&tenant, one, "laptop").await, 200);
        assert_eq!(status(&tenant, two, "phone").await, 200);
        assert!(counted(&site, &tenant) <= 2);
        match status(&tenant, one, "tablet").await {
            503 => None,
            429 => Some(()),
            other => panic!("a third session got {other}"),
        }
    })
    .await;
    assert_eq!(counted(&site, &tenant), 2);
    ends(&tenant, one, "laptop").await;
    visit(&tenant, two, "tablet").await.expect(200);
}
