//! Which version decides: activation, rollback, the kill switch, and the settings.
//!
//! Each is one change of the directory. Invariant: a version moves only as
//! `VersionState::may_become` says, and every step is in the plugin's history.

use std::sync::Arc;

use model::{
    clock::UnixMs,
    plugin::{Mover, PluginName, PluginScope, PluginSettings, VersionState},
};

use super::{
    PluginError, StoredPlugin,
    admit::{one, told},
    rows::{count, stored_count},
};
use crate::store::{
    Actor, Store, StoreError,
    change::Change,
    db::{OneTenant, Tx, sql},
    rows::{json, stored},
};

impl Store {
    /// Has a version decide, in place of the one that did.
    ///
    /// # Errors
    /// No such version, it may not, or the store failed.
    pub async fn activate_plugin(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
        number: u64,
    ) -> Result<StoredPlugin, PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.activate"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let before = one(tx, of).await?;
                    let active = before.active().map(|active| active.number);
                    if active == Some(number) {
                        change.unchanged();
                        return Ok(before);
                    }
                    if let Some(active) = active {
                        step(tx, of, &before, active, VersionState::Retired).await?;
                    }
                    step(tx, of, &before, number, VersionState::Active).await?;
                    note(tx, of, (&actor, now), "activate", active, Some(number)).await?;
                    publish(&mut change, of).await?;
                    told(&mut change, Some(&before), of).await
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }

    /// Takes the active version back and has the one before it decide again.
    ///
    /// # Errors
    /// No such plugin, no version was active before, or the store failed.
    pub async fn roll_back_plugin(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
    ) -> Result<StoredPlugin, PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.rollback"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let held = one(tx, of).await?;
                    let active = held.active().map(|active| active.number);
                    let to = self::before(tx, of).await?.ok_or(PluginError::NothingBefore)?;
                    if let Some(active) = active {
                        step(tx, of, &held, active, VersionState::RolledBack).await?;
                    }
                    step(tx, of, &held, to, VersionState::Active).await?;
                    note(tx, of, (&actor, now), "rollback", active, Some(to)).await?;
                    publish(&mut change, of).await?;
                    told(&mut change, Some(&held), of).await
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }

    /// Turns a plugin off for everybody, or on again.
    ///
    /// # Errors
    /// No such plugin, or the store failed.
    pub async fn set_plugin_enabled(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
        enabled: bool,
        expected: Option<u64>,
    ) -> Result<StoredPlugin, PluginError> {
        let (owned, plugin, actor) = (scope.clone(), name.clone(), by.to_string());
        self.change_plugin(
            (by, "plugin.switch"),
            scope,
            name,
            move |mut change: Change<OneTenant>, now| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let before = one(tx, of).await?;
                    if expected.is_some_and(|version| version != before.version) {
                        return Err(PluginError::VersionMismatch);
                    }
                    if before.enabled == enabled {
                        change.unchanged();
                        return Ok(before);
                    }
                    let active = before.active().map(|active| active.number);
                    let action = if enabled { "enable" } else { "disable" };
                    let (from, to) = if enabled { (None, active) } else { (active, None) };
                    note(tx, of, (&actor, now), action, from, to).await?;
                    sql("UPDATE plugin SET enabled = $4, version = version + 1
                     WHERE tenant_id = $1 AND plan = $2 AND name = $3")
                    .bind(owned.owner().0)
                    .bind(owned.plan())
                    .bind(plugin.as_str())
                    .bind(i64::from(enabled))
                    .execute(tx)
                    .await?;
                    publish(&mut change, of).await?;
                    told(&mut change, Some(&before), of).await
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }

    /// Sets a plugin as a whole; with `expected`, only of that version of its settings.
    ///
    /// # Errors
    /// No such plugin, another version, or the store failed.
    pub async fn set_plugin_settings(
        self: &Arc<Self>,
        by: &Actor,
        scope: &PluginScope,
        name: &PluginName,
        settings: PluginSettings,
        expected: Option<u64>,
    ) -> Result<StoredPlugin, PluginError> {
        let (owned, plugin) = (scope.clone(), name.clone());
        self.change_plugin(
            (by, "plugin.config"),
            scope,
            name,
            move |mut change: Change<OneTenant>, _| async move {
                let outcome = async {
                    let of = (&owned, &plugin);
                    let tx = &mut change.tx;
                    let before = one(tx, of).await?;
                    if expected.is_some_and(|version| version != before.version) {
                        return Err(PluginError::VersionMismatch);
                    }
                    sql("UPDATE plugin SET settings = $4, version = version + 1
                     WHERE tenant_id = $1 AND plan = $2 AND name = $3")
                    .bind(owned.owner().0)
                    .bind(owned.plan())
                    .bind(plugin.as_str())
                    .bind(json(&settings)?)
                    .execute(tx)
                    .await?;
                    publish(&mut change, of).await?;
                    told(&mut change, Some(&before), of).await
                }
                .await;
                (change, outcome)
            },
        )
        .await
    }
}

/// Moves a version, if it may.
async fn step<S>(
    tx: &mut Tx<S>,
    (scope, name): (&PluginScope, &PluginName),
    plugin: &StoredPlugin,
    number: u64,
    to: VersionState,
) -> Result<(), PluginError> {
    let from = plugin.version(number).ok_or(PluginError::NoSuchVersion)?.state;
    if !from.may_become(Mover::Person).contains(&to) {
        return Err(PluginError::Transition { from, to });
    }
    sql("UPDATE plugin_version SET state = $5
         WHERE tenant_id = $1 AND plan = $2 AND plugin = $3 AND number = $4")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .bind(stored_count(number))
    .bind(to.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// The version that a rollback goes to: of those that another took the place of, the one
/// that was active last.
pub(super) async fn before<S>(
    tx: &mut Tx<S>,
    (scope, name): (&PluginScope, &PluginName),
) -> Result<Option<u64>, StoreError> {
    let found: Option<(i64,)> = sql("SELECT v.number FROM plugin_version v
         JOIN plugin_activation a ON a.tenant_id = v.tenant_id AND a.plan = v.plan
             AND a.plugin = v.plugin AND a.to_number = v.number
         WHERE v.tenant_id = $1 AND v.plan = $2 AND v.plugin = $3 AND v.state = 'retired'
         ORDER BY a.seq DESC LIMIT 1")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .optional(tx)
    .await?;
    Ok(found.map(|(number,)| count(number)))
}

/// Adds a step to the history.
pub(super) async fn note<S>(
    tx: &mut Tx<S>,
    (scope, name): (&PluginScope, &PluginName),
    (actor, now): (&str, UnixMs),
    action: &'static str,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<(), StoreError> {
    sql("INSERT INTO plugin_activation
             (tenant_id, plan, plugin, seq, at, actor, action, from_number, to_number)
         SELECT $1, $2, $3, COALESCE(MAX(seq), 0) + 1, $4, $5, $6, $7, $8
         FROM plugin_activation WHERE tenant_id = $1 AND plan = $2 AND plugin = $3")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .bind(stored(now))
    .bind(actor)
    .bind(action)
    .bind(from.map(stored_count))
    .bind(to.map(stored_count))
    .execute(tx)
    .await
    .map(drop)
}

/// Has the plugin published at the end.
pub(super) async fn publish(
    change: &mut Change<OneTenant>,
    (scope, name): (&PluginScope, &PluginName),
) -> Result<(), StoreError> {
    let revision = change.publish_plugins().await?;
    sql("UPDATE plugin SET revision = $4 WHERE tenant_id = $1 AND plan = $2 AND name = $3")
        .bind(scope.owner().0)
        .bind(scope.plan())
        .bind(name.as_str())
        .bind(revision)
        .execute(&mut change.tx)
        .await
        .map(drop)
}
