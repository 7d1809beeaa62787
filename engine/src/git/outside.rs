//! The repository of a workspace whose `.git` is a file: a linked worktree, or a submodule. It lies outside the workspace, and the
//! workspace's word for where is nobody's: it is taken only where the repository itself names the workspace as its working tree, which
//! whoever made it wrote there (gitrepository-layout(5), `gitdir`; git-submodule(1), `core.worktree`). What is found is shown in the review,
//! and what was approved is what is mounted.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::beneath::Dir;
use super::lent::MAX_TREES;
use super::named::{self, Configs, From};
use super::pointer::{self, MAX_POINTER};
use super::{MAX_CONFIG, NOFOLLOW, NONBLOCK, config, is_ours, plain};

/// What lies outside, each by a path without links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// What is this working tree's own: its HEAD, its index.
    pub own: PathBuf,
    /// What all working trees have in common: objects, references, configuration, hooks. A submodule's is its own.
    pub common: PathBuf,
}

/// Where a workspace's repository is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Repository {
    /// In the workspace, or nowhere.
    #[default]
    Within,
    Outside(Outside),
    /// `.git` is a file that leads to nothing that can be carried: why.
    Unusable(Unusable),
}

/// Why git does not work inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("names no repository that is there")]
    Nothing,
    #[error(
        "leads through a symbolic link or to where you may not look ({0}); `git worktree repair` in the repository writes it anew"
    )]
    Path(String),
    #[error(
        "names a repository that does not name this workspace as its working tree; `git worktree repair` there, if it is yours"
    )]
    Stranger,
    #[error("names a repository of another user than the workspace's, or not yours")]
    Owner,
    #[error(
        "names a repository in the workspace itself, whose hooks and configuration a session could write"
    )]
    InWorkspace,
    #[error("names a repository that {0}")]
    Kind(&'static str),
}

impl Repository {
    /// The one that a workspace has. Nothing is changed.
    pub fn of(workspace: &Path) -> Self {
        let dot_git = workspace.join(".git");
        match dot_git.symlink_metadata() {
            Ok(meta) if meta.is_file() => {}
            _ => return Self::Within,
        }
        match find(workspace, &dot_git) {
            Ok(outside) => Self::Outside(outside),
            Err(why) => Self::Unusable(why),
        }
    }

    pub fn outside(&self) -> Option<&Outside> {
        match self {
            Self::Outside(outside) => Some(outside),
            Self::Within | Self::Unusable(_) => None,
        }
    }
}

impl Outside {
    pub fn is_submodule(&self) -> bool {
        self.own == self.common
    }

    /// The line of a review.
    pub fn asked(&self) -> String {
        let what = if self.is_submodule() {
            "the submodule's repository"
        } else {
            "the repository that this is a linked worktree of"
        };
        format!(
            "write to {what}, outside of it: {} (configuration and hooks are read-only)",
            self.common.display()
        )
    }
}

fn find(workspace: &Path, dot_git: &Path) -> Result<Outside, Unusable> {
    let bytes = read(dot_git).map_err(|e| Unusable::Path(e.to_string()))?;
    let to = pointer::gitdir(&bytes).ok_or(Unusable::Nothing)?;
    let own = plain(&workspace.join(to));
    let there = open(&own)?;
    let outside = match said(&there, "commondir")? {
        Some(to) => linked(&there, &own, &to, dot_git)?,
        None => submodule(&there, &own, workspace)?,
    };
    outside.check(workspace, dot_git)?;
    Ok(outside)
}

/// A worktree's own files lie where its repository keeps those of all, and name the workspace's `.git`.
fn linked(there: &Dir, own: &Path, to: &str, dot_git: &Path) -> Result<Outside, Unusable> {
    let common = plain(&own.join(to));
    let back = said(there, "gitdir")?.ok_or(Unusable::Stranger)?;
    if own.parent() != Some(&common.join("worktrees")) || plain(&own.join(back)) != dot_git {
        return Err(Unusable::Stranger);
    }
    Ok(Outside {
        own: own.to_owned(),
        common,
    })
}

fn submodule(there: &Dir, own: &Path, workspace: &Path) -> Result<Outside, Unusable> {
    let mut tree = None;
    for name in ["config", "config.worktree"] {
        let text = there.text(name, MAX_CONFIG).map_err(at(own, name))?;
        let parsed = config::parse(text.as_deref().unwrap_or_default());
        tree = parsed
            .get("core", None, "worktree")
            .map(str::to_owned)
            .or(tree);
    }
    if tree.is_none_or(|tree| plain(&own.join(tree)) != workspace) {
        return Err(Unusable::Stranger);
    }
    Ok(Outside {
        own: own.to_owned(),
        common: own.to_owned(),
    })
}

impl Outside {
    fn check(&self, workspace: &Path, dot_git: &Path) -> Result<(), Unusable> {
        let (own, common) = (open(&self.own)?, open(&self.common)?);
        // There a session writes as it likes.
        if self.own.starts_with(workspace) || self.common.starts_with(workspace) {
            return Err(Unusable::InWorkspace);
        }
        if workspace.starts_with(&self.common) {
            return Err(Unusable::Kind("holds the workspace"));
        }
        let owner = |meta: io::Result<fs::Metadata>| meta.map(|meta| meta.uid()).ok();
        let whose = owner(workspace.symlink_metadata());
        let caller = nix::unistd::geteuid();
        let theirs = [
            owner(dot_git.symlink_metadata()),
            owner(own.own_metadata()),
            owner(common.own_metadata()),
        ];
        let is_callers = caller.is_root() || whose == Some(caller.as_raw());
        if whose.is_none() || theirs.iter().any(|uid| *uid != whose) || !is_callers {
            return Err(Unusable::Owner);
        }
        let head = own.metadata("HEAD").is_ok_and(|meta| meta.is_file());
        if !common.is_dir("objects") || !common.is_dir("refs") || !head {
            return Err(Unusable::Nothing);
        }
        match common.metadata("objects/info/alternates") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(Unusable::Kind("borrows objects of another one")),
        }
        let led = common.metadata("commondir");
        let led = !led.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if led && !is_ours(&self.common.join("commondir")) {
            return Err(Unusable::Kind("is led to another by its commondir"));
        }
        self.check_config(&common)
    }

    /// What its configuration names must not lie where a session can write it, for git in any of its working trees.
    fn check_config(&self, common: &Dir) -> Result<(), Unusable> {
        let read = |name: &str| {
            let text = common.text(name, MAX_CONFIG);
            text.map_err(at(&self.common, name))
        };
        let (mut texts, mut trees) = (Vec::new(), Vec::new());
        texts.push((
            self.common.clone(),
            read("config")?.ok_or(Unusable::Nothing)?,
        ));
        if let Some(text) = read("config.worktree")? {
            texts.push((self.common.clone(), text));
        }
        for own in self.working_trees() {
            let name = |name: &str| format!("worktrees/{}/{name}", own.display());
            let at = self.common.join("worktrees").join(&own);
            // One of another's that cannot be read is not for this session to be kept back by.
            if let Ok(Some(bytes)) = common.read(&name("gitdir"), MAX_POINTER)
                && let Some(to) = pointer::path(&bytes)
            {
                trees.extend(plain(&at.join(to)).parent().map(Path::to_owned));
            }
            if let Ok(Some(text)) = common.text(&name("config.worktree"), MAX_CONFIG) {
                texts.push((at, text));
            }
        }
        if self.common.ends_with(".git") {
            trees.extend(self.common.parent().map(Path::to_owned));
        }
        if self.is_submodule()
            && let Some(tree) = texts.iter().find_map(|(at, text)| {
                let parsed = config::parse(text);
                let tree = parsed.get("core", None, "worktree")?;
                Some(plain(&at.join(tree)))
            })
        {
            trees.push(tree);
        }
        let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        let hooks = self.common.join("hooks");
        let own = texts.iter().map(|(at, text)| From::of(text, at));
        let configs = Configs::of(own.collect());
        if configs.included().any(|to| self.holds(&to, None)) {
            return Err(Unusable::Kind(
                "includes configuration from its own directory",
            ));
        }
        if configs
            .hooks(&trees)
            .any(|to| self.holds(&to, Some(&hooks)))
        {
            return Err(Unusable::Kind(
                "keeps its hooks in another place of its own directory",
            ));
        }
        let whole = configs.whole();
        whole.map_err(|e| Unusable::Path(e.to_string())).map(|_| ())
    }

    /// Whether a path lies in it, however it is spelled, and is not one that is covered.
    fn holds(&self, path: &Path, covered: Option<&Path>) -> bool {
        named::spellings(path)
            .iter()
            .any(|to| to.starts_with(&self.common) && Some(to.as_path()) != covered)
    }

    /// The names of what its working trees have of their own.
    fn working_trees(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.common.join("worktrees"));
        let names = entries.into_iter().flatten().flatten();
        names
            .take(MAX_TREES)
            .map(|entry| PathBuf::from(entry.file_name()))
            .collect()
    }
}

fn open(path: &Path) -> Result<Dir, Unusable> {
    Dir::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unusable::Nothing,
        _ => Unusable::Path(format!("{}: {e}", path.display())),
    })
}

fn at(dir: &Path, name: &str) -> impl Fn(io::Error) -> Unusable {
    move |e| Unusable::Path(format!("{}: {e}", dir.join(name).display()))
}

/// What a file says that leads elsewhere.
fn said(dir: &Dir, name: &str) -> Result<Option<String>, Unusable> {
    let bytes = dir.read(name, MAX_POINTER);
    let Some(bytes) = bytes.map_err(|e| Unusable::Path(format!("{name}: {e}")))? else {
        return Ok(None);
    };
    let path = pointer::path(&bytes).ok_or_else(|| Unusable::Path(format!("{name} holds no path")));
    Ok(Some(path?.to_owned()))
}

/// The workspace's own `.git`, of a file as much as counts.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW | NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(MAX_POINTER + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "outside/tests.rs"]
mod tests;
