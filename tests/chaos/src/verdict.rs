//! The end of a run: is all of every quota usable, were the refusals true, do the accounts
//! add up. And the table.

use std::{fmt::Write as _, time::Duration};

use model::{quota::Metric, window::Window};

use crate::{
    admin,
    answers::Answers,
    authority::Authority,
    limits::Limits,
    load,
    perform::{Loss, Losses, Stage},
    stored,
    tenants::TENANTS,
    time,
    truth::Truth,
};

/// What one lost machine may take with it, in percent of a quota: two open tranches.
const LOSS_PERCENT: u64 = 2;
/// And at least, in tokens: two tranches of the smallest size.
const LOSS_MIN: u64 = 16;

/// How much of a quota may be gone unused in a window.
#[must_use]
pub fn waste_bound(limit: u64, window: Window, losses: &Losses) -> u64 {
    let machines = losses.within(window, Loss::Machine);
    let lost = (limit * LOSS_PERCENT / 100).max(LOSS_MIN);
    // Of a killed edge, whatever was on its connections may have been charged and not sent.
    (losses.within(window, Loss::Killed) + machines) * load::CONNECTIONS + machines * lost
}

/// The accounts of the windows of now that are used less than they should be, as lines;
/// without `losses` as if nothing had been lost.
#[must_use]
pub fn unused(truth: &Truth, limits: &Limits, losses: Option<&Losses>) -> Vec<String> {
    let mut lines = Vec::new();
    for (tenant, metric, window) in accounts_now() {
        let limit = if metric == Metric::ApiCalls {
            limits.now(tenant)
        } else {
            limits.highest(tenant, metric, window)
        };
        let charged = truth.count(tenant, metric, window).charged();
        let bound = losses.map_or(0, |losses| waste_bound(limit, window, losses));
        // An account whose limit the load cannot reach says nothing.
        if charged + bound < limit && reachable(tenant, metric) {
            let name = TENANTS.get(tenant).map_or("", |tenant| tenant.name);
            lines.push(format!(
                "{name} {}: {charged} of {limit} were usable; {} missing, {bound} allowed",
                metric.as_str(),
                limit - charged
            ));
        }
    }
    lines
}

/// An AI-heavy tenant stops at its AI quota, but its plain calls go on to the other one.
fn reachable(tenant: usize, metric: Metric) -> bool {
    TENANTS.get(tenant).is_some_and(|tenant| tenant.watched().contains(&metric))
}

fn accounts_now() -> impl Iterator<Item = (usize, Metric, Window)> {
    let now = time::now();
    TENANTS.iter().enumerate().flat_map(move |(index, tenant)| {
        let of = move |metric: &Metric| {
            Some((index, *metric, Window::of(*metric, now, model::anchor::Anchor::default())?))
        };
        tenant.watched().iter().filter_map(of)
    })
}

/// The checks that need the whole run.
pub fn check(stage: &Stage, answers: &Answers) {
    for line in unused(&stage.truth, &stage.limits, Some(&stage.losses)) {
        stage.violations.add(format!("UNUSABLE: {line}"));
    }
    for line in stage.authority.audit() {
        stage.violations.add(format!("AUDIT: {line}"));
    }
    match stage.edges.controls().next().map(admin::audit) {
        Some(Ok(found)) => {
            found.iter().for_each(|line| stage.violations.add(format!("AUDIT: {line}")));
        }
        Some(Err(error)) => stage.violations.add(format!("the audit failed: {error:#}")),
        None => {}
    }
    check_storage(stage);
    check_windows(stage);
    check_books(stage);
    let history = stage.authority.history();
    for denied in answers.kept() {
        let name = TENANTS.get(denied.tenant).map_or("", |tenant| tenant.name);
        if !history.justifies(name, denied.metric, denied.at) {
            let at = denied.at.rfc3339_exact();
            let metric = denied.metric.as_str();
            let line = format!("FALSE 429: {name} {metric} at {at}: the authority had tokens left");
            stage.violations.once(&format!("false {name} {metric}"), line);
        }
    }
}

/// Each window by itself: what was taken just before its start may arrive just after.
fn check_windows(stage: &Stage) {
    let late = load::CONNECTIONS * stage.edges.count() as u64;
    for (index, tenant) in TENANTS.iter().enumerate() {
        for &metric in tenant.watched() {
            for (number, window) in stage.truth.windows(index, metric).into_iter().enumerate() {
                let charged = stage.truth.count(index, metric, window).charged();
                let limit = stage.limits.highest(index, metric, window);
                if charged > limit + if number == 0 { 0 } else { late } {
                    stage.violations.add(format!(
                        "OVER-ADMISSION: {} {} of {}: {charged} charged, limit {limit}",
                        tenant.name,
                        metric.as_str(),
                        window.start.rfc3339()
                    ));
                }
            }
        }
    }
}

/// What is stored is in the books: as used, or as set aside where nobody knows what became of
/// an upload.
fn check_storage(stage: &Stage) {
    let (bytes, _, _) = stage.truth.stored.figures();
    let (used, reserved) = stage.authority.stored(stored::TENANT);
    if bytes > used + reserved {
        stage.violations.add(format!(
            "AUDIT: {bytes} bytes are stored, {used} and {reserved} set aside in the books"
        ));
    }
}

/// Everything that arrived is in the books: as spent, or, of a lost machine that never said
/// what it spent, as debited. Over all windows, because what was taken just before an end
/// may arrive just after.
fn check_books(stage: &Stage) {
    let books = stage.authority.books();
    for (index, tenant) in TENANTS.iter().enumerate() {
        for &metric in tenant.watched() {
            let windows = stage.truth.windows(index, metric);
            let charged: u64 =
                windows.iter().map(|it| stage.truth.count(index, metric, *it).charged()).sum();
            let silent =
                windows.first().is_some_and(|first| stage.losses.within(*first, Loss::Machine) > 0);
            let of = books.iter().filter(|one| one.is(tenant.name, metric));
            let booked: u64 = of.map(|one| if silent { one.debited } else { one.spent }).sum();
            if charged > booked {
                stage.violations.add(format!(
                    "AUDIT: {} {}: {charged} arrived and only {booked} are in the books",
                    tenant.name,
                    metric.as_str()
                ));
            }
        }
    }
}

/// One line per tenant, metric and window.
#[must_use]
pub fn table(truth: &Truth, limits: &Limits, authority: &Authority) -> String {
    let books = authority.books();
    let mut table = format!(
        "{:<9} {:<11} {:<10} {:>7} {:>9} {:>9} {:>9} {:>8} {:>7}\n",
        "tenant",
        "metric",
        "window",
        "limit",
        "arrivals",
        "refunded",
        "admitted",
        "in books",
        "unused"
    );
    for (index, tenant) in TENANTS.iter().enumerate() {
        for &metric in tenant.watched() {
            for window in truth.windows(index, metric) {
                let count = truth.count(index, metric, window);
                let limit = limits.highest(index, metric, window);
                let start = window.start.rfc3339();
                let mut of = books.iter().filter(|one| one.is(tenant.name, metric));
                let booked = of.find(|one| one.start == window.start);
                let _ = writeln!(
                    table,
                    "{:<9} {:<11} {:<10} {limit:>7} {:>9} {:>9} {:>9} {:>8} {:>7}",
                    tenant.name,
                    metric.as_str(),
                    start.get(..10).unwrap_or(&start),
                    count.arrived,
                    count.refunded,
                    count.charged(),
                    booked.map_or(0, |one| one.spent),
                    limit.saturating_sub(count.charged()),
                );
            }
        }
    }
    table
}

/// `p50 1.2 ms, p99 8.0 ms, worst 250.1 ms`.
#[must_use]
pub fn waits(sorted: &[Duration]) -> String {
    let at = |percent: usize| {
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms", at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::clock::UnixMs;

    use super::*;

    #[test]
    fn only_losses_of_its_own_window_excuse_quota_that_nobody_could_use() {
        let day = |start| Window { start: UnixMs(start), end: UnixMs(start + 86_400_000) };
        let now = time::now().0;
        let (this, other) = (day(now - 1_000), day(now + 10 * 86_400_000));
        let losses = Losses::default();
        assert_eq!(waste_bound(9_000, this, &losses), 0);
        losses.add(Loss::Killed);
        assert_eq!(waste_bound(9_000, this, &losses), load::CONNECTIONS);
        losses.add(Loss::Machine);
        assert_eq!(waste_bound(9_000, this, &losses), 2 * load::CONNECTIONS + 180);
        assert_eq!(waste_bound(40, this, &losses), 2 * load::CONNECTIONS + LOSS_MIN);
        assert_eq!(waste_bound(40, other, &losses), 0);
    }

    #[test]
    fn an_account_that_was_not_used_is_told() {
        let limits = Arc::new(Limits::new());
        let truth = Truth::new(1, Arc::clone(&limits), Arc::default());
        let watched: usize = TENANTS.iter().map(|tenant| tenant.watched().len()).sum();
        assert_eq!(unused(&truth, &limits, None).len(), watched);
    }
}
