//! Moves, months and retention on a real PostgreSQL.

mod crashes;
mod months;
mod moves;
mod own;
mod walls;

use std::sync::Arc;

use model::{
    clock::{ManualClock, UnixMs},
    tenant::TenantId,
};
use serde_json::json;
use uuid::Uuid;

use super::PartitionRules;
use crate::{
    store::{Actor, DataKey, NewTenant, Store},
    testing::{Backend, Database, NEW_YEAR},
};

/// Rows that a tenant keeps unchanged, over three months.
const STABLE: u32 = 60;
const DAY_MS: u64 = 86_400_000;

/// A PostgreSQL with tenants, of which several lie in the same part.
struct Bench {
    database: Database,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    /// Those of one part; each has its stable rows.
    tenants: Vec<TenantId>,
    /// Remainder of their part.
    remainder: usize,
}

fn rules() -> PartitionRules {
    PartitionRules { split_bytes: u64::MAX, months_ahead: 2, copy_rows: 500, ..Default::default() }
}

fn key(n: u32) -> DataKey {
    let created_at = UnixMs(NEW_YEAR.0 + u64::from(n % 75) * DAY_MS);
    DataKey { created_at, id: Uuid::from_u128(u128::from(n) + 1) }
}

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    }
}

impl Bench {
    async fn start() -> Self {
        let database = Backend::Postgres.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        let mut parts: [Vec<TenantId>; 8] = Default::default();
        let mut bench = Self { database, store, clock, tenants: Vec::new(), remainder: 0 };
        // Of 17 tenants three are in one part at least.
        for number in 0..17 {
            let tenant =
                bench.store.create_tenant(&Actor::Program, new(&format!("t{number}"))).await;
            let id = tenant.expect("a tenant").id;
            let remainder = bench.sql(&format!(
                "SELECT n FROM generate_series(0, 7) n
                 WHERE satisfies_hash_partition('edge.tenant_data_shared'::regclass, 8, n, '{id}'::uuid)"
            ));
            parts[remainder.parse::<usize>().expect("a number")].push(id);
        }
        bench.remainder = (0..8).max_by_key(|&n| parts[n].len()).expect("a part");
        bench.tenants = parts[bench.remainder].clone();
        for &tenant in &bench.tenants {
            for n in 0..STABLE {
                let whose = json!(tenant.to_string());
                let written = bench.store.put_data(tenant, key(1_000 + n), "stable", &whose).await;
                written.expect("written");
            }
        }
        bench
    }

    fn sql(&self, statements: &str) -> String {
        let Database::Postgres(url) = &self.database else { panic!("PostgreSQL") };
        services::postgres().superuser(url, statements)
    }

    /// The name of the part of the tenants, as it was made.
    fn part(&self) -> String {
        format!("tenant_data_h8_{}", self.remainder)
    }

    /// Writes `rows` rows of some 800 bytes for each of about 50 other tenants of the part.
    fn fill(&self, rows: u32) {
        self.sql(&format!(
            "INSERT INTO edge.tenant_data
             SELECT t, gen_random_uuid(), 'fill', jsonb_build_object('x', repeat(md5(n::text), 24)),
                    {} + n::bigint * {DAY_MS} / 10, 0
             FROM (SELECT gen_random_uuid() AS t FROM generate_series(1, 400)) tenants,
                  generate_series(1, {rows}) n
             WHERE satisfies_hash_partition('edge.tenant_data_shared'::regclass, 8, {}, t)",
            NEW_YEAR.0, self.remainder,
        ));
    }

    /// Number and checksum of the rows of a kind.
    fn checksum(&self, kind: &str) -> String {
        self.sql(&format!(
            "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM edge.tenant_data t
             WHERE kind = '{kind}'"
        ))
    }

    /// The names of the parts that hold tenants.
    async fn parts(&self) -> Vec<String> {
        let tree = self.store.partitions().await.expect("an answer").expect("a tree");
        tree.partitions.into_iter().map(|part| part.name).collect()
    }

    async fn no_finding(&self) {
        assert_eq!(self.store.schema_findings().await.expect("findings"), []);
    }

    /// Fails when a tenant does not see all of its stable rows, and only its own.
    async fn sees_its_own(&self, tenant: TenantId) {
        let rows = self.store.data_page(tenant, Some("stable"), None, 1_000).await.expect("rows");
        assert_eq!(rows.len(), STABLE as usize);
        let whose = json!(tenant.to_string());
        assert!(rows.iter().all(|row| row.data == whose), "{rows:?}");
    }

    /// What is left when nothing is being moved: nothing.
    fn no_leftovers(&self) {
        let left = self.sql(
            "SELECT c.relname FROM pg_class c WHERE relnamespace = 'edge'::regnamespace
               AND relkind IN ('r', 'p') AND relname LIKE 'tenant\\_data\\_%'
               AND relname <> 'tenant_data_change' AND NOT relispartition
             UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'log_changes'
             UNION ALL SELECT polname FROM pg_policy p
             WHERE polname = 'moving' AND polrelid <> 'edge.tenant_data_change'::regclass
             UNION ALL SELECT conname FROM pg_constraint WHERE conname IN ('guard', 'bound')
             UNION ALL SELECT 'a change' FROM edge.tenant_data_change",
        );
        assert_eq!(left, "");
    }
}
