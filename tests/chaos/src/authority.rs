//! PostgreSQL: the authority's own account, read past the product.
//!
//! A trigger of the run's writes down what each change leaves of a window, so that a
//! refusal can be judged by what the authority held at its time. Invariant: it changes
//! nothing of the product's.

use std::{
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::Duration,
};

use model::{clock::UnixMs, quota::Metric};
use services::Postgres;

/// After a lease's end or a credit, "used up" may be believed for so long, in ms: the cache
/// of it (30 s), a lease TTL that no request waits for, and some time to answer.
const BELIEVED_MS: u64 = 36_000;

const WATCH: &str = "
CREATE SCHEMA chaos;
CREATE TABLE chaos.standing (at_ms bigint, tenant_id uuid, metric text, start_ms bigint, remaining bigint);
CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.standing VALUES (
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint, NEW.tenant_id, NEW.metric,
        NEW.start_ms, NEW.limit_tokens - NEW.granted + NEW.credited);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON edge.quota_window
    FOR EACH ROW EXECUTE FUNCTION chaos.note();";

/// The sums of the design's audit, told apart from the product's own query: a second opinion.
const AUDIT: &str = "
SELECT t.slug || ' ' || w.metric || ': granted - credited = ' || w.granted - w.credited
       || ' of ' || w.limit_high
FROM edge.quota_window w JOIN edge.tenant t ON t.id = w.tenant_id
WHERE w.granted - w.credited > w.limit_high
UNION ALL
SELECT t.slug || ' ' || r.metric || ' epoch ' || r.epoch || ': spent ' || sum(r.spent)
       || ' of ' || e.tranche_own + e.tranche_shared
FROM edge.quota_report r JOIN edge.quota_epoch e USING (tenant_id, metric, start_ms, epoch)
JOIN edge.tenant t ON t.id = r.tenant_id
GROUP BY t.slug, r.metric, r.start_ms, r.epoch, e.tranche_own, e.tranche_shared
HAVING sum(r.spent) > e.tranche_own + e.tranche_shared";

/// The database of the run.
#[derive(Debug)]
pub struct Authority {
    cluster: Postgres,
    url: String,
    /// Held while the cluster is down.
    up: Mutex<()>,
}

/// The account of one window.
#[derive(Clone, Debug)]
pub struct Book {
    tenant: String,
    metric: String,
    /// Start of the window.
    pub start: UnixMs,
    /// Tokens granted and not credited.
    pub debited: u64,
    /// What the edges reported as spent, less what they gave back after the end of a lease.
    pub spent: u64,
}

impl Book {
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('|');
        let (tenant, metric) = (columns.next()?.to_owned(), columns.next()?.to_owned());
        let mut number = || columns.next()?.parse().ok();
        let start = UnixMs(number()?);
        Some(Self { tenant, metric, start, debited: number()?, spent: number()? })
    }

    /// Whether it is of a tenant and metric.
    #[must_use]
    pub fn is(&self, tenant: &str, metric: Metric) -> bool {
        self.tenant == tenant && self.metric == metric.as_str()
    }
}

/// What the authority held of one window at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    at: UnixMs,
    tenant: String,
    metric: String,
    remaining: i64,
}

/// The history of all windows.
#[derive(Debug, Default)]
pub struct History(Vec<Standing>);

impl Authority {
    /// A cluster with an empty database.
    #[must_use]
    pub fn start() -> Self {
        let cluster = Postgres::start();
        let url = cluster.database();
        Self { cluster, url, up: Mutex::new(()) }
    }

    /// `store.url` of the edges.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Begins to note every change of a window; after the edges made their tables.
    pub fn watch(&self) {
        self.sql(WATCH);
    }

    /// Stops it in order for a while.
    pub fn restart(&self, down: Duration) {
        let _down = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        self.cluster.stop();
        sleep(down);
        self.cluster.resume();
    }

    /// Kills it; it recovers a while later.
    pub fn crash(&self, down: Duration) {
        let _down = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        self.cluster.kill();
        sleep(down);
        self.cluster.resume();
    }

    /// Every account that does not add up.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        self.sql(AUDIT).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// What every change left, in the order of time.
    #[must_use]
    pub fn history(&self) -> History {
        History::parse(&self.sql(
            "SELECT s.at_ms, t.slug, s.metric, s.remaining FROM chaos.standing s
             JOIN edge.tenant t ON t.id = s.tenant_id ORDER BY s.at_ms",
        ))
    }

    /// The accounts of all windows.
    #[must_use]
    pub fn books(&self) -> Vec<Book> {
        let lines = self.sql(
            "SELECT t.slug, w.metric, w.start_ms, w.granted - w.credited,
                 w.folded_spent + coalesce((
                     SELECT sum(r.spent) FROM edge.quota_report r
                     WHERE (r.tenant_id, r.metric, r.start_ms)
                         = (w.tenant_id, w.metric, w.start_ms)), 0)
                 - coalesce((
                     SELECT sum(l.refunded) FROM edge.quota_late_refund l
                     WHERE (l.tenant_id, l.metric, l.start_ms)
                         = (w.tenant_id, w.metric, w.start_ms)), 0)
             FROM edge.quota_window w JOIN edge.tenant t ON t.id = w.tenant_id",
        );
        lines.lines().filter_map(Book::parse).collect()
    }

    /// What a tenant's storage counts for: used, and set aside.
    #[must_use]
    pub fn stored(&self, tenant: &str) -> (u64, u64) {
        let line = self.sql(&format!(
            "SELECT l.value, l.reserved FROM edge.usage_level l JOIN edge.tenant t ON t.id = l.tenant_id
             WHERE t.slug = '{tenant}' AND l.metric = 'storage'"
        ));
        let mut columns = line.split('|').map(|column| column.parse().unwrap_or(0));
        (columns.next().unwrap_or(0), columns.next().unwrap_or(0))
    }

    /// A line per window with epochs that are not reconciled: what is still out.
    #[must_use]
    pub fn unreconciled(&self) -> Vec<String> {
        let lines = self.sql(
            "SELECT t.slug || ' ' || e.metric || ': ' || count(*) || ' epochs '
                 || string_agg(DISTINCT e.state, ',') || ', ' || sum(e.tranche_own + e.tranche_shared)
                 || ' tokens'
             FROM edge.quota_epoch e JOIN edge.tenant t ON t.id = e.tenant_id
             WHERE e.state <> 'reconciled' GROUP BY t.slug, e.metric ORDER BY 1",
        );
        lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn sql(&self, statements: &str) -> String {
        let _up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        self.cluster.superuser(&self.url, statements)
    }
}

impl History {
    fn parse(lines: &str) -> Self {
        let standing = |line: &str| {
            let mut columns = line.split('|');
            Some(Standing {
                at: UnixMs(columns.next()?.parse().ok()?),
                tenant: columns.next()?.to_owned(),
                metric: columns.next()?.to_owned(),
                remaining: columns.next()?.parse().ok()?,
            })
        };
        Self(lines.lines().filter_map(standing).collect())
    }

    /// Whether "used up" at `at` was true, or had been so shortly before.
    #[must_use]
    pub fn justifies(&self, tenant: &str, metric: Metric, at: UnixMs) -> bool {
        let from = UnixMs(at.0.saturating_sub(BELIEVED_MS));
        let of = self
            .0
            .iter()
            .filter(|one| one.tenant == tenant && one.metric == metric.as_str())
            // A change is noted a little before it is committed, and told after.
            .filter(|one| one.at <= at.plus_ms(1_000));
        let (mut before, mut within) = (None, false);
        for one in of {
            if one.at < from {
                before = Some(one.remaining);
            } else {
                within |= one.remaining <= 0;
            }
        }
        within || before.is_some_and(|remaining| remaining <= 0)
    }

    /// How many changes were noted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_judged_by_what_the_authority_held_then() {
        let history = History::parse(
            "1000|tiny|api_calls|10\n5000|tiny|api_calls|0\n6000|tiny|api_calls|8\n5500|small|api_calls|3\n",
        );
        let justified = |tenant, at| history.justifies(tenant, Metric::ApiCalls, UnixMs(at));
        assert!(!justified("tiny", 2_000), "there was something left");
        assert!(justified("tiny", 5_000));
        assert!(justified("tiny", 40_000), "a credit came, but the answer may be remembered");
        assert!(!justified("tiny", 50_000));
        assert!(!justified("small", 50_000));
        assert!(!justified("nobody", 5_000));
        assert_eq!(history.len(), 4);
    }
}
