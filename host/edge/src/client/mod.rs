//! A client of the control API, for the command line.
//!
//! One request at a time, over HTTP or HTTPS, through no proxy and along no redirect: the
//! token goes to the server that was named and to no other. Invariant: the token is in no
//! error, no log and no output, and only a GET is ever sent twice.

mod error;
mod names;
mod pages;

use std::time::Duration;

use bytes::Bytes;
use model::secret::Secret;
use reqwest::{
    Method, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH},
};
use serde_json::Value;

pub use self::{
    error::{ClientError, Problem, plain},
    names::TenantName,
    pages::Pages,
};

/// Where the control API listens unless configured otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:9080";
/// Prefix of every path of the API.
const API: &str = "api/v1";
/// How long connecting may take, in ms: a server within reach answers in a tenth.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// How long an answer may take as a whole, in ms: twice the longest statement of the store.
const TIMEOUT_MS: u64 = 60_000;
/// Sends a request at most this often, when it is a GET.
const GET_ATTEMPTS: u32 = 2;

/// Talks to one server as one caller.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    authorization: HeaderValue,
}

/// A request: made by [`Call::get`] and its likes.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    /// Below `/api/v1`, one segment each; they are escaped here.
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Body>,
}

/// What a request carries: its media type, and the bytes of it.
#[derive(Clone, Debug)]
struct Body {
    kind: String,
    bytes: Bytes,
}

impl Body {
    fn json(kind: &str, value: &Value) -> Self {
        Self { kind: kind.to_owned(), bytes: value.to_string().into() }
    }
}

/// A successful answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body as it came.
    pub text: String,
    /// The same as JSON; `null` when it is empty.
    pub json: Value,
    /// The entity tag, if it has one.
    pub etag: Option<String>,
}

impl Answer {
    /// The items of a list, or of a page of one.
    ///
    /// # Errors
    /// The answer is neither.
    pub fn items(&self) -> Result<&[Value], ClientError> {
        let items = self.json.get("items").and_then(Value::as_array);
        items.map(Vec::as_slice).ok_or(ClientError::Unreadable("items"))
    }
}

impl Call {
    fn new(method: Method, path: &[impl AsRef<str>]) -> Self {
        let segments = path.iter().map(|segment| segment.as_ref().to_owned()).collect();
        Self { method, segments, query: Vec::new(), headers: Vec::new(), body: None }
    }

    /// Reads.
    #[must_use]
    pub fn get(path: &[impl AsRef<str>]) -> Self {
        Self::new(Method::GET, path)
    }

    /// Does something.
    #[must_use]
    pub fn post(path: &[impl AsRef<str>]) -> Self {
        Self::new(Method::POST, path)
    }

    /// Changes a thing by a JSON merge patch.
    #[must_use]
    pub fn patch(path: &[impl AsRef<str>], patch: Value) -> Self {
        let body = Some(Body::json("application/merge-patch+json", &patch));
        Self { body, ..Self::new(Method::PATCH, path) }
    }

    /// Removes a thing.
    #[must_use]
    pub fn delete(path: &[impl AsRef<str>]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn body(self, body: Value) -> Self {
        Self { body: Some(Body::json("application/json", &body)), ..self }
    }

    /// The same with a form of these parts.
    #[must_use]
    pub fn form(self, parts: &[(&str, Bytes)]) -> Self {
        // Random, so that no file holds it.
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        let mut form = Vec::new();
        for (name, bytes) in parts {
            let disposition = format!("content-disposition: form-data; name=\"{name}\"");
            form.extend_from_slice(format!("--{boundary}\r\n{disposition}\r\n\r\n").as_bytes());
            form.extend_from_slice(bytes);
            form.extend_from_slice(b"\r\n");
        }
        form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        Self { body: Some(Body { kind, bytes: form.into() }), ..self }
    }

    /// The same with a parameter, if there is a value.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// The same, refused unless the thing still is what `etag` names.
    #[must_use]
    pub fn if_match(mut self, etag: Option<String>) -> Self {
        self.headers.extend(etag.map(|etag| (IF_MATCH, etag)));
        self
    }

    /// The same with an `Idempotency-Key`, if there is one.
    #[must_use]
    pub fn idempotency_key(mut self, key: Option<String>) -> Self {
        let name = HeaderName::from_static("idempotency-key");
        self.headers.extend(key.map(|key| (name, key)));
        self
    }
}

impl Client {
    /// A client of `server`, as the bearer of `token`. Connects to nothing yet.
    ///
    /// # Errors
    /// The token cannot be sent, or the system has no root certificates for HTTPS.
    pub fn new(server: Url, token: &Secret) -> Result<Self, ClientError> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| {
                ClientError::Usage("the token holds characters that no token has".into())
            })?;
        authorization.set_sensitive(true);
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .timeout(Duration::from_millis(TIMEOUT_MS));
        if server.scheme() == "http" {
            // Without TLS no root certificates are read, which a bare container lacks.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| ClientError::Tls(error::causes(&error)))?;
        Ok(Self { http, server, authorization })
    }

    /// Sends; a GET once more when the connection broke.
    ///
    /// # Errors
    /// The server was not reached, broke off, or refused.
    pub async fn send(&self, call: &Call) -> Result<Answer, ClientError> {
        let attempts = if call.method == Method::GET { GET_ATTEMPTS } else { 1 };
        let mut attempt = 1;
        loop {
            match self.try_send(call).await {
                Err(ClientError::Broken { .. }) if attempt < attempts => attempt += 1,
                answered => return answered,
            }
        }
    }

    async fn try_send(&self, call: &Call) -> Result<Answer, ClientError> {
        let failed = |error: reqwest::Error| self.failure(call, &error);
        let mut request = self
            .http
            .request(call.method.clone(), self.url(call)?)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/json, application/problem+json");
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(Body { kind, bytes }) = &call.body {
            request = request.header(CONTENT_TYPE, kind).body(bytes.clone());
        }
        let request = request
            .build()
            .map_err(|error| ClientError::Usage(format!("cannot be sent: {error}")))?;
        let response = self.http.execute(request).await.map_err(failed)?;
        let status = response.status();
        let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        let etag = etag.map(str::to_owned);
        let body = response.bytes().await.map_err(failed)?;
        read(status, etag, String::from_utf8_lossy(&body).into_owned())
    }

    fn url(&self, call: &Call) -> Result<Url, ClientError> {
        let mut url = self.server.clone();
        {
            let mut path = url.path_segments_mut().map_err(|()| {
                ClientError::Usage(format!("{} is no address of a server", self.server))
            })?;
            path.pop_if_empty().extend(API.split('/')).extend(&call.segments);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    fn failure(&self, call: &Call, error: &reqwest::Error) -> ClientError {
        let server = self.server.to_string().trim_end_matches('/').to_owned();
        let reason = error::causes(error);
        let unknown = call.method != Method::GET;
        if error.is_connect() {
            ClientError::Unreachable { server, reason }
        } else if error.is_timeout() {
            ClientError::Slow { server, unknown }
        } else {
            ClientError::Broken { server, reason, unknown }
        }
    }
}

/// What became of an answer: the thing, or a refusal in the server's words.
fn read(status: StatusCode, etag: Option<String>, text: String) -> Result<Answer, ClientError> {
    let json = if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text) };
    match json {
        Ok(json) if status.is_success() => Ok(Answer { text, json, etag }),
        Ok(json) if json.get("title").is_some() => {
            Err(ClientError::Refused(Box::new(Problem::read(status.as_u16(), &json))))
        }
        _ => Err(ClientError::NotTheApi { status: status.as_u16() }),
    }
}

#[cfg(test)]
mod tests;
