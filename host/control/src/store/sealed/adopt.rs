//! What a start does about sealed values: it makes sure that it has the right keys, and
//! seals what an earlier release left as it was.
//!
//! Invariant: a process with other keys than the database's is refused before it writes or
//! serves anything. A start that is cut off leaves each value either as it was or sealed.

use model::{clock::UnixMs, sealing::SealKeyId, tenant::TenantId};
use uuid::Uuid;

use super::Sealer;
use crate::store::{
    StoreError, alerts,
    db::{Db, Purpose, TenantTx, sql},
    rows, secrets,
};

/// Called at the start, before anything is read.
pub(in crate::store) async fn adopt(
    db: &Db,
    sealer: &Sealer,
    now: UnixMs,
) -> Result<(), StoreError> {
    let Sealer(Some(keys)) = sealer else { return Ok(()) };
    register(db, keys.current().id, |id| keys.key(id).is_some(), now).await?;
    for tenant in unsealed(db).await? {
        let mut tx = db.tenant(tenant, Purpose::Write).await?;
        let sealed = seal_all(&mut tx, sealer).await;
        tx.end(sealed).await?;
    }
    Ok(())
}

/// Notes the current key, unless the database has keys of which this process has none.
async fn register(
    db: &Db,
    current: SealKeyId,
    has: impl Fn(SealKeyId) -> bool,
    now: UnixMs,
) -> Result<(), StoreError> {
    let mut tx = db.control(Purpose::Change).await?;
    let registered = async {
        let known: Vec<(String,)> =
            sql("SELECT id FROM seal_key ORDER BY created_at DESC, id").all(&mut tx).await?;
        let missing = known.iter().find(|(id,)| !parsed(id).is_some_and(&has));
        match missing {
            Some((key,)) => Err(StoreError::UnknownKey { key: key.clone() }),
            None => sql("INSERT INTO seal_key (id, created_at) VALUES ($1, $2)
                         ON CONFLICT (id) DO NOTHING")
            .bind(current.to_string())
            .bind(rows::stored(now))
            .execute(&mut tx)
            .await
            .map(drop),
        }
    }
    .await;
    tx.end(registered).await
}

fn parsed(id: &str) -> Option<SealKeyId> {
    let bytes = u128::from_str_radix(id, 16).ok()?.to_be_bytes();
    Some(SealKeyId(bytes))
}

/// Tenants with a value that is not sealed.
async fn unsealed(db: &Db) -> Result<Vec<TenantId>, StoreError> {
    let mut tx = db.control(Purpose::Read).await?;
    let tenants: Result<Vec<(Uuid,)>, _> =
        sql("SELECT tenant_id FROM tenant_secret WHERE key_id IS NULL
         UNION SELECT tenant_id FROM webhook_secret WHERE key_id IS NULL")
        .all(&mut tx)
        .await;
    Ok(tx.end(tenants).await?.into_iter().map(|(id,)| TenantId(id)).collect())
}

async fn seal_all(tx: &mut TenantTx, sealer: &Sealer) -> Result<(), StoreError> {
    let tenant = tx.tenant();
    let values: Vec<(String, String)> =
        sql("SELECT name, value FROM tenant_secret WHERE tenant_id = $1 AND key_id IS NULL")
            .bind(tenant.0)
            .all(tx)
            .await?;
    for (name, value) in values {
        let sealed = sealer.seal_text(secrets::place(tenant, &name), &value)?;
        sql("UPDATE tenant_secret SET value = $3, key_id = $4
             WHERE tenant_id = $1 AND name = $2 AND key_id IS NULL AND value = $5")
        .bind(tenant.0)
        .bind(&name)
        .bind(&sealed.text)
        .bind(&sealed.key_id)
        .bind(&value)
        .execute(tx)
        .await?;
    }
    let texts: Vec<(Uuid, String)> =
        sql("SELECT id, secret FROM webhook_secret WHERE tenant_id = $1 AND key_id IS NULL")
            .bind(tenant.0)
            .all(tx)
            .await?;
    for (id, text) in texts {
        let row = id.to_string();
        let sealed = sealer.seal_text(alerts::secret_place(tenant, &row), &text)?;
        sql("UPDATE webhook_secret SET secret = $3, key_id = $4
             WHERE tenant_id = $1 AND id = $2 AND key_id IS NULL")
        .bind(tenant.0)
        .bind(id)
        .bind(&sealed.text)
        .bind(&sealed.key_id)
        .execute(tx)
        .await?;
    }
    Ok(())
}
