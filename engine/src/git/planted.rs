//! Repositories elsewhere in the workspace: made, cloned or changed while a session ran. git on the host obeys their config
//! and hooks as soon as somebody works in them, and those of a nested one that the index names at every `git status` above.
//! When the session has ended they are looked through: what could make git run something is put aside, and said.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{config, plain, read_config, write_new};

/// The most directory entries that are looked at.
pub const MAX_ENTRIES: usize = 1_000_000;
/// How deep.
pub const MAX_DEPTH: usize = 64;
/// What is appended to the name of what is put aside.
const ASIDE: &str = ".agentcontainer";

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What git would have obeyed, and what became of it.
    pub said: Vec<String>,
    /// There was more than is looked at.
    pub cut_off: bool,
}

/// Looks through a workspace. `since`: seconds since 1970; what did not change after it is left alone (the change time
/// is the kernel's to set). `own`: the workspace's `.git` was held, and is no stranger's. Without `put_aside` it is only
/// said: another session may still change what lies there.
pub fn sweep(workspace: &Path, since: i64, own: bool, put_aside: bool, most: usize) -> Found {
    let mut sweep = Sweep {
        workspace,
        since,
        own,
        put_aside,
        left: most,
        found: Found::default(),
    };
    sweep.directory(workspace, 0);
    sweep.found
}

struct Sweep<'a> {
    workspace: &'a Path,
    since: i64,
    own: bool,
    put_aside: bool,
    left: usize,
    found: Found,
}

impl Sweep<'_> {
    fn is_new(&self, meta: &Metadata) -> bool {
        meta.ctime() >= self.since
    }

    fn directory(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            self.found.cut_off = true;
            return;
        }
        // One that we may not list is one that git of the same person may not either.
        let Ok(entries) = fs::read_dir(path) else {
            return;
        };
        let (mut below, mut marks) = (Vec::new(), 0);
        for entry in entries.flatten() {
            if self.left == 0 {
                self.found.cut_off = true;
                return;
            }
            self.left -= 1;
            let (name, kind) = (entry.file_name(), entry.file_type());
            let is_directory = kind.as_ref().is_ok_and(fs::FileType::is_dir);
            match name.to_str() {
                Some(".git") if !is_directory => self.pointer(&entry.path()),
                Some("HEAD" | "objects" | "refs" | "commondir") => marks += 1,
                _ => {}
            }
            if is_directory {
                below.push(entry.path());
            }
        }
        // Of `.git` and bare repositories, and of working trees' own directories.
        if marks >= 2 {
            self.repository(path);
        }
        for path in below {
            self.directory(&path, depth + 1);
        }
    }

    /// A `.git` that is no directory: git takes a file's word, and follows a link.
    fn pointer(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else {
            return;
        };
        if !self.is_new(&meta) {
            return;
        }
        let to = if meta.is_file() {
            read_config(path).ok().and_then(|text| {
                let to = text.strip_prefix("gitdir:")?.trim();
                Some(plain(&path.parent()?.join(to)))
            })
        } else {
            None
        };
        // What lies in the workspace is looked at where it lies.
        let inside = to
            .as_ref()
            .is_some_and(|to| to.starts_with(self.workspace) && !self.is_linked(to));
        if !inside {
            self.aside(path, "leads git elsewhere");
        }
    }

    /// Whether a part of a path in the workspace is a link: then it leads anywhere.
    fn is_linked(&self, path: &Path) -> bool {
        path.ancestors()
            .take_while(|at| at.starts_with(self.workspace) && *at != self.workspace)
            .any(|at| at.is_symlink())
    }

    fn repository(&mut self, path: &Path) {
        if self.own && path == self.workspace.join(".git") {
            return;
        }
        for name in ["config", "config.worktree"] {
            self.config(path, &path.join(name));
        }
        let hooks = path.join("hooks");
        match hooks.symlink_metadata() {
            Ok(meta) if meta.is_dir() => self.hooks(&hooks),
            Ok(meta) if self.is_new(&meta) => self.aside(&hooks, "holds hooks"),
            _ => {}
        }
        let commondir = path.join("commondir");
        if let Ok(meta) = commondir.symlink_metadata()
            && self.is_new(&meta)
        {
            let to = read_config(&commondir)
                .map(|to| plain(&path.join(to.trim())))
                .ok();
            let inside = to
                .as_ref()
                .is_some_and(|to| to.starts_with(self.workspace) && !self.is_linked(to));
            if !inside {
                self.aside(&commondir, "leads git elsewhere");
            }
        }
    }

    fn config(&mut self, repository: &Path, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else {
            return;
        };
        let moved = repository
            .symlink_metadata()
            .is_ok_and(|meta| self.is_new(&meta));
        if !self.is_new(&meta) && !moved {
            return;
        }
        let base = repository.parent().unwrap_or(repository);
        let inert = |entry: &config::Entry| match (entry.section.as_str(), entry.key.as_str()) {
            ("core", "worktree") => {
                let to = plain(&repository.join(&entry.value));
                to.starts_with(self.workspace) && !self.is_linked(&to)
            }
            _ => config::is_inert(entry),
        };
        let text = match read_config(path) {
            Ok(text) => text,
            Err(_) => return self.aside(path, "cannot be read as git's configuration"),
        };
        let (kept, dropped) = config::keep(&text, inert);
        if dropped.is_empty() {
            return;
        }
        let shown = self.shown(path);
        let what = dropped.join(", ");
        if !self.is_new(&meta) || !self.put_aside {
            self.found.said.push(format!(
                "{shown} sets {what}; look at it before git runs in {}",
                self.shown(base)
            ));
            return;
        }
        self.aside(path, &format!("sets {what}"));
        if let Err(e) = write_new(path, kept.as_bytes(), meta.mode() & 0o777) {
            self.found.said.push(e.to_string());
        }
        let _ = std::os::unix::fs::lchown(path, Some(meta.uid()), Some(meta.gid()));
    }

    fn hooks(&mut self, hooks: &Path) {
        let Ok(entries) = fs::read_dir(hooks) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // A name with a dot is no hook's.
            let Ok(meta) = entry.path().symlink_metadata() else {
                continue;
            };
            let runs = meta.is_symlink() || meta.permissions().mode() & 0o111 != 0;
            if !name.contains('.') && !meta.is_dir() && runs && self.is_new(&meta) {
                self.aside(&entry.path(), "is a hook");
            }
        }
    }

    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.workspace).unwrap_or(path);
        path.display().to_string()
    }

    fn aside(&mut self, path: &Path, why: &str) {
        let shown = self.shown(path);
        if !self.put_aside {
            self.found.said.push(format!("{shown} {why}"));
            return;
        }
        self.found.said.push(match put_aside(path) {
            Ok(to) => format!("{shown} {why}; it is now {}", self.shown(&to)),
            Err(e) => format!("{shown} {why}, and could not be put aside: {e}"),
        });
    }
}

/// Gives something a name that git does not look for, and that is not taken.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut to = path.as_os_str().to_owned();
    to.push(ASIDE);
    let mut to = PathBuf::from(to);
    for number in 1..100 {
        match to.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            _ => to.set_extension(format!("agentcontainer{number}")),
        };
    }
    fs::rename(path, &to)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn repository(path: &Path, config: &str) {
        for name in ["objects", "refs", "hooks"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(path.join("config"), config).unwrap();
    }

    fn swept(path: &Path, since: i64) -> Vec<String> {
        let found = sweep(path, since, false, true, MAX_ENTRIES);
        assert!(!found.cut_off);
        found.said
    }

    fn hook(path: &Path) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    const CLONE: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n[remote \"origin\"]\n\turl = https://git.test/a.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n[user]\n\tname = A B\n";

    #[test]
    fn a_plain_clone_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join("sub/.git");
        repository(&git, CLONE);
        hook(&git.join("hooks/pre-commit.sample"));
        assert_eq!(swept(dir.path(), 0), Vec::<String>::new());
        assert_eq!(fs::read_to_string(git.join("config")).unwrap(), CLONE);
    }

    #[test]
    fn what_git_would_run_is_put_aside_wherever_the_repository_lies() {
        for at in [".git", "a/b/.git", "bare.git", ".git/modules/x"] {
            let dir = tempfile::tempdir().unwrap();
            let git = dir.path().join(at);
            repository(&git, &format!("{CLONE}[core]\n\tfsmonitor = ./evil\n"));
            hook(&git.join("hooks/post-checkout"));
            assert_eq!(swept(dir.path(), 0).len(), 2, "{at}");
            assert_eq!(
                config::parse(&fs::read_to_string(git.join("config")).unwrap()).entries,
                config::parse(CLONE).entries
            );
            assert!(!git.join("hooks/post-checkout").exists());
            assert!(git.join("hooks/post-checkout.agentcontainer").exists());
            assert!(git.join("config.agentcontainer").exists());
            assert_eq!(swept(dir.path(), 0), Vec::<String>::new(), "once is enough");
        }
    }

    #[test]
    fn what_did_not_change_and_what_another_session_may_change_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join("sub/.git");
        let text = "[alias]\n\ts = !x\n";
        repository(&git, text);
        assert_eq!(swept(dir.path(), i64::MAX), Vec::<String>::new());
        let found = sweep(dir.path(), 0, false, false, MAX_ENTRIES);
        assert_eq!(found.said.len(), 1);
        assert_eq!(fs::read_to_string(git.join("config")).unwrap(), text);
    }

    #[test]
    fn the_workspaces_own_repository_is_not_a_strangers_but_its_modules_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join(".git");
        repository(&git, "[alias]\n\ts = !x\n");
        repository(&git.join("modules/x"), "[alias]\n\ts = !x\n");
        let found = sweep(dir.path(), 0, true, true, MAX_ENTRIES);
        assert_eq!(found.said.len(), 1);
        assert!(found.said[0].starts_with(".git/modules/x/config"));
    }

    #[test]
    fn a_git_that_leads_out_of_the_workspace_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        for (name, to) in [
            ("out", "gitdir: /elsewhere\n"),
            ("in", "gitdir: ../real\n"),
            ("up", "gitdir: ../../x\n"),
            ("by-link", "gitdir: ../link/x\n"),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(".git"), to).unwrap();
        }
        fs::create_dir(dir.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", dir.path().join("linked/.git")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", dir.path().join("link")).unwrap();
        assert_eq!(swept(dir.path(), 0).len(), 4);
        assert!(dir.path().join("in/.git").exists());
    }

    #[test]
    fn how_much_is_looked_at_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..5 {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(!sweep(dir.path(), 0, false, true, 5).cut_off);
        assert!(sweep(dir.path(), 0, false, true, 4).cut_off);
        let deep = |n| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("d/".repeat(n))).unwrap();
            sweep(dir.path(), 0, false, true, MAX_ENTRIES).cut_off
        };
        assert!(!deep(MAX_DEPTH));
        assert!(deep(MAX_DEPTH + 1));
    }
}
