#![allow(clippy::unwrap_used)]
use std::os::unix::fs::symlink;

use super::*;

const A: &str = "1111111111111111111111111111111111111111";
const B: &str = "2222222222222222222222222222222222222222";

/// A repository and a session's directory that began as it was.
struct Bench {
    dir: tempfile::TempDir,
    given: Given,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let bench = Self {
            given: Given {
                outside: Outside {
                    own: root.join("repo/worktrees/w"),
                    common: root.join("repo"),
                },
                refs: Refs::from([("refs/heads/topic".to_owned(), A.to_owned())]),
                head: "ref: refs/heads/topic".to_owned(),
                index: Some(Digest::of(b"index")),
                absent: Vec::new(),
            },
            dir,
        };
        for side in ["repo", "git"] {
            bench.put(&format!("{side}/refs/heads/topic"), A);
            fs::create_dir_all(bench.at(side).join("objects/pack")).unwrap();
        }
        for own in ["repo/worktrees/w", "git"] {
            bench.put(&format!("{own}/HEAD"), "ref: refs/heads/topic");
            bench.put(&format!("{own}/index"), "index");
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

    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.at(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn bring(&self) -> Merged {
        let mut merged = Merged::default();
        let back = Back {
            from: self.at("git"),
            given: &self.given,
        };
        back.bring(&mut merged).unwrap();
        merged
    }
}

#[test]
fn new_objects_references_head_and_index_come_back() {
    let bench = Bench::new();
    let object = format!("objects/ab/{}", &A[2..]);
    let pack = format!("objects/pack/pack-{A}");
    for name in [&object, &format!("{pack}.pack"), &format!("{pack}.idx")] {
        bench.put(&format!("git/{name}"), "content");
    }
    bench.put("git/refs/heads/topic", B);
    bench.put("git/refs/heads/a/b", B);
    bench.put("git/HEAD", "ref: refs/heads/a/b");
    bench.put("git/index", "another");
    let merged = bench.bring();
    assert_eq!(merged.left_out, Vec::<String>::new());
    for (at, text) in [
        (object.as_str(), "content"),
        (&format!("{pack}.pack"), "content"),
        ("refs/heads/topic", B),
        ("refs/heads/a/b", B),
        ("worktrees/w/HEAD", "ref: refs/heads/a/b"),
        ("worktrees/w/index", "another"),
    ] {
        assert_eq!(
            bench.text(&format!("repo/{at}")).as_deref(),
            Some(text),
            "{at}"
        );
    }
    assert_eq!(bench.bring().left_out, Vec::<String>::new());
}

#[test]
fn what_moved_here_or_is_elsewhere_or_no_branch_stays_as_it_is() {
    let bench = Bench::new();
    bench.put("repo/worktrees/other/HEAD", "ref: refs/heads/held");
    bench.put("repo/HEAD", "ref: refs/heads/main");
    for name in [
        "refs/heads/topic",
        "refs/heads/held",
        "refs/heads/main",
        "refs/x",
        "refs/heads/x.lock",
        "refs/heads/..y",
    ] {
        bench.put(&format!("git/{name}"), B);
    }
    bench.put("git/index", "another");
    let other = "3333333333333333333333333333333333333333";
    bench.put("repo/refs/heads/topic", other);
    let merged = bench.bring();
    assert_eq!(merged.applied, Vec::<String>::new());
    // Six references, and the index with the branch.
    assert_eq!(merged.left_out.len(), 7, "{:?}", merged.left_out);
    assert_eq!(bench.text("repo/refs/heads/topic").as_deref(), Some(other));
    assert_eq!(
        bench.text("repo/worktrees/w/index").as_deref(),
        Some("index")
    );
    for name in ["held", "main", "x.lock", "..y"] {
        assert!(!bench.at(&format!("repo/refs/heads/{name}")).exists());
    }
}

#[test]
fn no_link_leads_what_comes_back_anywhere_else() {
    let bench = Bench::new();
    bench.put("secret/key", "key");
    let outside = bench.at("secret");
    // In what the session made: nothing is read through it.
    symlink(&outside, bench.at("git/objects/ab")).unwrap();
    symlink(
        outside.join("key"),
        bench.at("git/objects/pack").join(format!("pack-{A}.pack")),
    )
    .unwrap();
    fs::remove_file(bench.at("git/index")).unwrap();
    symlink(outside.join("key"), bench.at("git/index")).unwrap();
    // In the repository: nothing is written through it.
    fs::create_dir(bench.at("git/objects/cd")).unwrap();
    bench.put(&format!("git/objects/cd/{}", &A[2..]), "planted");
    bench.put("git/refs/tags/v", B);
    symlink(&outside, bench.at("repo/refs/tags")).unwrap();
    let merged = bench.bring();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(
        bench.text("repo/worktrees/w/index").as_deref(),
        Some("index")
    );
    assert!(!bench.at("repo/objects/ab").exists());
    assert_eq!(
        fs::read_dir(bench.at("repo/objects/pack")).unwrap().count(),
        0
    );
    assert!(
        merged
            .left_out
            .iter()
            .any(|line| line.starts_with("refs/tags/v, which cannot be written"))
    );

    symlink(&outside, bench.at("repo/objects/ef")).unwrap();
    bench.put(&format!("git/objects/ef/{}", &A[2..]), "planted");
    let mut all = Merged::default();
    let back = Back {
        from: bench.at("git"),
        given: &bench.given,
    };
    bench.put("git/refs/heads/topic", B);
    back.bring(&mut all).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_repository_that_is_gone_gets_nothing() {
    let bench = Bench::new();
    bench.put("git/refs/heads/topic", B);
    fs::rename(bench.at("repo"), bench.at("moved")).unwrap();
    symlink(bench.at("moved"), bench.at("repo")).unwrap();
    assert_eq!(bench.bring().left_out.len(), 1);
    assert_eq!(bench.text("moved/refs/heads/topic").as_deref(), Some(A));
}
