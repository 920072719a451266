//! A tenant's alert settings: read, and put as a whole.
//!
//! Invariant: settings that use webhooks have a secret to sign with from the moment they
//! are stored, and putting settings enables endpoints again that had said 410.

use model::{clock::UnixMs, secret::Secret, tenant::TenantId};

use super::{
    super::{
        ChangeError, Store,
        audit::{self, Act, Actor},
        db::{Purpose, TenantTx, locking, sql},
        keys::exists,
        rows,
        sealed::Sealer,
    },
    AlertSettings, SecretRecord, parsed, secrets,
};

/// Settings and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredAlerts {
    /// What is told; nothing, when it was never put.
    pub settings: AlertSettings,
    /// Rises with every put; 0 before the first.
    pub version: u64,
    /// The live secrets, newest first.
    pub secrets: Vec<SecretRecord>,
    /// Endpoints that answered 410 Gone, and when.
    pub gone: Vec<(String, UnixMs)>,
}

/// What a put made.
#[derive(Clone, Debug)]
pub struct AlertsPut {
    /// What is now stored.
    pub stored: StoredAlerts,
    /// The secret that was made for the first webhook: to be shown once.
    pub secret: Option<Secret>,
}

impl Store {
    /// A tenant's alert settings.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn alerts(&self, tenant: TenantId) -> Result<StoredAlerts, ChangeError> {
        let now = self.clock.now();
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let stored = async {
            exists(&mut tx).await?;
            stored(&mut tx, now).await
        }
        .await;
        tx.end(stored).await
    }

    /// Replaces a tenant's alert settings.
    ///
    /// # Errors
    /// No such tenant, `if_version` is not the stored version, or the store failed.
    pub async fn put_alerts(
        &self,
        by: &Actor,
        tenant: TenantId,
        settings: AlertSettings,
        if_version: Option<u64>,
    ) -> Result<AlertsPut, ChangeError> {
        let now = self.clock.now();
        let mut act = Act::new(by, "alerts.put", "");
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let put = async {
            let before = settings_of(&mut tx).await?;
            let put = put(&mut tx, &self.sealer, &settings, if_version, now).await?;
            let after = &put.stored.settings;
            act.describe(before.as_ref().map(|before| before as _), Some(after));
            audit::append(&mut tx, tenant, &act, now).await?;
            Ok(put)
        }
        .await;
        tx.end(put).await
    }
}

async fn stored(tx: &mut TenantTx, now: UnixMs) -> Result<StoredAlerts, ChangeError> {
    let row: Option<(String, i64)> =
        sql("SELECT document, version FROM alert_settings WHERE tenant_id = $1")
            .bind(tx.tenant().0)
            .optional(tx)
            .await?;
    let gone: Vec<(String, i64)> =
        sql("SELECT url, since FROM webhook_gone WHERE tenant_id = $1 ORDER BY url")
            .bind(tx.tenant().0)
            .all(tx)
            .await?;
    let secrets = secrets::records(tx, now).await?;
    let (settings, version) = match row {
        Some((document, version)) => (parsed(&document)?, u64::try_from(version).unwrap_or(0)),
        None => (AlertSettings::default(), 0),
    };
    let gone = gone.into_iter().map(|(url, since)| (url, rows::instant(since))).collect();
    Ok(StoredAlerts { settings, version, secrets, gone })
}

/// The settings as they are, locked until the end.
async fn settings_of(tx: &mut TenantTx) -> Result<Option<AlertSettings>, ChangeError> {
    let row: Option<(String,)> =
        locking!("SELECT document FROM alert_settings WHERE tenant_id = $1")
            .bind(tx.tenant().0)
            .optional(tx)
            .await?;
    Ok(row.map(|(document,)| parsed(&document)).transpose()?)
}

async fn put(
    tx: &mut TenantTx,
    sealer: &Sealer,
    settings: &AlertSettings,
    if_version: Option<u64>,
    now: UnixMs,
) -> Result<AlertsPut, ChangeError> {
    exists(tx).await?;
    // Written first: whoever puts at the same time waits here.
    write(tx, settings, now).await?;
    let mut stored = stored(tx, now).await?;
    let before = stored.version - 1;
    if if_version.is_some_and(|version| version != before) {
        return Err(ChangeError::VersionMismatch { current: before });
    }
    sql("DELETE FROM webhook_gone WHERE tenant_id = $1").bind(tx.tenant().0).execute(tx).await?;
    stored.gone.clear();
    let mut secret = None;
    if settings.uses_webhooks() && stored.secrets.is_empty() {
        let new = secrets::make(tx, sealer, now).await?;
        stored.secrets = secrets::records(tx, now).await?;
        secret = Some(new.text);
    }
    Ok(AlertsPut { stored, secret })
}

async fn write(
    tx: &mut TenantTx,
    settings: &AlertSettings,
    now: UnixMs,
) -> Result<(), ChangeError> {
    sql("INSERT INTO alert_settings (tenant_id, document, watches, version, updated_at)
         VALUES ($1, $2, $3, 1, $4)
         ON CONFLICT (tenant_id) DO UPDATE SET document = excluded.document,
             watches = excluded.watches, updated_at = excluded.updated_at,
             version = alert_settings.version + 1")
    .bind(tx.tenant().0)
    .bind(rows::json(settings)?)
    .bind(i64::from(!settings.quota_alerts.is_empty()))
    .bind(rows::stored(now))
    .execute(tx)
    .await?;
    Ok(())
}
