//! `/admin/partitions`: the parts of the tenants' data, and what is done about them.
//!
//! Splits and isolations run beside the answer, in this process or, when it ends, in whichever
//! runs the job next; their progress is in the tree. Invariant: on SQLite, which has no parts,
//! every one of these answers 501 and does nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::clock::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::task::JoinHandle;

use super::{
    Api,
    body::Document,
    caller::Caller,
    fields::Fields,
    json,
    problem::{ApiError, Capability},
    rules,
};
use crate::store::{
    Managed, MoveKind, Partition, PartitionMove, PartitionMoveError, PartitionRules, PartitionTree,
    Store, StoreError, WantedMove,
};

/// How long an answer waits for a run, in ms: without a move it takes a part of that.
const RUN_WAIT_MS: u64 = 5_000;

/// What SQLite lacks.
pub(super) const PARTITIONS: Capability = Capability {
    name: "partitions",
    detail: "Partitions need PostgreSQL; nothing was changed.",
    alternatives: &["retention works without: rows beyond it are deleted in batches"],
};

/// Which part is split.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `split` reads")]
pub(super) struct SplitBody {
    /// Name of a hash part, as `GET /admin/partitions` shows it.
    partition: String,
}

/// Which tenant gets a part of its own.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `isolate` reads")]
pub(super) struct IsolateBody {
    tenant_id: String,
}

/// The parts of the tenants' data.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tree {
    /// A hash part larger than this is split by itself.
    split_threshold_bytes: u64,
    /// Months older than this are dropped.
    retention_days: u32,
    partitions: Vec<PartitionView>,
    /// The last splits and isolations, the latest first.
    moves: Vec<MoveView>,
}

/// A part with all its months.
#[derive(Serialize, JsonSchema)]
struct PartitionView {
    name: String,
    /// `hash`: the tenants of a remainder; `tenant`: one tenant alone.
    kind: &'static str,
    modulus: Option<u32>,
    remainder: Option<u32>,
    tenant_id: Option<String>,
    /// On disk, with indexes.
    bytes: u64,
    /// PostgreSQL's own estimate.
    rows_estimate: u64,
    months: u64,
    /// First instant of the oldest month.
    oldest_month: Option<String>,
    /// End of the latest month made.
    months_until: Option<String>,
    above_threshold: bool,
}

/// A split or an isolation.
#[derive(Serialize, JsonSchema)]
pub(super) struct MoveView {
    id: i64,
    /// `split` or `isolate`.
    kind: &'static str,
    /// `wanted`, `copying`, `guarding`, `checking`, `verifying`, `swapping`, `dropping`, `done`
    /// or `failed`.
    state: &'static str,
    /// The part that is replaced.
    partition: Option<String>,
    tenant_id: Option<String>,
    /// The two that replace it.
    into: Option<[String; 2]>,
    copied_rows: u64,
    /// Rows that were found equal on both sides before the swap.
    verified_rows: Option<u64>,
    /// Sum of the hashes of those rows.
    checksum: Option<String>,
    /// Why it failed; everything is as before it.
    error: Option<String>,
    created_at: String,
    updated_at: String,
}

/// What a run has done.
#[derive(Serialize, JsonSchema)]
pub(super) struct Run {
    /// `done`, `running` when it is not over yet, `by-another` when another process does it.
    state: &'static str,
    months_made: Vec<String>,
    months_dropped: Vec<String>,
    /// Rows beyond retention that lay in no month.
    rows_deleted: u64,
    /// Numbers of the moves that ended.
    moves_ended: Vec<i64>,
}

pub(super) async fn read(State(api): State<Api>) -> Result<Response, ApiError> {
    let tree = api.store.partitions().await?.ok_or(ApiError::NeedsPostgresql(PARTITIONS))?;
    Ok(json(Tree::new(tree, &PartitionRules::default())))
}

pub(super) async fn split(
    caller: Caller,
    State(api): State<Api>,
    document: Document,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.members);
    let partition = fields.required("partition", |value| rules::text(value).map(str::to_owned));
    let Some(partition) = partition else { return Err(fields.refuse()) };
    fields.finish()?;
    begin(&caller, &api, WantedMove::Split(partition)).await
}

pub(super) async fn isolate(
    caller: Caller,
    State(api): State<Api>,
    document: Document,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.members);
    let tenant = fields.required("tenant_id", rules::tenant_id);
    let Some(tenant) = tenant else { return Err(fields.refuse()) };
    fields.finish()?;
    begin(&caller, &api, WantedMove::Isolate(tenant)).await
}

pub(super) async fn run(caller: Caller, State(api): State<Api>) -> Result<Response, ApiError> {
    if api.store.partitions().await?.is_none() {
        return Err(ApiError::NeedsPostgresql(PARTITIONS));
    }
    api.store.note_partition_run(caller.actor()).await?;
    let patience = Duration::from_millis(RUN_WAIT_MS);
    let (status, run) = match tokio::time::timeout(patience, manage(&api.store)).await {
        Err(_) => (StatusCode::ACCEPTED, Run::new("running", Managed::default())),
        Ok(Err(died)) => return Err(StoreError::Abandoned(died).into()),
        Ok(Ok(managed)) => (StatusCode::OK, Run::of(managed?)),
    };
    Ok((status, json(run)).into_response())
}

async fn begin(caller: &Caller, api: &Api, wanted: WantedMove) -> Result<Response, ApiError> {
    let taken_on = api.store.want_move(caller.actor(), &wanted).await?;
    drop(manage(&api.store));
    Ok((StatusCode::ACCEPTED, json(MoveView::new(taken_on))).into_response())
}

/// Manages in a task of its own, which outlives the request.
fn manage(store: &Arc<Store>) -> JoinHandle<Result<Managed, StoreError>> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let managed = store.manage_partitions(&PartitionRules::default()).await;
        if let Err(error) = &managed {
            tracing::warn!(%error, "the parts were not managed; the next run goes on");
        }
        managed
    })
}

impl Tree {
    fn new(tree: PartitionTree, rules: &PartitionRules) -> Self {
        let view = |part| PartitionView::new(part, rules);
        Self {
            split_threshold_bytes: rules.split_bytes,
            retention_days: rules.retention_days,
            partitions: tree.partitions.into_iter().map(view).collect(),
            moves: tree.moves.into_iter().map(MoveView::new).collect(),
        }
    }
}

impl PartitionView {
    fn new(part: Partition, rules: &PartitionRules) -> Self {
        Self {
            name: part.name,
            kind: if part.hash.is_some() { "hash" } else { "tenant" },
            modulus: part.hash.map(|(modulus, _)| modulus),
            remainder: part.hash.map(|(_, remainder)| remainder),
            tenant_id: part.tenant.map(|tenant| tenant.to_string()),
            bytes: part.bytes,
            rows_estimate: part.rows_estimate,
            months: part.months,
            oldest_month: part.oldest_month.map(UnixMs::rfc3339),
            months_until: part.until.map(UnixMs::rfc3339),
            above_threshold: part.hash.is_some() && part.bytes > rules.split_bytes,
        }
    }
}

impl MoveView {
    fn new(record: PartitionMove) -> Self {
        let (verified_rows, checksum) = record.verified.unzip();
        Self {
            id: record.id,
            kind: match record.kind {
                MoveKind::Split => "split",
                MoveKind::Isolate => "isolate",
            },
            state: record.state.as_str(),
            partition: record.source,
            tenant_id: record.tenant.map(|tenant| tenant.to_string()),
            into: record.into,
            copied_rows: record.copied_rows,
            verified_rows,
            checksum,
            error: record.error,
            created_at: record.created_at.rfc3339(),
            updated_at: record.updated_at.rfc3339(),
        }
    }
}

impl Run {
    fn new(state: &'static str, managed: Managed) -> Self {
        Self {
            state,
            months_made: managed.months_made,
            months_dropped: managed.months_dropped,
            rows_deleted: managed.rows_deleted,
            moves_ended: managed.moves_ended,
        }
    }

    fn of(managed: Managed) -> Self {
        Self::new(if managed.by_another { "by-another" } else { "done" }, managed)
    }
}

impl From<PartitionMoveError> for ApiError {
    fn from(error: PartitionMoveError) -> Self {
        match error {
            PartitionMoveError::NoSuchPart => Self::field(
                "partition",
                "must be the name of a part of kind hash, see GET /api/v1/admin/partitions",
            ),
            PartitionMoveError::NoSuchTenant => Self::NotFound,
            PartitionMoveError::Alone => Self::AlreadyIsolated,
            PartitionMoveError::Busy(id) => Self::MoveRunning(id),
            PartitionMoveError::NeedsPostgresql => Self::NeedsPostgresql(PARTITIONS),
            PartitionMoveError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
