//! `/admin/tenants/{id}/keys`: data-plane keys issued (shown once), listed and revoked.
//!
//! Invariant: a revocation is in force at the edge of this process when it is answered, as
//! every change of the directory is (`store/applied.rs`).

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use model::clock::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    body::MaybeDocument,
    caller::Caller,
    fields::Fields,
    json,
    page::{self, Asked, Page},
    path::{KeyPath, TenantPath},
    problem::ApiError,
    rules,
};

/// How a key is issued.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `issue` reads")]
pub(super) struct NewKeyBody {
    /// RFC 3339; none lives until it is revoked.
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
}

/// A new key: the only answer that holds its text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IssuedKey")]
pub(super) struct Issued<'a> {
    id: &'a str,
    key: &'a str,
    created_at: String,
    expires_at: Option<String>,
}

/// A key without its text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Key")]
pub(super) struct Listed {
    id: Box<str>,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

/// Keys, oldest first.
pub(super) type List = Page<Listed>;

pub(super) async fn issue(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.map(|document| document.members).unwrap_or_default());
    let now = api.clock.now();
    let expires_at = fields.optional("expires_at", |value| rules::future(value, now));
    fields.finish()?;
    let issued = api.store.issue_api_key(caller.actor(), tenant, expires_at).await?;
    let answer = json(Issued {
        id: &issued.id,
        key: issued.text.expose(),
        created_at: issued.created_at.rfc3339(),
        expires_at: issued.expires_at.map(UnixMs::rfc3339),
    });
    Ok((StatusCode::CREATED, answer).into_response())
}

pub(super) async fn list(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let keys = api.store.api_keys(tenant).await?;
    let page = asked.cut(keys, |key| page::in_time(key.created_at, &key.id));
    Ok(json(page.map(|key| Listed {
        id: key.id,
        created_at: key.created_at.rfc3339(),
        expires_at: key.expires_at.map(UnixMs::rfc3339),
        revoked_at: key.revoked_at.map(UnixMs::rfc3339),
    })))
}

pub(super) async fn revoke(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_api_key(caller.actor(), tenant, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use model::key;
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control, NEW_YEAR, acme, on_both, path_of, tenant};

    on_both![
        an_issued_key_verifies_at_the_edge_and_is_shown_once,
        a_revoked_key_is_gone_from_the_directory_when_it_is_answered,
        a_key_of_another_tenant_cannot_be_revoked,
        an_end_of_life_must_be_a_time_to_come,
        keys_of_an_unknown_tenant_are_not_found,
    ];

    async fn an_issued_key_verifies_at_the_edge_and_is_shown_once(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/keys", path_of(&tenant));
        let issued = control.post(&path).await;
        assert_eq!(issued.status, 201, "{}", issued.text);
        let text = issued.json["key"].as_str().expect("a key");
        let presented = key::parse(text).expect("a well-formed key");
        let directory = control.store.directory().borrow().clone();
        assert!(directory.keys().all(|key| key.verifies(&presented, NEW_YEAR)));
        assert_eq!(directory.keys().count(), 1);
        let listed = control.get(&path).await;
        assert!(!listed.text.contains(text), "{}", listed.text);
        assert_eq!(
            listed.json["items"],
            json!([{
                "id": issued.json["id"],
                "created_at": "2024-01-01T00:00:00Z",
                "expires_at": null,
                "revoked_at": null,
            }])
        );
        let secret = &text.as_bytes()[text.len() - 59..text.len() - 7];
        let stored = control.stored_bytes();
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
    }

    async fn a_revoked_key_is_gone_from_the_directory_when_it_is_answered(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/keys", path_of(&tenant));
        let kept = control.post(&path).await.json;
        let revoked = control.post(&path).await.json;
        let revoke = format!("{path}/{}", revoked["id"].as_str().expect("an id"));
        assert_eq!(control.with(("DELETE", revoke.as_str()), &[], "").await.status, 204);
        let directory = control.store.directory().borrow().clone();
        let ids: Vec<_> = directory.keys().map(|key| Value::from(&*key.id)).collect();
        assert_eq!(ids, [kept["id"].clone()]);
        assert_eq!(control.with(("DELETE", revoke.as_str()), &[], "").await.status, 204);
        let items = control.get(&path).await.json["items"].clone();
        let ended: Vec<_> = items
            .as_array()
            .expect("items")
            .iter()
            .map(|key| !key["revoked_at"].is_null())
            .collect();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
    }

    async fn a_key_of_another_tenant_cannot_be_revoked(on: Backend) {
        let control = Control::start(on).await;
        let (one, two) =
            (control.create(&tenant("one")).await, control.create(&tenant("two")).await);
        let key = control.post(&format!("{}/keys", path_of(&one))).await.json;
        let path = format!("{}/keys/{}", path_of(&two), key["id"].as_str().expect("an id"));
        assert_eq!(control.with(("DELETE", path.as_str()), &[], "").await.status, 404);
        assert_eq!(control.store.directory().borrow().keys().count(), 1);
    }

    async fn an_end_of_life_must_be_a_time_to_come(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/keys", path_of(&tenant));
        for end in [json!("2024-01-01T00:00:00Z"), json!("soon"), json!(7)] {
            let answer = control.json("POST", &path, &json!({"expires_at": end})).await;
            assert_eq!(answer.bad_fields(), ["expires_at"]);
        }
        let body = json!({"expires_at": "2024-02-01T01:00:00+01:00"});
        let issued = control.json("POST", &path, &body).await;
        assert_eq!(issued.json["expires_at"], "2024-02-01T00:00:00Z");
    }

    async fn keys_of_an_unknown_tenant_are_not_found(on: Backend) {
        let control = Control::start(on).await;
        let path = "/api/v1/admin/tenants/00000000-0000-0000-0000-000000000000/keys";
        assert_eq!(control.post(path).await.status, 404);
        assert_eq!(control.get(path).await.status, 404);
    }
}
