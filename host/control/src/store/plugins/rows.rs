//! Plugins as rows: the one place that knows their columns.

use model::{
    clock::UnixMs,
    plugin::{ComponentDigest, PluginName, PluginScope, VersionState},
};

use super::{Activation, StoredPlugin, StoredVersion};
use crate::store::{
    StoreError,
    db::{Tx, sql},
    rows::{instant, object},
};

#[derive(sqlx::FromRow)]
struct PluginRow {
    name: String,
    enabled: i64,
    settings: String,
    version: i64,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    plugin: String,
    number: i64,
    component: Vec<u8>,
    size: i64,
    manifest: String,
    state: String,
    hooks: String,
    memory_bytes: i64,
    log: String,
    created_at: i64,
    created_by: String,
}

/// The plugins of a scope, or one of them, with their versions.
pub(super) async fn plugins<S>(
    tx: &mut Tx<S>,
    scope: &PluginScope,
    name: Option<&PluginName>,
) -> Result<Vec<StoredPlugin>, StoreError> {
    let name = name.map(PluginName::as_str);
    let found: Vec<PluginRow> = sql("SELECT name, enabled, settings, version, created_at
         FROM plugin
         WHERE tenant_id = $1 AND plan = $2 AND ($3 IS NULL OR name = $3) AND removed_at IS NULL
         ORDER BY name")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name)
    .all(tx)
    .await?;
    let versions: Vec<VersionRow> = sql("SELECT plugin, number, component, size, manifest, state,
             hooks, memory_bytes, log, created_at, created_by
         FROM plugin_version
         WHERE tenant_id = $1 AND plan = $2 AND ($3 IS NULL OR plugin = $3)
         ORDER BY plugin, number DESC")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name)
    .all(tx)
    .await?;
    let mut plugins = Vec::with_capacity(found.len());
    for row in found {
        plugins.push(StoredPlugin {
            scope: scope.clone(),
            name: plugin_name(&row.name)?,
            enabled: row.enabled != 0,
            settings: object(&row.settings)?,
            version: count(row.version),
            created_at: instant(row.created_at),
            versions: versions
                .iter()
                .filter(|version| version.plugin == row.name)
                .map(VersionRow::decode)
                .collect::<Result<_, _>>()?,
        });
    }
    Ok(plugins)
}

impl VersionRow {
    fn decode(&self) -> Result<StoredVersion, StoreError> {
        Ok(StoredVersion {
            number: count(self.number),
            component: digest(&self.component)?,
            size: count(self.size),
            manifest: object(&self.manifest)?,
            state: VersionState::from_name(&self.state)
                .ok_or_else(|| StoreError::Decode(format!("state {:?}", self.state)))?,
            hooks: object(&self.hooks)?,
            memory_bytes: count(self.memory_bytes),
            log: object(&self.log)?,
            created_at: instant(self.created_at),
            created_by: self.created_by.clone(),
        })
    }
}

/// The history of a plugin, the newest first.
pub(super) async fn history<S>(
    tx: &mut Tx<S>,
    scope: &PluginScope,
    name: &PluginName,
    limit: u32,
) -> Result<Vec<Activation>, StoreError> {
    type Row = (i64, i64, String, String, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sql("SELECT seq, at, actor, action, from_number, to_number
         FROM plugin_activation WHERE tenant_id = $1 AND plan = $2 AND plugin = $3
         ORDER BY seq DESC LIMIT $4")
    .bind(scope.owner().0)
    .bind(scope.plan())
    .bind(name.as_str())
    .bind(i64::from(limit))
    .all(tx)
    .await?;
    let step = |(seq, at, actor, action, from, to): Row| Activation {
        seq: count(seq),
        at: UnixMs(count(at)),
        actor,
        action,
        from: from.map(count),
        to: to.map(count),
    };
    Ok(rows.into_iter().map(step).collect())
}

pub(super) fn plugin_name(text: &str) -> Result<PluginName, StoreError> {
    text.parse().map_err(|_| StoreError::Decode(format!("plugin {text:?}")))
}

pub(super) fn digest(bytes: &[u8]) -> Result<ComponentDigest, StoreError> {
    let digest = bytes.try_into().map_err(|_| StoreError::Decode("a digest".to_owned()))?;
    Ok(ComponentDigest(digest))
}

pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn stored_count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
