//! The component: the exports of the contract over `steps`.
#![expect(unsafe_code, reason = "generated bindings")]

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use kit::once::Once;

use self::{
    exports::leanvibe::policy::{
        lifecycle,
        request_hook::{self, Decision},
        response_hook::{self, ResponseDecision},
    },
    leanvibe::policy::{request, response},
};
use crate::{
    config::Config,
    steps::{self, Headers, Request},
};

wit_bindgen::generate!({
    inline: "
        package leanvibe:custom-integrations;
        world plugin {
            import leanvibe:policy/request@0.1.0;
            import leanvibe:policy/response@0.1.0;
            export leanvibe:policy/lifecycle@0.1.0;
            export leanvibe:policy/request-hook@0.1.0;
            export leanvibe:policy/response-hook@0.1.0;
        }
    ",
    path: "../../wit",
    world: "leanvibe:custom-integrations/plugin",
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
        steps::on_request(CONFIG.value()?, &CurrentRequest)?;
        Ok(Decision::Continue)
    }
}

impl response_hook::Guest for Plugin {
    fn on_response() -> Result<ResponseDecision, String> {
        steps::on_response(CONFIG.value()?, &CurrentResponse)?;
        Ok(ResponseDecision::Continue)
    }
}

/// The request of the hook call in progress.
struct CurrentRequest;

impl Headers for CurrentRequest {
    fn values(&self, name: &str) -> Vec<Vec<u8>> {
        request::header_values(name)
    }
    fn set(&self, name: &str, value: &str) -> bool {
        request::set_header(name, value).is_ok()
    }
    fn set_values(&self, name: &str, values: &[Vec<u8>]) -> bool {
        request::set_header_values(name, values).is_ok()
    }
    fn delete(&self, name: &str) -> bool {
        request::delete_header(name).is_ok()
    }
}

impl Request for CurrentRequest {
    fn method(&self) -> String {
        request::method()
    }
    fn path_and_query(&self) -> String {
        request::path_with_query()
    }
    fn set_path_and_query(&self, value: &str) -> bool {
        request::set_path_with_query(value).is_ok()
    }
    fn received_at_ms(&self) -> u64 {
        request::received_at()
    }
}

/// The response of the hook call in progress.
struct CurrentResponse;

impl Headers for CurrentResponse {
    fn values(&self, name: &str) -> Vec<Vec<u8>> {
        response::header_values(name)
    }
    fn set(&self, name: &str, value: &str) -> bool {
        response::set_header(name, value).is_ok()
    }
    fn set_values(&self, name: &str, values: &[Vec<u8>]) -> bool {
        response::set_header_values(name, values).is_ok()
    }
    fn delete(&self, name: &str) -> bool {
        response::delete_header(name).is_ok()
    }
}
