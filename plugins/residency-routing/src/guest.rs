//! The component: the exports of the contract over `choice`.
#![expect(unsafe_code, reason = "generated bindings")]

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};

use kit::{once::Once, problem};

use self::{
    exports::leanvibe::policy::{
        lifecycle,
        request_hook::{self, Decision},
    },
    leanvibe::policy::{
        request, tenant,
        types::{Content, LocalResponse, Target},
    },
};
use crate::{
    choice::{Choice, Request, choose},
    config::Config,
};

wit_bindgen::generate!({
    inline: "
        package leanvibe:residency-routing;
        world plugin {
            import leanvibe:policy/request@0.1.0;
            import leanvibe:policy/tenant@0.1.0;
            export leanvibe:policy/lifecycle@0.1.0;
            export leanvibe:policy/request-hook@0.1.0;
        }
    ",
    path: "../../wit",
    world: "leanvibe:residency-routing/plugin",
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
        let config = CONFIG.value()?;
        Ok(match choose(config, &Current)? {
            Choice::Stay => Decision::Continue,
            Choice::Region(region) => Decision::Route(Target::Region(region)),
            Choice::Refuse(problem) => Decision::Respond(LocalResponse {
                status: problem.status,
                headers: problem::HEADERS.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
                body: Content::Text(problem.into_body()),
            }),
        })
    }
}

/// The request of the hook call in progress.
struct Current;

impl Request for Current {
    fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        request::header_values(name)
    }
    fn delete_header(&self, name: &str) -> Result<(), String> {
        request::delete_header(name).map_err(|_| format!("the edge keeps '{name}'"))
    }
    fn client_country(&self) -> Option<String> {
        request::client_country()
    }
    fn subject(&self) -> Option<String> {
        tenant::subject()
    }
    fn residency(&self) -> Vec<String> {
        tenant::residency()
    }
}
