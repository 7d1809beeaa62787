#![allow(clippy::unwrap_used)]
use super::super::{BASE, Others, finish};
use super::*;
use crate::git::Repository;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for dir in ["objects/info", "refs", "hooks", "modules/m"] {
            fs::create_dir_all(bench.at("main/.git").join(dir)).unwrap();
        }
        bench.put("main/.git/HEAD", "ref: refs/heads/main\n");
        bench.put("main/.git/index", "");
        bench.put(
            "main/.git/config",
            "[core]\n\tbare = false\n[alias]\n\tx = y\n",
        );
        for name in ["tree", "other"] {
            let own = format!("main/.git/worktrees/{name}");
            bench.put(&format!("{own}/HEAD"), &format!("ref: refs/heads/{name}\n"));
            bench.put(&format!("{own}/commondir"), "../..\n");
            let at = bench.at(name).join(".git");
            bench.put(&format!("{own}/gitdir"), &format!("{}\n", at.display()));
            let own = bench.at(&own).display().to_string();
            bench.put(&format!("{name}/.git"), &format!("gitdir: {own}\n"));
        }
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

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn session(&self, workspace: &str) -> PathBuf {
        let session = self.at("sessions").join(workspace);
        fs::create_dir_all(&session).unwrap();
        session
    }

    fn begin(&self, workspace: &str) -> Git {
        let at = self.at(workspace);
        crate::git::prepare(
            &at,
            &Repository::of(&at),
            "/w",
            &self.session(workspace),
            (0, 0),
            &[".envrc"],
            &look::through(&at, look::MAX_ENTRIES),
            Doing::Write,
        )
        .unwrap()
    }

    fn end(&self, workspace: &str, repository: bool) -> Merged {
        let others = Others {
            workspace: false,
            repository,
        };
        finish(&self.at(workspace), &self.session(workspace), others).unwrap()
    }
}

#[test]
fn what_git_would_obey_is_covered_and_nothing_of_it_is_bound_by_its_path() {
    let bench = Bench::new();
    let git = bench.begin("tree");
    let mut bound = Vec::new();
    let mut covered = Vec::new();
    for mount in &git.mounts {
        match mount {
            Mount::Repository {
                source,
                target,
                read_only,
            } => bound.push((source.clone(), target.as_str(), *read_only)),
            Mount::Session {
                target, read_only, ..
            } => covered.push((target.as_str(), *read_only)),
            other => panic!("{other:?}"),
        }
    }
    let source = |path: &str| bench.at(path).display().to_string();
    assert_eq!(
        bound,
        [
            (source("main/.git"), LENT_COMMON, false),
            (
                source("main/.git/hooks"),
                "/.agentcontainer-repository/hooks",
                true
            ),
            (source("main/.git/worktrees/tree"), LENT_OWN, false),
        ]
    );
    covered.sort_unstable();
    let read_only = [
        "/.agentcontainer-repository/COMMIT_EDITMSG",
        "/.agentcontainer-repository/FETCH_HEAD",
        "/.agentcontainer-repository/HEAD",
        "/.agentcontainer-repository/commondir",
        "/.agentcontainer-repository/config",
        "/.agentcontainer-repository/config.worktree",
        "/.agentcontainer-repository/index",
        "/.agentcontainer-repository/modules",
        "/.agentcontainer-repository/worktrees",
        "/.agentcontainer-worktree/commondir",
        "/.agentcontainer-worktree/config.worktree",
        "/.agentcontainer-worktree/gitdir",
        "/w/.git",
    ];
    let mut expected: Vec<_> = read_only.map(|target| (target, true)).into();
    expected.insert(0, ("/.agentcontainer-git", false));
    assert_eq!(covered, expected);
    let session = bench.session("tree");
    let said = |name: &str| fs::read_to_string(session.join(name)).unwrap();
    assert_eq!(said("git.pointer"), "gitdir: /.agentcontainer-worktree\n");
    assert_eq!(said("git.lent.gitdir"), "/w/.git\n");
    // The branches of the others, which git does not take for this one.
    assert_eq!(said("git/worktrees/other/HEAD"), "ref: refs/heads/other\n");
    assert_eq!(
        said("git/worktrees/main-working-tree/HEAD"),
        "ref: refs/heads/main\n"
    );
    assert!(!session.join("git/worktrees/tree").exists());

    assert_eq!(bench.end("tree", false), Merged::default());
    assert!(!bench.at("main/.git/commondir").exists());
}

#[test]
fn a_working_trees_own_configuration_holds_its_place_where_git_would_obey_it() {
    let bench = Bench::new();
    bench.put(
        "main/.git/config",
        "[extensions]\n\tworktreeConfig = true\n",
    );
    let git = bench.begin("tree");
    for at in [LENT_COMMON, LENT_OWN] {
        let target = format!("{at}/config.worktree");
        assert!(
            git.mounts.iter().any(|mount| mount.target() == target),
            "{at}"
        );
    }
    assert_eq!(bench.text("main/.git/worktrees/tree/config.worktree"), "");
    bench.end("tree", false);
}

#[test]
fn what_was_left_in_the_repository_is_put_aside_when_the_last_of_its_sessions_ends() {
    let bench = Bench::new();
    bench.begin("tree");
    bench.begin("other");
    let todo = "main/.git/rebase-merge/git-rebase-todo";
    bench.put(todo, "pick 1\nexec evil\n");
    bench.put(
        "main/.git/worktrees/tree/config.worktree",
        "[core]\n\tfsmonitor = evil\n",
    );
    bench.put("main/.git/objects/info/alternates", "/elsewhere\n");
    // The host's: inside, others' directories are covered.
    let hosts = [
        "worktrees/third/rebase-merge/git-rebase-todo",
        "modules/m/rebase-merge/git-rebase-todo",
    ];
    for path in hosts {
        let path = format!("main/.git/{path}");
        let above = path.split("/rebase-merge").next().unwrap();
        bench.put(&path, "exec mine\n");
        bench.put(&format!("{above}/HEAD"), "ref: refs/heads/x\n");
        bench.put(&format!("{above}/commondir"), "../..\n");
    }
    let own = "main/.git/worktrees/tree/rebase-merge/git-rebase-todo";
    bench.put(own, "exec evil\npick 2\n");
    let first = bench.end("tree", true);
    assert!(bench.at("main/.git/commondir").exists());
    assert!(bench.text(todo).contains("evil"));
    assert!(
        first
            .elsewhere
            .said
            .iter()
            .any(|line| line.contains("exec evil"))
    );
    // What is this working tree's own, or nobody's, is put aside at once.
    let per_tree = bench.text("main/.git/worktrees/tree/config.worktree");
    assert!(!per_tree.contains("evil"));
    assert!(!bench.at("main/.git/objects/info/alternates").exists());
    assert_eq!(bench.text(own), "pick 2\n");
    let last = bench.end("other", false);
    for path in hosts {
        assert_eq!(bench.text(&format!("main/.git/{path}")), "exec mine\n");
    }
    assert_eq!(bench.text(todo), "pick 1\n");
    assert!(
        last.elsewhere
            .said
            .iter()
            .any(|line| line.contains("main/.git: rebase-merge"))
    );
    assert!(!bench.at("main/.git/commondir").exists());
    let left = fs::read_dir(bench.at("sessions")).unwrap().flatten();
    assert_eq!(
        left.filter(|entry| entry.path().extension().is_some())
            .count(),
        0
    );
}

#[test]
fn harmless_keys_come_back_and_what_was_written_meanwhile_is_restored() {
    let bench = Bench::new();
    bench.begin("tree");
    let copy = common::config(&bench.session("tree"));
    let text = fs::read_to_string(&copy).unwrap();
    let added = "[branch \"tree\"]\n\tremote = origin\n\tmerge = refs/heads/tree\n[core]\n\tfsmonitor = evil\n";
    fs::write(
        &copy,
        format!("{text}[remote \"origin\"]\n\turl = https://git.test/a\n{added}"),
    )
    .unwrap();
    // As git on the host writes it: by a rename, with which the container's cover is gone.
    let config = bench.at("main/.git/config");
    let new = bench.at("main/.git/config.lock");
    fs::write(&new, format!("{text}[core]\n\tsshCommand = evil\n")).unwrap();
    fs::rename(&new, &config).unwrap();
    let merged = bench.end("tree", true);
    let text = bench.text("main/.git/config");
    assert!(
        text.contains("x = y") && text.contains("https://git.test/a"),
        "{text}"
    );
    assert!(!text.contains("evil"), "{text}");
    assert!(
        merged
            .left_out
            .iter()
            .any(|line| line.contains("fsmonitor"))
    );
    assert!(
        merged
            .left_out
            .iter()
            .any(|line| line.contains("config.agentcontainer"))
    );
}

#[test]
fn a_session_of_the_repositorys_own_leaves_alone_what_it_holds() {
    let bench = Bench::new();
    let main = bench.at("main");
    let Repository::Outside(outside) = Repository::of(&bench.at("tree")) else {
        panic!("it is a worktree");
    };
    let session = bench.session("main");
    let leaves = |workspace: &Path| crate::git::leaves_alone(workspace, &session, &outside);
    assert!(leaves(&bench.at("other")));
    assert!(!leaves(&main), "nothing is known of it");
    bench.begin("main");
    assert!(session.join(BASE).exists());
    assert!(leaves(&main));
    assert!(!leaves(main.parent().unwrap()));
    fs::rename(bench.at("main/.git/worktrees"), bench.at("away")).unwrap();
    fs::create_dir(bench.at("main/.git/worktrees")).unwrap();
    assert!(!leaves(&main), "another directory is not held");
}

#[test]
fn how_many_working_trees_are_told_of_is_bounded() {
    let bench = Bench::new();
    let fill = |count: usize| {
        for n in 0..count {
            let own = format!("main/.git/worktrees/n{n}");
            bench.put(&format!("{own}/HEAD"), "ref: refs/heads/n\n");
            bench.put(&format!("{own}/gitdir"), "/n/.git\n");
        }
        bench.begin("tree");
        let trees = fs::read_dir(bench.session("tree").join("git/worktrees")).unwrap();
        let trees = trees.count();
        bench.end("tree", false);
        fs::remove_dir_all(bench.session("tree")).unwrap();
        trees
    };
    // Beside the main one and `other`.
    assert_eq!(fill(MAX_TREES - 2), MAX_TREES);
    assert_eq!(fill(MAX_TREES - 1), MAX_TREES);
}
