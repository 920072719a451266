//! `tenant hierarchy`: a tenant and those below it, drawn as a tree.

use anyhow::Result;
use serde_json::Value;

use super::Named;
use crate::{
    client::Call,
    commands::{session::Session, table::cell},
};

pub(super) async fn run(session: &Session, tenant: &Named) -> Result<()> {
    let id = tenant.id(session).await?;
    session.print(&Call::get(&["tenants", &id, "hierarchy"]), tree).await
}

fn tree(answer: &Value) -> String {
    let Some(root) = answer.get("hierarchy") else { return String::new() };
    let mut text = format!("{}\n", label(root));
    draw(root, "", &mut text);
    if answer.get("truncated").and_then(Value::as_bool).unwrap_or(false) {
        text.push_str("there are more below: ask for a tenant of the last level\n");
    }
    text
}

/// Draws what is below a node; the API bounds the depth.
fn draw(node: &Value, indent: &str, text: &mut String) {
    let children = node.get("children").and_then(Value::as_array);
    let children = children.map(Vec::as_slice).unwrap_or_default();
    for (number, child) in children.iter().enumerate() {
        let (branch, below) = match number + 1 == children.len() {
            false => ("├── ", "│   "),
            true => ("└── ", "    "),
        };
        text.push_str(&format!("{indent}{branch}{}\n", label(child)));
        draw(child, &format!("{indent}{below}"), text);
    }
}

/// Slug, plan and status; the status in effect where an ancestor changes it.
fn label(node: &Value) -> String {
    let member = |name| cell(node.get(name));
    let (own, effective) = (member("status"), member("effective_status"));
    let status = match own == effective || node.get("effective_status").is_none() {
        true => own,
        false => format!("{own}, in effect {effective}"),
    };
    format!("{} ({}) {status}", member("slug"), member("plan"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_family_is_drawn_as_the_guide_draws_it() {
        let node = |slug: &str, children: Vec<Value>| {
            json!({
                "slug": slug, "plan": "team", "status": "active", "effective_status": "active",
                "children": children,
            })
        };
        let division = node("division-1", vec![]);
        let mut last = node("subsidiary-b", vec![node("office-eu", vec![])]);
        last["effective_status"] = json!("suspended");
        let root = node("parent", vec![node("subsidiary-a", vec![division]), last]);
        assert_eq!(
            tree(&json!({"hierarchy": root, "truncated": true})),
            "parent (team) active\n\
             ├── subsidiary-a (team) active\n\
             │   └── division-1 (team) active\n\
             └── subsidiary-b (team) active, in effect suspended\n\
             \u{20}   └── office-eu (team) active\n\
             there are more below: ask for a tenant of the last level\n"
        );
    }
}
