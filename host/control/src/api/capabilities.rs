//! `GET /admin/capabilities`: what the database of this installation can do, and why not.
//!
//! Operators and their tools ask it instead of trying. Invariant: what is listed as there
//! works on this very database, and what is not is answered with 501 or refused at start.

use axum::{extract::State, response::Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, json};

/// What only PostgreSQL can do, on this database.
#[derive(Serialize, JsonSchema)]
pub(super) struct Capabilities {
    /// `postgresql` or `sqlite`.
    database: &'static str,
    capabilities: Vec<CapabilityView>,
}

/// One of them.
#[derive(Serialize, JsonSchema)]
struct CapabilityView {
    /// Stable name, the `capability` of a 501.
    name: &'static str,
    available: bool,
    /// What it is.
    detail: &'static str,
    /// What is missing: `postgresql`, or `release` for what this release does not do.
    needs: Option<&'static str>,
    /// What holds instead, while it is not there.
    instead: Option<&'static str>,
}

/// A capability, and whether this release has it on PostgreSQL.
struct Known {
    name: &'static str,
    released: bool,
    detail: &'static str,
    instead: &'static str,
}

const KNOWN: [Known; 5] = [
    Known {
        name: "row_level_security",
        released: true,
        detail: "The database itself keeps tenants apart, whatever a statement forgets.",
        instead: "every statement names its tenant; there is no second wall in the database",
    },
    Known {
        name: "partitions",
        released: true,
        detail: "The tenants' data is partitioned, split online and dropped by the month.",
        instead: "rows beyond retention are deleted in batches",
    },
    Known {
        name: "several_processes",
        released: true,
        detail: "Several edges share one database, and by a Redis (quota.url) its quotas.",
        instead: "one edge per database; a second one is refused at its start",
    },
    Known {
        name: "online_move",
        released: false,
        detail: "A tenant moves to another residency group while it is in use.",
        instead: "create a tenant in the other residency group and move its clients to it",
    },
    Known {
        name: "point_in_time_recovery",
        released: false,
        detail: "The database, or one tenant of it, is restored to any moment.",
        instead: "back up and restore with the database's own tools",
    },
];

pub(super) async fn read(State(api): State<Api>) -> Response {
    let is_postgresql = api.store.has_row_level_security();
    let view = |known: &Known| {
        let available = is_postgresql && known.released;
        CapabilityView {
            name: known.name,
            available,
            detail: known.detail,
            needs: (!available).then_some(if known.released { "postgresql" } else { "release" }),
            instead: (!available).then_some(known.instead),
        }
    };
    json(Capabilities {
        database: if is_postgresql { "postgresql" } else { "sqlite" },
        capabilities: KNOWN.iter().map(view).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control};

    async fn shown(on: Backend) -> (Value, Vec<(String, bool, Value)>) {
        let control = Control::start(on).await;
        let answer = control.get("/api/v1/admin/capabilities").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let one = |shown: &Value| {
            let name = shown["name"].as_str().expect("a name").to_owned();
            (name, shown["available"] == true, shown["needs"].clone())
        };
        let listed = answer.json["capabilities"].as_array().expect("a list");
        (answer.json["database"].clone(), listed.iter().map(one).collect())
    }

    #[tokio::test]
    async fn sqlite_has_none_of_them() {
        let (database, listed) = shown(Backend::Sqlite).await;
        assert_eq!(database, "sqlite");
        assert!(listed.iter().all(|(_, available, needs)| !available && !needs.is_null()));
    }

    #[tokio::test]
    async fn postgresql_has_what_this_release_does_there() {
        let (database, listed) = shown(Backend::Postgres).await;
        assert_eq!(database, "postgresql");
        let there: Vec<_> =
            listed.iter().filter(|(_, there, _)| *there).map(|(name, ..)| &**name).collect();
        assert_eq!(there, ["row_level_security", "partitions", "several_processes"]);
        assert!(listed.iter().all(|(_, there, needs)| *there == needs.is_null()));
        assert!(listed.iter().any(|(_, _, needs)| *needs == json!("release")));
    }
}
