//! CPU time of a process with its children, in nanoseconds, from procfs `schedstat`.

use std::{fs, path::Path};

/// Nanoseconds on CPU of every thread of `pid` and of its child processes so far.
pub fn nanos(pid: u32) -> u64 {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children: u64 =
        children.split_whitespace().filter_map(|child| child.parse().ok()).map(nanos).sum();
    of_process(pid) + of_children
}

fn of_process(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks.filter_map(Result::ok).map(|task| of_thread(&task.path())).sum()
}

fn of_thread(task: &Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
