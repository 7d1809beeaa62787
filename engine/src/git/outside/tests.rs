#![allow(clippy::unwrap_used)]
use std::os::unix::fs::symlink;

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
        let to = bench.at("main/.git/worktrees/name");
        bench.put("tree/.git", &format!("gitdir: {}\n", to.display()));
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
        match Repository::of(&self.at(workspace)) {
            Repository::Outside(outside) => Ok(outside),
            Repository::Unusable(why) => Err(why),
            Repository::Within => panic!("it has no pointer"),
        }
    }
}

#[test]
fn a_worktree_and_a_submodule_are_found_where_their_repository_names_them() {
    let bench = Bench::new();
    let tree = bench.find("tree").unwrap();
    assert_eq!(tree.own, bench.at("main/.git/worktrees/name"));
    assert_eq!(tree.common, bench.at("main/.git"));
    assert!(!tree.is_submodule() && tree.asked().contains("main/.git"));
    let sub = bench.find("super/sub").unwrap();
    assert_eq!(sub.own, bench.at("super/.git/modules/sub"));
    assert!(sub.is_submodule());
    // As git writes it with worktree.useRelativePaths.
    bench.put("tree/.git", "gitdir: ../main/.git/worktrees/name");
    bench.put("main/.git/worktrees/name/gitdir", "../../../../tree/.git");
    assert_eq!(bench.find("tree").unwrap(), tree);
    assert_eq!(Repository::of(&bench.at("main")), Repository::Within);
    assert_eq!(Repository::of(&bench.at("none")), Repository::Within);
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
    for nothing in ["", "gitdir:", "gitdir: ../nowhere", "../main/.git"] {
        bench.put("thief/.git", nothing);
        assert_eq!(bench.find("thief"), Err(Unusable::Nothing), "{nothing:?}");
    }
    for wrong in ["\0", "gitdir: ../ma\0in"] {
        bench.put("thief/.git", wrong);
        assert!(bench.find("thief").is_err(), "{wrong:?}");
    }
}

#[test]
fn no_link_leads_to_a_repository_nor_out_of_it() {
    for link in ["main", "main/.git", "main/.git/worktrees/name"] {
        let bench = Bench::new();
        fs::rename(bench.at(link), bench.at("moved")).unwrap();
        symlink(bench.at("moved"), bench.at(link)).unwrap();
        assert!(
            matches!(bench.find("tree"), Err(Unusable::Path(_))),
            "{link}"
        );
    }
    for file in [
        "config",
        "worktrees/name/gitdir",
        "worktrees/name/commondir",
    ] {
        let bench = Bench::new();
        let path = bench.at("main/.git").join(file);
        fs::rename(&path, bench.at("moved")).unwrap();
        symlink(bench.at("moved"), &path).unwrap();
        assert!(
            matches!(bench.find("tree"), Err(Unusable::Path(_))),
            "{file}"
        );
    }
    let bench = Bench::new();
    fs::remove_file(bench.at("tree/.git")).unwrap();
    symlink(bench.at("super/sub/.git"), bench.at("tree/.git")).unwrap();
    assert_eq!(Repository::of(&bench.at("tree")), Repository::Within);
}

#[test]
fn a_pointer_is_bounded() {
    let bench = Bench::new();
    let text = fs::read_to_string(bench.at("tree/.git")).unwrap();
    let padded = |n: u64| format!("{text}{}", "\n".repeat(n as usize - text.len()));
    bench.put("tree/.git", &padded(MAX_POINTER));
    assert!(bench.find("tree").is_ok());
    bench.put("tree/.git", &padded(MAX_POINTER + 1));
    assert_eq!(bench.find("tree"), Err(Unusable::Nothing));
}

#[test]
fn what_a_session_could_write_or_git_would_not_find_inside_is_refused() {
    let kind = |bench: &Bench| matches!(bench.find("tree"), Err(Unusable::Kind(_)));
    let with = |path: &str, text: &str| {
        let bench = Bench::new();
        bench.put(path, text);
        bench
    };
    assert!(kind(&with(
        "main/.git/objects/info/alternates",
        "/elsewhere\n"
    )));
    let dangling = Bench::new();
    symlink("/nowhere", dangling.at("main/.git/objects/info/alternates")).unwrap();
    assert!(kind(&dangling));
    assert!(kind(&with("main/.git/commondir", "/elsewhere\n")));
    assert!(!kind(&with("main/.git/commondir", ".\n")));
    assert!(kind(&with(
        "main/.git/config",
        "[include]\n\tpath = more\n"
    )));
    assert!(!kind(&with(
        "main/.git/config",
        "[include]\n\tpath = ~/more\n"
    )));
    let hooks = |to: &str| {
        let bench = Bench::new();
        let at = bench.at("main/.git").join(to);
        bench.put(
            "main/.git/config",
            &format!("[core]\n\thooksPath = {}\n", at.display()),
        );
        kind(&bench)
    };
    assert!(hooks("others") && !hooks("hooks"));

    let bench = Bench::new();
    fs::rename(bench.at("main"), bench.at("tree/main")).unwrap();
    bench.put("tree/.git", "gitdir: main/.git/worktrees/name\n");
    assert_eq!(bench.find("tree"), Err(Unusable::InWorkspace));
    let bench = Bench::new();
    fs::remove_dir_all(bench.at("main/.git/objects")).unwrap();
    assert_eq!(bench.find("tree"), Err(Unusable::Nothing));
}

#[test]
fn a_repository_of_another_user_is_not_lent() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for path in ["main/.git", "main/.git/worktrees/name", "tree/.git", "tree"] {
        let bench = Bench::new();
        std::os::unix::fs::chown(bench.at(path), Some(4242), None).unwrap();
        assert_eq!(bench.find("tree"), Err(Unusable::Owner), "{path}");
    }
}
