//! `plugin run`: an edge of the author's own, which follows every save.
//!
//! Invariant: a build that fails and a component that does not hold leave what is live, and
//! both are said.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail};
use model::catalog::ReloadStatus;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    super::{output, serve::Signals},
    Format, ProjectArgs,
};
use crate::{
    author::{
        Project,
        build::{self, Built},
        edge::LocalEdge,
        watch::SourceWatch,
    },
    config::LogSection,
    reload, telemetry,
};

/// Changes that may wait: one is as good as many.
const CHANGE_QUEUE: usize = 1;

/// Serve the plugin on an edge of your own, with an echo backend, and rebuild it on save.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// Where the edge listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8088", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Serve what is built already; take a new component when its file changes.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<()> {
    // What the edge refuses is said below; its log would say it again.
    telemetry::install(&LogSection {
        level: "warn,edge::publish=off".into(),
        ..Default::default()
    })?;
    super::super::runtime()?.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let mut signals = Signals::install()?;
    let mut author = Author { json: args.format.json, dir: args.project.dir(), live: None };
    let project = args.project.open()?;
    let (changes_tx, mut changes) = mpsc::channel(CHANGE_QUEUE);
    let _watch = SourceWatch::start(&project.dir, changes_tx).context("the project's folder")?;
    match args.no_build {
        true => drop(super::built(&project)?),
        false => author.built(&build(project.clone()).await?)?,
    }
    let mut edge = tokio::select! {
        edge = LocalEdge::start(&project, args.listen) => edge?,
        () = signals.stop() => return Ok(()),
    };
    let mut status = edge.running.reload_status.clone();
    author.listens(&edge.url()?, &status)?;
    loop {
        tokio::select! {
            _ = changes.recv() => {
                reload::settle(&mut changes).await;
                author.rebuild(&edge, args.no_build).await?;
            }
            _ = status.changed() => author.reloaded(&status.borrow_and_update().clone())?,
            part = edge.running.part_ended() => bail!("the {part} ended"),
            () = signals.stop() => return edge.stop().await,
        }
    }
}

async fn build(project: Project) -> Result<Built> {
    tokio::task::spawn_blocking(move || build::build(&project)).await?
}

/// Whom everything is told, and what was live when it was told last.
struct Author {
    json: bool,
    dir: PathBuf,
    live: Option<String>,
}

impl Author {
    async fn rebuild(&mut self, edge: &LocalEdge, no_build: bool) -> Result<()> {
        let outcome = async {
            let project = Project::open(&self.dir)?;
            // Before the build: a config is live while a toolchain still works.
            edge.stage.refresh(&project)?;
            if !no_build {
                let built = build(project).await?;
                self.built(&built)?;
            }
            anyhow::Ok(())
        };
        match outcome.await {
            Ok(()) => Ok(()),
            Err(error) => self.say("failed", &format!("{error:#}"), json!({})),
        }
    }

    fn built(&self, built: &Built) -> Result<()> {
        let details = json!({ "bytes": built.bytes, "changed": built.changed });
        let changed = if built.changed { "" } else { ", unchanged" };
        self.say("built", &format!("{} bytes{changed}", built.bytes), details)
    }

    fn listens(&mut self, url: &str, status: &watch::Receiver<Arc<ReloadStatus>>) -> Result<()> {
        self.live = version(&status.borrow());
        if self.json {
            return self.say("listening", "", json!({ "url": url, "version": self.live }));
        }
        output::text(&format!(
            "serving {url}  (an echo backend shows what it was sent; Ctrl-C stops)

    curl -s {url}/hello
    curl -si {url}/hello -H 'x-say: stop'

"
        ))
    }

    fn reloaded(&mut self, status: &ReloadStatus) -> Result<()> {
        if let Some(error) = &status.last_error {
            let lines = error
                .problems
                .iter()
                .map(|problem| format!("{}: {}: {}", problem.file, problem.key, problem.reason));
            let lines = lines.collect::<Vec<_>>().join("\n");
            return self.say("refused", &lines, json!({}));
        }
        let (now, snapshot) = (version(status), status.snapshot_version);
        let details = json!({ "version": now, "snapshot": snapshot });
        self.live = now;
        self.say("live", self.live.as_deref().unwrap_or_default(), details)
    }

    /// One event: a line for a person, or a JSON object on a line.
    fn say(&self, event: &str, text: &str, mut details: Value) -> Result<()> {
        if !self.json {
            return output::line(&format!("{event:<8}{text}"));
        }
        if let Some(members) = details.as_object_mut() {
            members.insert("event".into(), event.into());
            if matches!(event, "failed" | "refused") {
                members.insert("reason".into(), text.into());
            }
        }
        output::line(&details.to_string())
    }
}

/// The component that is live, by the first digits of its SHA-256.
fn version(status: &ReloadStatus) -> Option<String> {
    status.policies.first().map(|policy| policy.version.clone())
}
