//! The operator's token for the control API.
//!
//! Invariant: only its SHA-256 is stored; comparison is constant time.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{
    clock::UnixMs,
    key::{SecretHash, hash_secret},
    secret::Secret,
};
use subtle::ConstantTimeEq;

use super::{
    Store, StoreError,
    audit::{Act, Actor},
    change::{Change, detached},
    db::{ControlTx, sql},
    random, rows,
};

/// The name under which the configured or first minted token is stored.
const FIRST: &str = "first";
/// Starts every minted token, so that scanners know one.
const PREFIX: &str = "lv_admin_";

/// Verifies the operator's token.
#[derive(Clone, Copy)]
pub struct AdminToken(SecretHash);

impl AdminToken {
    /// Whether `presented` is the token. Constant time in the token.
    #[must_use]
    pub fn verifies(&self, presented: &str) -> bool {
        hash_secret(presented).0.ct_eq(&self.0.0).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Where the token in force comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminTokenSource {
    /// Made now; to be shown this once.
    Minted(Secret),
    /// The given one, now stored in place of any other.
    Given,
    /// The stored one; its text is not known here unless it was given again.
    Stored,
}

/// The token in force, and how it came to be.
#[derive(Clone, Debug)]
pub struct AdminTokenOutcome {
    /// Verifies it.
    pub token: AdminToken,
    /// Where it comes from.
    pub source: AdminTokenSource,
}

/// No admin token was set.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// No client could send it.
    #[error("the admin token must be visible ASCII characters without spaces, and not empty")]
    Unsendable,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Settles which admin token is in force: the given one, replacing a stored one; else
    /// the stored one; else one minted now. Called at start-up.
    ///
    /// # Errors
    /// The given token cannot be a bearer token, or the store failed.
    pub async fn ensure_admin_token(
        self: &Arc<Self>,
        given: Option<Secret>,
    ) -> Result<AdminTokenOutcome, AdminTokenError> {
        let sendable = |token: &Secret| {
            !token.expose().is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic())
        };
        if given.as_ref().is_some_and(|token| !sendable(token)) {
            return Err(AdminTokenError::Unsendable);
        }
        let act = Act::new(&Actor::Program, "admin-token.set", FIRST);
        let store = Arc::clone(self);
        detached(async move {
            let mut change = Change::of_installation(&store, act).await?;
            let outcome = settle(&mut change.tx, given, store.clock.now()).await;
            let kept = |outcome: &AdminTokenOutcome| outcome.source == AdminTokenSource::Stored;
            if outcome.as_ref().is_ok_and(kept) {
                change.unchanged();
            }
            Ok(change.end(outcome).await?)
        })
        .await
    }
}

async fn settle(
    tx: &mut ControlTx,
    given: Option<Secret>,
    now: UnixMs,
) -> Result<AdminTokenOutcome, StoreError> {
    let stored: Option<(Vec<u8>,)> =
        sql("SELECT hash FROM admin_token WHERE name = $1").bind(FIRST).optional(tx).await?;
    let stored = stored
        .map(|(hash,)| hash.try_into().map(|hash| AdminToken(SecretHash(hash))))
        .transpose()
        .map_err(|_| StoreError::Decode("admin token".to_owned()))?;
    let (text, source) = match (stored, given) {
        (Some(token), None) => {
            return Ok(AdminTokenOutcome { token, source: AdminTokenSource::Stored });
        }
        (Some(token), Some(given)) if token.verifies(given.expose()) => {
            return Ok(AdminTokenOutcome { token, source: AdminTokenSource::Stored });
        }
        (_, Some(given)) => (given, AdminTokenSource::Given),
        (None, None) => {
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random::bytes::<32>()?));
            let text = Secret::new(text);
            (text.clone(), AdminTokenSource::Minted(text))
        }
    };
    let hash = hash_secret(text.expose());
    sql("INSERT INTO admin_token (name, hash, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE
         SET hash = excluded.hash, created_at = excluded.created_at")
    .bind(FIRST)
    .bind(hash.0.as_slice())
    .bind(rows::stored(now))
    .execute(tx)
    .await?;
    Ok(AdminTokenOutcome { token: AdminToken(hash), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, on_both};

    on_both![
        a_token_is_minted_once_and_then_kept,
        a_given_token_replaces_the_stored_one,
        a_token_that_no_client_could_send_is_refused,
    ];

    async fn a_token_is_minted_once_and_then_kept(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        let minted = store.ensure_admin_token(None).await.expect("a token");
        let AdminTokenSource::Minted(text) = minted.source else { panic!("{minted:?}") };
        assert!(minted.token.verifies(text.expose()));
        assert!(!minted.token.verifies("lv_admin_"));
        store.close().await;
        drop(store);
        let store = database.open().await;
        let kept = store.ensure_admin_token(None).await.expect("a token");
        assert_eq!(kept.source, AdminTokenSource::Stored);
        assert!(kept.token.verifies(text.expose()));
        let again = store.ensure_admin_token(Some(text)).await.expect("a token");
        assert_eq!(again.source, AdminTokenSource::Stored);
    }

    async fn a_given_token_replaces_the_stored_one(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        store.ensure_admin_token(Some(Secret::new("first"))).await.expect("a token");
        let second = store.ensure_admin_token(Some(Secret::new("second"))).await.expect("a token");
        assert_eq!(second.source, AdminTokenSource::Given);
        assert!(second.token.verifies("second") && !second.token.verifies("first"));
    }

    async fn a_token_that_no_client_could_send_is_refused(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        for token in ["", "two words", "line\n", "schlüssel"] {
            let refused = store.ensure_admin_token(Some(Secret::new(token))).await;
            assert!(matches!(refused, Err(AdminTokenError::Unsendable)), "{token:?}");
        }
    }
}
