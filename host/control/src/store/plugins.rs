//! Plugins that were uploaded: what they are, which version decides, and how they are set.
//!
//! The operator's own stand under the nil tenant, so every statement names an owner.
//! Invariant: a version never changes but for where it stands, at most one of a plugin is
//! active, and whatever changes what the data plane runs is published like every other
//! change of the directory.

mod activate;
mod admit;
mod published;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use model::{
    clock::UnixMs,
    plugin::{
        Admitted, ComponentDigest, Manifest, PluginName, PluginScope, PluginSettings, VersionState,
    },
};
use serde::Serialize;

pub(super) use self::published::{PluginNews, news, with};
use super::{
    Actor, Store, StoreError,
    audit::Act,
    change::{Change, detached},
    db::{OneTenant, Purpose, sql},
};

/// A plugin as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPlugin {
    /// For whose requests.
    pub scope: PluginScope,
    /// Its name there.
    pub name: PluginName,
    /// False is the kill switch: it runs for nobody.
    pub enabled: bool,
    /// How it is set.
    pub settings: PluginSettings,
    /// Of settings and switch, for ETags.
    pub version: u64,
    /// When it was made.
    pub created_at: UnixMs,
    /// Its versions, the newest first.
    pub versions: Vec<StoredVersion>,
}

/// A version of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVersion {
    /// Its number, from 1.
    pub number: u64,
    /// Its component.
    pub component: ComponentDigest,
    /// Bytes of it.
    pub size: u64,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it stands.
    pub state: VersionState,
    /// The hooks that it exports.
    pub hooks: Vec<String>,
    /// Bytes of its largest memory at the start.
    pub memory_bytes: u64,
    /// How its probe went.
    pub log: Vec<String>,
    /// When it was uploaded.
    pub created_at: UnixMs,
    /// By whom.
    pub created_by: String,
}

/// A version to be added.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// The file.
    pub component: Bytes,
    /// Its manifest.
    pub manifest: Manifest,
    /// What looking at it found.
    pub admitted: Admitted,
}

/// A step in the history of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activation {
    /// Position, from 1.
    pub seq: u64,
    /// When.
    pub at: UnixMs,
    /// Who.
    pub actor: String,
    /// `activate`, `rollback`, `enable`, `disable`, `remove`.
    pub action: String,
    /// The version that decided before.
    pub from: Option<u64>,
    /// The one that decides since.
    pub to: Option<u64>,
}

/// Why a plugin was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No such plugin.
    #[error("there is no such plugin")]
    NotFound,
    /// No such version of it.
    #[error("there is no such version")]
    NoSuchVersion,
    /// The name is taken.
    #[error("the scope has a plugin of this name")]
    Taken,
    /// There are as many as the plan allows.
    #[error("there are {0} plugins already, as many as the plan allows")]
    TooMany(u64),
    /// `If-Match` named another version.
    #[error("it has changed meanwhile")]
    VersionMismatch,
    /// A version may not move so.
    #[error("a version that is {from} may not become {to}")]
    Transition {
        /// Where it stands.
        from: VersionState,
        /// Where it was to go.
        to: VersionState,
    },
    /// No version was active before.
    #[error("no version was active before this one")]
    NothingBefore,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoredPlugin {
    /// The version that decides.
    #[must_use]
    pub fn active(&self) -> Option<&StoredVersion> {
        self.versions.iter().find(|version| version.state == VersionState::Active)
    }

    /// A version by its number.
    #[must_use]
    pub fn version(&self, number: u64) -> Option<&StoredVersion> {
        self.versions.iter().find(|version| version.number == number)
    }
}

impl Store {
    /// The plugins of a scope with their versions, by name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plugins(&self, scope: &PluginScope) -> Result<Vec<StoredPlugin>, StoreError> {
        let mut tx = self.db.tenant(scope.owner(), Purpose::Read).await?;
        let found = rows::plugins(&mut tx, scope, None).await;
        tx.end(found).await
    }

    /// One plugin; `None` when there is none of the name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plugin(
        &self,
        scope: &PluginScope,
        name: &PluginName,
    ) -> Result<Option<StoredPlugin>, StoreError> {
        let mut tx = self.db.tenant(scope.owner(), Purpose::Read).await?;
        let found = rows::plugins(&mut tx, scope, Some(name)).await;
        Ok(tx.end(found).await?.pop())
    }

    /// The file of a component that a plugin of the scope has.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plugin_component(
        &self,
        scope: &PluginScope,
        component: ComponentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        let mut tx = self.db.tenant(scope.owner(), Purpose::Read).await?;
        let found: Result<Option<(Vec<u8>,)>, _> =
            sql("SELECT bytes FROM plugin_artifact WHERE tenant_id = $1 AND component = $2")
                .bind(scope.owner().0)
                .bind(component.0.as_slice())
                .optional(&mut tx)
                .await;
        Ok(tx.end(found).await?.map(|(bytes,)| bytes.into()))
    }

    /// What became of a plugin so far, the newest first; at most `limit` steps.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plugin_history(
        &self,
        scope: &PluginScope,
        name: &PluginName,
        limit: u32,
    ) -> Result<Vec<Activation>, StoreError> {
        let mut tx = self.db.tenant(scope.owner(), Purpose::Read).await?;
        let found = rows::history(&mut tx, scope, name, limit).await;
        tx.end(found).await
    }

    /// Runs a change of a plugin.
    async fn change_plugin<T, W, F>(
        self: &Arc<Self>,
        (by, action): (&Actor, &'static str),
        scope: &PluginScope,
        name: &PluginName,
        work: W,
    ) -> Result<T, PluginError>
    where
        T: Send + 'static,
        W: FnOnce(Change<OneTenant>, UnixMs) -> F + Send + 'static,
        F: Future<Output = (Change<OneTenant>, Result<T, PluginError>)> + Send,
    {
        let act = Act::new(by, action, format!("{}{name}", scope.prefix()));
        let (store, owner) = (Arc::clone(self), scope.owner());
        detached(async move {
            let change = Change::of(&store, owner, act).await?;
            let (change, outcome) = work(change, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}
