//! One endpoint as one value: its route, who may call it, and what its document says.
//!
//! `api/mod.rs` lists them; the router and the OpenAPI document are both made from that
//! list. Invariant: an endpoint is either given the right that it asks for or declared
//! open; anything else does not compile into the list.

use axum::{
    extract::DefaultBodyLimit,
    handler::Handler,
    http::Method,
    middleware,
    routing::{self, MethodFilter, MethodRouter},
};
use model::access::Right;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    Api,
    caller::{Guard, TENANT_PARAMETER, authorize},
};

/// Adds the schema of a type to a document.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// Below `/api/v1` and `/v1`; parameters in braces.
    pub(super) path: &'static str,
    /// `None` is open to whoever reaches the listener.
    pub(super) right: Option<Right>,
    pub(super) document: Document,
    route: MethodRouter<Api>,
    /// Bytes of its body, where they may be more than usual.
    body_bytes_max: Option<usize>,
}

/// What the document says beside the route.
#[derive(Default)]
pub(super) struct Document {
    pub(super) summary: &'static str,
    /// An object whose members are the query's parameters.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<Body>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) answers: Vec<Answer>,
}

pub(super) struct Body {
    pub(super) schema: SchemaOf,
    pub(super) required: bool,
    pub(super) merge_patch: bool,
    /// A form instead of JSON.
    pub(super) multipart: bool,
}

pub(super) struct Answer {
    pub(super) status: u16,
    /// Media type and shape; `None` has no body.
    pub(super) content: Option<(&'static str, Option<SchemaOf>)>,
}

/// An endpoint of which it is not said yet who may call it.
#[must_use = "say `.right(…)` or `.open()`"]
pub(super) struct Unguarded(Endpoint);

macro_rules! methods {
    ($($name:ident $method:ident,)*) => {$(
        pub(super) fn $name<H, T>(path: &'static str, handler: H) -> Unguarded
        where
            H: Handler<T, Api>,
            T: 'static,
        {
            Self::unguarded(Method::$method, path, routing::on(MethodFilter::$method, handler))
        }
    )*};
}

impl Endpoint {
    methods! { get GET, post POST, put PUT, patch PATCH, delete DELETE, }

    fn unguarded(method: Method, path: &'static str, route: MethodRouter<Api>) -> Unguarded {
        let document = Document::default();
        Unguarded(Self { method, path, right: None, document, route, body_bytes_max: None })
    }

    /// One line on what it does.
    pub(super) fn summary(mut self, summary: &'static str) -> Self {
        self.document.summary = summary;
        self
    }

    /// It reads these parameters of the query.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.document.query = Some(T::json_schema);
        self
    }

    /// It reads a body of this shape.
    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.document.body =
            Some(Body { schema, required: true, merge_patch: false, multipart: false });
        self
    }

    /// It reads a body of this shape, if there is one.
    pub(super) fn optional_body<T: JsonSchema>(mut self) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.document.body =
            Some(Body { schema, required: false, merge_patch: false, multipart: false });
        self
    }

    /// It reads a merge patch (RFC 7396) of this shape.
    pub(super) fn merge_patch<T: JsonSchema>(mut self) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.document.body =
            Some(Body { schema, required: true, merge_patch: true, multipart: false });
        self
    }

    /// It reads a form of this shape, of that many bytes at most.
    pub(super) fn multipart<T: JsonSchema>(mut self, bytes_max: usize) -> Self {
        let schema = SchemaGenerator::subschema_for::<T>;
        self.body_bytes_max = Some(bytes_max);
        self.document.body =
            Some(Body { schema, required: true, merge_patch: false, multipart: true });
        self
    }

    /// It reads an optional request header.
    pub(super) fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.document.headers.push((name, description));
        self
    }

    /// It answers with JSON of this shape.
    pub(super) fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        let content = Some(("application/json", Some(schema)));
        self.document.answers.push(Answer { status, content });
        self
    }

    /// It answers with text of this media type.
    pub(super) fn answers_text(mut self, status: u16, media_type: &'static str) -> Self {
        self.document.answers.push(Answer { status, content: Some((media_type, None)) });
        self
    }

    /// It answers without a body.
    pub(super) fn answers_empty(mut self, status: u16) -> Self {
        self.document.answers.push(Answer { status, content: None });
        self
    }

    /// The route, with its guard before it.
    pub(super) fn route(&self, api: &Api) -> MethodRouter<Api> {
        let mut route = self.route.clone();
        if let Some(bytes) = self.body_bytes_max {
            route = route.layer(DefaultBodyLimit::max(bytes));
        }
        let Some(right) = self.right else { return route };
        let of_tenant = self.path.contains(&format!("{{{TENANT_PARAMETER}}}"));
        let headers = self.document.headers.iter().map(|(name, _)| *name).collect();
        let guard = Guard { api: api.clone(), right, of_tenant, headers };
        route.route_layer(middleware::from_fn_with_state(guard, authorize))
    }
}

impl Unguarded {
    /// Callers need this right: on the tenant of the path, if it names one.
    pub(super) fn right(self, right: Right) -> Endpoint {
        Endpoint { right: Some(right), ..self.0 }
    }

    /// Whoever reaches the listener may call it.
    pub(super) fn open(self) -> Endpoint {
        self.0
    }
}
