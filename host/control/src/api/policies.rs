//! `GET /admin/policies`: what is declared and in force, and why a newer declaration is
//! not.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use model::{
    catalog::{PolicyStatus, ReloadProblem},
    plan::Plan,
};
use serde::Serialize;

use super::{Api, json};

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

pub(super) async fn read(State(api): State<Api>) -> Response {
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

#[cfg(test)]
mod tests {
    use model::{
        catalog::{PolicyStatus, ReloadError, ReloadProblem, ReloadStatus},
        policy::OnFailure,
    };
    use serde_json::json;

    use crate::testing::{Backend, Control, NEW_YEAR};

    #[tokio::test]
    async fn what_is_in_force_and_what_was_refused_are_both_shown() {
        let control = Control::start(Backend::Sqlite).await;
        let problem = ReloadProblem {
            file: "plans.toml".to_owned(),
            key: "team.quotas".to_owned(),
            reason: "missing".to_owned(),
        };
        control.reload.send_replace(
            ReloadStatus {
                snapshot_version: 7,
                loaded_at: NEW_YEAR,
                last_error: Some(ReloadError { at: NEW_YEAR, problems: vec![problem] }),
                policies: vec![PolicyStatus {
                    name: "feature-flags".to_owned(),
                    version: "0123456789ab".to_owned(),
                    on_failure: OnFailure::Closed,
                    instances: "fresh".to_owned(),
                    plans: vec!["team".to_owned()],
                }],
            }
            .into(),
        );
        let answer = control.get("/api/v1/admin/policies").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["snapshot_version"], 7);
        assert_eq!(answer.json["loaded_at"], "2024-01-01T00:00:00Z");
        assert_eq!(
            answer.json["last_error"],
            json!({
                "at": "2024-01-01T00:00:00Z",
                "problems": [{"file": "plans.toml", "key": "team.quotas", "reason": "missing"}],
            })
        );
        assert_eq!(answer.json["policies"][0]["on_failure"], "closed");
        assert_eq!(answer.json["plans"][0]["name"], "developer");
        assert_eq!(answer.json["residency_groups"]["uk"], json!(["eu-west-2"]));
    }
}
