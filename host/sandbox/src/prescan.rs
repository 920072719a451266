//! What is checked in a component before the compiler sees it.
//!
//! One pass of wasmparser that counts and validates as it goes and stops at the first
//! excess, so that a hostile file costs milliseconds. Called per upload, never per
//! request. Invariant: whatever passes imports only the contract, and stays within
//! [`ComponentCaps`] in every count that compile time grows with.

use wasmparser::{
    FuncValidatorAllocations, FunctionBody, Parser, Payload, ValidPayload, Validator, WasmFeatures,
};

use crate::{config::ComponentCaps, contract::Contract, error::LoadError, text::one_line};

/// The proposals that guests may use: those the engine has on.
fn features() -> WasmFeatures {
    WasmFeatures::default()
        - WasmFeatures::RELAXED_SIMD
        - WasmFeatures::THREADS
        - WasmFeatures::TAIL_CALL
        - WasmFeatures::MULTI_MEMORY
        - WasmFeatures::EXCEPTIONS
        - WasmFeatures::MEMORY64
        - WasmFeatures::FUNCTION_REFERENCES
        - WasmFeatures::GC
        - WasmFeatures::GC_TYPES
        - WasmFeatures::CM_ASYNC
}

/// Checks a component.
///
/// # Errors
/// The first rule or cap that it breaks.
pub(crate) fn scan(
    bytes: &[u8],
    caps: &ComponentCaps,
    contract: &Contract,
) -> Result<(), LoadError> {
    check_size(bytes, caps)?;
    let mut scan = Scan {
        caps,
        contract,
        counts: Counts::default(),
        depth: 0,
        allocations: FuncValidatorAllocations::default(),
    };
    let mut validator = Validator::new_with_features(features());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        check_range(&payload, bytes.len())?;
        scan.count(&payload)?;
        match validator.payload(&payload).map_err(invalid)? {
            ValidPayload::Func(function, body) => scan.body(function, &body)?,
            ValidPayload::Parser(_) => scan.depth += 1,
            ValidPayload::End(_) => scan.depth = scan.depth.saturating_sub(1),
            ValidPayload::Ok => {}
        }
        scan.check_imports(&payload)?;
    }
    Ok(())
}

/// Refuses a file by its size alone.
pub(crate) fn check_size(bytes: &[u8], caps: &ComponentCaps) -> Result<(), LoadError> {
    if bytes.len() > caps.bytes {
        return Err(LoadError::TooLarge { size: bytes.len(), max: caps.bytes });
    }
    Ok(())
}

fn invalid(error: wasmparser::BinaryReaderError) -> LoadError {
    LoadError::Invalid(one_line(&error.to_string()))
}

/// wasmparser ends a nested module where the file ends, if that is between two sections.
fn check_range(payload: &Payload<'_>, length: usize) -> Result<(), LoadError> {
    match payload {
        Payload::ModuleSection { unchecked_range: range, .. }
        | Payload::ComponentSection { unchecked_range: range, .. }
            if range.end > length =>
        {
            Err(LoadError::Invalid("the file is truncated".into()))
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Counts {
    modules: u64,
    components: u64,
    instances: u64,
    types: u64,
    imports: u64,
    exports: u64,
    functions: u64,
    data: u64,
    elements: u64,
}

struct Scan<'a> {
    caps: &'a ComponentCaps,
    contract: &'a Contract,
    counts: Counts,
    /// Modules and components around the current payload.
    depth: u64,
    allocations: FuncValidatorAllocations,
}

impl Scan<'_> {
    /// Adds what a section announces, before its items are read.
    fn count(&mut self, payload: &Payload<'_>) -> Result<(), LoadError> {
        let (counts, caps) = (&mut self.counts, self.caps);
        match payload {
            Payload::ModuleSection { .. } => add(&mut counts.modules, 1, "modules", caps.modules),
            Payload::ComponentSection { .. } => {
                within("levels of components", self.depth + 1, caps.depth)?;
                add(&mut counts.components, 1, "nested components", caps.components)
            }
            Payload::InstanceSection(s) => {
                add(&mut counts.instances, s.count(), "instances", caps.instances)
            }
            Payload::ComponentInstanceSection(s) => {
                add(&mut counts.instances, s.count(), "instances", caps.instances)
            }
            Payload::TypeSection(s) => add(&mut counts.types, s.count(), "types", caps.items),
            Payload::CoreTypeSection(s) => add(&mut counts.types, s.count(), "types", caps.items),
            Payload::ComponentTypeSection(s) => {
                add(&mut counts.types, s.count(), "types", caps.items)
            }
            Payload::ImportSection(s) => add(&mut counts.imports, s.count(), "imports", caps.items),
            Payload::ComponentImportSection(s) => {
                add(&mut counts.imports, s.count(), "imports", caps.items)
            }
            Payload::ExportSection(s) => add(&mut counts.exports, s.count(), "exports", caps.items),
            Payload::ComponentExportSection(s) => {
                add(&mut counts.exports, s.count(), "exports", caps.items)
            }
            Payload::FunctionSection(s) => {
                add(&mut counts.functions, s.count(), "functions", caps.functions)
            }
            Payload::DataSection(s) => {
                add(&mut counts.data, s.count(), "data segments", caps.segments)
            }
            Payload::ElementSection(s) => {
                add(&mut counts.elements, s.count(), "element segments", caps.segments)
            }
            Payload::CodeSectionEntry(body) => self.check_body(body),
            _ => Ok(()),
        }
    }

    fn check_body(&self, body: &FunctionBody<'_>) -> Result<(), LoadError> {
        within("bytes in a function body", body.as_bytes().len() as u64, self.caps.body_bytes)?;
        let mut locals = 0_u64;
        for group in body.get_locals_reader().map_err(invalid)? {
            let (count, _) = group.map_err(invalid)?;
            locals += u64::from(count);
            within("locals in a function", locals, self.caps.locals)?;
        }
        Ok(())
    }

    fn body(
        &mut self,
        function: wasmparser::FuncToValidate<wasmparser::ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> Result<(), LoadError> {
        let mut validator = function.into_validator(std::mem::take(&mut self.allocations));
        validator.validate(body).map_err(invalid)?;
        self.allocations = validator.into_allocations();
        Ok(())
    }

    /// Imports of the component itself; those of nested ones are satisfied inside.
    fn check_imports(&self, payload: &Payload<'_>) -> Result<(), LoadError> {
        let (Payload::ComponentImportSection(section), 0) = (payload, self.depth) else {
            return Ok(());
        };
        for import in section.clone() {
            let name = import.map_err(invalid)?.name.name;
            self.contract
                .import(name)
                .map_err(|why| LoadError::ForbiddenImport { name: name.to_owned(), why })?;
        }
        Ok(())
    }
}

fn add(total: &mut u64, more: u32, what: &'static str, max: u64) -> Result<(), LoadError> {
    *total += u64::from(more);
    within(what, *total, max)
}

const fn within(what: &'static str, found: u64, max: u64) -> Result<(), LoadError> {
    if found > max { Err(LoadError::TooComplex { what, found, max }) } else { Ok(()) }
}
