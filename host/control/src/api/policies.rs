//! `GET /admin/policies`: what is declared and in force, and why a newer declaration is
//! not.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use model::{
    catalog::{PolicyStatus, ReloadProblem},
    plan::Plan,
};
use serde::Serialize;

use super::{Api, auth::Admin, json};

#[derive(Debug, Serialize)]
struct Policies<'a> {
    snapshot_version: u64,
    loaded_at: String,
    /// The last refused load, unless a later one succeeded.
    last_error: Option<LastError<'a>>,
    policies: &'a [PolicyStatus],
    plans: Vec<&'a Plan>,
    residency_groups: &'a BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize)]
struct LastError<'a> {
    at: String,
    problems: &'a [ReloadProblem],
}

pub(super) async fn read(_: Admin, State(api): State<Api>) -> Response {
    let reload = Arc::clone(&api.reload.borrow());
    let catalog = Arc::clone(&api.catalog.borrow());
    json(Policies {
        snapshot_version: reload.snapshot_version,
        loaded_at: reload.loaded_at.rfc3339(),
        last_error: reload
            .last_error
            .as_ref()
            .map(|error| LastError { at: error.at.rfc3339(), problems: &error.problems }),
        policies: &reload.policies,
        plans: catalog.plans.values().map(Arc::as_ref).collect(),
        residency_groups: &catalog.groups,
    })
}
