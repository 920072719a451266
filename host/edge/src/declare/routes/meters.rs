//! `[[route.meter]]`: what the responses of a route say about levels.

use http::HeaderName;
use model::{
    headers::is_host_owned,
    level::{DELTA_MAX, Delta, MeterRule, StatusRange},
    quota::Metric,
};
use serde::Deserialize;

use super::{FILE, Problems};

/// Rules of one route (8): more than there are levels, with room for classes of statuses.
const RULES_MAX: usize = 8;
/// Fields that say what a message is, so that none of them can count or be taken away.
const MEANINGFUL: [&str; 6] =
    ["content-type", "content-encoding", "set-cookie", "location", "etag", "cache-control"];
/// The levels that a response may report.
const REPORTED: [Metric; 3] = [Metric::Users, Metric::Projects, Metric::Storage];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meter {
    metric: Metric,
    #[serde(default = "success")]
    on_status: String,
    delta: Option<i64>,
    header: Option<String>,
    strip: Option<bool>,
}

fn success() -> String {
    "2xx".to_owned()
}

/// The rules of the route at `route`; what is wrong goes to `problems`.
pub(super) fn read(route: usize, meters: Vec<Meter>, problems: &mut Problems) -> Vec<MeterRule> {
    let mut add = |key: String, reason: String| {
        problems.add(FILE, format!("route[{route}].meter{key}"), reason);
    };
    if meters.len() > RULES_MAX {
        add(String::new(), format!("at most {RULES_MAX} rules"));
    }
    let mut rules = Vec::with_capacity(meters.len());
    for (i, meter) in meters.into_iter().enumerate() {
        let mut fault = |key: &str, reason: &str| add(format!("[{i}].{key}"), reason.to_owned());
        let metric = meter.metric;
        if !REPORTED.contains(&metric) {
            fault("metric", "must be users, projects or storage");
        }
        let on_status = StatusRange::parse(&meter.on_status);
        if on_status.is_none() {
            fault("on_status", "must be a class like 2xx or a status like 201");
        }
        let delta = delta(&meter, &mut fault);
        if let (Some(on_status), Some(delta)) = (on_status, delta) {
            rules.push(MeterRule { metric, on_status, delta });
        }
    }
    rules
}

fn delta(meter: &Meter, fault: &mut impl FnMut(&str, &str)) -> Option<Delta> {
    match (meter.delta, &meter.header) {
        (Some(delta), None) => {
            if delta == 0 || delta.unsigned_abs() > DELTA_MAX {
                fault("delta", "must be a number other than 0, at most 2^50 either way");
            }
            if meter.strip.is_some() {
                fault("strip", "goes with `header` only");
            }
            Some(Delta::Fixed(delta))
        }
        (None, Some(text)) => {
            let name = HeaderName::try_from(text.as_str());
            let taken = |name: &HeaderName| {
                is_host_owned(name.as_str()) || MEANINGFUL.contains(&name.as_str())
            };
            match name {
                Ok(name) if taken(&name) => {
                    fault("header", "has a meaning of its own; take another field");
                    None
                }
                Ok(name) => Some(Delta::Header { name, strip: meter.strip.unwrap_or(true) }),
                Err(_) => {
                    fault("header", "is no field name");
                    None
                }
            }
        }
        _ => {
            fault("delta", "needs exactly one of `delta`, `header`");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::declare::routes::testing::one;

    #[test]
    fn rules_are_read_with_their_defaults() {
        let routes = one("[[route.meter]]\nmetric = \"users\"\non_status = \"201\"\ndelta = -1\n\
             [[route.meter]]\nmetric = \"storage\"\nheader = \"X-Storage-Delta-Bytes\"\n")
        .expect("routes");
        let meters = &routes.0[0].meters;
        let stripped: Vec<_> = meters.iter().filter_map(|rule| rule.stripped()).collect();
        assert_eq!(meters.len(), 2);
        assert_eq!(stripped, ["x-storage-delta-bytes"], "stripped unless told otherwise");
        assert!(meters[1].on_status.contains(http::StatusCode::CREATED));
    }

    #[test]
    fn every_bad_rule_is_named() {
        for (rule, key) in [
            ("metric = \"api_calls\"\ndelta = 1", "metric"),
            ("metric = \"concurrent_sessions\"\ndelta = 1", "metric"),
            ("metric = \"users\"\ndelta = 0", "delta"),
            ("metric = \"users\"\ndelta = 1125899906842625", "delta"),
            ("metric = \"users\"", "delta"),
            ("metric = \"users\"\ndelta = 1\nheader = \"x-a\"", "delta"),
            ("metric = \"users\"\ndelta = 1\nstrip = true", "strip"),
            ("metric = \"users\"\ndelta = 1\non_status = \"ok\"", "on_status"),
            ("metric = \"users\"\nheader = \"a b\"", "header"),
            ("metric = \"users\"\nheader = \"Content-Length\"", "header"),
            ("metric = \"users\"\nheader = \"x-tenant-users\"", "header"),
            ("metric = \"users\"\nheader = \"set-cookie\"", "header"),
        ] {
            let found = one(&format!("[[route.meter]]\n{rule}\n")).expect_err(rule);
            let named = found.iter().any(|problem| problem.contains(&format!("meter[0].{key}: ")));
            assert!(named, "{key} in {found:?}");
        }
        let many = "[[route.meter]]\nmetric = \"users\"\ndelta = 1\n".repeat(9);
        assert!(one(&many).is_err());
        assert!(one("[[route.meter]]\nmetric = \"users\"\ndelat = 1\n").is_err());
    }
}
