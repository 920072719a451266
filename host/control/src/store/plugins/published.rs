//! Plugins in the directory: those that are on and have an active version.
//!
//! Invariant: what changed since a revision is read as a whole or not at all, and the list
//! stays in the order of scope and name.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    plugin::{PluginName, PluginRecord, PluginScope},
    tenant::TenantId,
};
use uuid::Uuid;

use super::rows::{count, digest, plugin_name};
use crate::store::{
    StoreError,
    db::{ControlTx, sql},
    rows::object,
};

/// Where a plugin is in the list.
type Key = (PluginScope, PluginName);

/// What has become of the plugins that changed; `None` is one that does not run any more.
#[derive(Debug, Default)]
pub(in crate::store) struct PluginNews(Vec<(Key, Option<Arc<PluginRecord>>)>);

#[derive(sqlx::FromRow)]
struct Row {
    tenant_id: Uuid,
    plan: String,
    name: String,
    settings: String,
    number: Option<i64>,
    component: Option<Vec<u8>>,
    size: Option<i64>,
    manifest: Option<String>,
}

/// The plugins that changed since a revision of the directory; all when it is 0.
pub(in crate::store) async fn news(
    tx: &mut ControlTx,
    known: i64,
) -> Result<PluginNews, StoreError> {
    let (last,): (i64,) = sql("SELECT plugins FROM directory_head").one(tx).await?;
    if last <= known {
        return Ok(PluginNews::default());
    }
    let rows: Vec<Row> = sql("SELECT p.tenant_id, p.plan, p.name, p.settings, v.number,
             v.component, v.size, v.manifest
         FROM plugin p
         LEFT JOIN plugin_version v ON v.tenant_id = p.tenant_id AND v.plan = p.plan
             AND v.plugin = p.name AND v.state = 'active'
             AND p.enabled = 1 AND p.removed_at IS NULL
         WHERE p.revision > $1")
    .bind(known)
    .all(tx)
    .await?;
    rows.into_iter().map(Row::decode).collect::<Result<_, _>>().map(PluginNews)
}

impl Row {
    fn decode(self) -> Result<(Key, Option<Arc<PluginRecord>>), StoreError> {
        let scope = PluginScope::from_stored(TenantId(self.tenant_id), &self.plan);
        let name = plugin_name(&self.name)?;
        let (Some(number), Some(component), Some(manifest)) =
            (self.number, self.component, self.manifest)
        else {
            return Ok(((scope, name), None));
        };
        let record = PluginRecord {
            scope: scope.clone(),
            name: name.clone(),
            number: count(number),
            component: digest(&component)?,
            size: count(self.size.unwrap_or(0)),
            manifest: object(&manifest)?,
            settings: object(&self.settings)?,
        };
        Ok(((scope, name), Some(Arc::new(record))))
    }
}

/// The list after the plugins of `news` have become what it says.
pub(in crate::store) fn with(
    before: &Arc<Vec<Arc<PluginRecord>>>,
    news: PluginNews,
) -> Arc<Vec<Arc<PluginRecord>>> {
    if news.0.is_empty() {
        return Arc::clone(before);
    }
    let key = |record: &Arc<PluginRecord>| (record.scope.clone(), record.name.clone());
    let mut by_key: BTreeMap<Key, Arc<PluginRecord>> =
        before.iter().map(|record| (key(record), Arc::clone(record))).collect();
    for (key, record) in news.0 {
        match record {
            Some(record) => drop(by_key.insert(key, record)),
            None => drop(by_key.remove(&key)),
        }
    }
    Arc::new(by_key.into_values().collect())
}
