//! API keys: `lv_live_…`, looked up by their public id in the pinned snapshot.
//!
//! Invariant: an unknown id costs the same hash as a known one.

use std::sync::LazyLock;

use model::{
    clock::UnixMs,
    key::{self, ApiKey, SecretHash},
    snapshot::Snapshot,
    tenant::TenantId,
};

/// A key that nothing verifies against.
static NOBODY: LazyLock<ApiKey> = LazyLock::new(|| ApiKey {
    id: "".into(),
    tenant: TenantId(uuid::Uuid::nil()),
    hash: SecretHash([0; 32]),
    expires_at: Some(UnixMs(0)),
});

/// The tenant of a live key.
pub(crate) fn verify(snapshot: &Snapshot, token: &str, now: UnixMs) -> Option<TenantId> {
    let presented = key::parse(token)?;
    let record = snapshot.key(presented.id).map_or(&*NOBODY, |record| &**record);
    record.verifies(&presented, now).then_some(record.tenant)
}
