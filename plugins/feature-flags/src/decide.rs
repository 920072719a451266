//! The decision: may the tenant go here, and what does the backend learn.
//!
//! Runs per request. Invariant: after an `Ok(None)` every configured header holds what
//! the edge evaluated, or is gone.

use alloc::{
    format,
    string::{String, ToString},
};

use kit::problem::Problem;

use crate::config::{Config, Flag, Kind, header_value};

/// What the policy reads and changes of a request.
pub trait Request {
    /// The method.
    fn method(&self) -> String;
    /// Normalised path and query.
    fn path_and_query(&self) -> String;
    /// Whether the tenant's plan has a feature.
    fn has_feature(&self, name: &str) -> bool;
    /// Name of the tenant's plan.
    fn plan(&self) -> String;
    /// Evaluates a boolean flag.
    fn boolean(&self, key: &str, default: bool) -> bool;
    /// Evaluates a text flag.
    fn string(&self, key: &str, default: &str) -> String;
    /// Evaluates any flag; values as JSON.
    fn json(&self, key: &str, default: &str) -> String;
    /// Sets a header of the forwarded request; false when the edge refused the value.
    fn set_header(&self, name: &str, value: &str) -> bool;
    /// Takes a header off the forwarded request.
    fn delete_header(&self, name: &str) -> Result<(), String>;
    /// Tells the operator.
    fn warn(&self, message: &str);
}

/// Decides; a problem is the answer to the client.
///
/// # Errors
/// When the edge kept a header that might be forged.
pub fn decide(config: &Config<'_>, request: &impl Request) -> Result<Option<Problem>, String> {
    if let Some(feature) = missing_feature(config, request) {
        return Ok(Some(refusal(feature, &request.plan())));
    }
    for flag in &config.flags {
        let value = evaluate(flag, request);
        if !request.set_header(&flag.header, &value) {
            request.warn(&format!("flag '{}': its value is no header value", flag.key));
            request.delete_header(&flag.header)?;
        }
    }
    Ok(None)
}

fn missing_feature<'c>(config: &'c Config<'_>, request: &impl Request) -> Option<&'c str> {
    if config.gates.is_empty() {
        return None;
    }
    let target = request.path_and_query();
    let path = target.split_once('?').map_or(&*target, |(path, _)| path);
    let mut gates = config.gates.iter().filter(|gate| gate.path.matches(path));
    gates
        .find(|gate| {
            let method = || request.method();
            let meant = gate.methods.is_empty() || gate.methods.iter().any(|m| **m == *method());
            meant && !request.has_feature(&gate.feature)
        })
        .map(|gate| &*gate.feature)
}

fn evaluate(flag: &Flag<'_>, request: &impl Request) -> String {
    match &flag.kind {
        Kind::Boolean(default) => request.boolean(&flag.key, *default).to_string(),
        Kind::String(default) => request.string(&flag.key, default),
        Kind::Json(default) => header_value(&request.json(&flag.key, default)),
    }
}

fn refusal(feature: &str, plan: &str) -> Problem {
    let detail = format!("The plan '{plan}' does not include '{feature}'.");
    Problem::new(403, "feature-not-in-plan", "Feature not in plan", &detail)
        .text("feature", feature)
        .text("plan", plan)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::*;

    #[derive(Default)]
    struct Fake {
        method: &'static str,
        path: &'static str,
        features: &'static [&'static str],
        headers: RefCell<BTreeMap<String, String>>,
        refuses_values: bool,
    }

    impl Request for Fake {
        fn method(&self) -> String {
            self.method.into()
        }
        fn path_and_query(&self) -> String {
            self.path.into()
        }
        fn has_feature(&self, name: &str) -> bool {
            self.features.contains(&name)
        }
        fn plan(&self) -> String {
            "developer".into()
        }
        fn boolean(&self, key: &str, default: bool) -> bool {
            key == "on" || default
        }
        fn string(&self, key: &str, default: &str) -> String {
            if key == "theme" { "dark".into() } else { default.into() }
        }
        fn json(&self, _: &str, default: &str) -> String {
            default.into()
        }
        fn set_header(&self, name: &str, value: &str) -> bool {
            if !self.refuses_values {
                self.headers.borrow_mut().insert(name.into(), value.into());
            }
            !self.refuses_values
        }
        fn delete_header(&self, name: &str) -> Result<(), String> {
            self.headers.borrow_mut().remove(name);
            Ok(())
        }
        fn warn(&self, _: &str) {}
    }

    const GATES: &str = r#"{"gates":[
        {"path":"/api/v1/sso/**","feature":"sso_support"},
        {"path":"/api/v1/sso/saml/**","feature":"saml_support"},
        {"path":"/api/v1/hooks","methods":["POST","PUT"],"feature":"custom_integrations"}]}"#;

    fn refused(request: &Fake) -> Option<String> {
        let config = Config::read(GATES).expect("a config");
        let problem = decide(&config, request).expect("a decision")?;
        assert_eq!(problem.status, 403);
        Some(problem.into_body())
    }

    #[test]
    fn a_path_without_entitlement_is_refused_by_name() {
        let body = refused(&Fake { path: "/api/v1/sso/login?x=1", ..Fake::default() });
        let body = body.expect("a refusal");
        assert!(body.contains("https://leanvibe.ai/problems/feature-not-in-plan"), "{body}");
        assert!(body.contains(r#""feature":"sso_support","plan":"developer""#), "{body}");
    }

    #[test]
    fn every_gate_on_the_way_must_be_passed() {
        let path = "/api/v1/sso/saml/acs";
        let sso = Fake { path, features: &["sso_support"], ..Fake::default() };
        assert!(refused(&sso).expect("a refusal").contains("\"feature\":\"saml_support\""));
        let both = Fake { path, features: &["sso_support", "saml_support"], ..Fake::default() };
        assert_eq!(refused(&both), None);
    }

    #[test]
    fn a_gate_applies_to_its_methods_and_whole_segments() {
        let with = |method, path| Fake { method, path, ..Fake::default() };
        assert!(refused(&with("POST", "/api/v1/hooks?a=/")).is_some());
        assert_eq!(refused(&with("GET", "/api/v1/hooks")), None);
        assert_eq!(refused(&with("GET", "/api/v1/ssox")), None);
    }

    const FLAGS: &str = r#"{"flags":[{"key":"on"},{"key":"off"},
        {"key":"theme","type":"string","default":"light"},
        {"key":"limits","type":"object","default":{"a":1},"header":"x-limits"},
        {"key":"ratio","type":"number","default":0.5}]}"#;

    fn after(request: &Fake) -> BTreeMap<String, String> {
        let config = Config::read(FLAGS).expect("a config");
        assert!(decide(&config, request).expect("a decision").is_none());
        request.headers.borrow().clone()
    }

    #[test]
    fn flags_become_headers_and_replace_what_the_client_sent() {
        let request = Fake::default();
        request.set_header("x-feature-off", "true");
        let want = [
            ("x-feature-off", "false"),
            ("x-feature-on", "true"),
            ("x-feature-ratio", "0.5"),
            ("x-feature-theme", "dark"),
            ("x-limits", r#"{"a":1}"#),
        ];
        assert_eq!(after(&request), want.map(|(n, v)| (n.into(), v.into())).into());
    }

    #[test]
    fn a_value_that_fits_no_header_leaves_no_header() {
        let request = Fake { refuses_values: true, ..Fake::default() };
        request.headers.borrow_mut().insert("x-feature-theme".into(), "forged".into());
        assert_eq!(after(&request), BTreeMap::new());
    }
}
