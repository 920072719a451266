//! Reads a `routes.toml` from its text, for the tests of its parts.

use model::route::RouteTable;

use crate::declare::{Problems, routes};

/// The routes, or every problem as `key: reason`.
pub(super) fn load(text: &str) -> Result<RouteTable, Vec<String>> {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("routes.toml"), text).expect("a file");
    let mut problems = Problems::new(dir.path());
    let routes = routes::load(&mut problems);
    problems.into_result(routes).map_err(|all| {
        all.into_iter().map(|problem| format!("{}: {}", problem.key, problem.reason)).collect()
    })
}

/// The same of one route with these keys beside its name and path.
pub(super) fn one(keys: &str) -> Result<RouteTable, Vec<String>> {
    load(&format!("[[route]]\nname = \"files\"\npath = \"/files/**\"\n{keys}"))
}
