//! `leanvibe:policy/response`: the response of a response hook in progress.
//!
//! Reads see the edits made so far in the same hook. Invariant: outside a response hook
//! every call traps; there is no response to speak of.

use model::policy::ResponseHead;

use super::{
    joined,
    request::{bytes, field},
};
use crate::{
    bindings::leanvibe::policy::{
        response::{FieldList, Host, Origin},
        types::EditError,
    },
    budget::OutsideHook,
    edits::{Edits, Phase, Refusal, Room, checked_status},
    state::{Call, State},
};

type Edit = wasmtime::Result<Result<(), EditError>>;

fn outside() -> wasmtime::Error {
    wasmtime::Error::new(OutsideHook("response", "a response hook"))
}

impl State {
    fn response(&mut self) -> wasmtime::Result<(&ResponseHead, &mut Edits)> {
        match self.hook("response")? {
            Call { exchange, phase: Phase::Response, edits, .. } => {
                Ok((exchange.response.as_ref().ok_or_else(outside)?, edits))
            }
            _ => Err(outside()),
        }
    }

    fn edit_response(
        &mut self,
        edit: impl FnOnce(&ResponseHead, &mut Edits, Room<'_>) -> Result<(), Refusal>,
    ) -> Edit {
        let mut left = self.budget.edit_bytes;
        let fields = self.context.limits.fields;
        let (response, edits) = self.response()?;
        let outcome = edit(response, edits, Room { fields, bytes: &mut left });
        self.budget.edit_bytes = left;
        Ok(outcome.map_err(Into::into))
    }
}

impl Host for State {
    fn status(&mut self) -> wasmtime::Result<u16> {
        let (response, edits) = self.response()?;
        Ok(edits.status.unwrap_or(response.status).as_u16())
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let (response, edits) = self.response()?;
        Ok(joined(edits.fields.values(&response.headers, &name)))
    }

    fn header_values(&mut self, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        let (response, edits) = self.response()?;
        Ok(edits.fields.values(&response.headers, &name).map(bytes).collect())
    }

    fn all_headers(&mut self) -> wasmtime::Result<FieldList> {
        let (response, edits) = self.response()?;
        Ok(edits.fields.all(&response.headers).map(field).collect())
    }

    fn served_by(&mut self) -> wasmtime::Result<Option<Origin>> {
        let (response, _) = self.response()?;
        Ok(response.served_by.as_ref().map(|(region, backend)| Origin {
            region: region.as_ref().to_owned(),
            backend: backend.as_ref().to_owned(),
        }))
    }

    fn set_status(&mut self, status: u16) -> Edit {
        self.edit_response(|_, edits, _| {
            edits.status = Some(checked_status(status)?);
            Ok(())
        })
    }

    fn set_header(&mut self, name: String, value: String) -> Edit {
        self.edit_response(|response, edits, room| {
            let value = std::iter::once(value.as_bytes());
            edits.fields.set(&response.headers, room, &name, value)
        })
    }

    fn set_header_values(&mut self, name: String, values: Vec<Vec<u8>>) -> Edit {
        self.edit_response(|response, edits, room| {
            let values = values.iter().map(Vec::as_slice);
            edits.fields.set(&response.headers, room, &name, values)
        })
    }

    fn append_header(&mut self, name: String, value: String) -> Edit {
        self.edit_response(|response, edits, room| {
            edits.fields.append(&response.headers, room, &name, value.as_bytes())
        })
    }

    fn delete_header(&mut self, name: String) -> Edit {
        self.edit_response(|_, edits, _| edits.fields.delete(&name))
    }
}
