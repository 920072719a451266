//! `routes.toml`: route classes in the order in which they are tried.

mod meters;
mod reserves;
mod sessions;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use http::Method;
use model::{
    quota::Metric,
    route::{Pattern, Route, RouteTable, RouteTag},
};
use serde::Deserialize;

use self::{meters::Meter, reserves::Stored, sessions::Session};
use super::Problems;

const FILE: &str = "routes.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Of every route that has none of its own.
    session: Option<Session>,
    route: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    methods: Vec<String>,
    path: String,
    #[serde(default)]
    tags: Vec<RouteTag>,
    timeout_ms: Option<u64>,
    storage: Option<Stored>,
    claims: Option<Metric>,
    #[serde(default, rename = "meter")]
    meters: Vec<Meter>,
    session: Option<Session>,
}

pub(super) fn load(problems: &mut Problems) -> RouteTable {
    let Some(File { session, route: entries }) = problems.toml(FILE) else {
        return RouteTable::default();
    };
    let everywhere = session.and_then(|session| sessions::read("session", session, problems));
    if everywhere.as_ref().is_some_and(|rule| rule.ends) {
        problems.add(
            FILE,
            "session.end".to_owned(),
            "a logout is a route; give that route the `session`",
        );
    }
    let mut routes: Vec<Arc<Route>> = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        if routes.iter().any(|route| *route.name == *entry.name) {
            let reason = format!("`{}` is declared twice", entry.name);
            problems.add(FILE, format!("route[{i}].name"), reason);
        }
        if entry.timeout_ms == Some(0) {
            problems.add(FILE, format!("route[{i}].timeout_ms"), "must be at least 1");
        }
        let methods = methods(i, &entry.methods, problems);
        let meters = meters::read(i, entry.meters, problems);
        let wanted = (entry.storage, entry.claims);
        let reserves = reserves::read(i, wanted, &methods, &meters, problems);
        let session = match entry.session {
            Some(own) => sessions::read(&format!("route[{i}].session"), own, problems),
            None => everywhere.clone(),
        };
        match Pattern::parse(&entry.path) {
            Ok(path) => routes.push(Arc::new(Route {
                name: entry.name.into(),
                methods,
                path,
                tags: entry.tags,
                timeout_ms: entry.timeout_ms,
                meters,
                reserves,
                session,
            })),
            Err(error) => problems.add(FILE, format!("route[{i}].path"), error.to_string()),
        }
    }
    sessions::check_ends(&routes, problems);
    RouteTable(routes)
}

fn methods(route: usize, names: &[String], problems: &mut Problems) -> Vec<Method> {
    let mut methods = Vec::with_capacity(names.len());
    for (j, name) in names.iter().enumerate() {
        match name.parse::<Method>() {
            Ok(method) if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => {
                methods.push(method);
            }
            _ => {
                let key = format!("route[{route}].methods[{j}]");
                problems.add(FILE, key, format!("`{name}` is no method; write it like GET"));
            }
        }
    }
    methods
}
