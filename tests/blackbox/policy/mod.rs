//! Policies on live traffic: the first-party ones, misbehaving ones, hot reload.

mod authoring;
mod first_party;
mod hot_reload;
mod misbehaving;
mod ofrep;

use std::path::Path;

/// Declares a policy in a `policies/` folder.
pub fn declare(policies: &Path, name: &str, wasm: &[u8], more: &str) {
    let folder = policies.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("plugin.wasm"), wasm).expect("a file");
    let text = format!("component = \"plugin.wasm\"\ndescription = \"test\"\n{more}");
    std::fs::write(folder.join("policy.toml"), text).expect("a file");
}

/// Gives one tenant a chain of its own beside its plan's.
pub fn link(policies: &Path, slug: &str, policy: &str, more: &str) {
    std::fs::create_dir_all(policies.join("tenants")).expect("a folder");
    let text = format!("[[chain]]\npolicy = \"{policy}\"\norder = 5\n{more}");
    std::fs::write(policies.join("tenants").join(format!("{slug}.toml")), text).expect("a file");
}
