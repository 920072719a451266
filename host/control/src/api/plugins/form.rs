//! The form that a plugin is uploaded with, read part by part within bounds.
//!
//! Invariant: a component that is larger than its plan allows is refused as soon as that
//! is known, and nothing of it is kept.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{
        FromRequest, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    http::header,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use model::{
    plugin::{Manifest, PluginTerms, Refusal},
    problem::Problem,
};
use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::{UPLOAD_BYTES_MAX, manifest, refused, settings};
use crate::api::{Api, fields::Fields, problem::ApiError};

/// Bytes of a part that is no component.
const PART_BYTES_MAX: usize = 128 << 10;
/// How long an upload may take to arrive, in ms: 32 MiB at 3 Mbit/s.
const UPLOAD_TIMEOUT_MS: u64 = 90_000;
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// A new plugin with its first version.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the form that `read` reads")]
pub(super) struct NewPluginForm {
    /// 1 to 40 of a-z, 0-9 and '-'.
    name: String,
    #[serde(flatten)]
    version: NewVersionForm,
    /// JSON object that `configure` is called with.
    config: Option<BTreeMap<String, Value>>,
}

/// A new version.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the form that `read` reads")]
pub(super) struct NewVersionForm {
    /// The file: a component, or a core module with a component-type section.
    #[schemars(extend("format" = "binary"))]
    component: String,
    /// JSON object: description, capabilities, origins, metrics, config_schema, on_failure,
    /// instances, limits.
    manifest: Option<BTreeMap<String, Value>>,
    /// Ed25519 signature of the component, in base64.
    signature: Option<String>,
    /// `true` has the version decide at once.
    activate: Option<bool>,
}

/// What came.
pub(super) struct Upload {
    pub(super) component: Bytes,
    pub(super) manifest: Manifest,
    pub(super) signature: Option<Vec<u8>>,
    pub(super) activate: bool,
    /// Parts that only some uploads have, still to be read.
    pub(super) fields: Fields,
}

/// Reads the form of an upload.
pub(super) async fn read(
    request: Request,
    api: &Api,
    terms: &PluginTerms,
) -> Result<Upload, ApiError> {
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > UPLOAD_BYTES_MAX as u64) {
        return Err(too_large(terms));
    }
    let form = Multipart::from_request(request, api).await.map_err(|_| {
        let problem = Problem::new(415, "unsupported-media-type", "Unsupported media type");
        let detail = "Send a form: curl -F name=NAME -F component=@FILE.wasm.";
        ApiError::Plugin(Box::new(problem.detail(detail)))
    })?;
    let parts = parts(form, terms);
    let Ok(read) = tokio::time::timeout(Duration::from_millis(UPLOAD_TIMEOUT_MS), parts).await
    else {
        return Err(ApiError::BodyTooSlow);
    };
    let (component, members) = read?;
    let mut fields = Fields::new(members);
    if component.is_none() {
        fields.reject("component", "is required: the file of the plugin");
    }
    let object = |value: &Value| {
        let parsed = serde_json::from_str(value.as_str().unwrap_or_default());
        match parsed {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Err("must be a JSON object".to_owned()),
            Err(error) => Err(format!("must be a JSON object: {error}")),
        }
    };
    let manifest = fields.optional("manifest", object).unwrap_or_default();
    let manifest = manifest::read(&mut fields, manifest);
    if let Some(config) = fields.optional("config", object) {
        fields.put_back("config", Value::Object(config));
    }
    let signature = fields.optional("signature", |value| {
        let text = value.as_str().unwrap_or_default().trim();
        let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == SIGNATURE_BYTES);
        bytes.ok_or_else(|| "must be an Ed25519 signature: 64 bytes in base64".to_owned())
    });
    let activate = fields.optional("activate", |value| match value.as_str() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    });
    let activate = activate.unwrap_or_default();
    Ok(Upload { component: component.unwrap_or_default(), manifest, signature, activate, fields })
}

/// The component, and the other parts as texts.
async fn parts(
    mut form: Multipart,
    terms: &PluginTerms,
) -> Result<(Option<Bytes>, Map<String, Value>), ApiError> {
    let mut component = None;
    let mut texts = Map::new();
    while let Some(part) = form.next_field().await.map_err(|error| broken(&error, terms))? {
        let name = part.name().unwrap_or_default().to_owned();
        let is_component = name == "component";
        let max = if is_component { component_bytes_max(terms) } else { PART_BYTES_MAX };
        let Some(bytes) = within(part, max, terms).await? else {
            if is_component {
                return Err(too_large(terms));
            }
            return Err(ApiError::field(name, format!("may have at most {max} bytes")));
        };
        let twice = if is_component {
            component.replace(bytes).is_some()
        } else {
            let text = String::from_utf8(bytes.into())
                .map_err(|_| ApiError::field(name.clone(), "must be UTF-8"))?;
            texts.insert(name.clone(), Value::String(text)).is_some()
        };
        if twice {
            return Err(ApiError::field(name, "is given twice"));
        }
    }
    Ok((component, texts))
}

/// A part, if it is within the bound.
async fn within(
    mut part: Field<'_>,
    max: usize,
    terms: &PluginTerms,
) -> Result<Option<Bytes>, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| broken(&error, terms))? {
        if whole.len() + chunk.len() > max {
            return Ok(None);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Some(whole.freeze()))
}

fn component_bytes_max(terms: &PluginTerms) -> usize {
    usize::try_from(terms.component_bytes_max).unwrap_or(usize::MAX)
}

fn broken(error: &MultipartError, terms: &PluginTerms) -> ApiError {
    if error.status().as_u16() == 413 { too_large(terms) } else { ApiError::BodyBroken }
}

fn too_large(terms: &PluginTerms) -> ApiError {
    let max = terms.component_bytes_max.min(UPLOAD_BYTES_MAX as u64);
    let detail = format!("The component may have at most {max} bytes by the plan.");
    refused(Refusal { status: 413, ..Refusal::new("plugin-too-large", detail) })
}

/// The config of the form, if it has one.
pub(super) fn config(fields: &mut Fields) -> Map<String, Value> {
    fields.optional("config", settings::config).unwrap_or_default()
}
