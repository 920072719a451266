//! The templates of `plugins/templates`, compiled in, and a new project made of one.
//!
//! Invariant: a new project is written whole into a folder that was not there or was empty;
//! nothing is overwritten and nothing comes from the network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use model::manifest::{Language, PluginName};

/// What the templates are called; replaced by the project's name.
const PLACEHOLDER: &str = "my-policy";

/// A file of a template: where it goes, and its text.
type File = (&'static str, &'static str);

macro_rules! file {
    ($folder:literal, $path:literal) => {
        file!($folder, $path, $path)
    };
    ($folder:literal, $path:literal, $goes_to:literal) => {
        ($goes_to, include_str!(concat!("../../../../plugins/templates/", $folder, "/", $path)))
    };
}

/// What every project has.
const SHARED: [File; 8] = [
    ("wit/policy.wit", include_str!("../../../../wit/policy.wit")),
    file!("shared", "gitignore", ".gitignore"),
    file!("shared", "config.json"),
    file!("shared", "cases/greets.toml"),
    file!("shared", "cases/greets-as-configured.json"),
    file!("shared", "cases/routes.toml"),
    file!("shared", "cases/stays-home.toml"),
    file!("shared", "cases/stops.toml"),
];

const fn own_files(language: Language) -> &'static [File] {
    match language {
        Language::Rust => &[
            file!("rust", "plugin.toml"),
            file!("rust", "README.md"),
            file!("rust", "Cargo.toml"),
            file!("rust", ".cargo/config.toml"),
            file!("rust", "src/lib.rs"),
        ],
        Language::Js => &[
            file!("js", "plugin.toml"),
            file!("js", "README.md"),
            file!("js", "package.json"),
            file!("js", "policy.js"),
        ],
        Language::Python => &[
            file!("python", "plugin.toml"),
            file!("python", "README.md"),
            file!("python", "requirements.txt"),
            file!("python", "policy.py"),
        ],
        Language::C => &[
            file!("c", "plugin.toml"),
            file!("c", "README.md"),
            file!("c", "requirements.txt"),
            file!("c", "policy.c"),
        ],
    }
}

/// Writes a new project into `folder`; gives its files, relative to it.
///
/// # Errors
/// A folder that holds something, or what the file system says.
pub fn write(folder: &Path, language: Language, name: &PluginName) -> Result<Vec<PathBuf>> {
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty; choose another name or --dir", folder.display());
    }
    let mut written = Vec::new();
    for (path, text) in SHARED.iter().chain(own_files(language)) {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let text = text.replace(PLACEHOLDER, name.as_str());
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        written.push(PathBuf::from(path));
    }
    written.sort();
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::{Project, asks};

    const LANGUAGES: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

    #[test]
    fn a_new_project_of_every_language_has_a_manifest_that_holds() {
        for language in LANGUAGES {
            let dir = tempfile::tempdir().expect("a folder");
            let name = "greeter".parse().expect("a name");
            write(dir.path(), language, &name).expect("a project");
            let project = Project::open(dir.path()).expect("a project");
            assert_eq!(project.manifest.name, name);
            let build = project.manifest.build.as_ref().expect("a build");
            assert_eq!(build.language, language);
            asks::settings(&project.manifest).expect("known names");
            let config = project.config().expect("a config");
            assert_eq!(project.manifest.config.check(&config.into()), []);
        }
    }

    #[test]
    fn no_file_keeps_the_name_of_the_template() {
        for language in LANGUAGES {
            let dir = tempfile::tempdir().expect("a folder");
            let name = "greeter".parse().expect("a name");
            for file in write(dir.path(), language, &name).expect("a project") {
                let text = std::fs::read_to_string(dir.path().join(&file)).expect("text");
                assert!(!text.contains(PLACEHOLDER), "{}", file.display());
            }
        }
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("mine"), "").expect("a file");
        let name = "greeter".parse().expect("a name");
        assert!(write(dir.path(), Language::C, &name).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }
}
