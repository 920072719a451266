//! Reading files of `policies/` and gathering what is wrong with them.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

pub use model::catalog::ReloadProblem as Problem;

use crate::strict;

/// Largest file that is read, in bytes: declarations are written by hand.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The folder being read, and its problems so far.
#[derive(Debug)]
pub struct Problems {
    dir: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    /// None yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), found: Vec::new() }
    }

    /// Notes a problem.
    pub(super) fn add(&mut self, file: &str, key: String, reason: impl Into<String>) {
        self.found.push(Problem { file: file.to_owned(), key, reason: reason.into() });
    }

    /// The value, unless anything was wrong.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.found.is_empty() { Ok(value) } else { Err(self.found) }
    }

    /// The absolute path of a file of the folder.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// A required TOML file as `T`.
    pub(super) fn toml<T: DeserializeOwned>(&mut self, file: &str) -> Option<T> {
        let text = self.text(file)?;
        self.read(file, strict::toml_value(&text))
    }

    /// An optional JSON file as `T`.
    pub(super) fn json_if_present<T: DeserializeOwned>(&mut self, file: &str) -> Option<T> {
        let text = self.text_if_present(file)?;
        self.read(file, strict::json_value(&text))
    }

    /// The text of a required file.
    pub(super) fn text(&mut self, file: &str) -> Option<String> {
        let text = self.text_if_present(file);
        if text.is_none() && !self.found.iter().any(|problem| problem.file == file) {
            self.add(file, ".".into(), "is missing");
        }
        text
    }

    /// The text of a file that may be absent.
    pub(super) fn text_if_present(&mut self, file: &str) -> Option<String> {
        let path = self.path(file);
        let too_large = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX);
        if too_large {
            self.add(file, ".".into(), format!("is larger than {FILE_BYTES_MAX} bytes"));
            return None;
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                self.add(file, ".".into(), format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Names of the entries of a folder that satisfy `wanted`, sorted; none when the
    /// folder is absent.
    pub(super) fn entries(&mut self, folder: &str, wanted: fn(&Path) -> bool) -> Vec<String> {
        let listed = std::fs::read_dir(self.dir.join(folder))
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                self.add(folder, ".".into(), format!("cannot be listed: {error}"));
                return Vec::new();
            }
        };
        let mut names: Vec<String> = entries
            .into_iter()
            .filter(|entry| wanted(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }

    fn read<T: DeserializeOwned>(
        &mut self,
        file: &str,
        value: Result<serde_json::Value, strict::KeyError>,
    ) -> Option<T> {
        let read = value.map_err(|error| vec![error]).and_then(strict::read);
        read.map_err(|errors| {
            for error in errors {
                self.add(file, error.key, error.reason);
            }
        })
        .ok()
    }
}
