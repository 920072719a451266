//! Compares a component's function with the contract's, by structure.
//!
//! wasmtime checks imports when it links and exports when it calls; this checks exports
//! when a plugin is loaded, so that its author hears of it. Invariant: equal types are
//! those that the canonical ABI lays out and names alike.

use wasmtime::component::types::{ComponentFunc, Type};
use wit_parser::{Function, Resolve, Type as WitType, TypeDefKind};

/// Whether a component's function has the type that the contract gives it.
pub(crate) fn same_function(resolve: &Resolve, wit: &Function, found: &ComponentFunc) -> bool {
    let mut results = found.results();
    let same_result = match (&wit.result, results.next()) {
        (None, None) => true,
        (Some(wit), Some(found)) => same(resolve, wit, &found),
        _ => false,
    };
    !found.async_()
        && same_result
        && results.next().is_none()
        && found.params().len() == wit.params.len()
        && wit
            .params
            .iter()
            .zip(found.params())
            .all(|(wit, (name, found))| wit.name == name && same(resolve, &wit.ty, &found))
}

fn same(resolve: &Resolve, wit: &WitType, found: &Type) -> bool {
    match (wit, found) {
        (WitType::Bool, Type::Bool)
        | (WitType::U8, Type::U8)
        | (WitType::U16, Type::U16)
        | (WitType::U32, Type::U32)
        | (WitType::U64, Type::U64)
        | (WitType::S8, Type::S8)
        | (WitType::S16, Type::S16)
        | (WitType::S32, Type::S32)
        | (WitType::S64, Type::S64)
        | (WitType::F32, Type::Float32)
        | (WitType::F64, Type::Float64)
        | (WitType::Char, Type::Char)
        | (WitType::String, Type::String) => true,
        (WitType::Id(id), found) => {
            resolve.types.get(*id).is_some_and(|def| same_kind(resolve, &def.kind, found))
        }
        _ => false,
    }
}

fn same_kind(resolve: &Resolve, wit: &TypeDefKind, found: &Type) -> bool {
    match (wit, found) {
        (TypeDefKind::Type(alias), found) => same(resolve, alias, found),
        (TypeDefKind::List(item), Type::List(found)) => same(resolve, item, &found.ty()),
        (TypeDefKind::Option(item), Type::Option(found)) => same(resolve, item, &found.ty()),
        (TypeDefKind::Result(wit), Type::Result(found)) => {
            same_payload(resolve, wit.ok.as_ref(), found.ok())
                && same_payload(resolve, wit.err.as_ref(), found.err())
        }
        (TypeDefKind::Tuple(wit), Type::Tuple(found)) => {
            wit.types.len() == found.types().len()
                && wit
                    .types
                    .iter()
                    .zip(found.types())
                    .all(|(wit, found)| same(resolve, wit, &found))
        }
        (TypeDefKind::Record(wit), Type::Record(found)) => {
            wit.fields.len() == found.fields().len()
                && wit
                    .fields
                    .iter()
                    .zip(found.fields())
                    .all(|(wit, found)| wit.name == found.name && same(resolve, &wit.ty, &found.ty))
        }
        (TypeDefKind::Variant(wit), Type::Variant(found)) => {
            wit.cases.len() == found.cases().len()
                && wit.cases.iter().zip(found.cases()).all(|(wit, found)| {
                    wit.name == found.name && same_payload(resolve, wit.ty.as_ref(), found.ty)
                })
        }
        (TypeDefKind::Enum(wit), Type::Enum(found)) => {
            wit.cases.iter().map(|case| case.name.as_str()).eq(found.names())
        }
        _ => false,
    }
}

fn same_payload(resolve: &Resolve, wit: Option<&WitType>, found: Option<Type>) -> bool {
    match (wit, found) {
        (None, None) => true,
        (Some(wit), Some(found)) => same(resolve, wit, &found),
        _ => false,
    }
}
