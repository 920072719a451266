//! From source to `dist/NAME.wasm`, by the language's own toolchain.
//!
//! One file a language. Invariant: the file is replaced whole, and only when its bytes
//! changed; a build that fails leaves the last one as it was.

mod c;
mod js;
mod python;
mod rust;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use model::manifest::Language;

use super::{Project, output, tools};

/// The world that the templates implement.
const WORLD: &str = "request-policy";
/// Folder of the contract.
const WIT: &str = "wit";

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// The component.
    pub file: PathBuf,
    /// Its size.
    pub bytes: usize,
    /// Whether its bytes are new.
    pub changed: bool,
}

/// Builds the project. Blocks for as long as its toolchain takes.
///
/// # Errors
/// A tool that is missing, or what the toolchain said.
pub fn build(project: &Project) -> Result<Built> {
    let Some(build) = &project.manifest.build else {
        bail!("plugin.toml has no [build]; add language = \"rust\", \"js\", \"python\" or \"c\"");
    };
    if let Some((program, arguments)) = build.command.split_first() {
        return own_command(project, program, arguments);
    }
    // Made beside the real one, so that a watching edge never sees half of it.
    let made = project.component().with_extension("unfinished");
    std::fs::create_dir_all(project.dir.join(super::project::DIST))?;
    let component = match build.language {
        Language::Rust => rust::build(project),
        Language::Js => js::build(project, &made),
        Language::Python => python::build(project, &made),
        Language::C => c::build(project, &made),
    };
    let _was_never_made = std::fs::remove_file(&made);
    let component = component?;
    let file = project.component();
    let changed = output::replace(&file, &component)?;
    Ok(Built { file, bytes: component.len(), changed })
}

/// Runs the author's command, which makes the component itself.
fn own_command(project: &Project, program: &str, arguments: &[String]) -> Result<Built> {
    let file = project.component();
    let before = std::fs::read(&file).ok();
    tools::run(Command::new(program).args(arguments).current_dir(&project.dir))?;
    let after = std::fs::read(&file)
        .with_context(|| format!("build.command made no {}", file.display()))?;
    Ok(Built { bytes: after.len(), changed: before.as_ref() != Some(&after), file })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} was not made", file.display()))
}

/// A component of a core module that carries its type.
fn lifted(core: &Path) -> Result<Vec<u8>> {
    sandbox::lift::componentize(&read(core)?)
        .with_context(|| format!("{} cannot be made a component", core.display()))
}
