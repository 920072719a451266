//! What a manifest asks for, in the sandbox's terms.
//!
//! The manifest holds names of capabilities and limits as text; the sandbox knows which
//! there are. Invariant: a name that the sandbox does not have is a problem, never ignored.

use model::manifest::{Manifest, ManifestProblem};
use sandbox::{Capability, Grants, Limits};
use serde_json::Value;

/// Capabilities and limits of a manifest.
///
/// # Errors
/// Every name that there is none of, and every limit out of its type's range.
pub fn settings(manifest: &Manifest) -> Result<(Grants, Limits), Vec<ManifestProblem>> {
    let mut problems = Vec::new();
    let mut grants = Grants::NONE;
    for name in &manifest.capabilities {
        match name.parse::<Capability>() {
            Ok(capability) => grants = grants.with(capability),
            Err(error) => problems
                .push(ManifestProblem { key: "capabilities".into(), reason: error.to_string() }),
        }
    }
    let asked = manifest.limits.iter().map(|(name, limit)| (name.clone(), Value::from(*limit)));
    let limits = crate::strict::read::<Limits>(Value::Object(asked.collect()));
    let limits = limits.unwrap_or_else(|errors| {
        problems.extend(errors.into_iter().map(|error| ManifestProblem {
            key: format!("limits.{}", error.key),
            reason: error.reason,
        }));
        Limits::default()
    });
    if problems.is_empty() { Ok((grants, limits)) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_sandbox_does_not_have_are_problems() {
        let text = "name = \"a\"\ndescription = \"A\"\nhooks = [\"request-hook\"]\n\
                    capabilities = [\"keyvalue\", \"clock\"]\n\
                    [limits]\ndeadline_ms = 9999999999\npatience = 3\n";
        let manifest = Manifest::from_toml(text).expect("a manifest");
        let problems = settings(&manifest).expect_err("problems");
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["capabilities", "limits.deadline_ms", "limits.patience"]);
    }

    #[test]
    fn what_is_asked_for_is_granted_and_the_rest_has_its_default() {
        let text = "name = \"a\"\ndescription = \"A\"\nhooks = [\"request-hook\"]\n\
                    capabilities = [\"keyvalue\"]\n[limits]\ndeadline_ms = 7\n";
        let manifest = Manifest::from_toml(text).expect("a manifest");
        let (grants, limits) = settings(&manifest).expect("settings");
        assert!(grants.has(Capability::Keyvalue) && !grants.has(Capability::Outbound));
        assert_eq!(limits, Limits { deadline_ms: 7, ..Limits::default() });
    }
}
