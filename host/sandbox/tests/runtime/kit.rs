//! What the tests share: guests from WebAssembly text, an exchange, and calls.
//!
//! A guest is a core module that follows the canonical ABI by hand and is lifted through
//! its component type, as a toolchain's output would be. Layout of a hook's result at
//! `p`: 0 = ok/err, 4 = decision, 8 = its payload (`err`: 4 = text, 8 = its length).

use std::{collections::BTreeMap, future::Future, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use model::{
    clock::{Clock, ManualClock, UnixMs},
    directory::TenantRecord,
    gate::QuotaStatus,
    plan::{ChargeOn, Plan},
    policy::{
        BodyDecision, Chain, Decision, Plugin, PolicyExchange, PolicyFailure, RequestHead,
        ResolvedBy, ResponseDecision, ResponseHead,
    },
    quota::{Metric, Quotas},
    region::{Region, ResidencyGroup},
    snapshot::TenantEntry,
    tenant::{Status, Tenant, TenantId},
    window::Window,
};
use sandbox::{BindingSpec, Grants, Instances, Limits, LoadError, Sandbox, SandboxConfig};
use serde_json::json;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../../wit/policy.wit");
const NOW: UnixMs = UnixMs(1_700_000_000_000);

/// Memory, and an allocator that only moves forward, above 16 KiB.
const PRELUDE: &str = r#"
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 16384))
  (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
"#;

/// A core module with its component type: imports first, then the prelude and the rest.
pub(crate) fn typed_module(imports: &str, rest: &str) -> Vec<u8> {
    typed(&format!("(module {imports} {PRELUDE} {rest})"))
}

/// A whole module's text with the component type of the hooks it exports.
pub(crate) fn typed(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let exports: String = ["lifecycle", "request-hook", "request-body-hook", "response-hook"]
        .into_iter()
        .filter(|hook| text.contains(&format!("leanvibe:policy/{hook}@")))
        .map(|hook| format!("export leanvibe:policy/{hook}@0.1.0;"))
        .collect();
    let world = format!(
        "package test:guest; world guest {{ include leanvibe:policy/capabilities@0.1.0; {exports} }}"
    );
    let mut resolve = Resolve::default();
    resolve.push_source("policy.wit", WIT).expect("the contract parses");
    let package = resolve.push_source("guest.wit", &world).expect("the world parses");
    let world = resolve.select_world(&[package], Some("guest")).expect("the world is there");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the type is embedded");
    module
}

/// A guest whose request hook is `body`, which leaves a result's address on the stack.
pub(crate) fn request_guest(imports: &str, body: &str) -> Vec<u8> {
    request_guest_with(imports, "", body)
}

/// The same with text at 200.
pub(crate) fn request_guest_with(imports: &str, text: &str, body: &str) -> Vec<u8> {
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    let rest =
        format!(r#"(data (i32.const 200) "{text}") (func (export "{hook}") (result i32) {body})"#);
    typed_module(imports, &rest)
}

/// The same for a response hook.
pub(crate) fn response_guest(imports: &str, body: &str) -> Vec<u8> {
    let hook = "leanvibe:policy/response-hook@0.1.0#on-response";
    typed_module(imports, &format!(r#"(func (export "{hook}") (result i32) {body})"#))
}

/// A sandbox that is small, so that tests can start many.
pub(crate) fn sandbox_with(change: impl FnOnce(&mut SandboxConfig)) -> Arc<Sandbox> {
    let mut config = SandboxConfig { slots: 8, ..SandboxConfig::default() };
    change(&mut config);
    Sandbox::new(config, clock()).expect("the engine starts")
}

pub(crate) fn sandbox() -> Arc<Sandbox> {
    sandbox_with(|_| {})
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(NOW))
}

/// All grants, small limits.
pub(crate) fn spec() -> BindingSpec {
    BindingSpec {
        policy: "test".into(),
        config: json!({ "answer": 42, "word": "yes" }),
        grants: Grants::from_iter(sandbox::Capability::ALL),
        limits: Limits::default(),
        instances: Instances::Fresh,
        flags: Arc::default(),
        rate_limits: Arc::default(),
        origins: Arc::default(),
    }
}

/// Runs a future on a worker like the edge's.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Loads and binds; panics when either is refused.
pub(crate) fn policy(sandbox: &Arc<Sandbox>, wasm: &[u8], spec: BindingSpec) -> Arc<dyn Plugin> {
    try_policy(sandbox, wasm, spec).expect("the plugin is accepted")
}

pub(crate) fn try_policy(
    sandbox: &Arc<Sandbox>,
    wasm: &[u8],
    spec: BindingSpec,
) -> Result<Arc<dyn Plugin>, LoadError> {
    let version = sandbox.load(wasm)?;
    run(sandbox.bind(&version, spec))
}

/// Calls the request hook for a tenant.
pub(crate) fn on_request(
    plugin: &Arc<dyn Plugin>,
    tenant: u128,
) -> (Box<PolicyExchange>, Result<Decision, PolicyFailure>) {
    run(plugin.on_request(exchange(tenant)))
}

/// Calls the request-body hook.
pub(crate) fn on_body(
    plugin: &Arc<dyn Plugin>,
    body: &[u8],
) -> (Box<PolicyExchange>, Result<BodyDecision, PolicyFailure>) {
    run(plugin.on_request_body(exchange(1), body.to_vec().into()))
}

/// Calls the response hook.
pub(crate) fn on_response(
    plugin: &Arc<dyn Plugin>,
) -> (Box<PolicyExchange>, Result<ResponseDecision, PolicyFailure>) {
    let mut exchange = exchange(1);
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("origin"));
    exchange.response = Some(ResponseHead {
        status: StatusCode::OK,
        headers,
        served_by: Some(("eu-central-1".into(), "default".into())),
    });
    run(plugin.on_response(exchange))
}

/// The status of a `respond` decision.
pub(crate) fn status(outcome: &Result<Decision, PolicyFailure>) -> u16 {
    match outcome {
        Ok(Decision::Respond(response)) => response.status.as_u16(),
        other => panic!("no response but {other:?}"),
    }
}

/// The exchange of a request with a few fields.
pub(crate) fn exchange(tenant: u128) -> Box<PolicyExchange> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "text/html"), ("x-list", "a"), ("x-list", "b")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.insert("x-bytes", HeaderValue::from_bytes(&[0xff]).expect("obs-text"));
    let window = Window::of(Metric::ApiCalls, NOW, Default::default()).expect("a window");
    Box::new(PolicyExchange {
        request: RequestHead {
            method: Method::GET,
            scheme: "http",
            authority: "acme.localhost:8080".into(),
            path_and_query: "/a/b?c=d".parse().expect("a path"),
            headers,
        },
        response: None,
        tenant: tenant_entry(tenant),
        resolved_by: ResolvedBy::Subdomain,
        subject: None,
        claims: Arc::default(),
        quotas: [QuotaStatus {
            metric: Metric::ApiCalls,
            limit: 1000,
            window,
            remaining: 7,
            unlimited: false,
            pooled: false,
        }]
        .into_iter()
        .collect(),
        client_ip: IpAddr::from([192, 0, 2, 1]),
        client_country: Some(*b"DE"),
        id: "0192f3".into(),
        received_at: NOW,
    })
}

fn tenant_entry(number: u128) -> Arc<TenantEntry> {
    let quotas = Quotas {
        max_users: 1,
        max_projects: 1,
        max_api_calls_per_month: 1000,
        max_storage_mb: 1,
        max_ai_requests_per_day: 1,
        max_concurrent_sessions: 1,
    };
    let plan = Plan {
        name: "team".into(),
        quotas,
        features: BTreeMap::from([("sso".into(), true)]),
        offered: true,
        charge_on: ChargeOn::Answered,
        chain: Vec::new(),
        price: None,
        plugins: Default::default(),
        trial_quotas: Default::default(),
        on_authority_loss: Default::default(),
        rate: None,
    };
    let region = Arc::new(Region { name: "eu-central-1".into(), backends: BTreeMap::new() });
    let group = ResidencyGroup { name: "eu".into(), regions: vec![Arc::clone(&region)] };
    Arc::new(TenantEntry::new(
        Arc::new(TenantRecord {
            tenant: tenant_of(number),
            secrets: BTreeMap::new(),
            pools: Default::default(),
        }),
        Arc::new(plan),
        Arc::new(group),
        region,
        Arc::new(Chain::default()),
        Vec::new(),
    ))
}

fn tenant_of(number: u128) -> Tenant {
    Tenant {
        id: TenantId(uuid::Uuid::from_u128(number)),
        slug: format!("tenant-{number}").parse().expect("a slug"),
        organization_name: "Test".into(),
        display_name: "Test".into(),
        admin_email: "admin@test.example".into(),
        plan: "team".into(),
        data_residency: "eu".into(),
        home_region: None,
        gdpr: Default::default(),
        parent: None,
        status: Status::Active,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: BTreeMap::new(),
        dated_quotas: BTreeMap::new(),
        quota_anchor: Default::default(),
        attributes: BTreeMap::from([("tier".into(), "gold".into())]),
        created_at: NOW,
        version: 1,
    }
}
