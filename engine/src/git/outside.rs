//! The repository of a workspace whose `.git` is a file: a linked worktree, or a submodule. It lies outside the workspace, and the
//! workspace's word for where is nobody's: it is taken only where the repository itself names the workspace as its working tree, which
//! whoever made it wrote there (gitrepository-layout(5), `gitdir`; git-submodule(1), `core.worktree`).

use std::fs;
use std::path::{Path, PathBuf};

use super::{config, plain, read_bytes, read_config};

/// The longest of the files that say where something is, in bytes.
const POINTER: usize = 8 * 1024;

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Outside {
    /// What is this working tree's own: its HEAD, its index.
    pub own: PathBuf,
    /// What all working trees have in common: objects, references, configuration, hooks.
    pub common: PathBuf,
}

/// Why git does not work inside.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("names no repository that is there")]
    Nothing,
    #[error("names a repository that does not name this workspace as its working tree")]
    Stranger,
    #[error("belongs to another user than its repository")]
    Owner,
    #[error("names a repository that {0}")]
    Kind(&'static str),
}

/// The repository that `.git`, a file, names.
pub fn find(workspace: &Path, dot_git: &Path) -> Result<Outside, Unusable> {
    let text = pointer(dot_git).ok_or(Unusable::Nothing)?;
    let to = text.strip_prefix("gitdir:").ok_or(Unusable::Nothing)?;
    let own = directory(&workspace.join(to.trim())).ok_or(Unusable::Nothing)?;
    let own_config = read_config(&own.join("config")).unwrap_or_default();
    let outside = match pointer(&own.join("commondir")) {
        Some(to) => {
            let back = pointer(&own.join("gitdir")).ok_or(Unusable::Stranger)?;
            let back = plain(&own.join(back.trim()));
            if !names(&back, dot_git) {
                return Err(Unusable::Stranger);
            }
            let common = directory(&own.join(to.trim())).ok_or(Unusable::Nothing)?;
            // A working tree's own files lie where its repository keeps those of all.
            if own.parent() != Some(&common.join("worktrees")) {
                return Err(Unusable::Stranger);
            }
            Outside { own, common }
        }
        None => {
            let parsed = config::parse(&own_config);
            let tree = parsed.get("core", None, "worktree");
            let tree = tree.map(|to| plain(&own.join(to)));
            if !tree.is_some_and(|tree| names(&tree, workspace)) {
                return Err(Unusable::Stranger);
            }
            Outside {
                common: own.clone(),
                own,
            }
        }
    };
    outside.is_usable(workspace, dot_git)?;
    Ok(outside)
}

impl Outside {
    fn is_usable(&self, workspace: &Path, dot_git: &Path) -> Result<(), Unusable> {
        use std::os::unix::fs::MetadataExt;
        // There a session writes as it likes.
        let within = fs::canonicalize(workspace).map_err(|_| Unusable::Nothing)?;
        if [&self.own, &self.common]
            .iter()
            .any(|path| path.starts_with(&within))
        {
            return Err(Unusable::Kind("lies in the workspace itself"));
        }
        let owner = |path: &Path| path.symlink_metadata().ok().map(|meta| meta.uid());
        for path in [&self.own, &self.common] {
            if owner(path) != owner(dot_git) {
                return Err(Unusable::Owner);
            }
        }
        let is_dir = |name: &str| {
            let meta = self.common.join(name).symlink_metadata();
            meta.is_ok_and(|meta| meta.is_dir())
        };
        if !is_dir("objects") || !is_dir("refs") || !self.own.join("HEAD").is_file() {
            return Err(Unusable::Nothing);
        }
        if self.common.join("objects/info/alternates").exists() {
            return Err(Unusable::Kind("borrows objects of another one"));
        }
        let mut names = fs::read_dir(&self.own).into_iter().flatten().flatten();
        if names.any(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"sharedindex.")
        }) {
            return Err(Unusable::Kind("splits its index"));
        }
        let text = read_config(&self.common.join("config")).map_err(|_| Unusable::Nothing)?;
        let parsed = config::parse(&text);
        if parsed.get("extensions", None, "refstorage").is_some() {
            return Err(Unusable::Kind("does not keep its references as files"));
        }
        Ok(())
    }
}

/// The same place, whichever way it is spelt.
fn names(path: &Path, place: &Path) -> bool {
    let [Ok(a), Ok(b)] = [path, place].map(fs::canonicalize) else {
        return false;
    };
    a == b
}

fn directory(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    path.is_dir().then_some(path)
}

fn pointer(path: &Path) -> Option<String> {
    let bytes = read_bytes(path).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    (text.len() <= POINTER).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        /// A repository with a worktree `tree` that it names `name`, and one with a submodule `sub`.
        fn new() -> Self {
            let bench = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            for common in ["main/.git", "super/.git/modules/sub"] {
                for name in ["objects/info", "refs"] {
                    fs::create_dir_all(bench.at(common).join(name)).unwrap();
                }
                bench.put(&format!("{common}/HEAD"), "ref: refs/heads/main\n");
            }
            bench.put("main/.git/config", "[core]\n\tbare = false\n");
            bench.put("main/.git/worktrees/name/HEAD", "ref: refs/heads/topic\n");
            bench.put("main/.git/worktrees/name/commondir", "../..\n");
            let back = format!("{}\n", bench.at("tree/.git").display());
            bench.put("main/.git/worktrees/name/gitdir", &back);
            let to = format!(
                "gitdir: {}\n",
                bench.at("main/.git/worktrees/name").display()
            );
            bench.put("tree/.git", &to);
            let config = "[core]\n\tworktree = ../../../sub\n";
            bench.put("super/.git/modules/sub/config", config);
            bench.put("super/sub/.git", "gitdir: ../.git/modules/sub\n");
            bench
        }

        fn at(&self, path: &str) -> PathBuf {
            fs::canonicalize(self.dir.path()).unwrap().join(path)
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn find(&self, workspace: &str) -> Result<Outside, Unusable> {
            let workspace = self.at(workspace);
            find(&workspace, &workspace.join(".git"))
        }
    }

    #[test]
    fn a_worktree_and_a_submodule_are_found_where_their_repository_names_them() {
        let bench = Bench::new();
        let tree = bench.find("tree").unwrap();
        assert_eq!(tree.own, bench.at("main/.git/worktrees/name"));
        assert_eq!(tree.common, bench.at("main/.git"));
        let sub = bench.find("super/sub").unwrap();
        assert_eq!(
            (&sub.own, &sub.common),
            (&sub.common, &bench.at("super/.git/modules/sub"))
        );
    }

    #[test]
    fn what_does_not_name_the_workspace_is_a_strangers() {
        let bench = Bench::new();
        for file in ["tree/.git", "super/sub/.git"] {
            let text = fs::read_to_string(bench.at(file)).unwrap();
            bench.put("thief/.git", &text.replace("../.git", "../super/.git"));
            assert_eq!(bench.find("thief"), Err(Unusable::Stranger), "{file}");
        }
        // The whole repository, with and without a word of a working tree.
        bench.put("thief/.git", "gitdir: ../main/.git\n");
        assert_eq!(bench.find("thief"), Err(Unusable::Stranger));
        // A worktree's files that are not where its repository keeps them.
        bench.put("away/HEAD", "ref: refs/heads/main\n");
        bench.put("away/commondir", "../main/.git\n");
        let back = bench.at("thief/.git").display().to_string();
        bench.put("away/gitdir", &back);
        bench.put("thief/.git", "gitdir: ../away\n");
        assert_eq!(bench.find("thief"), Err(Unusable::Stranger));
        for nothing in ["", "gitdir:", "gitdir: ../nowhere", "../main/.git", "\0"] {
            bench.put("thief/.git", nothing);
            assert!(bench.find("thief").is_err(), "{nothing:?}");
        }
    }

    #[test]
    fn what_a_session_could_write_or_git_would_not_find_inside_is_refused() {
        let bench = Bench::new();
        bench.put("main/.git/objects/info/alternates", "/elsewhere\n");
        assert!(matches!(bench.find("tree"), Err(Unusable::Kind(_))));
        bench.put(
            "super/.git/modules/sub/config",
            "[core]\n\tworktree = ../../../sub\n[extensions]\n\trefstorage = reftable\n",
        );
        assert!(matches!(bench.find("super/sub"), Err(Unusable::Kind(_))));

        let bench = Bench::new();
        bench.put("main/.git/worktrees/name/sharedindex.1", "");
        assert_eq!(bench.find("tree"), Err(Unusable::Kind("splits its index")));

        let bench = Bench::new();
        fs::rename(bench.at("main"), bench.at("tree/main")).unwrap();
        bench.put("tree/.git", "gitdir: main/.git/worktrees/name\n");
        assert_eq!(
            bench.find("tree"),
            Err(Unusable::Kind("lies in the workspace itself"))
        );
    }
}
