//! The databases that the product runs on, for tests that hold on each.
//!
//! A test that takes a [`Backend`] is listed in [`on_both!`], which runs it on SQLite and on
//! a PostgreSQL of its own; one that is left out is dead code, which the compiler tells.

use super::{World, WorldOptions, world::Prepare};

/// Where tenants are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// The URL of an empty database; none for the file that the edge makes itself.
    pub fn url(self) -> Option<String> {
        (self == Self::Postgres).then(|| services::postgres().database())
    }

    /// A world on an empty database.
    pub async fn world(self) -> World {
        self.world_with("").await
    }

    /// The same with more config, as sections of TOML.
    pub async fn world_with(self, config: &str) -> World {
        self.start(config, None).await
    }

    /// A world on an empty database, with changed declarations.
    pub async fn world_of(self, prepare: Prepare) -> World {
        self.start("", Some(prepare)).await
    }

    async fn start(self, config: &str, prepare: Option<Prepare>) -> World {
        let store = self.url().map(|url| format!("\n[store]\nurl = \"{url}\""));
        let config = format!("{config}{}", store.unwrap_or_default());
        World::with(WorldOptions { config, prepare }).await
    }
}

/// Runs each test on both databases.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use crate::actors::Backend;

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$test(Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$test(Backend::Postgres).await;
            }
        }
    )*};
}
pub(crate) use on_both;
