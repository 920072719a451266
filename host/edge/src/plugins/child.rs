//! Compiling in a process of its own: the same binary, started with [`SUBCOMMAND`].
//!
//! The component goes in by standard input, the machine code or a refusal comes back by
//! standard output. The child bounds itself before it reads a byte: memory, computing
//! time, and no file descriptor beyond its three, so that it can open no file and no
//! socket. Invariant: whatever a component does to the compiler, the parent gets an
//! answer within the wall-clock limit, and tries once.

use std::{
    io::{Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use model::plugin::Refusal;
use rustix::process::{Resource, Rlimit, nice, setrlimit};
use sandbox::{Compiler, SandboxConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The hidden subcommand that the child runs.
const SUBCOMMAND: &str = "compile-plugin";
/// The program that runs, even when its file was replaced since: a newer one would compile
/// for another engine.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// By how much the compiler stands back behind the requests, as of nice(2).
const NICE: i32 = 10;
/// Has the child's allocator set nothing aside before the limits hold: its usual reserve of
/// a gibibyte would not count against them.
const ALLOCATOR_SETTING: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "0");
/// Exit code of a child that refused the component: its output is `code`, a newline and
/// the reason.
const EXIT_REFUSED: i32 = 3;
/// Exit code of a child that could not do its work.
const EXIT_FAILED: i32 = 1;
/// Bytes of machine code that are taken from a child: ten times the largest component.
const CODE_BYTES_MAX: u64 = 320 << 20;
/// File descriptors of a child: its standard streams.
const DESCRIPTORS: u64 = 3;
/// Signals by which a child ends that used too much.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// What one compilation may use.
#[derive(Clone, Debug)]
pub struct ChildLimits {
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Seconds of computing.
    pub cpu_s: u64,
    /// Seconds by the clock on the wall.
    pub wall_s: u64,
    /// The program; this one when absent.
    pub program: Option<PathBuf>,
}

/// Compiles in a child.
pub(super) async fn compile(component: Bytes, limits: &ChildLimits) -> Result<Vec<u8>, Refusal> {
    let wall = Duration::from_secs(limits.wall_s);
    match tokio::time::timeout(wall, run(component, limits)).await {
        // Dropping it killed the child.
        Err(_) => Err(too_costly(&format!("it took longer than {} s", limits.wall_s))),
        Ok(Err(error)) => {
            tracing::error!(%error, "the compiler process could not be run");
            let detail = "The compiler could not be started; try again.";
            Err(Refusal { status: 503, ..Refusal::new("plugin-compiler-unavailable", detail) })
        }
        Ok(Ok((status, output))) => outcome(status, output, limits),
    }
}

async fn run(component: Bytes, limits: &ChildLimits) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let program = limits.program.as_deref().unwrap_or(Path::new(THIS_PROGRAM));
    let mut child = tokio::process::Command::new(program)
        .arg(SUBCOMMAND)
        .args(["--memory-bytes", &limits.memory_bytes.to_string()])
        .args(["--cpu-s", &limits.cpu_s.to_string()])
        // Tokens and passwords of the program are none of its business.
        .env_clear()
        .env(ALLOCATOR_SETTING.0, ALLOCATOR_SETTING.1)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A child that refuses early reads no further.
            let _gone = stdin.write_all(&component).await;
        }
    };
    let read = async move {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(CODE_BYTES_MAX).read_to_end(&mut output).await?;
        }
        std::io::Result::Ok(output)
    };
    let ((), output) = tokio::join!(feed, read);
    let output = output?;
    Ok((child.wait().await?, output))
}

fn outcome(status: ExitStatus, output: Vec<u8>, limits: &ChildLimits) -> Result<Vec<u8>, Refusal> {
    if status.success() {
        return Ok(output);
    }
    if status.code() == Some(EXIT_REFUSED) {
        let text = String::from_utf8_lossy(&output);
        let (code, reason) = text.split_once('\n').unwrap_or(("", &text));
        return Err(Refusal::new(known(code), sentence(reason)));
    }
    Err(too_costly(&match status.signal() {
        Some(SIGXCPU) => format!("it took more than {} s of computing", limits.cpu_s),
        Some(SIGKILL) => format!(
            "its process was ended, after {} s of computing or for want of memory",
            limits.cpu_s
        ),
        Some(SIGABRT) => format!("it took more than {} MiB", limits.memory_bytes >> 20),
        Some(signal) => format!("the compiler died of signal {signal}"),
        None => "the compiler failed on it".to_owned(),
    }))
}

fn too_costly(why: &str) -> Refusal {
    let detail = format!(
        "Compiling it costs too much: {why}. Make it smaller or simpler; it is not tried again."
    );
    Refusal::new("plugin-too-costly", detail)
}

/// A code that came out of the child, as one of ours.
fn known(code: &str) -> &'static str {
    const CODES: [&str; 10] = [
        "plugin-not-wasm",
        "plugin-too-large",
        "plugin-invalid",
        "plugin-too-complex",
        "plugin-forbidden-import",
        "plugin-unknown-function",
        "plugin-no-hook",
        "plugin-type-mismatch",
        "plugin-does-not-compile",
        "plugin-too-costly",
    ];
    CODES.into_iter().find(|known| *known == code).unwrap_or("plugin-invalid")
}

/// A reason as a sentence.
pub(super) fn sentence(reason: &str) -> String {
    let mut letters = reason.trim().chars();
    let first = letters.next().map(char::to_uppercase);
    let text: String = first.into_iter().flatten().chain(letters).collect();
    if text.ends_with('.') { text } else { format!("{text}.") }
}

/// The child: bounds itself, reads the component, writes the code or a refusal.
///
/// Gives the exit code.
#[must_use]
pub fn compile_in_this_process(memory_bytes: u64, cpu_s: u64) -> i32 {
    if let Err(error) = bound(memory_bytes, cpu_s) {
        eprintln!("leanvibe-edge: the compiler's limits cannot be set: {error}");
        return EXIT_FAILED;
    }
    let config = SandboxConfig::default();
    let mut component = Vec::new();
    let most = config.component.bytes as u64 + 1;
    if std::io::stdin().lock().take(most).read_to_end(&mut component).is_err() {
        return EXIT_FAILED;
    }
    let compiler = match Compiler::new(config) {
        Ok(compiler) => compiler,
        Err(error) => return said(EXIT_REFUSED, format!("plugin-too-costly\n{error}").as_bytes()),
    };
    match compiler.compile(&component) {
        Ok(code) => said(0, &code),
        Err(error) => said(EXIT_REFUSED, format!("{}\n{error}", error.code()).as_bytes()),
    }
}

fn said(code: i32, output: &[u8]) -> i32 {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(output).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(_) => EXIT_FAILED,
    }
}

fn bound(memory_bytes: u64, cpu_s: u64) -> rustix::io::Result<()> {
    for (resource, most) in [
        (Resource::As, memory_bytes),
        (Resource::Cpu, cpu_s),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        // No file, no socket, no pipe can be opened any more.
        (Resource::Nofile, DESCRIPTORS),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    nice(NICE).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_the_child_becomes_a_sentence_with_a_known_code() {
        assert_eq!(sentence("the file is empty"), "The file is empty.");
        assert_eq!(sentence("Done. "), "Done.");
        assert_eq!(known("plugin-no-hook"), "plugin-no-hook");
        assert_eq!(known("forged"), "plugin-invalid");
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_ended_at_the_wall_and_one_that_dies_is_told() {
        let limits = |program: &str, wall_s| ChildLimits {
            memory_bytes: 1 << 30,
            cpu_s: 1,
            wall_s,
            program: Some(program.into()),
        };
        let died = compile(Bytes::from_static(b"x"), &limits("/bin/false", 5)).await;
        assert_eq!(died.expect_err("refused").code, "plugin-too-costly");
        let missing = compile(Bytes::new(), &limits("/does/not/exist", 5)).await;
        assert_eq!(missing.expect_err("refused").status, 503);
        let folder = tempfile::tempdir().expect("a folder");
        let hangs = folder.path().join("hangs");
        std::fs::write(&hangs, "#!/bin/sh\nexec sleep 600\n").expect("a script");
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&hangs, runs).expect("a script");
        let hung = compile(Bytes::new(), &limits(&hangs.display().to_string(), 1)).await;
        assert_eq!(hung.expect_err("refused").code, "plugin-too-costly");
    }
}
