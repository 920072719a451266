//! The OpenAPI 3.1 document, made from the list of endpoints and the types they answer with.
//!
//! Served at `/api/v1/openapi.json` without a token: it tells nothing that this repository
//! does not. Invariant: there is no second list; an endpoint that is routed is documented.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Api,
    caller::TENANT_PARAMETER,
    endpoint::{Answer, Body, Endpoint},
    once::{self, IDEMPOTENCY_KEY},
};

/// Where components refer to each other.
const DEFINITIONS: &str = "/components/schemas";

/// A refusal, as every endpoint answers it (RFC 9457).
#[derive(JsonSchema)]
#[schemars(rename = "Problem")]
#[expect(dead_code, reason = "documents the shape of model::problem::Problem")]
struct ProblemShape {
    /// Stable URI of the kind.
    r#type: String,
    /// The same text for every occurrence.
    title: String,
    /// HTTP status.
    status: u16,
    /// Stable short code.
    code: String,
    /// What happened here, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Every bad field.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldErrorShape>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "FieldError")]
#[expect(dead_code, reason = "documents the shape of model::problem::FieldError")]
struct FieldErrorShape {
    /// A JSON path, a query parameter or a header.
    field: String,
    /// What is wrong and how to fix it.
    detail: String,
}

/// The document's bytes, made once.
#[derive(Clone, Debug)]
pub(super) struct OpenApi(Arc<[u8]>);

impl OpenApi {
    pub(super) fn of(endpoints: &[Endpoint]) -> Self {
        Self(document(endpoints).to_string().into_bytes().into())
    }
}

pub(super) async fn read(State(api): State<Api>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Bytes::from_owner(api.openapi.0.clone())).into_response()
}

/// Makes schemas for what is read and for what is answered: they differ in what is required.
struct Schemas {
    read: SchemaGenerator,
    answered: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = |mut settings: SchemaSettings| {
            settings.definitions_path = DEFINITIONS.into();
            settings.meta_schema = None;
            settings.into_generator()
        };
        Self {
            read: settings(SchemaSettings::draft2020_12().for_deserialize()),
            answered: settings(SchemaSettings::draft2020_12().for_serialize()),
        }
    }

    fn components(mut self) -> Map<String, Value> {
        let mut all = self.answered.take_definitions(true);
        for (name, schema) in self.read.take_definitions(true) {
            all.entry(name).or_insert(schema);
        }
        all
    }
}

fn document(endpoints: &[Endpoint]) -> Value {
    let mut schemas = Schemas::new();
    let problem = schemas.answered.subschema_for::<ProblemShape>().to_value();
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = format!("/api/v1{}", endpoint.path);
        let operation = operation(endpoint, &mut schemas, &problem);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(endpoint.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "LeanVibe Edge control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tenants, plans, quotas, usage, alerts, hierarchy and billing. Every \
                path is also served below /v1. Refusals are problem+json (RFC 9457).",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(endpoint: &Endpoint, schemas: &mut Schemas, problem: &Value) -> Value {
    let document = &endpoint.document;
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": document.summary,
        "tags": [tag(endpoint.path)],
        "parameters": parameters(endpoint, schemas),
        "responses": responses(&document.answers, schemas, problem),
    });
    if let Value::Object(members) = &mut operation {
        if let Some(body) = &document.body {
            members.insert("requestBody".to_owned(), request_body(body, schemas));
        }
        if let Some(right) = endpoint.right {
            members.insert("security".to_owned(), json!([{ "token": [] }]));
            members.insert("x-scope".to_owned(), right.scope().into());
        }
    }
    operation
}

fn operation_id(endpoint: &Endpoint) -> String {
    let name: String =
        endpoint.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{}{name}", endpoint.method.as_str().to_ascii_lowercase())
}

/// The first segment that says what it is about.
fn tag(path: &str) -> &str {
    let mut named = path.split('/').filter(|part| !part.is_empty() && !part.starts_with('{'));
    named.next_back().unwrap_or("api")
}

fn parameters(endpoint: &Endpoint, schemas: &mut Schemas) -> Vec<Value> {
    let in_path = endpoint.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = match name {
            TENANT_PARAMETER => json!({ "type": "string", "format": "uuid" }),
            _ => json!({ "type": "string" }),
        };
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let mut parameters: Vec<_> = in_path.collect();
    // Every POST of a known caller goes through `once.rs`.
    let creates = endpoint.method == Method::POST && endpoint.right.is_some();
    let once = creates.then_some((IDEMPOTENCY_KEY, once::DESCRIPTION));
    for (name, description) in endpoint.document.headers.iter().copied().chain(once) {
        let schema = json!({ "type": "string" });
        parameters.push(json!({
            "name": name, "in": "header", "description": description, "schema": schema,
        }));
    }
    let query = endpoint.document.query.map(|schema| schema(&mut schemas.read).to_value());
    let members = query.as_ref().and_then(|schema| schema.get("properties")?.as_object());
    for (name, schema) in members.into_iter().flatten() {
        parameters.push(json!({ "name": name, "in": "query", "schema": schema }));
    }
    parameters
}

fn request_body(body: &Body, schemas: &mut Schemas) -> Value {
    let schema = (body.schema)(&mut schemas.read).to_value();
    let mut content = Map::new();
    let media_type = if body.multipart { "multipart/form-data" } else { "application/json" };
    content.insert(media_type.to_owned(), json!({ "schema": schema }));
    if body.merge_patch {
        content.insert("application/merge-patch+json".to_owned(), json!({ "schema": schema }));
    }
    json!({ "required": body.required, "content": content })
}

fn responses(answers: &[Answer], schemas: &mut Schemas, problem: &Value) -> Value {
    let mut responses = Map::new();
    for answer in answers {
        let mut response = json!({ "description": description(answer.status) });
        let content = answer.content.map(|(kind, schema)| {
            let schema = schema.map_or_else(
                || json!({ "type": "string" }),
                |schema| schema(&mut schemas.answered).to_value(),
            );
            json!({ kind: { "schema": schema } })
        });
        if let (Some(Value::Object(more)), Value::Object(members)) = (content, &mut response) {
            let held = members.entry("content").or_insert_with(|| json!({}));
            if let Value::Object(held) = held {
                held.extend(more);
            }
        }
        merge(&mut responses, answer.status.to_string(), response);
    }
    responses.insert(
        "default".to_owned(),
        json!({
            "description": "A refusal; its `code` is stable.",
            "content": { "application/problem+json": { "schema": problem } },
        }),
    );
    Value::Object(responses)
}

/// Adds a response; two of one status differ in their media types.
fn merge(responses: &mut Map<String, Value>, status: String, response: Value) {
    match responses.get_mut(&status).and_then(|held| held.get_mut("content")?.as_object_mut()) {
        Some(held) => {
            if let Some(Value::Object(more)) = response.get("content") {
                held.extend(more.clone());
            }
        }
        None => drop(responses.insert(status, response)),
    }
}

const fn description(status: u16) -> &'static str {
    match status {
        201 => "Created.",
        202 => "Accepted; it goes on.",
        204 => "Done; there is nothing to say.",
        304 => "As the caller knows it.",
        _ => "The answer.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::{body::Body, http::Request};
    use serde_json::Value;

    use crate::testing::{Backend, Control};

    #[tokio::test]
    async fn the_document_is_served_without_a_token_and_refers_to_nothing_that_is_missing() {
        let control = Control::start(Backend::Sqlite).await;
        let request = Request::get("/api/v1/openapi.json").body(Body::empty()).expect("a request");
        let answer = control.send(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json["openapi"], "3.1.0");
        let mut references = Vec::new();
        collect(&answer.json, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(answer.json.pointer(pointer).is_some(), "{reference}");
        }
        let paths = answer.json["paths"].as_object().expect("paths");
        let ids: Vec<_> = paths
            .values()
            .flat_map(|item| item.as_object().expect("an item").values())
            .map(|operation| operation["operationId"].as_str().expect("an id"))
            .collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "ids are unique");
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    references.push(reference.clone());
                }
                members.values().for_each(|member| collect(member, references));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
            _ => {}
        }
    }
}
