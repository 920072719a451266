//! Turns a core module that carries its component type into a component.
//!
//! Language toolchains often stop at a core module with a `component-type` custom
//! section (`wit-bindgen` writes it). Called when a plugin is built (command line) and
//! when one is uploaded; costs milliseconds. Invariant: the output has passed the
//! component validator; a module without the section is refused, never guessed at.

use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use crate::{error::LoadError, text::one_line};

/// Prefix of the custom sections that describe a core module's component type.
const TYPE_SECTION: &str = "component-type";

/// What a file of bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A component.
    Component,
    /// A core module that says which component it wants to be.
    TypedModule,
}

/// Makes a component of a core module with a `component-type` section.
///
/// # Errors
/// When the bytes are not such a module, or the module does not match its own type.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, LoadError> {
    if kind_of(core_module)? == Kind::Component {
        return Err(LoadError::NotWasm("is a component already, not a core module".into()));
    }
    ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| LoadError::Lift(one_line(&format!("{error:#}"))))
}

/// Looks at the header and, for a core module, for its type section.
pub(crate) fn kind_of(bytes: &[u8]) -> Result<Kind, LoadError> {
    if let Some(what) = foreign_format(bytes) {
        return Err(LoadError::NotWasm(what.into()));
    }
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| LoadError::Invalid(one_line(&error.to_string())))? {
            Payload::Version { encoding: Encoding::Component, .. } => return Ok(Kind::Component),
            Payload::CustomSection(section) if section.name().starts_with(TYPE_SECTION) => {
                return Ok(Kind::TypedModule);
            }
            _ => {}
        }
    }
    Err(LoadError::NotWasm(
        "is a core module without a component-type section; build it with wit-bindgen".into(),
    ))
}

/// Names what the bytes are when they do not even start like WebAssembly.
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 4] = [
        (b"\x1f\x8b", "is gzip data; upload the component itself"),
        (b"PK\x03\x04", "is a zip archive; upload the component itself"),
        (b"\x28\xb5\x2f\xfd", "is zstd data; upload the component itself"),
        (b"(", "is WebAssembly text; upload the binary"),
    ];
    if bytes.is_empty() {
        return Some("is empty");
    }
    if bytes.starts_with(b"\0asm") {
        return None;
    }
    let known = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic));
    Some(known.map_or("is not WebAssembly", |(_, what)| what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_typed_module_is_refused_by_name() {
        for (bytes, reason) in [
            (&b""[..], "empty"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"PK\x03\x04", "zip"),
            (b"(module)", "text"),
            (b"hello", "not WebAssembly"),
            (b"\0asm\x01\0\0\0", "component-type"),
            (b"\0asm\x0d\0\x01\0", "already"),
        ] {
            let error = componentize(bytes).expect_err("refused").to_string();
            assert!(error.contains(reason), "{bytes:?}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_truncated_module_is_invalid_not_a_panic() {
        assert!(matches!(componentize(b"\0asm\x01\0\0\0\x01"), Err(LoadError::Invalid(_))));
    }
}
