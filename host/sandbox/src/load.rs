//! From bytes to a [`Version`]: everything that can be refused before a request is served.
//!
//! Called when a plugin is published; compiling takes 20 ms per 14 KiB and blocks the
//! thread, so call it off the workers. Invariant: no function of a guest runs here.

use std::{borrow::Cow, sync::Arc};

use sha2::{Digest, Sha256};
use wasmtime::component::{
    Component, InstancePre,
    types::{ComponentInstance, ComponentItem},
};

use crate::{
    Sandbox,
    bindings::exports::leanvibe::policy::{
        lifecycle, request_body_hook, request_hook, response_hook,
    },
    config::ComponentCaps,
    contract::Contract,
    error::LoadError,
    lift::{self, Kind},
    prescan,
    state::State,
    text::one_line,
    types::same_function,
    version::{Exports, Version},
};

/// Bytes of a WebAssembly page.
const PAGE_BYTES: u64 = 64 << 10;
/// A hook interface and the function in it.
const HOOKS: [(&str, &str); 4] = [
    ("lifecycle", "configure"),
    ("request-hook", "on-request"),
    ("request-body-hook", "on-request-body"),
    ("response-hook", "on-response"),
];

impl Sandbox {
    /// Loads a component, or a core module with a `component-type` section. Blocks for as
    /// long as compiling takes.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Version>, LoadError> {
        let caps = &self.services().config.component;
        let component = as_component(bytes, caps, self.contract())?;
        let component = Component::from_binary(self.engine(), &component).map_err(compile_error)?;
        self.link(&component, hex(&Sha256::digest(bytes)), bytes.len())
    }

    /// Links a compiled component and finds its hooks. `digest` and `size` are those of the
    /// file that it came from.
    pub(crate) fn link(
        &self,
        component: &Component,
        digest: String,
        size: usize,
    ) -> Result<Arc<Version>, LoadError> {
        self.check_functions(component)?;
        let pre = self.linker().instantiate_pre(component).map_err(mismatch)?;
        let exports = self.find_hooks(component, &pre)?;
        component.initialize_copy_on_write_image().map_err(compile_error)?;
        let needs = component.resources_required();
        let memory_pages = needs.and_then(|needs| needs.max_initial_memory_size).unwrap_or(0);
        Ok(Arc::new(Version {
            pre,
            exports,
            digest,
            bytes: size,
            memory_bytes: memory_pages.saturating_mul(PAGE_BYTES),
        }))
    }

    /// Names the first imported function that the contract here does not have.
    fn check_functions(&self, component: &Component) -> Result<(), LoadError> {
        for (interface, import) in component.component_type().imports(self.engine()) {
            let forbidden = |why| LoadError::ForbiddenImport { name: interface.to_owned(), why };
            let known = self.contract().import(interface).map_err(forbidden)?;
            let ComponentItem::ComponentInstance(instance) = import.ty else {
                return Err(forbidden("the contract has interfaces only"));
            };
            for (function, item) in instance.exports(self.engine()) {
                if matches!(item.ty, ComponentItem::ComponentFunc(_))
                    && !known.functions.contains_key(function)
                {
                    return Err(LoadError::UnknownFunction {
                        interface: interface.to_owned(),
                        function: function.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn find_hooks(
        &self,
        component: &Component,
        pre: &InstancePre<State>,
    ) -> Result<Exports, LoadError> {
        let mut exports = Exports::default();
        for (name, export) in component.component_type().exports(self.engine()) {
            let Some(interface) = self.contract().export(name) else { continue };
            let Some((_, function)) = HOOKS.iter().find(|(hook, _)| *hook == interface) else {
                continue;
            };
            let ComponentItem::ComponentInstance(instance) = export.ty else {
                return Err(LoadError::TypeMismatch(format!(
                    "exports {name}, but as no interface"
                )));
            };
            self.check_hook(name, interface, function, &instance)?;
            match interface {
                "lifecycle" => {
                    exports.lifecycle = Some(lifecycle::GuestIndices::new(pre).map_err(mismatch)?);
                }
                "request-hook" => {
                    exports.request = Some(request_hook::GuestIndices::new(pre).map_err(mismatch)?);
                }
                "request-body-hook" => {
                    exports.request_body =
                        Some(request_body_hook::GuestIndices::new(pre).map_err(mismatch)?);
                }
                _ => {
                    exports.response =
                        Some(response_hook::GuestIndices::new(pre).map_err(mismatch)?);
                }
            }
        }
        let hooks = exports.hooks();
        if !(hooks.request || hooks.request_body || hooks.response) {
            return Err(LoadError::NoHook);
        }
        Ok(exports)
    }

    fn check_hook(
        &self,
        name: &str,
        interface: &str,
        function: &str,
        instance: &ComponentInstance,
    ) -> Result<(), LoadError> {
        let missing = || LoadError::TypeMismatch(format!("exports {name} without {function}"));
        let wit = self.contract().hook(interface, function).ok_or_else(missing)?;
        let export = instance.get_export(self.engine(), function).ok_or_else(missing)?;
        let ComponentItem::ComponentFunc(found) = export.ty else { return Err(missing()) };
        if !same_function(self.contract().resolve(), wit, &found) {
            let text = format!("{function} of {name} has another type than the contract says");
            return Err(LoadError::TypeMismatch(text));
        }
        Ok(())
    }
}

/// The component that a file is or becomes, once everything that compiling costs is within
/// the caps.
pub(crate) fn as_component<'a>(
    bytes: &'a [u8],
    caps: &ComponentCaps,
    contract: &Contract,
) -> Result<Cow<'a, [u8]>, LoadError> {
    prescan::check_size(bytes, caps)?;
    let kind = lift::kind_of(bytes)?;
    prescan::scan(bytes, caps, contract)?;
    match kind {
        Kind::Component => Ok(bytes.into()),
        Kind::TypedModule => {
            let lifted = lift::componentize(bytes)?;
            prescan::scan(&lifted, caps, contract)?;
            Ok(lifted.into())
        }
    }
}

pub(crate) fn compile_error(error: wasmtime::Error) -> LoadError {
    LoadError::Compile(one_line(&format!("{error:#}")))
}

fn mismatch(error: wasmtime::Error) -> LoadError {
    LoadError::TypeMismatch(one_line(&format!("{error:#}")))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
