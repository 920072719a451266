//! Finds the programs of a toolchain and runs them.
//!
//! Looked for in the project first (`node_modules/.bin`, `.venv/bin`), then above it, then
//! on the PATH. Invariant: a program that is missing is an error of one line, with the
//! package that has it and the line that installs it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};

/// Folders beside a project's sources in which package managers put programs.
const LOCAL_FOLDERS: [&str; 2] = ["node_modules/.bin", ".venv/bin"];

/// A program that a toolchain needs.
pub(super) struct Tool {
    /// What it may be called.
    pub programs: &'static [&'static str],
    /// Where it comes from.
    pub package: &'static str,
    /// The line that installs it.
    pub install: &'static str,
}

impl Tool {
    /// The program's path.
    pub(super) fn find(&self, project: &Path) -> Result<PathBuf> {
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let found = folders(project, &on_path)
            .flat_map(|folder| self.programs.iter().map(move |program| folder.join(program)))
            .find(|program| is_program(program));
        found.ok_or_else(|| {
            let name = self.programs.first().copied().unwrap_or_default();
            anyhow!("{name} is missing ({}); install it with: {}", self.package, self.install)
        })
    }
}

fn folders(project: &Path, on_path: &OsString) -> impl Iterator<Item = PathBuf> {
    let local = project
        .ancestors()
        .flat_map(|folder| LOCAL_FOLDERS.iter().map(move |local| folder.join(local)))
        .collect::<Vec<_>>();
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let on_path: Vec<PathBuf> = std::env::split_paths(on_path).collect();
    local.into_iter().chain(on_path).chain(cargo.map(|home| home.join("bin")))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs a program to its end; what it prints is shown when it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} does not run"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    bail!("{}\n{name}: {}", said.trim_end(), output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_one_line_with_its_package_and_its_install() {
        let tool = Tool {
            programs: &["no-such-program-anywhere"],
            package: "npm package nothing",
            install: "npm install nothing",
        };
        let dir = tempfile::tempdir().expect("a folder");
        let error = tool.find(dir.path()).expect_err("missing").to_string();
        assert!(!error.contains('\n'), "{error}");
        for part in ["no-such-program-anywhere", "npm package nothing", "npm install nothing"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_program_of_the_project_comes_before_all_others() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("node_modules/.bin");
        std::fs::create_dir_all(&folder).expect("a folder");
        let tool = Tool { programs: &["sh"], package: "", install: "" };
        let own = folder.join("sh");
        std::fs::write(&own, "").expect("a file");
        assert_ne!(tool.find(dir.path()).expect("the system's"), own, "not executable");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&own, mode).expect("a mode");
        assert_eq!(tool.find(dir.path()).expect("its own"), own);
    }

    #[test]
    fn what_a_failed_program_said_is_in_the_error() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]));
        let error = error.expect_err("failed").to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }
}
