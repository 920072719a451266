//! Several edges as processes of their own, on one PostgreSQL and one Redis: what a site
//! with more than one machine runs.
//!
//! Each edge has a data folder of its own and the same declarations. The clock is the
//! machine's, so tests here wait for what takes its time by design.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use services::{Redis, RedisOptions};

use super::{
    ADMIN_TOKEN, Client, EdgeProcess, Origin, Reply, TenantActor, eventually, prepare_policies,
    world::Prepare,
};

/// How long an edge lets Redis take, in ms: on a busy machine too, no test is about a slow one
/// by accident.
const REDIS_TIMEOUT_MS: &str = "5000";

/// What a test may choose.
#[derive(Default)]
pub struct SiteOptions {
    /// How Redis is set up.
    pub redis: RedisOptions,
    /// User and password before the `@` of `quota.url`, with it; empty: the default user.
    pub login: String,
    /// Changes the declarations before the start.
    pub prepare: Option<Prepare>,
}

/// The edges with what they share.
pub struct Site {
    pub redis: Redis,
    pub origin: Origin,
    pub edges: Vec<EdgeProcess>,
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl Site {
    /// Two edges.
    pub async fn start() -> Self {
        Self::with(SiteOptions::default()).await
    }

    pub async fn with(options: SiteOptions) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let origin = Origin::start("us-east-1").await;
        prepare_policies(dir.path(), &origin);
        if let Some(prepare) = options.prepare {
            prepare(&dir.path().join("policies"));
        }
        let redis = Redis::start(options.redis);
        let url = redis.url().replacen("://", &format!("://{}", options.login), 1);
        let env = vec![
            ("LEANVIBE_EDGE__STORE__URL", services::postgres().database()),
            ("LEANVIBE_EDGE__QUOTA__URL", url),
            ("LEANVIBE_EDGE__QUOTA__REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS.to_owned()),
            ("LEANVIBE_EDGE__POLICIES__DIR", dir.path().join("policies").display().to_string()),
        ];
        let mut site = Self { redis, origin, edges: Vec::new(), dir, env };
        for number in 0..2 {
            let edge = site.run(number).await;
            site.edges.push(edge);
        }
        site
    }

    /// Starts the edge of a number on its own data, where there is any.
    async fn run(&self, number: usize) -> EdgeProcess {
        let data = self.dir.path().join(format!("edge-{number}"));
        let env: Vec<_> = self.env.iter().map(|(key, value)| (*key, value.as_str())).collect();
        EdgeProcess::serve_with(&data, &env).await
    }

    /// Where an edge serves.
    pub fn edge(&self, number: usize) -> Client {
        self.edges[number].edge
    }

    /// An API call at the first edge with the admin token.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.admin_at(0, method, path, body).await
    }

    /// The same at any edge.
    pub async fn admin_at(
        &self,
        number: usize,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let request = Client::request(method, path, "control.test")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.edges[number].control.send(request.body(Full::new(body)).expect("a request")).await
    }

    /// Creates a tenant and waits until every edge serves it: each has then been asked once.
    pub async fn tenant(&self, slug: &str, plan: &str) -> TenantActor {
        let body = json!({
            "organization_name": slug, "slug": slug, "plan": plan, "data_residency": "us",
            "admin_email": format!("admin@{slug}.example"),
        });
        let created = self.admin("POST", "/api/v1/admin/tenants", Some(body)).await.expect(201);
        let tenant = TenantActor::of(&created.json(), self.edge(0));
        for edge in &self.edges {
            let here = tenant.at(edge.edge);
            eventually("every edge knows the tenant", || async {
                (here.get("/").await.status != 404).then_some(())
            })
            .await;
        }
        tenant
    }

    /// What an edge says of one of its series: the sum over its labels.
    pub async fn metric(&self, number: usize, series: &str) -> f64 {
        let page = self.admin_at(number, "GET", "/metrics", None).await.expect(200).text();
        let is = |line: &&str| {
            line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        let value =
            |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        page.lines().filter(is).filter_map(value).sum()
    }

    /// A tenant's usage, as an edge tells it.
    pub async fn usage(&self, number: usize, tenant: &TenantActor) -> Value {
        let path = format!("/api/v1/tenants/{}/usage", tenant.id);
        self.admin_at(number, "GET", &path, None).await.expect(200).json()["current_usage"].clone()
    }
}

/// Two edges whose declarations are changed before the start.
pub fn prepare(change: impl FnOnce(&Path) + Send + 'static) -> SiteOptions {
    SiteOptions { prepare: Some(Box::new(change)), ..SiteOptions::default() }
}
