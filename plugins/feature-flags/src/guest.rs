//! The component: the exports of the contract over `decide`.
#![expect(unsafe_code, reason = "generated bindings")]

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
};

use kit::{once::Once, problem};

use self::{
    exports::leanvibe::policy::{
        lifecycle,
        request_hook::{self, Decision},
    },
    leanvibe::policy::{
        feature_flags, request,
        telemetry::{self, Level},
        tenant,
        types::{Content, LocalResponse},
    },
};
use crate::{
    config::Config,
    decide::{Request, decide},
};

wit_bindgen::generate!({
    inline: "
        package leanvibe:feature-flags;
        world plugin {
            import leanvibe:policy/request@0.1.0;
            import leanvibe:policy/tenant@0.1.0;
            import leanvibe:policy/feature-flags@0.1.0;
            import leanvibe:policy/telemetry@0.1.0;
            export leanvibe:policy/lifecycle@0.1.0;
            export leanvibe:policy/request-hook@0.1.0;
        }
    ",
    path: "../../wit",
    world: "leanvibe:feature-flags/plugin",
    generate_all,
});

static CONFIG: Once<Config<'static>> = Once::new();

struct Plugin;
export!(Plugin);

impl lifecycle::Guest for Plugin {
    fn configure(config_json: String) -> Result<(), String> {
        let config = Config::read(config_json.leak()).map_err(|error| error.to_string())?;
        Ok(CONFIG.set(config)?)
    }
}

impl request_hook::Guest for Plugin {
    fn on_request() -> Result<Decision, String> {
        let refusal = decide(CONFIG.value()?, &Current)?;
        Ok(refusal.map_or(Decision::Continue, |problem| {
            Decision::Respond(LocalResponse {
                status: problem.status,
                headers: problem::HEADERS.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
                body: Content::Text(problem.into_body()),
            })
        }))
    }
}

/// The request of the hook call in progress.
struct Current;

impl Request for Current {
    fn method(&self) -> String {
        request::method()
    }
    fn path_and_query(&self) -> String {
        request::path_with_query()
    }
    fn has_feature(&self, name: &str) -> bool {
        tenant::has_feature(name)
    }
    fn plan(&self) -> String {
        tenant::plan()
    }
    fn boolean(&self, key: &str, default: bool) -> bool {
        feature_flags::boolean_value(key, default, &[])
    }
    fn string(&self, key: &str, default: &str) -> String {
        feature_flags::string_value(key, default, &[])
    }
    fn json(&self, key: &str, default: &str) -> String {
        feature_flags::details(key, default, &[]).value_json
    }
    fn set_header(&self, name: &str, value: &str) -> bool {
        request::set_header(name, value).is_ok()
    }
    fn delete_header(&self, name: &str) -> Result<(), String> {
        request::delete_header(name).map_err(|_| format!("the edge keeps '{name}'"))
    }
    fn warn(&self, message: &str) {
        telemetry::log(Level::Warn, message, &[]);
    }
}
