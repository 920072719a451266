//! Adds plugins and versions, and removes them. Neither is seen by the data plane before
//! a version is active.

use std::sync::Arc;

use model::{
    clock::UnixMs,
    plugin::{ComponentDigest, PluginName, PluginScope, PluginSettings, VersionState},
};

use super::{
    NewVersion, PluginError, StoredPlugin,
    activate::{note, publish},
    rows::{self, stored_count},
};
use crate::store::{
    Actor, Store, StoreError,
    change::Change,
    db::{OneTenant, Tx, sql},
    rows::{json, stored},
};

impl Store {
    /// Adds a plugin with its first version, a draft.
    ///
    /// # Errors
    /// The name is taken, there are `plugins_max` already, or the store failed.
    pub async fn create_plugin(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
        settings: PluginSettings,
        version: NewVersion,
        plugins_max: u64,
    ) -> Result<StoredPlugin, PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.create"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let tx = &mut change.tx;
                    let there = rows::plugins(tx, &owned, None).await?;
                    if there.iter().any(|there| there.name == plugin) {
                        return Err(PluginError::Taken);
                    }
                    if there.len() as u64 >= plugins_max {
                        return Err(PluginError::TooMany(plugins_max));
                    }
                    insert(tx, &owned, &plugin, &settings, now).await?;
                    add(tx, (&owned, &plugin), &version, &actor, now).await?;
                    told(&mut change, None, (&owned, &plugin)).await
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }

    /// Adds a version, a draft; the same file with the same manifest as the newest one is
    /// that one. Beyond `versions_max` the oldest that nothing needs is dropped. The version's number
    /// comes with the plugin.
    ///
    /// # Errors
    /// No such plugin, or the store failed.
    pub async fn add_plugin_version(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
        version: NewVersion,
        versions_max: u64,
    ) -> Result<(StoredPlugin, u64), PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.version"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let before = one(tx, of).await?;
                    let component = ComponentDigest::of(&version.component);
                    let newest = before.versions.first();
                    if let Some(newest) = newest
                        && newest.component == component
                        && newest.manifest == version.manifest
                    {
                        let number = newest.number;
                        change.unchanged();
                        return Ok((before, number));
                    }
                    let number = add(tx, of, &version, &actor, now).await?;
                    prune(tx, of, versions_max).await?;
                    let after = told(&mut change, Some(&before), of).await?;
                    Ok((after, number))
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }

    /// Removes a plugin with its versions and their components. Its history stays.
    ///
    /// # Errors
    /// No such plugin, or the store failed.
    pub async fn remove_plugin(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
    ) -> Result<(), PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.remove"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let before = one(tx, of).await?;
                    let from = before.active().map(|active| active.number);
                    note(tx, of, (&actor, now), "remove", from, None).await?;
                    sql("DELETE FROM plugin_version
                     WHERE tenant_id = $1 AND plan = $2 AND plugin = $3")
                    .bind(owned.owner().0)
                    .bind(owned.plan())
                    .bind(plugin.as_str())
                    .execute(tx)
                    .await?;
                    forget_components(tx, &owned).await?;
                    sql("UPDATE plugin SET removed_at = $4
                     WHERE tenant_id = $1 AND plan = $2 AND name = $3")
                    .bind(owned.owner().0)
                    .bind(owned.plan())
                    .bind(plugin.as_str())
                    .bind(stored(now))
                    .execute(tx)
                    .await?;
                    change.describe(Some(&seen(&before)), None);
                    publish(&mut change, of).await.map_err(PluginError::from)
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }
}

/// The plugin as it is within the transaction.
pub(super) async fn one<S>(
    tx: &mut Tx<S>,
    (scope, name): (&PluginScope, &PluginName),
) -> Result<StoredPlugin, PluginError> {
    rows::plugins(tx, scope, Some(name)).await?.pop().ok_or(PluginError::NotFound)
}

/// The plugin after a change, which the audit chain hears of.
pub(super) async fn told(
    change: &mut Change<OneTenant>,
    before: Option<&StoredPlugin>,
    of: (&PluginScope, &PluginName),
) -> Result<StoredPlugin, PluginError> {
    let after = one(&mut change.tx, of).await?;
    let before = before.map(seen);
    change.describe(before.as_ref().map(|seen| seen as _), Some(&seen(&after)));
    Ok(after)
}

/// For the audit chain.
pub(super) fn seen(plugin: &StoredPlugin) -> serde_json::Value {
    let versions = plugin.versions.iter().map(|version| {
        serde_json::json!([version.number, version.component.to_string(), version.state])
    });
    serde_json::json!({
        "enabled": plugin.enabled,
        "settings": plugin.settings,
        "versions": versions.collect::<Vec<_>>(),
    })
}

/// A removed plugin of the name comes back with its numbers, and nothing else of it.
async fn insert<S>(
    tx: &mut Tx<S>,
    scope: &PluginScope,
    name: &PluginName,
    settings: &PluginSettings,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO plugin
             (tenant_id, plan, name, enabled, settings, version, revision, created_at, newest)
         VALUES ($1, $2, $3, 1, $4, 1, 0, $5, 0)
         ON CONFLICT (tenant_id, plan, name) DO UPDATE SET enabled = 1,
             settings = excluded.settings, version = plugin.version + 1,
             created_at = excluded.created_at, removed_at = NULL")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .bind(json(settings)?)
    .bind(stored(now))
    .execute(tx)
    .await
    .map(drop)
}

async fn add<S>(
    tx: &mut Tx<S>,
    (scope, name): (&PluginScope, &PluginName),
    version: &NewVersion,
    actor: &str,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let component = ComponentDigest::of(&version.component);
    sql("INSERT INTO plugin_artifact (tenant_id, component, bytes) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, component) DO NOTHING")
    .bind(scope.owner().0)
    .bind(component.0.as_slice())
    .bind(&version.component[..])
    .execute(tx)
    .await?;
    let (number,): (i64,) = sql("UPDATE plugin SET newest = newest + 1
         WHERE tenant_id = $1 AND plan = $2 AND name = $3 RETURNING newest")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .one(tx)
    .await?;
    sql("INSERT INTO plugin_version (tenant_id, plan, plugin, number, component, size, manifest,
             state, hooks, memory_bytes, log, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .bind(number)
    .bind(component.0.as_slice())
    .bind(stored_count(version.component.len() as u64))
    .bind(json(&version.manifest)?)
    .bind(VersionState::Draft.as_str())
    .bind(json(&version.admitted.hooks)?)
    .bind(stored_count(version.admitted.memory_bytes))
    .bind(json(&version.admitted.probe.log)?)
    .bind(stored(now))
    .bind(actor)
    .execute(tx)
    .await?;
    Ok(rows::count(number))
}

/// Drops the oldest versions beyond the most; never one that decides, nor the one that a
/// rollback would go to.
async fn prune<S>(
    tx: &mut Tx<S>,
    of: (&PluginScope, &PluginName),
    versions_max: u64,
) -> Result<(), PluginError> {
    let (scope, name) = of;
    let plugin = one(tx, of).await?;
    let before = super::activate::before(tx, of).await?;
    let newest = plugin.versions.first().map(|newest| newest.number);
    let mut excess = (plugin.versions.len() as u64).saturating_sub(versions_max.max(1));
    for version in plugin.versions.iter().rev() {
        let idle = matches!(
            version.state,
            VersionState::Draft | VersionState::Retired | VersionState::RolledBack
        );
        let needed = Some(version.number) == before || Some(version.number) == newest;
        if excess == 0 || !idle || needed {
            continue;
        }
        sql("DELETE FROM plugin_version
             WHERE tenant_id = $1 AND plan = $2 AND plugin = $3 AND number = $4")
        .bind(scope.owner().0)
        .bind(scope.plan())
        .bind(name.as_str())
        .bind(stored_count(version.number))
        .execute(tx)
        .await?;
        excess -= 1;
    }
    Ok(forget_components(tx, scope).await?)
}

/// Forgets the files that no version of the owner has any more.
async fn forget_components<S>(tx: &mut Tx<S>, scope: &PluginScope) -> Result<(), StoreError> {
    sql("DELETE FROM plugin_artifact WHERE tenant_id = $1 AND NOT EXISTS (
             SELECT 1 FROM plugin_version v
             WHERE v.tenant_id = $1 AND v.component = plugin_artifact.component)")
    .bind(scope.owner().0)
    .execute(tx)
    .await
    .map(drop)
}
