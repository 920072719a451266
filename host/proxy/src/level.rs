//! What an upstream's answer says about its tenant's levels.
//!
//! Called once per answer, before the response policies: a plugin can neither see nor
//! forge what is counted. Costs nothing on a route without rules. Invariant: a change is
//! kept before any of the answer goes on, so a client that saw its effect finds it counted.

use model::{
    level::{BadDelta, LevelChange},
    route::Route,
};

use crate::{
    exchange::Exchange,
    forward::Answered,
    reserve::{self, Holds},
    tenant::Caller,
};

/// Between steps 9 and 10 of the walk.
pub(crate) fn report(
    exchange: &Exchange,
    caller: &Caller,
    route: &Route,
    holds: &Holds,
    answer: &mut Answered,
) {
    reserve::answered(holds, answer.status);
    for rule in &route.meters {
        let metric = rule.metric;
        let outcome = match rule.report(answer.status, &answer.headers) {
            Ok(None) => continue,
            // Counted when the room is settled, in the place of what was sent.
            Ok(Some(delta)) if reserve::reported(holds, metric, delta) => "settled",
            Ok(Some(0)) => continue,
            Ok(Some(delta)) => {
                let change = LevelChange { tenant: caller.entry.id(), metric, delta };
                if exchange.worker.levels.record(change) { "recorded" } else { "lost" }
            }
            Err(BadDelta) => "malformed",
        };
        if !matches!(outcome, "recorded" | "settled") {
            tracing::warn!(
                tenant = caller.entry.record.tenant.slug.as_str(),
                route = &*route.name,
                metric = metric.as_str(),
                request_id = exchange.id_text(),
                outcome,
                "a reported level is not counted"
            );
        }
        exchange.worker.series.level_report(metric, outcome);
    }
    for name in route.meters.iter().filter_map(|rule| rule.stripped()) {
        answer.headers.remove(name);
    }
}
