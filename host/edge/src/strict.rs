//! Strict reading of TOML and JSON: unknown keys refused with their path, and every
//! error reported, not just the first.
//!
//! Used for the config file and for every file of `policies/`.

use serde::de::DeserializeOwned;

pub use toml::Table as Toml;

use serde_json::Value;

/// How many errors one file may report; a file with more is reported up to here.
const ERRORS_MAX: usize = 32;

/// One thing wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// Dotted path of the key; `.` for the document itself.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Parses TOML text into a value tree.
///
/// # Errors
/// The syntax error with its line.
pub fn toml_value(text: &str) -> Result<Value, KeyError> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        KeyError { key: format!("line {line}"), reason: error.message().replace('\n', " ") }
    })?;
    serde_json::to_value(table)
        .map_err(|error| KeyError { key: ".".into(), reason: error.to_string() })
}

/// Parses JSON text into a value tree.
///
/// # Errors
/// The syntax error with its line.
pub fn json_value(text: &str) -> Result<Value, KeyError> {
    serde_json::from_str(text).map_err(|error| KeyError {
        key: format!("line {}", error.line()),
        reason: error.to_string(),
    })
}

/// Reads a value tree as `T`. After an error the offending key is taken out and the rest
/// is read again, so that one call finds every bad key that can be told apart.
///
/// # Errors
/// All of them.
pub fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, Vec<KeyError>> {
    let mut errors: Vec<KeyError> = Vec::new();
    let mut removed_items: Vec<(String, usize)> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) if errors.is_empty() => return Ok(read),
            Ok(_) => return Err(errors),
            Err(error) => error,
        };
        let path = path_of(&error);
        let key = dotted(&path, &removed_items);
        errors.push(KeyError { key: key.clone(), reason: error.inner().to_string() });
        if !remove(&mut value, &path) || errors.len() >= ERRORS_MAX {
            return Err(errors);
        }
        if let (Some(Step::Index(_)), Some((list, index))) = (path.last(), split_index(&key)) {
            removed_items.push((list.to_owned(), index));
        }
    }
}

enum Step {
    Key(String),
    Index(usize),
}

fn path_of(error: &serde_path_to_error::Error<serde_json::Error>) -> Vec<Step> {
    use serde_path_to_error::Segment;
    error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// The path as text, with list positions as they are in the document: items that were
/// taken out before are counted back in.
fn dotted(path: &[Step], removed_items: &[(String, usize)]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Index(index) => {
                let mut removed: Vec<usize> = removed_items
                    .iter()
                    .filter(|(list, _)| *list == text)
                    .map(|(_, i)| *i)
                    .collect();
                removed.sort_unstable();
                let position =
                    removed.iter().fold(*index, |at, gone| if *gone <= at { at + 1 } else { at });
                text.push_str(&format!("[{position}]"));
            }
        }
    }
    if text.is_empty() { ".".into() } else { text }
}

fn split_index(key: &str) -> Option<(&str, usize)> {
    let (list, index) = key.strip_suffix(']')?.rsplit_once('[')?;
    Some((list, index.parse().ok()?))
}

/// Takes the value at `path` out of the tree; false when there is none.
fn remove(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(value, |at, step| match step {
        Step::Key(key) => at.get_mut(key),
        Step::Index(index) => at.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(members)), Step::Key(key)) => members.shift_remove(key).is_some(),
        (Some(Value::Array(items)), Step::Index(index)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Doc {
        edge: Section,
        items: Vec<Section>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Section {
        listen: String,
        workers: u8,
    }

    #[test]
    fn every_bad_key_is_named_in_one_pass() {
        let text = "[edge]\nlisten = 3\nworkrs = 1\nworkers = 400\n[[items]]\nlisten = \"a\"\n[[items]]\nlisten = false\n[egde]\n";
        let errors = read::<Doc>(toml_value(text).expect("TOML")).expect_err("errors");
        let keys: Vec<&str> = errors.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["edge.listen", "edge.workers", "edge.workrs", "egde", "items[1].listen"]);
    }

    #[test]
    fn list_positions_are_those_of_the_document() {
        let text = "items = [1, {}, 2, {}, 3]";
        let errors = read::<Doc>(toml_value(text).expect("TOML")).expect_err("errors");
        let keys: Vec<&str> = errors.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["items[0]", "items[2]", "items[4]"]);
    }

    #[test]
    fn a_good_document_is_read() {
        let doc: Doc = read(toml_value("[edge]\nworkers = 4").expect("TOML")).expect("a document");
        assert_eq!(doc.edge.workers, 4);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = toml_value("[edge]\nlisten = \n").expect_err("an error");
        assert_eq!(error.key, "line 2");
    }
}
