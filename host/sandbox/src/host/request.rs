//! `leanvibe:policy/request`: the request of the hook in progress.
//!
//! Reads see the edits made so far in the same hook. Invariant: in a response hook the
//! request is what was forwarded and no longer changes.

use model::policy::PolicyExchange;

use super::joined;
use crate::{
    bindings::leanvibe::policy::{
        request::{FieldList, Host},
        types::EditError,
    },
    edits::{Edits, FieldEdits, Phase, Refusal, Room, parse_path},
    state::{Call, State},
};

const INTERFACE: &str = "request";
type Edit = wasmtime::Result<Result<(), EditError>>;

impl State {
    /// The exchange, and the edits that lie over its request, if it is still editable.
    fn request(&mut self) -> wasmtime::Result<(&PolicyExchange, Option<&Edits>)> {
        let Call { exchange, phase, edits, .. } = self.hook(INTERFACE)?;
        Ok((exchange, (*phase == Phase::Request).then_some(edits)))
    }

    fn edit_request(
        &mut self,
        edit: impl FnOnce(&PolicyExchange, &mut FieldEdits, Room<'_>) -> Result<(), Refusal>,
    ) -> Edit {
        self.hook(INTERFACE)?;
        let Self { call: Some(call), budget, context, .. } = self else {
            return Ok(Err(EditError::TooLate));
        };
        if call.phase != Phase::Request {
            return Ok(Err(EditError::TooLate));
        }
        let room = Room { fields: context.limits.fields, bytes: &mut budget.edit_bytes };
        Ok(edit(&call.exchange, &mut call.edits.fields, room).map_err(Into::into))
    }
}

impl Host for State {
    fn method(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.0.request.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.0.request.scheme.to_owned())
    }

    fn authority(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.0.request.authority.as_ref().to_owned())
    }

    fn path_with_query(&mut self) -> wasmtime::Result<String> {
        let (exchange, edits) = self.request()?;
        let edited = edits.and_then(|edits| edits.path.as_ref());
        Ok(edited.unwrap_or(&exchange.request.path_and_query).as_str().to_owned())
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let (exchange, edits) = self.request()?;
        let headers = &exchange.request.headers;
        Ok(match edits {
            Some(edits) => joined(edits.fields.values(headers, &name)),
            None => joined(headers.get_all(&name).iter()),
        })
    }

    fn header_values(&mut self, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        let (exchange, edits) = self.request()?;
        let headers = &exchange.request.headers;
        Ok(match edits {
            Some(edits) => edits.fields.values(headers, &name).map(bytes).collect(),
            None => headers.get_all(&name).iter().map(bytes).collect(),
        })
    }

    fn all_headers(&mut self) -> wasmtime::Result<FieldList> {
        let (exchange, edits) = self.request()?;
        let headers = &exchange.request.headers;
        Ok(match edits {
            Some(edits) => edits.fields.all(headers).map(field).collect(),
            None => headers.iter().map(field).collect(),
        })
    }

    fn client_ip(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.0.client_ip.to_string())
    }

    fn client_country(&mut self) -> wasmtime::Result<Option<String>> {
        let country = self.request()?.0.client_country;
        Ok(country.and_then(|code| String::from_utf8(code.to_vec()).ok()))
    }

    fn id(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.0.id.as_ref().to_owned())
    }

    fn received_at(&mut self) -> wasmtime::Result<u64> {
        Ok(self.request()?.0.received_at.0)
    }

    fn set_header(&mut self, name: String, value: String) -> Edit {
        self.edit_request(|exchange, fields, room| {
            let value = std::iter::once(value.as_bytes());
            fields.set(&exchange.request.headers, room, &name, value)
        })
    }

    fn set_header_values(&mut self, name: String, values: Vec<Vec<u8>>) -> Edit {
        self.edit_request(|exchange, fields, room| {
            let values = values.iter().map(Vec::as_slice);
            fields.set(&exchange.request.headers, room, &name, values)
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Edit {
        self.edit_request(|exchange, fields, room| {
            fields.append(&exchange.request.headers, room, &name, value.as_bytes())
        })
    }

    fn delete_header(&mut self, name: String) -> Edit {
        self.edit_request(|_, fields, _| fields.delete(&name))
    }

    fn set_path_with_query(&mut self, value: String) -> Edit {
        let Call { phase, edits, .. } = self.hook(INTERFACE)?;
        if *phase != Phase::Request {
            return Ok(Err(EditError::TooLate));
        }
        Ok(match parse_path(&value) {
            Ok(path) => {
                edits.path = Some(path);
                Ok(())
            }
            Err(refusal) => Err(refusal.into()),
        })
    }
}

pub(super) fn bytes(value: &http::HeaderValue) -> Vec<u8> {
    value.as_bytes().to_vec()
}

pub(super) fn field((name, value): (&http::HeaderName, &http::HeaderValue)) -> (String, Vec<u8>) {
    (name.as_str().to_owned(), bytes(value))
}
