//! The user that servers run as: PostgreSQL refuses to be root.
//!
//! Invariant: a process that is not root runs its servers as itself.

use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::Command,
};

/// Who runs the servers when the tests run as root, the first that exists.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// User and group of the servers; `None` for those of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    /// The user of this process, root included.
    pub(crate) const fn this_process() -> Self {
        Self(None)
    }

    pub(crate) fn choose() -> Self {
        let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        if !root {
            return Self(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = UNPRIVILEGED.iter().find_map(|name| ids(&users, name));
        Self(Some(found.expect("a user `postgres` or `nobody` in /etc/passwd")))
    }

    /// Makes the command run as this user.
    pub(crate) fn runs(self, command: &mut Command) -> &mut Command {
        match self.0 {
            Some((user, group)) => command.uid(user).gid(group),
            None => command,
        }
    }

    /// Gives a folder to this user.
    pub(crate) fn owns(self, folder: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("a folder to give");
        }
    }
}

/// User and group id of a line of `/etc/passwd`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (Some(user), _, Some(uid), Some(gid)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        (user == name).then_some((uid.parse().ok()?, gid.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_very_user() {
        let users = "postgresql:x:1:2::/:\npostgres:x:101:104:admin:/var:/bin/sh\nbroken\n";
        assert_eq!(ids(users, "postgres"), Some((101, 104)));
        assert_eq!(ids(users, "nobody"), None);
    }
}
