//! What the demo prints: addresses, tokens, and commands to paste.

use model::secret::Secret;

use crate::{config::Config, run::Running};

use super::seed::Keys;

/// Prints the guide to standard output.
pub(super) fn print(config: &Config, running: &Running, token: &Secret, keys: &Keys) {
    let Some(edge) = running.edge.first() else { return };
    let port = edge.port();
    let domain = &config.edge.base_domain;
    let url = |slug: &str| format!("http://{slug}.{domain}:{port}");
    let policies = config.policies.dir.display();
    let control = running.control;
    let key = |slug: &str| keys.get(slug).map_or("", String::as_str);
    println!(
        "
LeanVibe Edge
  edge     http://<tenant>.{domain}:{port}   (HTTP/1.1 and h2c)
  control  http://{control}
  data     {data}   (delete it to start over)

admin token  {token}
API keys",
        data = config.data.dir.display(),
        token = token.expose(),
    );
    for (slug, key) in keys {
        println!("  {slug:<15} {key}");
    }
    println!(
        "
Try, in another terminal:

# each tenant reaches the region of its residency group
curl -s {acme}/hello
curl -s {european}/hello

# on the shared host the API key alone says who is calling
curl -s http://api.{domain}:{port}/hello -H 'Authorization: Bearer {uk_key}'

# a feature flag becomes a header for the backend, by the tenant's plan
curl -s {acme}/hello | grep -o '\"x-feature[^,]*'
curl -s {solo}/hello | grep -o '\"x-feature[^,]*'

# a plan's entitlement gates a path: 403 feature-not-in-plan
curl -si {solo}/sso/login

# a policy refuses data that may not leave its region
curl -si {acme}/records -H 'x-data-class: eu-personal'

# a quota refuses: this demo plan has 5 calls a month, the sixth gets 429
for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' {tiny}/; done
curl -si {tiny}/

# hot reload: give the demo plan 8 calls; the next request is served, without a restart
sed -i '/^name = \"demo\"/,/max_api_calls_per_month/ s/max_api_calls_per_month = 5/max_api_calls_per_month = 8/' {policies}/plans.toml
sleep 1; curl -s -o /dev/null -w '%{{http_code}}\\n' {tiny}/

# tenants, and what the last reload did
curl -s http://{control}/api/v1/admin/tenants -H 'Authorization: Bearer {token}'
curl -s http://{control}/api/v1/admin/policies -H 'Authorization: Bearer {token}'

Ctrl-C drains and stops.
",
        acme = url("acme-corp"),
        european = url("european-corp"),
        solo = url("solo-dev"),
        tiny = url("tiny-quota"),
        uk_key = key("solo-dev"),
        token = token.expose(),
    );
}
