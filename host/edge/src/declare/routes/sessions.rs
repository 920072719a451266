//! `session` of a `[[route]]`, or of all of them: which session requests belong to.

use std::sync::Arc;

use model::{
    route::Route,
    sessions::{IDLE_MS_DEFAULT, SessionRule, SessionSource},
};
use serde::Deserialize;

use super::{FILE, Problems};

/// Shortest idle time in ms (a second): a page loads its parts within it.
const IDLE_MS_MIN: u64 = 1_000;
/// Longest idle time in ms (a day): a session that nobody uses for longer holds its slot
/// for nobody.
const IDLE_MS_MAX: u64 = 86_400_000;

/// `from` of a route whose requests belong to no session.
const NONE: &str = "none";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    from: String,
    idle_ms: Option<u64>,
    evict_oldest: Option<bool>,
    #[serde(default)]
    end: bool,
}

/// The rule at `place` (`session`, or that of a route); what is wrong goes to `problems`.
pub(super) fn read(place: &str, session: Session, problems: &mut Problems) -> Option<SessionRule> {
    let mut fault = |key: &str, reason: String| {
        problems.add(FILE, format!("{place}.{key}"), reason);
    };
    let Session { from, idle_ms, evict_oldest, end } = session;
    if from == NONE {
        if idle_ms.is_some() || evict_oldest.is_some() || end {
            fault("from", "none: goes alone; take the other keys away".to_owned());
        }
        return None;
    }
    if idle_ms.is_some_and(|ms| !(IDLE_MS_MIN..=IDLE_MS_MAX).contains(&ms)) {
        fault("idle_ms", format!("must be from {IDLE_MS_MIN} (a second) to {IDLE_MS_MAX} (a day)"));
    }
    if end && idle_ms.is_some() {
        fault("idle_ms", "goes with sessions that go on; take it away, or `end`".to_owned());
    }
    if end && evict_oldest.is_some() {
        fault("evict_oldest", "goes with sessions that go on; take it away, or `end`".to_owned());
    }
    let source = match SessionSource::parse(&from) {
        Ok(source) => source,
        Err(error) => {
            fault("from", error.to_string());
            return None;
        }
    };
    if idle_ms.is_some() && source == SessionSource::Connection {
        fault("idle_ms", "a connection's session lasts as long as it is open; take it away".into());
    }
    Some(SessionRule {
        source,
        idle_ms: idle_ms.unwrap_or(IDLE_MS_DEFAULT),
        evict_oldest: evict_oldest.unwrap_or(false),
        ends: end,
    })
}

/// A logout of sessions that no route begins ends nothing: a misspelt name.
pub(super) fn check_ends(routes: &[Arc<Route>], problems: &mut Problems) {
    let rules = || routes.iter().map(|route| route.session.as_ref()).enumerate();
    for (route, rule) in rules().filter_map(|(route, rule)| Some((route, rule?))) {
        let begins = |other: &SessionRule| !other.ends && other.source == rule.source;
        if rule.ends && !rules().any(|(_, other)| other.is_some_and(begins)) {
            let reason = "ends sessions that no route begins; write it as on the other routes, \
                          or give one of them a `session` from the same";
            problems.add(FILE, format!("route[{route}].session.from"), reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{route::RouteTable, sessions::SessionSource};

    use crate::declare::routes::testing::load;

    fn one(session: &str) -> Result<RouteTable, Vec<String>> {
        load(&format!("[[route]]\nname = \"app\"\npath = \"/**\"\nsession = {{ {session} }}\n"))
    }

    #[test]
    fn sessions_are_read_with_their_defaults() {
        let routes = one("from = \"cookie:sid\"").expect("routes");
        let rule = routes.0[0].session.clone().expect("a rule");
        assert_eq!(rule.source, SessionSource::Cookie("sid".into()));
        assert_eq!((rule.idle_ms, rule.evict_oldest, rule.ends), (300_000, false, false));
        let routes = one("from = \"header:X-Session\", idle_ms = 60000, evict_oldest = true");
        let rule = routes.expect("routes").0[0].session.clone().expect("a rule");
        assert_eq!((rule.idle_ms, rule.evict_oldest), (60_000, true));
    }

    #[test]
    fn every_bad_session_is_named_with_its_fix() {
        for (session, key, fix) in [
            ("from = \"sid\"", "from", "cookie:NAME"),
            ("from = \"cookie:a b\"", "from", "letters"),
            ("from = \"header:x-tenant-id\"", "from", "field"),
            ("from = \"cookie:sid\", idle_ms = 999", "idle_ms", "from 1000"),
            ("from = \"cookie:sid\", idle_ms = 86400001", "idle_ms", "86400000"),
            ("from = \"connection\", idle_ms = 5000", "idle_ms", "take it away"),
            ("from = \"cookie:sid\", end = true, idle_ms = 5000", "idle_ms", "take it away"),
            ("from = \"cookie:sid\", end = true, evict_oldest = true", "evict_oldest", "take it"),
            ("from = \"cookie:sid\", end = true", "from", "no route begins"),
            ("from = \"none\", idle_ms = 5000", "from", "goes alone"),
        ] {
            let found = one(session).expect_err(session);
            let prefix = format!("route[0].session.{key}: ");
            let told = found.iter().any(|line| line.starts_with(&prefix) && line.contains(fix));
            assert!(told, "{prefix}{fix} in {found:?}");
        }
        assert!(one("from = \"cookie:sid\", idle = 1").is_err(), "unknown keys are refused");
    }

    #[test]
    fn one_session_stands_for_all_routes_unless_a_route_has_its_own() {
        let text = "session = { from = \"cookie:sid\" }\n\
                    [[route]]\nname = \"feed\"\npath = \"/feed\"\nsession = { from = \"none\" }\n\
                    [[route]]\nname = \"ws\"\npath = \"/ws\"\nsession = { from = \"connection\" }\n\
                    [[route]]\nname = \"app\"\npath = \"/**\"\n";
        let routes = load(text).expect("routes");
        let sources: Vec<_> =
            routes.0.iter().map(|route| route.session.clone().map(|rule| rule.source)).collect();
        let cookie = SessionSource::Cookie("sid".into());
        assert_eq!(sources, [None, Some(SessionSource::Connection), Some(cookie)]);
        let end = "session = { from = \"cookie:sid\", end = true }\n\
                   [[route]]\nname = \"app\"\npath = \"/**\"\n";
        let found = load(end).expect_err("a logout everywhere");
        assert!(found.iter().any(|line| line.starts_with("session.end: ")), "{found:?}");
    }

    #[test]
    fn a_logout_ends_what_another_route_begins() {
        let text = "[[route]]\nname = \"logout\"\npath = \"/logout\"\n\
                    session = { from = \"cookie:sid\", end = true }\n\
                    [[route]]\nname = \"app\"\npath = \"/**\"\nsession = { from = \"cookie:sid\" }\n";
        let routes = load(text).expect("routes");
        assert!(routes.0[0].session.as_ref().is_some_and(|rule| rule.ends));
    }
}
