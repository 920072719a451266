//! Builds every part from the config, starts them in order and stops them in reverse.
//!
//! Invariant: nothing listens before it can answer, and a stop lets exchanges in flight
//! finish, seals the quota leases and only then closes the store.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use control::{
    Readiness, Reservations, Store,
    store::{AdminTokenSource, DispatchClaim},
};
use model::{
    catalog::{Catalog, ReloadStatus},
    clock::Clock,
    secret::Secret,
    snapshot::Snapshot,
};
use prometheus::Registry;
use sandbox::{Sandbox, SandboxConfig, SandboxPorts};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    active_users::{self, ActiveUsers},
    api_host::ApiHost,
    config::Config,
    lease_series,
    levels::Levels,
    outbound::Caller,
    plugins,
    publish::{self, Channels, Preparer, Publisher, SnapshotMetrics},
    reload::FileWatch,
    reservations,
};

/// Characters of an admin token that nobody guesses: 128 bits in base 16.
const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// Reload requests that may wait: one is as good as many.
const RELOAD_QUEUE: usize = 1;

/// The program, running.
pub struct Running {
    /// Where the data plane listens in clear text.
    pub edge: Vec<SocketAddr>,
    /// Where it listens under TLS.
    pub edge_tls: Vec<SocketAddr>,
    /// Where the control API listens.
    pub control: SocketAddr,
    /// The store, for the demo's seeds.
    pub store: Arc<Store>,
    /// The admin token, when this start made one.
    pub minted_admin_token: Option<Secret>,
    proxy: proxy::Running,
    quota: Arc<quota::Quota>,
    dispatch: Option<DispatchClaim>,
    drain_timeout: Duration,
    reloads: mpsc::Sender<()>,
    /// What the data plane serves from.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// How the last load of the declarations went.
    pub reload_status: watch::Receiver<Arc<ReloadStatus>>,
    stop_levels: oneshot::Sender<()>,
    levels: JoinHandle<()>,
    stop_reservations: oneshot::Sender<()>,
    reservations: JoinHandle<()>,
    stop_publisher: oneshot::Sender<()>,
    publisher: JoinHandle<()>,
    stop_control: oneshot::Sender<()>,
    control_task: JoinHandle<std::io::Result<()>>,
    jobs: control::Jobs,
    active_users: ActiveUsers,
    ready: watch::Sender<Readiness>,
}

/// Builds and starts everything. Port 0 works; the addresses come back.
///
/// # Errors
/// What is missing, wrong or taken, in one line a problem.
pub async fn start(
    config: Config,
    clock: Arc<dyn Clock>,
    admin_token: Option<Secret>,
) -> Result<Running> {
    std::fs::create_dir_all(&config.data.dir)
        .with_context(|| format!("data.dir: {} cannot be made", config.data.dir.display()))?;
    let registry = Registry::new();
    let keys = config.keys().context("data.keys_dir")?;
    let store = Store::open_with_keys(&config.store_url(), Arc::clone(&clock), keys).await?;
    store.set_tenants_max(config.control.tenants_max);
    let sandbox_config = SandboxConfig { slots: config.sandbox.slots, ..SandboxConfig::default() };
    let quota_config = quota_config(&config)?;
    let rates = quota::Rates::start(&quota_config, Arc::clone(&clock), &registry)?;
    let open = config.sandbox.outbound_allow_networks.clone();
    let caller = Caller::new(control::notify::AllowedNetworks::new(open), &registry)?;
    let shared_data = quota_config.redis.clone().map(quota::RedisKeyvalue::new);
    let ports = SandboxPorts {
        limiter: Some(Arc::clone(&rates) as _),
        keyvalue: shared_data.map(|data| Arc::new(data) as _),
        outbound: Some(Arc::new(caller)),
    };
    let sandbox = Sandbox::with_ports(sandbox_config, Arc::clone(&clock), ports)?;
    registry.register(Box::new(sandbox.metrics()))?;

    // From before the first load, so that no change falls between the two.
    let (reloads, reload_rx) = mpsc::channel(RELOAD_QUEUE);
    let files = match config.policies.watch && config.policies.dir.is_dir() {
        true => Some(
            FileWatch::start(&config.policies.dir, reloads.clone())
                .with_context(|| "policies.dir cannot be watched; set policies.watch = false")?,
        ),
        false => None,
    };

    let loader = plugins::Loader::open(
        Arc::clone(&sandbox),
        Arc::clone(&store),
        config.data.dir.join("plugins"),
        config.plugins.cache_bytes(),
        (config.plugins.child_limits(), config.plugins.compilers),
    )
    .with_context(|| "data.dir: the folder of compiled plugins cannot be used")?;
    let signers = config.plugins.signers().with_context(|| "plugins.public_keys")?;

    let (snapshot_tx, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let (catalog_tx, catalog) = watch::channel(Arc::new(Catalog::default()));
    let (reload_tx, reload) = watch::channel(Arc::new(ReloadStatus::default()));
    registry.register(Box::new(SnapshotMetrics::new(snapshots.clone())?))?;
    let directory = store.directory();
    let first = Arc::clone(&directory.borrow());
    let (applied_tx, applied) = watch::channel(0);
    let problems = |problems: Vec<_>| anyhow!(publish::lines(&config.policies.dir, &problems));
    let mut preparer = Preparer::new(config.policies.dir.clone(), Arc::clone(&sandbox));
    let prepared = preparer.prepare().await.map_err(problems)?;
    let publisher = Publisher::start(
        config.policies.dir.clone(),
        prepared,
        config.edge.base_domain.clone(),
        sandbox,
        Arc::clone(&clock),
        first,
        Channels {
            snapshot: snapshot_tx,
            catalog: catalog_tx,
            reload: reload_tx,
            applied: applied_tx,
            plugins: Some(Arc::clone(&loader)),
        },
    )
    .await
    .map_err(problems)?;
    store.set_applied(applied);
    check_default_residency(&config, catalog.borrow().groups.keys())?;
    let catalog = control::numbered(Arc::clone(&store), catalog).await;

    // Where quotas are dispatched in this process, it has to be the only one that does.
    let dispatch = match quota_config.redis {
        None => Some(store.claim_dispatch().await?),
        Some(_) => None,
    };
    let sessions_config = quota::SessionsConfig {
        sessions_max: config.quota.sessions_max,
        wait_ms_max: config.quota.admit_wait_ms_max,
        redis: quota_config.redis.clone(),
    };
    let authority: Arc<dyn model::ledger::Authority> = Arc::clone(&store) as _;
    let quota = quota::Quota::start(quota_config, authority, Arc::clone(&clock), &registry).await?;

    let guards: Arc<dyn model::sessions::GuardStore> = Arc::clone(&store) as _;
    let sessions =
        quota::LiveSessions::start(sessions_config, guards, Arc::clone(&clock), &registry)?;

    let control_listener = TcpListener::bind(config.control.listen)
        .await
        .with_context(|| format!("control.listen: {} cannot be used", config.control.listen))?;
    let control_addr = control_listener.local_addr()?;
    let gate: Arc<dyn model::gate::Gate> = Arc::clone(&quota) as _;
    let levels = Arc::new(Levels::open(&config.data.dir.join("levels"), &registry)?);
    // After the journal, which only one process can have: an earlier run is over.
    let storage = Reservations::open(
        Arc::clone(&store),
        catalog.clone(),
        reservations::edge_id(&config.data.dir)?,
        Arc::clone(&clock),
        config.quota.admit_wait_ms_max,
        &registry,
    )
    .await?;
    let storage = Arc::new(storage);
    let api = Arc::new(ApiHost::closed(tokio::runtime::Handle::current()));
    let ports = proxy::Ports {
        snapshots: snapshots.clone(),
        gate,
        limiter: Arc::clone(&rates) as _,
        clock: Arc::clone(&clock),
        levels: Arc::clone(&levels) as _,
        storage: Arc::clone(&storage) as _,
        sessions: Arc::clone(&sessions) as _,
        api: config.edge.api_host.then(|| Arc::clone(&api) as _),
    };
    let notify = config.control.notify().map_err(|(key, why)| anyhow!("{key}: {why}"))?;
    let proxy = proxy::Proxy::start(proxy_config(&config), ports, &registry)?;
    let active_users = active_users::keep(
        &registry,
        Arc::clone(&store),
        snapshots.clone(),
        proxy.shown_tenants(),
    )?;
    lease_series::register(
        &registry,
        Arc::clone(&quota),
        Arc::clone(&store),
        snapshots.clone(),
        proxy.shown_tenants(),
    )?;

    if admin_token.as_ref().is_some_and(|token| token.expose().len() < ADMIN_TOKEN_CHARS_MIN) {
        let variable = crate::config::ENV_ADMIN_TOKEN;
        tracing::warn!(
            "{variable} has fewer than {ADMIN_TOKEN_CHARS_MIN} characters: it can be guessed"
        );
    }
    // The last step that may fail: a token minted by a start that then fails would be lost.
    let admin = store.ensure_admin_token(admin_token).await?;
    let minted_admin_token = match admin.source {
        AdminTokenSource::Minted(token) => Some(token),
        AdminTokenSource::Given | AdminTokenSource::Stored => None,
    };

    let (ready, ready_rx) = watch::channel(Readiness::Ready);
    let deps = control::Deps {
        store: Arc::clone(&store),
        usage: Arc::clone(&quota) as _,
        sessions,
        catalog,
        reload: reload.clone(),
        ready: ready_rx,
        metrics: Arc::new(move || metrics_page(&registry)),
        admin_token: admin.token,
        base_domain: config.edge.base_domain.as_str().into(),
        default_residency: config.control.default_residency.clone(),
        trial_end: config.control.trial_end,
        notify,
        plugins: Arc::new(plugins::Desk::new(loader, signers, snapshots.clone())),
        clock,
    };
    api.open(control::router(deps.clone()));
    let jobs = control::Jobs::start(deps.clone());
    let (stop_control, control_stopped) = oneshot::channel::<()>();
    let control_task = tokio::spawn(control::serve(control_listener, deps, async {
        let _dropped = control_stopped.await;
    }));

    let (stop_levels, levels_stopped) = oneshot::channel();
    let level_store = Arc::clone(&store);
    let levels = tokio::spawn(async move { levels.run(&level_store, levels_stopped).await });

    let drain_ms = config.edge.drain_timeout_ms;
    let (stop_reservations, reservations_stopped) = oneshot::channel();
    let reservations =
        tokio::spawn(async move { storage.run(reservations_stopped, drain_ms).await });

    let (stop_publisher, stopped) = oneshot::channel();
    let publisher =
        tokio::spawn(publish::task::run(publisher, preparer, directory, reload_rx, files, stopped));

    Ok(Running {
        edge: proxy.addrs().to_vec(),
        edge_tls: proxy.tls_addrs().to_vec(),
        control: control_addr,
        store,
        minted_admin_token,
        proxy,
        quota,
        dispatch,
        drain_timeout: Duration::from_millis(config.edge.drain_timeout_ms),
        reloads,
        snapshots,
        reload_status: reload,
        stop_levels,
        levels,
        stop_reservations,
        reservations,
        stop_publisher,
        publisher,
        stop_control,
        control_task,
        jobs,
        active_users,
        ready,
    })
}

impl Running {
    /// Asks for a reload of the declarations and the certificates.
    pub fn reload(&self) {
        self.proxy.reload_certificates();
        let _one_waits_already = self.reloads.try_send(());
    }

    /// Waits until a part that should run for ever ends; gives its name.
    pub async fn part_ended(&mut self) -> &'static str {
        tokio::select! {
            _ = &mut self.publisher => "publisher",
            _ = &mut self.control_task => "control API",
            _ = &mut self.levels => "keeper of levels",
            _ = &mut self.reservations => "keeper of reservations",
        }
    }

    /// Stops: no new connections, exchanges in flight finish within the drain time,
    /// leases are sealed, the store is closed.
    ///
    /// # Errors
    /// What could not be finished; the quota promise holds all the same.
    pub async fn stop(self) -> Result<()> {
        self.ready.send_replace(Readiness::Draining);
        self.proxy.drain(self.drain_timeout).await;
        // No response reports a level any more, and no request holds room.
        let _gone = self.stop_levels.send(());
        let levels = self.levels.await;
        let _gone = self.stop_reservations.send(());
        let reservations = self.reservations.await;
        self.quota.shutdown().await;
        drop(self.dispatch);
        let _gone = self.stop_publisher.send(());
        let _gone = self.stop_control.send(());
        let publisher = self.publisher.await;
        let control = self.control_task.await;
        self.jobs.stop().await;
        self.active_users.stop().await;
        self.store.close().await;
        levels.context("the keeper of levels")?;
        reservations.context("the keeper of reservations")?;
        publisher.context("the publisher")?;
        control.context("the control API")?.context("the control API")
    }
}

/// Refuses a default for new tenants that no region could serve.
pub(crate) fn check_default_residency<'a>(
    config: &Config,
    groups: impl Iterator<Item = &'a String>,
) -> Result<()> {
    let Some(group) = &config.control.default_residency else { return Ok(()) };
    let groups: Vec<_> = groups.map(String::as_str).collect();
    if groups.contains(&group.as_str()) {
        return Ok(());
    }
    let declared = groups.join(", ");
    bail!("control.default_residency: no residency group `{group}`; there are: {declared}")
}

/// The settings of the quotas, with the one set of connections to Redis.
fn quota_config(config: &Config) -> anyhow::Result<quota::QuotaConfig> {
    let alone = quota::QuotaConfig::new(config.data.dir.join("leases"));
    let redis = config.quota.redis().map_err(|(key, reason)| anyhow!("{key}: {reason}"))?;
    let base = match redis {
        None => alone,
        Some(redis) => {
            let edge = match config.quota.edge.clone() {
                Some(name) => name,
                None => edge_name(&config.data.dir)?,
            };
            let limit = Duration::from_millis(config.quota.redis_timeout_ms);
            let servers = quota::RedisServers::connect(redis, limit)?;
            quota::QuotaConfig { edge, ..alone.with_redis(servers) }
        }
    };
    Ok(quota::QuotaConfig { admit_wait_ms_max: config.quota.admit_wait_ms_max, ..base })
}

/// A name that no other edge has, and that a restart finds again: this machine's and the
/// data folder's.
fn edge_name(data: &Path) -> anyhow::Result<String> {
    let host = rustix::system::uname();
    let data = std::path::absolute(data).context("data.dir cannot be made absolute")?;
    Ok(format!("{}:{}", host.nodename().to_string_lossy(), data.display()))
}

fn proxy_config(config: &Config) -> proxy::ProxyConfig {
    let edge = &config.edge;
    proxy::ProxyConfig {
        listen: edge.listen.clone(),
        tls: edge.tls.clone(),
        workers: edge.workers,
        jwt: edge.jwt.clone(),
        limits: edge.limits.clone(),
        upstreams: edge.upstreams.clone(),
        metrics: edge.metrics.clone(),
        ofrep: edge.ofrep,
        client_country_header: edge.client_country_header.clone(),
        trusted_proxies: edge.trusted_proxies.clone(),
    }
}

fn metrics_page(registry: &Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics cannot be written");
        String::new()
    })
}
