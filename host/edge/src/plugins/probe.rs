//! A version is tried before it counts: started with its config, and run on sample
//! requests under the limits of live ones.
//!
//! It runs as the tenant that it is for, under a policy name of its own, so that nothing
//! it keeps meets what it keeps later. Invariant: a version that traps, loops or breaks a
//! rule of the host on a sample is refused, with what it logged.

mod samples;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use model::{
    plugin::{PluginRecord, PluginScope, PluginTerms, Refusal, Rehearsed},
    policy::{BodyDecision, Decision, Plugin, PolicyFailure, ResponseDecision, Target},
    problem::FieldError,
    secret,
    snapshot::TenantEntry,
};
use sandbox::{Sandbox, Version};
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;

use self::samples::Sample;
use super::{child::sentence, limits::spec_of};

/// Lines of a probe that its author is shown.
const LINES_MAX: usize = 64;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 300;

/// Tries a version. The tenant is `None` for the operator's plugins.
pub(super) async fn run(
    sandbox: Arc<Sandbox>,
    version: Arc<Version>,
    record: PluginRecord,
    terms: PluginTerms,
    tenant: Option<Arc<TenantEntry>>,
) -> Result<Rehearsed, Refusal> {
    let Some(config) = config(&record, tenant.as_deref())? else {
        let line = "not tried: its config refers to secrets, which only tenants have".to_owned();
        return Ok(Rehearsed { log: vec![line] });
    };
    let mut spec = spec_of(&record, &terms, config, &Arc::default());
    spec.policy = format!("probe/{}", spec.policy).into();
    let tenant = tenant.unwrap_or_else(samples::stand_in);
    let logged = Logged::default();
    let shown = logged.clone();
    // On a thread of its own: the guest may compute until its deadline, and what it logs is
    // its author's.
    let tried = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("policy=trace"))
            .with_writer(move || logged.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .finish();
        io::Result::Ok(tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                let bound = sandbox.bind(&version, spec).await;
                let plugin = bound
                    .map_err(|error| Refusal::new(error.code(), sentence(&error.to_string())))?;
                samples(&*plugin, &tenant).await
            })
        }))
    });
    let tried = tried.await.map_err(io::Error::other).and_then(|tried| tried);
    let outcome = tried.unwrap_or_else(|error| {
        tracing::error!(%error, "a plugin could not be tried");
        let detail = "It could not be tried; try again.";
        Err(Refusal { status: 503, ..Refusal::new("plugin-not-tried", detail) })
    });
    match outcome {
        Ok(mut log) => {
            log.extend(shown.lines());
            log.truncate(LINES_MAX);
            Ok(Rehearsed { log })
        }
        Err(mut refusal) => {
            refusal.log.extend(shown.lines());
            refusal.log.truncate(LINES_MAX);
            Err(refusal)
        }
    }
}

/// The config with the tenant's secrets in it; `None` when it refers to secrets of nobody.
fn config(
    record: &PluginRecord,
    tenant: Option<&TenantEntry>,
) -> Result<Option<Map<String, Value>>, Refusal> {
    let mut config = Value::Object(record.settings.config.clone());
    let none = Default::default();
    let secrets = tenant.map_or(&none, |tenant| &tenant.record.secrets);
    match secret::resolve_references(&mut config, secrets) {
        Err(name) if matches!(record.scope, PluginScope::Tenant(_)) => {
            let detail = format!("refers to the secret `{name}`, which the tenant does not have");
            let errors = vec![FieldError { field: "config".to_owned(), detail }];
            let refusal = Refusal::new("plugin-rejects-config", "Its config does not hold.");
            Err(Refusal { errors, ..refusal })
        }
        Err(_) => Ok(None),
        Ok(_) => match config {
            Value::Object(config) => Ok(Some(config)),
            _ => Err(Refusal::new("plugin-rejects-config", "A config may not be a secret.")),
        },
    }
}

/// Runs every sample; a line each.
async fn samples(plugin: &dyn Plugin, tenant: &Arc<TenantEntry>) -> Result<Vec<String>, Refusal> {
    let mut log = Vec::new();
    for sample in samples::ALL {
        let outcome = one(plugin, sample, tenant).await;
        match outcome {
            Ok(decided) => log.push(cut(&format!("{sample}: {decided}"))),
            // Its own word on a request that it has no use for.
            Err(PolicyFailure::Reported(text)) => {
                log.push(cut(&format!("{sample}: it reported: {text}")));
            }
            Err(PolicyFailure::NoSlot) => {
                let detail = "There was no room to try it; try again.";
                return Err(Refusal { status: 503, ..Refusal::new("plugin-not-tried", detail) });
            }
            Err(failure) => {
                let detail = sentence(&format!("on the sample `{sample}`: {failure}"));
                return Err(Refusal { log, ..Refusal::new("plugin-probe-failed", detail) });
            }
        }
    }
    Ok(log)
}

async fn one(
    plugin: &dyn Plugin,
    sample: &Sample,
    tenant: &Arc<TenantEntry>,
) -> Result<String, PolicyFailure> {
    let hooks = plugin.hooks();
    let mut exchange = sample.exchange(tenant);
    let mut decided = Vec::new();
    if hooks.request {
        let (back, decision) = plugin.on_request(exchange).await;
        exchange = back;
        match decision? {
            Decision::Continue => decided.push("continue".to_owned()),
            Decision::Route(target) => decided.push(route(&target)),
            Decision::Respond(answer) => {
                return Ok(format!("respond {}", answer.status.as_u16()));
            }
        }
    }
    if hooks.request_body && !sample.body.is_empty() {
        let (back, decision) = plugin.on_request_body(exchange, sample.body.into()).await;
        exchange = back;
        match decision? {
            BodyDecision::Continue => decided.push("body continue".to_owned()),
            BodyDecision::Replace(_) => decided.push("body replaced".to_owned()),
            BodyDecision::Route(target) => decided.push(route(&target)),
            BodyDecision::Respond(answer) => {
                return Ok(format!("respond {}", answer.status.as_u16()));
            }
        }
    }
    if hooks.response {
        exchange.response = Some(sample.response());
        let (_, decision) = plugin.on_response(exchange).await;
        decided.push(match decision? {
            ResponseDecision::Continue => "response continue".to_owned(),
            ResponseDecision::Respond(answer) => {
                format!("response replaced by {}", answer.status.as_u16())
            }
        });
    }
    Ok(decided.join(", "))
}

fn route(target: &Target) -> String {
    match target {
        Target::Region(name) => format!("route to the region {name}"),
        Target::Backend(name) => format!("route to the backend {name}"),
    }
}

fn cut(line: &str) -> String {
    line.chars().take(LINE_CHARS_MAX).collect()
}

/// What the plugin logged, as text.
#[derive(Clone, Debug, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().take(LINES_MAX).map(|line| cut(line.trim())).collect()
    }
}

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
