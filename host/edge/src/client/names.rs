//! Which tenant is meant: by id, or by slug, which has to be looked up.
//!
//! Invariant: what looks like an id is one; a lookup that the token may not make says that
//! an id is needed, instead of that there is no such tenant.

use std::{convert::Infallible, str::FromStr};

use model::tenant::TenantId;
use serde_json::Value;

use super::{Call, Client, ClientError, error::plain};

/// A tenant as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantName {
    /// Its id.
    Id(TenantId),
    /// Its slug.
    Slug(String),
}

/// Length of a UUID with its hyphens; shorter spellings of one may be slugs.
const UUID_CHARS: usize = 36;

impl FromStr for TenantName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let id = if text.len() == UUID_CHARS { text.parse().ok() } else { None };
        Ok(id.map_or_else(|| Self::Slug(text.to_owned()), Self::Id))
    }
}

impl Client {
    /// The id of a tenant; asks the server for a slug's.
    ///
    /// # Errors
    /// There is no such slug, or the token may not look for it.
    pub async fn tenant_id(&self, name: &TenantName) -> Result<String, ClientError> {
        let slug = match name {
            TenantName::Id(id) => return Ok(id.to_string()),
            TenantName::Slug(slug) => slug,
        };
        let call = Call::get(&["admin", "tenants"]).query("slug", Some(slug));
        let found = match self.send(&call).await {
            Err(error) if matches!(error.code(), Some("forbidden" | "not-found")) => {
                return Err(ClientError::Usage(format!(
                    "this token may not list tenants, so the slug {:?} cannot be looked up\n  \
                     give the tenant's id (a UUID) instead",
                    plain(slug),
                )));
            }
            found => found?,
        };
        let is_meant = |item: &&Value| item.get("slug").and_then(Value::as_str) == Some(slug);
        let item = found.items()?.iter().find(is_meant);
        match item.map(|item| item.get("id").and_then(Value::as_str)) {
            Some(Some(id)) => Ok(id.to_owned()),
            Some(None) => Err(ClientError::Unreadable("id")),
            None => Err(ClientError::NoSuchSlug(plain(slug))),
        }
    }
}
