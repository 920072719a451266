//! Runs the steps over a request or a response.
//!
//! Runs per request. Invariant: the path is written once, after all its rewrites; a step
//! that the edge refuses fails the policy, and then none of its edits holds.

use alloc::{format, string::String, vec::Vec};

use crate::config::{Config, Step};

/// Header access of a request or a response.
pub trait Headers {
    /// The values of a header, one per field line.
    fn values(&self, name: &str) -> Vec<Vec<u8>>;
    /// Replaces a header by one text value; false when the edge refused.
    fn set(&self, name: &str, value: &str) -> bool;
    /// Replaces a header by several values; false when the edge refused.
    fn set_values(&self, name: &str, values: &[Vec<u8>]) -> bool;
    /// Removes a header; false when the edge refused.
    fn delete(&self, name: &str) -> bool;
}

/// What the steps read and change of a request, beside its headers.
pub trait Request: Headers {
    /// The method.
    fn method(&self) -> String;
    /// Path and query as they will be forwarded.
    fn path_and_query(&self) -> String;
    /// Replaces path and query; false when the edge refused.
    fn set_path_and_query(&self, value: &str) -> bool;
    /// Milliseconds since the Unix epoch.
    fn received_at_ms(&self) -> u64;
}

/// Runs the request steps, then signs.
///
/// # Errors
/// What the edge refused.
pub fn on_request(config: &Config<'_>, request: &impl Request) -> Result<(), String> {
    let mut target = Target::default();
    for step in &config.request {
        match step {
            Step::RewritePrefix(rewrite) => target.rewrite(request, |path| rewrite.apply(path)),
            Step::RewritePath(rewrite) => target.rewrite(request, |path| rewrite.apply(path)),
            step => header_step(step, request)?,
        }
    }
    target.write(request)?;
    let Some(signing) = &config.signing else { return Ok(()) };
    let signature =
        signing.sign(request.received_at_ms(), &request.method(), target.text(request), |name| {
            request.values(name)
        });
    written(request.set(&signing.header, &signature), &signing.header)
}

/// Runs the response steps.
///
/// # Errors
/// What the edge refused.
pub fn on_response(config: &Config<'_>, response: &impl Headers) -> Result<(), String> {
    config.response.iter().try_for_each(|step| header_step(step, response))
}

fn header_step(step: &Step<'_>, headers: &impl Headers) -> Result<(), String> {
    match step {
        Step::SetHeader { name, value } => written(headers.set(name, value), name),
        Step::RemoveHeader(name) => written(headers.delete(name), name),
        Step::CopyHeader { from, to } => {
            let values = headers.values(from);
            let done = if values.is_empty() {
                headers.delete(to)
            } else {
                headers.set_values(to, &values)
            };
            written(done, to)
        }
        // `on_request` runs these; a response has no path.
        Step::RewritePrefix(_) | Step::RewritePath(_) => Ok(()),
    }
}

fn written(done: bool, name: &str) -> Result<(), String> {
    if done { Ok(()) } else { Err(format!("the edge refused to change '{name}'")) }
}

/// Path and query, read when a step first needs them.
#[derive(Default)]
struct Target {
    text: Option<String>,
    changed: bool,
}

impl Target {
    fn text(&mut self, request: &impl Request) -> &str {
        self.text.get_or_insert_with(|| request.path_and_query())
    }

    fn rewrite(&mut self, request: &impl Request, apply: impl Fn(&str) -> Option<String>) {
        let text = self.text(request);
        let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
        if let Some(mut target) = apply(path) {
            target.push_str(query);
            *self = Self { text: Some(target), changed: true };
        }
    }

    fn write(&self, request: &impl Request) -> Result<(), String> {
        match &self.text {
            Some(text) if self.changed => written(request.set_path_and_query(text), "path"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::*;

    #[derive(Default)]
    struct Fake {
        path: RefCell<String>,
        headers: RefCell<BTreeMap<String, Vec<Vec<u8>>>>,
        refuses: bool,
    }

    impl Headers for Fake {
        fn values(&self, name: &str) -> Vec<Vec<u8>> {
            self.headers.borrow().get(name).cloned().unwrap_or_default()
        }
        fn set(&self, name: &str, value: &str) -> bool {
            self.set_values(name, &[value.into()])
        }
        fn set_values(&self, name: &str, values: &[Vec<u8>]) -> bool {
            self.headers.borrow_mut().insert(name.into(), values.to_vec());
            !self.refuses
        }
        fn delete(&self, name: &str) -> bool {
            self.headers.borrow_mut().remove(name);
            !self.refuses
        }
    }

    impl Request for Fake {
        fn method(&self) -> String {
            "GET".into()
        }
        fn path_and_query(&self) -> String {
            self.path.borrow().clone()
        }
        fn set_path_and_query(&self, value: &str) -> bool {
            *self.path.borrow_mut() = value.into();
            !self.refuses
        }
        fn received_at_ms(&self) -> u64 {
            1_700_000_000_000
        }
    }

    fn request(path: &str, headers: &[(&str, &str)]) -> Fake {
        let fake = Fake { path: RefCell::new(path.into()), ..Fake::default() };
        for (name, value) in headers {
            fake.set(name, value);
        }
        fake
    }

    fn run(config: &str, request: &Fake) {
        on_request(&Config::read(config).expect("a config"), request).expect("steps");
    }

    #[test]
    fn header_steps_run_in_order() {
        let fake = request("/", &[("x-key", "k"), ("x-old", "o"), ("x-copy", "forged")]);
        run(
            r#"{"request":[
                {"set_header":{"name":"X-Source","value":"edge"}},
                {"copy_header":{"from":"x-key","to":"x-api-key"}},
                {"remove_header":"x-key"},
                {"copy_header":{"from":"x-absent","to":"x-copy"}}]}"#,
            &fake,
        );
        let names: Vec<_> = fake.headers.borrow().keys().cloned().collect();
        assert_eq!(names, ["x-api-key", "x-old", "x-source"]);
        assert_eq!(fake.values("x-api-key"), [b"k".to_vec()]);
    }

    #[test]
    fn rewrites_follow_each_other_and_keep_the_query() {
        let config = r#"{"request":[
            {"rewrite_prefix":{"from":"/crm","to":"/integrations/crm"}},
            {"rewrite_path":{"from":"/integrations/*/**","to":"/i/{1}/v2/{2}"}}]}"#;
        let fake = request("/crm/a/b?x=/crm", &[]);
        run(config, &fake);
        assert_eq!(*fake.path.borrow(), "/i/crm/v2/a/b?x=/crm");
        let other = Fake { refuses: true, ..request("/other", &[]) };
        run(config, &other);
        assert_eq!(*other.path.borrow(), "/other", "an unchanged path is not written");
    }

    #[test]
    fn the_signature_covers_the_request_as_forwarded() {
        let signed = |path, config: &str| {
            let fake = request(path, &[]);
            run(config, &fake);
            fake.values("x-signature")
        };
        let secret = r#""signing":{"secret":"0123456789abcdef","headers":["x-a"]}"#;
        let plain = format!("{{{secret}}}");
        let rewriting = format!(
            r#"{{{secret},"request":[{{"rewrite_prefix":{{"from":"/old","to":"/new"}}}}]}}"#
        );
        let setting =
            format!(r#"{{{secret},"request":[{{"set_header":{{"name":"x-a","value":"1"}}}}]}}"#);
        assert_eq!(signed("/old", &rewriting), signed("/new", &plain));
        assert_ne!(signed("/new", &setting), signed("/new", &plain));
    }

    #[test]
    fn a_step_that_the_edge_refuses_fails_the_policy() {
        let fake = Fake { refuses: true, ..Fake::default() };
        let config = Config::read(r#"{"request":[{"remove_header":"x-a"}]}"#).expect("a config");
        assert_eq!(on_request(&config, &fake), Err("the edge refused to change 'x-a'".into()));
    }

    #[test]
    fn response_steps_edit_the_response() {
        let fake = request("/", &[("server", "secret/1.0")]);
        let config = r#"{"response":[{"remove_header":"server"},
            {"set_header":{"name":"x-frame-options","value":"DENY"}}]}"#;
        on_response(&Config::read(config).expect("a config"), &fake).expect("steps");
        assert_eq!(fake.headers.borrow().keys().collect::<Vec<_>>(), ["x-frame-options"]);
    }
}
