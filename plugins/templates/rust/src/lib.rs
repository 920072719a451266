//! Greets every request, stops some, and routes those that ask for a region.

use exports::leanvibe::policy::request_hook::{Decision, Guest};
use leanvibe::policy::{
    config, request, tenant,
    types::{Content, LocalResponse, Target},
};

// Everything that a policy may see and do stands in wit/policy.wit.
wit_bindgen::generate!({ path: "wit", world: "request-policy" });

struct MyPolicy;
export!(MyPolicy);

impl Guest for MyPolicy {
    /// An `Err` means that the policy itself failed; `on_failure` says what happens then.
    fn on_request() -> Result<Decision, String> {
        if request::header("x-say").as_deref() == Some("stop") {
            return Ok(Decision::Respond(stopped()));
        }
        let greeting = config::get("greeting").unwrap_or("hello".into());
        request::set_header("x-greeting", &format!("{greeting}, {}", tenant::slug()))
            .map_err(|error| format!("x-greeting: {error:?}"))?;
        match request::header("x-region") {
            // The host refuses a region outside the tenant's residency.
            Some(region) if tenant::residency().contains(&region) => {
                Ok(Decision::Route(Target::Region(region)))
            }
            _ => Ok(Decision::Continue),
        }
    }
}

fn stopped() -> LocalResponse {
    LocalResponse {
        status: 403,
        headers: vec![("content-type".into(), "text/plain".into())],
        body: Content::Text("stopped by my-policy\n".into()),
    }
}
