//! `leanvibe:policy/rate-limit`: buckets that the operator defines, in the policy's
//! declaration.
//!
//! The policy says which limit, which key and how much; what is counted is apart per tenant,
//! policy, limit and key. Invariant: without a grant the answer is `access-denied`, whatever
//! the limit's name.

use std::sync::Arc;

use model::limiter::{NamedKey, Taken, Verdict};

use crate::{
    bindings::leanvibe::policy::rate_limit::{Error, Host, Outcome},
    limits::Capability,
    state::State,
};

/// Longest key, in bytes: an address, a subject, or a digest of anything longer.
const KEY_BYTES_MAX: usize = 256;

impl Host for State {
    async fn take(
        &mut self,
        limit: String,
        key: String,
        cost: u64,
    ) -> wasmtime::Result<Result<Outcome, Error>> {
        self.charge()?;
        let taken = match self.taken(&limit, &key, cost) {
            Ok(taken) => taken,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(match taken {
            Taken::Now(verdict) => outcome(&verdict),
            Taken::Later(verdict) => outcome(&verdict.await),
        }))
    }
}

impl State {
    fn taken(&self, limit: &str, key: &str, cost: u64) -> Result<Taken, Error> {
        let context = &self.context;
        if !context.grants.has(Capability::RateLimit) {
            return Err(Error::AccessDenied);
        }
        let rate = *context.rate_limits.get(limit).ok_or(Error::NoSuchLimit)?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let advice = format!("the key must have 1 to {KEY_BYTES_MAX} bytes");
            return Err(Error::Other(Some(advice)));
        }
        // Outside a hook there is no tenant, and in a tool there may be no limiter.
        let limiter = context.services.limiter.as_ref().ok_or(Error::Unavailable)?;
        let call = self.call.as_ref().ok_or(Error::Unavailable)?;
        let named = NamedKey { policy: &context.policy, limit, key, rate };
        let bucket = limiter.of_key(&call.exchange.tenant, named);
        // More than 2^32 is more than any burst.
        Ok(Arc::clone(&bucket).take(u32::try_from(cost).unwrap_or(u32::MAX)))
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    let ms = if verdict.allowed { verdict.full_ms } else { verdict.wait_ms };
    Outcome {
        allowed: verdict.allowed,
        limit: u64::from(verdict.rate.burst()),
        remaining: u64::from(verdict.remaining),
        resets_in_seconds: ms.div_ceil(1000),
    }
}
