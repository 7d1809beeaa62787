//! What a session left in any repository of a workspace that git on the host would obey: as soon as somebody works in one, and
//! in a nested one that the index names at every `git status` above. When the session has ended, what was not there before
//! is put aside, and said.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::before::Before;
use super::named::MAX_INCLUDES;
use super::obeyed::{self, Kind, Thing};
use super::{
    EngineError, Merged, config, identity, plain, pointer, read_bytes, read_config, write_new,
};
use crate::look::Seen;

/// What is appended to the name of what is put aside.
pub(super) const ASIDE: &str = ".agentcontainer";

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What git would have obeyed, and what became of it.
    pub said: Vec<String>,
    /// Control files below the root that are not as they were.
    pub controls: Vec<String>,
    /// There was more than is looked at.
    pub cut_off: bool,
}

/// Goes through what lies in a workspace now. Without `put_aside` it is only said: another session may still change it.
pub fn sweep(workspace: &Path, seen: &Seen, before: &Before, put_aside: bool) -> Found {
    let mut sweep = Sweep {
        workspace,
        before,
        put_aside,
        found: Found {
            cut_off: seen.cut_off,
            ..Found::default()
        },
    };
    for path in &seen.pointers {
        sweep.judge(&Thing {
            kind: Kind::Pointer,
            path: path.clone(),
        });
    }
    for repository in &seen.repositories {
        sweep.repository(repository);
    }
    let shown = |path: &PathBuf| sweep.shown(path);
    let controls = seen.controls.iter().filter(|path| !before.knows(path));
    sweep.found.controls = controls.map(shown).collect();
    sweep.found
}

struct Sweep<'a> {
    workspace: &'a Path,
    before: &'a Before,
    put_aside: bool,
    found: Found,
}

impl Sweep<'_> {
    fn repository(&mut self, path: &Path) {
        let things = match &self.before.own {
            Some(own) if own.is_at(self.workspace, path) => {
                // Its configuration is restored, and its hooks were a mount of their own: what is new in that very directory
                // came from the host. Of a file for one working tree the cover is gone once git wrote it anew.
                self.config(path, &path.join("config.worktree"));
                let hooks = path.join("hooks");
                let same = hooks
                    .symlink_metadata()
                    .is_ok_and(|meta| own.hooks == Some(identity(&meta)));
                let mut things = obeyed::hooks(&hooks);
                things.retain(|thing| !same || thing.path.is_symlink());
                things.extend(self.named(path));
                things.extend(obeyed::state(path));
                things
            }
            _ => {
                // First the configuration: the rest is as that says.
                for own in obeyed::own_configs(path) {
                    self.config(path, &own);
                }
                self.included(path);
                obeyed::others(self.workspace, path)
            }
        };
        for thing in &things {
            self.judge(thing);
        }
    }

    /// What the configuration of a repository that a session had names of the workspace: where it is what was covered, the host changed it, and
    /// but for links nobody inside did.
    fn named(&mut self, repository: &Path) -> Vec<Thing> {
        self.included(repository);
        let mut things = Vec::new();
        for path in obeyed::named_hooks(self.workspace, repository) {
            let same = self.before.holds(&path);
            let mut hooks = obeyed::hooks(&path);
            hooks.retain(|thing| !same || thing.path.is_symlink());
            things.extend(hooks);
        }
        things
    }

    /// One at a time: what was taken out of a file names nothing any more.
    fn included(&mut self, repository: &Path) {
        let mut judged = BTreeSet::new();
        while judged.len() < MAX_INCLUDES {
            let included = obeyed::included(self.workspace, repository);
            let Some(path) = included.into_iter().find(|path| !judged.contains(path)) else {
                return;
            };
            if !self.before.holds(&path) {
                self.config(repository, &path);
            }
            judged.insert(path);
        }
    }

    fn judge(&mut self, thing: &Thing) {
        let path = thing.path.as_path();
        if self.before.knows(path) {
            return;
        }
        match thing.kind {
            Kind::Pointer => self.leads(path, pointer::gitdir),
            Kind::Commondir => self.leads(path, pointer::path),
            Kind::Hook => {
                let runs = path
                    .symlink_metadata()
                    .is_ok_and(|meta| meta.is_symlink() || meta.permissions().mode() & 0o111 != 0);
                if runs {
                    self.aside(path, "is a hook");
                }
            }
            Kind::Hooks => self.aside(path, "holds hooks"),
            Kind::Todo => self.todo(path),
            Kind::Link => self.aside(path, "is a link that git here would write through"),
            Kind::Options => {
                if !obeyed::is_gits_own(path) {
                    self.aside(path, "has git run or write what it names when it goes on");
                }
            }
            Kind::Stops => {
                let shown = self.shown(path);
                self.found.said.push(format!(
                    "{shown} was left there, which keeps git from working or waiting for somebody; it is yours to remove"
                ));
            }
            Kind::Script => self.aside(path, "may hold a rebase's commands"),
            // In its turn, with its repository.
            Kind::Config => {}
        }
    }

    /// What lies in the workspace is looked at where it lies.
    fn leads(&mut self, path: &Path, read: impl Fn(&[u8]) -> Option<&str>) {
        let bytes = read_bytes(path).ok();
        let to = bytes.as_deref().and_then(read).zip(path.parent());
        let to = to.map(|(to, base)| plain(&base.join(to)));
        if !to.is_some_and(|to| to.starts_with(self.workspace) && !self.is_linked(&to)) {
            self.aside(path, "leads git elsewhere");
        }
    }

    /// A rebase that waits may go on, without the commands that it was given.
    fn todo(&mut self, path: &Path) {
        let (Ok(bytes), Ok(meta)) = (read_bytes(path), path.symlink_metadata()) else {
            return self.aside(path, "cannot be read as a rebase's steps");
        };
        let before = self.before;
        let (dropped, kept): (Vec<&[u8]>, Vec<&[u8]>) = bytes
            .split_inclusive(|&b| b == b'\n')
            .partition(|line| obeyed::is_command(line) && !before.knows_command(path, line));
        if dropped.is_empty() {
            return;
        }
        let said: Vec<_> = dropped
            .iter()
            .map(|line| String::from_utf8_lossy(line.trim_ascii()))
            .collect();
        self.aside(path, &format!("would run: {}", said.join("; ")));
        self.write(path, &kept.concat(), &meta);
    }

    fn write(&mut self, path: &Path, bytes: &[u8], like: &fs::Metadata) {
        if !self.put_aside || path.symlink_metadata().is_ok() {
            return;
        }
        if let Err(e) = write_new(path, bytes, like.mode() & 0o777) {
            self.found.said.push(e.to_string());
        }
        let _ = std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid()));
    }

    /// Whether a part of a path in the workspace is a link: then it leads anywhere.
    fn is_linked(&self, path: &Path) -> bool {
        path.is_symlink() || first_link(&[self.workspace], path).is_some()
    }

    fn config(&mut self, repository: &Path, path: &Path) {
        if self.before.knows(path) {
            return;
        }
        let inert = |entry: &config::Entry| match (entry.section.as_str(), entry.key.as_str()) {
            ("core", "worktree") => {
                let to = plain(&repository.join(&entry.value));
                to.starts_with(self.workspace) && !self.is_linked(&to)
            }
            _ => config::is_inert(entry),
        };
        let (Ok(text), Ok(meta)) = (read_config(path), path.symlink_metadata()) else {
            return self.aside(path, "cannot be read as git's configuration");
        };
        let (kept, dropped) = config::keep(&text, inert);
        if dropped.is_empty() {
            return;
        }
        self.aside(path, &format!("sets {}", dropped.join(", ")));
        self.write(path, kept.as_bytes(), &meta);
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
        // What a link leads to is not the session's.
        if first_link(&[self.workspace], path).is_some() {
            let said = format!("{shown} {why}; it lies behind a link, and was left alone");
            self.found.said.push(said);
            return;
        }
        self.found.said.push(match put_aside(path) {
            Ok(to) => format!("{shown} {why}; it is now {}", self.shown(&to)),
            Err(e) => format!("{shown} {why}, and could not be put aside: {e}"),
        });
    }
}

/// The first part of a path below one of `roots` that is a link, but for its last.
pub(super) fn first_link<'a>(roots: &[&Path], path: &'a Path) -> Option<&'a Path> {
    let is_below = |at: &Path| roots.iter().any(|root| at.starts_with(root) && at != *root);
    let above = path.ancestors().skip(1).take_while(|at| is_below(at));
    above.filter(|at| at.is_symlink()).last()
}

/// What was not there when a session began, and git would obey. Where it lies behind a link by now, that came of the session, and is put aside
/// in its stead: what it leads to did not.
pub(super) fn put_absent_aside(
    roots: &[&Path],
    absent: &[PathBuf],
    merged: &mut Merged,
) -> Result<(), EngineError> {
    for path in absent {
        let path = first_link(roots, path).unwrap_or(path);
        if path.symlink_metadata().is_ok() {
            let aside = put_aside(path).map_err(EngineError::io("put aside", path))?;
            merged.left_out.push(format!(
                "{}, which git here would obey; it is now {}",
                path.display(),
                aside.display()
            ));
        }
    }
    Ok(())
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
mod tests;
