//! The contract as data: which interfaces and functions `wit/policy.wit` has.
//!
//! Used when a plugin is loaded, so that a refusal can name what is missing. Read from
//! the WIT itself. Invariant: nothing in Rust lists the functions of the contract a
//! second time.

use std::collections::BTreeMap;

use semver::Version;
use wit_parser::{Function, Interface, InterfaceId, Resolve, WorldItem, WorldKey};

use crate::error::SandboxError;

const WIT: &str = include_str!("../../../wit/policy.wit");
/// Namespace and name of the package.
const PACKAGE: &str = "leanvibe:policy";
/// The world whose imports and exports are all there are.
const WORLD: &str = "full-policy";

/// The interfaces that a plugin may import and export.
#[derive(Debug)]
pub(crate) struct Contract {
    resolve: Resolve,
    imports: BTreeMap<String, InterfaceId>,
    exports: BTreeMap<String, InterfaceId>,
    version: Version,
}

impl Contract {
    /// Parses the embedded WIT.
    pub(crate) fn parse() -> Result<Self, SandboxError> {
        Self::from_wit(WIT).map_err(SandboxError::Contract)
    }

    fn from_wit(text: &str) -> Result<Self, String> {
        let mut resolve = Resolve::default();
        let package =
            resolve.push_source("policy.wit", text).map_err(|error| format!("{error:#}"))?;
        let world =
            resolve.select_world(&[package], Some(WORLD)).map_err(|error| format!("{error:#}"))?;
        let world = resolve.worlds.get(world).ok_or("the world is missing")?;
        let imports = interfaces(&resolve, world.imports.iter())?;
        let exports = interfaces(&resolve, world.exports.iter())?;
        let version = resolve
            .packages
            .get(package)
            .and_then(|package| package.name.version.clone())
            .ok_or("the package has no version")?;
        Ok(Self { imports, exports, version, resolve })
    }

    /// The interface that an import names.
    ///
    /// # Errors
    /// Why the import is refused.
    pub(crate) fn import(&self, import: &str) -> Result<&Interface, &'static str> {
        if import.starts_with("wasi:") {
            return Err("a policy gets no WASI; build it for wasm32-unknown-unknown or stub WASI");
        }
        let (interface, version) =
            self.split(import).ok_or("a policy may import leanvibe:policy/*@0.1 only")?;
        if !self.compatible(&version) {
            return Err("this host has version 0.1 of the contract");
        }
        self.imports
            .get(interface)
            .and_then(|id| self.resolve.interfaces.get(*id))
            .ok_or("the contract has no such interface")
    }

    /// A function that a hook's interface must export.
    pub(crate) fn hook(&self, interface: &str, function: &str) -> Option<&Function> {
        let id = self.exports.get(interface)?;
        self.resolve.interfaces.get(*id)?.functions.get(function)
    }

    /// What the types of functions refer to.
    pub(crate) const fn resolve(&self) -> &Resolve {
        &self.resolve
    }

    /// The interface that an export names, when it is of this track.
    pub(crate) fn export<'a>(&self, export: &'a str) -> Option<&'a str> {
        let (interface, version) = self.split(export)?;
        self.compatible(&version).then_some(interface)
    }

    fn split<'a>(&self, name: &'a str) -> Option<(&'a str, Version)> {
        let (package, rest) = name.split_once('/')?;
        let (interface, version) = rest.split_once('@')?;
        (package == PACKAGE).then_some(())?;
        Some((interface, version.parse().ok()?))
    }

    /// Same track: what wasmtime's linker treats as one.
    fn compatible(&self, version: &Version) -> bool {
        let ours = &self.version;
        version.pre.is_empty()
            && version.major == ours.major
            && (ours.major > 0 || version.minor == ours.minor)
    }
}

fn interfaces<'a>(
    resolve: &Resolve,
    items: impl Iterator<Item = (&'a WorldKey, &'a WorldItem)>,
) -> Result<BTreeMap<String, InterfaceId>, String> {
    items
        .map(|(_, item)| {
            let WorldItem::Interface { id, .. } = item else {
                return Err("the world has an item that is no interface".into());
            };
            let name = resolve.interfaces.get(*id).and_then(|interface| interface.name.clone());
            Ok((name.ok_or("an interface has no name")?, *id))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract::parse().expect("the embedded WIT parses")
    }

    #[test]
    fn every_import_of_the_world_is_known_with_its_functions() {
        let contract = contract();
        let request = contract.import("leanvibe:policy/request@0.1.0").expect("known");
        assert!(request.functions.contains_key("path-with-query"));
        for interface in ["response", "tenant", "config", "keyvalue", "rate-limit", "telemetry"] {
            let name = format!("leanvibe:policy/{interface}@0.1.7");
            assert!(contract.import(&name).is_ok_and(|known| !known.functions.is_empty()));
        }
        assert!(contract.import("leanvibe:policy/types@0.1.0").is_ok());
    }

    #[test]
    fn what_is_outside_the_track_is_refused() {
        let contract = contract();
        for import in [
            "leanvibe:policy/request@0.2.0",
            "leanvibe:policy/request@1.0.0",
            "leanvibe:policy/request@0.1.0-draft",
            "leanvibe:policy/request",
            "leanvibe:policy/secrets@0.1.0",
            "leanvibe:policyx/request@0.1.0",
            "wasi:cli/environment@0.2.0",
            "request",
        ] {
            assert!(contract.import(import).is_err(), "{import}");
        }
        assert_eq!(contract.export("leanvibe:policy/request-hook@0.1.4"), Some("request-hook"));
        assert_eq!(contract.export("leanvibe:policy/request-hook@0.2.0"), None);
        assert_eq!(contract.export("cabi_realloc"), None);
    }
}
