//! `storage` and `claims` of a route: what its requests need room for.

use http::Method;
use model::{
    level::{Delta, MeterRule},
    quota::Metric,
    reservation::Reserves,
};
use serde::Deserialize;

use super::{FILE, Problems};

/// Methods that make nothing.
const SAFE: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::TRACE, Method::CONNECT];

/// What of a request is stored.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stored {
    /// Its body.
    Body,
}

/// What a route reserves; what is wrong goes to `problems`.
pub(super) fn read(
    route: usize,
    (storage, claims): (Option<Stored>, Option<Metric>),
    methods: &[Method],
    meters: &[MeterRule],
    problems: &mut Problems,
) -> Vec<Reserves> {
    let mut fault = |key: &str, reason: &str| {
        problems.add(FILE, format!("route[{route}].{key}"), reason);
    };
    let mut reserves = Vec::new();
    if let Some(Stored::Body) = storage {
        reserves.push(Reserves::Body);
        if counts_twice(meters, Metric::Storage) {
            fault("storage", "counts the body beside a [[route.meter]] of storage with `delta`");
        }
    }
    if let Some(metric) = claims {
        reserves.push(Reserves::One(metric));
        if !matches!(metric, Metric::Users | Metric::Projects) {
            fault("claims", "must be users or projects; bytes are `storage = \"body\"`");
        }
        if methods.is_empty() || methods.iter().any(|method| SAFE.contains(method)) {
            fault("claims", "needs `methods`, and only those that make something, like POST");
        }
        if counts_twice(meters, metric) {
            fault("claims", "counts one more beside a [[route.meter]] of it with `delta`");
        }
    }
    reserves
}

/// A report in a field takes the place of what is reserved; a fixed change would come on top.
fn counts_twice(meters: &[MeterRule], metric: Metric) -> bool {
    meters.iter().any(|rule| rule.metric == metric && matches!(rule.delta, Delta::Fixed(_)))
}

#[cfg(test)]
mod tests {
    use model::{quota::Metric, reservation::Reserves};

    use crate::declare::routes::testing::one;

    #[test]
    fn a_route_says_what_its_requests_need_room_for() {
        let reserves = |keys: &str| one(keys).expect(keys).0[0].reserves.clone();
        assert_eq!(reserves(""), []);
        assert_eq!(reserves("storage = \"body\""), [Reserves::Body]);
        let report = "[[route.meter]]\nmetric = \"storage\"\nheader = \"x-bytes\"\n";
        assert_eq!(reserves(&format!("storage = \"body\"\n{report}")), [Reserves::Body]);
        let both = "methods = [\"POST\"]\nclaims = \"projects\"\nstorage = \"body\"";
        assert_eq!(reserves(both), [Reserves::Body, Reserves::One(Metric::Projects)]);
    }

    #[test]
    fn every_rule_that_cannot_work_is_named() {
        let twice = |metric| format!("[[route.meter]]\nmetric = \"{metric}\"\ndelta = 1\n");
        for (keys, key) in [
            (format!("storage = \"body\"\n{}", twice("storage")), "storage"),
            ("claims = \"users\"".to_owned(), "claims"),
            ("claims = \"users\"\nmethods = [\"POST\", \"GET\"]".to_owned(), "claims"),
            ("claims = \"storage\"\nmethods = [\"POST\"]".to_owned(), "claims"),
            ("claims = \"api_calls\"\nmethods = [\"POST\"]".to_owned(), "claims"),
            (format!("claims = \"users\"\nmethods = [\"PUT\"]\n{}", twice("users")), "claims"),
        ] {
            let found = one(&keys).expect_err(&keys);
            let named = found.iter().all(|line| line.starts_with(&format!("route[0].{key}: ")));
            assert!(named && found.len() == 1, "{keys}: {found:?}");
        }
        assert!(one("storage = \"response\"").is_err());
    }
}
