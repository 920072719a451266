//! Reads the declarations and compiles their components, for the publisher to take.
//!
//! Runs beside the publisher: a long compilation delays no change of the directory.
//! Invariant: it changes nothing that is in force.

use std::{path::PathBuf, sync::Arc};

use model::catalog::ReloadProblem;
use sandbox::Sandbox;

use crate::declare::Declarations;

use super::versions::{Loader, Versions};

/// Declarations with their compiled components.
#[derive(Debug)]
pub struct Prepared {
    pub(super) declared: Declarations,
    pub(super) versions: Versions,
}

/// Prepares one set of declarations after the other.
#[derive(Debug)]
pub struct Preparer {
    dir: PathBuf,
    loader: Loader,
}

impl Preparer {
    /// For the declarations in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, sandbox: Arc<Sandbox>) -> Self {
        Self { dir, loader: Loader::new(sandbox) }
    }

    /// Reads and compiles; takes as long as the components need.
    ///
    /// # Errors
    /// Every problem of the declarations.
    pub async fn prepare(&mut self) -> Result<Prepared, Vec<ReloadProblem>> {
        let dir = self.dir.clone();
        let load = tokio::task::spawn_blocking(move || Declarations::load(&dir));
        let declared = load.await.unwrap_or_else(|error| {
            let reason = format!("the load itself failed: {error}");
            Err(vec![ReloadProblem { file: ".".into(), key: ".".into(), reason }])
        })?;
        let versions = self.loader.load_all(&declared.policies).await?;
        Ok(Prepared { declared, versions })
    }
}
