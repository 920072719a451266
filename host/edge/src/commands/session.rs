//! Which server, as whom, and how the answer is shown: what every command that calls the
//! API takes.
//!
//! Invariant: a token is never printed, and never taken from a place that the caller did
//! not name when it named one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use model::secret::Secret;
use reqwest::Url;

use crate::{
    client::{Answer, Call, Client, ClientError, DEFAULT_SERVER, Pages},
    config::ENV_ADMIN_TOKEN,
};

use super::output::{self, Progress};

/// The token that commands send.
const ENV_TOKEN: &str = "LEANVIBE_EDGE_TOKEN";
/// Items of a page, as many as the API gives.
const PAGE_MAX: usize = 200;
/// Longest file of a token, in bytes: a token has a hundred, a wrong file millions.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// Options of the commands that call the API of a running edge.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// Where the control API is.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LEANVIBE_EDGE_SERVER",
        default_value = DEFAULT_SERVER,
        value_parser = server
    )]
    server: Url,
    /// Token of the API; other users of the machine may see it in the list of processes.
    /// Without it and --token-file: LEANVIBE_EDGE_TOKEN, then LEANVIBE_EDGE_ADMIN_TOKEN.
    #[arg(long, global = true, value_name = "TOKEN", value_parser = secret, conflicts_with = "token_file")]
    token: Option<Secret>,
    /// File that holds the token and nothing else.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the API's JSON as it comes instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a value parser")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: expected {DEFAULT_SERVER}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("must be http:// or https:// with a host, as {DEFAULT_SERVER}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("may not hold a login: the token says who calls".to_owned());
    }
    Ok(url)
}

/// A caller of the API.
#[derive(Debug)]
pub(super) struct Session {
    /// Asks.
    pub(super) client: Client,
    /// Whether answers are printed as they come.
    pub(super) json: bool,
}

impl ServerArgs {
    pub(super) fn session(self) -> Result<Session> {
        let token = self.token(|name| std::env::var(name).ok())?;
        let Self { server, json, .. } = self;
        Ok(Session { client: Client::new(server, &token)?, json })
    }

    fn token(&self, env: impl Fn(&str) -> Option<String>) -> Result<Secret> {
        let given = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.expose().to_owned()),
            (None, Some(file)) => Some(token_of(file)?),
            (None, None) => None,
        };
        let from_env = |name| env(name).filter(|token| !token.trim().is_empty());
        let token = given
            .or_else(|| from_env(ENV_TOKEN))
            .or_else(|| from_env(ENV_ADMIN_TOKEN))
            .ok_or_else(|| {
                ClientError::Usage(format!("no token: set {ENV_TOKEN}, or give --token-file FILE"))
            })?;
        Ok(Secret::new(token.trim()))
    }
}

fn token_of(file: &std::path::Path) -> Result<String> {
    use std::io::Read;
    let named = || format!("--token-file {}", file.display());
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text))
        .with_context(named)?;
    if text.trim().is_empty() {
        return Err(ClientError::Usage("is empty".to_owned())).with_context(named);
    }
    Ok(text)
}

impl Session {
    /// Sends, and shows the answer: as it came, or as `show` makes it of the JSON.
    pub(super) async fn print(
        &self,
        call: &Call,
        show: impl FnOnce(&serde_json::Value) -> String,
    ) -> Result<()> {
        let answer = self.client.send(call).await?;
        self.print_answer(&answer, show)
    }

    /// Reads a list to its end, and shows it: page by page as it came, or as `show` makes it
    /// of all items together.
    pub(super) async fn print_all(
        &self,
        call: Call,
        show: impl FnOnce(&serde_json::Value) -> String,
    ) -> Result<()> {
        let mut pages = Pages::new(&self.client, call);
        let mut items = Vec::new();
        let progress = Progress::new();
        while let Some(page) = pages.next(Some(PAGE_MAX)).await? {
            if self.json {
                output::line(&page.text)?;
            } else {
                items.extend_from_slice(page.items()?);
                progress.say(format_args!("{} read", items.len()));
            }
        }
        drop(progress);
        if self.json { Ok(()) } else { output::text(&show(&serde_json::json!({ "items": items }))) }
    }

    /// Shows an answer.
    pub(super) fn print_answer(
        &self,
        answer: &Answer,
        show: impl FnOnce(&serde_json::Value) -> String,
    ) -> Result<()> {
        if self.json { output::line(&answer.text) } else { output::text(&show(&answer.json)) }
    }

    /// Says what was done when the API has nothing to show: for people, on standard error.
    pub(super) fn done(&self, what: &str) {
        if !self.json {
            eprintln!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(token: Option<&str>, token_file: Option<PathBuf>) -> ServerArgs {
        let server = DEFAULT_SERVER.parse().expect("a URL");
        ServerArgs { server, token: token.map(Secret::new), token_file, json: false }
    }

    fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_nearest_token_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, " from-file \n").expect("a file");
        let all = [(ENV_TOKEN, "from-env"), (ENV_ADMIN_TOKEN, "admin")];
        let token = |args: ServerArgs, set| args.token(env(set)).map(|t| t.expose().to_owned());
        assert_eq!(token(args(Some("given"), None), &all).expect("a token"), "given");
        assert_eq!(token(args(None, Some(file)), &all).expect("a token"), "from-file");
        assert_eq!(token(args(None, None), &all).expect("a token"), "from-env");
        let without = [(ENV_TOKEN, " "), (ENV_ADMIN_TOKEN, "admin")];
        assert_eq!(token(args(None, None), &without).expect("a token"), "admin");
        let missing = token(args(None, None), &[]).expect_err("none");
        assert!(missing.to_string().contains(ENV_TOKEN), "{missing}");
    }

    #[test]
    fn a_token_file_that_is_missing_or_empty_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").expect("a file");
        for file in [folder.path().join("missing"), empty] {
            let error = args(None, Some(file.clone())).token(env(&[])).expect_err("no token");
            assert!(format!("{error:#}").contains(&file.display().to_string()), "{error:#}");
        }
    }

    #[test]
    fn a_server_is_a_plain_web_address() {
        for good in ["http://127.0.0.1:9080", "https://control.example/edge/"] {
            assert!(server(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:9080", "localhost:9080", "ftp://h", "http://me:pw@h"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
