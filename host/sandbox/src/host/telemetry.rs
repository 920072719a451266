//! `leanvibe:policy/telemetry`: log lines and metrics of a policy.
//!
//! Lines go to `tracing` under the target `policy`, with tenant, policy and request id
//! added. Invariant: what a guest writes is bounded per call and cannot start a line of
//! its own or move a terminal's cursor.

use crate::{
    bindings::leanvibe::policy::telemetry::{Host, Level},
    limits::Capability,
    state::State,
    text::printable,
};

/// The `tracing` target of every line that a policy writes.
pub(crate) const TARGET: &str = "policy";

/// One event at a level that is only known at run time.
macro_rules! event {
    ($level:expr, $($field:tt)*) => {
        match $level {
            Level::Trace => tracing::trace!(target: TARGET, $($field)*),
            Level::Debug => tracing::debug!(target: TARGET, $($field)*),
            Level::Info => tracing::info!(target: TARGET, $($field)*),
            Level::Warn => tracing::warn!(target: TARGET, $($field)*),
            Level::Error | Level::Critical => tracing::error!(target: TARGET, $($field)*),
        }
    };
}

impl State {
    fn telemetry_granted(&mut self) -> wasmtime::Result<bool> {
        self.charge()?;
        Ok(self.context.grants.has(Capability::Telemetry))
    }

    fn tenant_slug(&self) -> &str {
        self.call.as_ref().map_or("", |call| call.exchange.tenant.record.tenant.slug.as_str())
    }
}

impl Host for State {
    fn log(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if !self.telemetry_granted()?
            || !enabled(level)
            || !self.budget.log_line(message.len() + bytes)
        {
            return Ok(());
        }
        let request = self.call.as_ref().map_or("", |call| &*call.exchange.id);
        event!(
            level,
            tenant = self.tenant_slug(),
            policy = &*self.context.policy,
            request_id = request,
            fields = %joined(&fields),
            "{}",
            printable(&message)
        );
        Ok(())
    }

    fn log_enabled(&mut self, level: Level) -> wasmtime::Result<bool> {
        Ok(self.telemetry_granted()?
            && enabled(level)
            && self.budget.log_lines > 0
            && self.budget.log_bytes > 0)
    }

    fn count(
        &mut self,
        metric: String,
        value: u64,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        if self.telemetry_granted()? {
            let metrics = &self.context.services.metrics;
            metrics.count(&self.context.policy, self.tenant_slug(), &metric, &labels, value);
        }
        Ok(())
    }

    fn observe(
        &mut self,
        metric: String,
        value: f64,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        if self.telemetry_granted()? {
            let metrics = &self.context.services.metrics;
            metrics.observe(&self.context.policy, self.tenant_slug(), &metric, &labels, value);
        }
        Ok(())
    }
}

fn enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: TARGET, tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: TARGET, tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: TARGET, tracing::Level::WARN),
        Level::Error | Level::Critical => tracing::enabled!(target: TARGET, tracing::Level::ERROR),
    }
}

/// `name=value` pairs; the names are the guest's, so they cannot be fields of their own.
fn joined(fields: &[(String, String)]) -> String {
    let pairs =
        fields.iter().map(|(name, value)| format!("{}={}", printable(name), printable(value)));
    pairs.collect::<Vec<_>>().join(" ")
}
