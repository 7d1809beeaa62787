//! A workspace of another user's than init's: shown as init's before it is released, with what is mounted within it, and under the rules about files.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};
use std::sync::Arc;

use enforcer::session::Session;
use enforcer::trusted::Trusted;
use schema::session::SessionId;
use serde_json::{Value, json};

use crate::files::{Case, about, rule, said};

/// A workspace with a repository, of 1234:1234 but for a file of 1000:1000's and one of root's.
fn case(name: &str) -> Case {
    let case = Case::new(name);
    case.put(".git/hooks/sample", "x\n");
    case.put(".git/config", "x\n");
    case.put("strangers", "x\n");
    case.put("roots", "x\n");
    let script = "chown -R 1234:1234 . && chown 1000:1000 strangers && chown 0:0 roots && chmod 600 src/main.rs";
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(&case.workspace);
    assert!(command.status().unwrap().success());
    case
}

async fn open(case: &Case, owner: Option<(u32, u32)>, files: Value) -> Arc<Session> {
    let mut trusted = Trusted::default();
    trusted.owner = owner;
    Session::open(
        Arc::clone(&case.rig.places),
        SessionId::parse(&case.id).unwrap(),
        "/test".into(),
        about(files),
        trusted,
        0,
        Arc::default(),
    )
    .await
    .unwrap()
}

/// As an engine mounts it: the workspace, the repository in it, its hooks read-only, something else, and a part of it elsewhere.
const MOUNTS: &str = "mount --bind $PWD $PWD && cd $PWD && mount --bind .git .git && mount --bind .git/hooks .git/hooks && mount -o remount,bind,ro .git/hooks \
     && mount -t tmpfs -o mode=0777 tmpfs cache && mount -t tmpfs -o mode=0755 tmpfs /mnt && mkdir /mnt/src && mount --bind src /mnt/src && mount -o remount,bind,ro /mnt/src";

fn inside(case: &Case, session: &Session, user: &str, script: &str) -> Output {
    case.inside_after(session, MOUNTS, user, script)
}

/// Who owns what, and what can be written.
const SCRIPT: &str = r#"
    stat -c %u:%g . src/main.rs .git .git/hooks /mnt/src/main.rs | sort -u | tr '\n' ' '
    stat -c %u:%g strangers roots cache | tr '\n' ' '; echo
    try() { if "$@" 2>/dev/null; then echo "DONE: $*"; fi; }
    try touch new; try mkdir dir; try touch .git/index; try sh -c 'echo x >> .git/config'; try chmod 640 new; try touch cache/x; try cat src/main.rs
    try touch .git/hooks/x; try rm .git/hooks/sample; try mv .git gone; try touch /mnt/src/x; try sh -c 'echo x >> strangers'; try sh -c 'echo x >> roots'
    try sh -c 'echo x >> src/main.rs'; try touch src/x; try mv src gone; try grep SECRET .env; try chown 1234 new
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_files_are_inits_users_and_what_is_mounted_in_them_stays() {
    let case = case("own");
    let rules = json!({ "readOnly": [rule("src")], "denied": [rule(".env")] });
    let session = open(&case, Some((1234, 1234)), rules).await;
    let text = said(&inside(&case, &session, "1000", SCRIPT));
    let expected = [
        "1000:1000 1234:1234 0:0 0:0 ",
        "DONE: touch new",
        "DONE: mkdir dir",
        "DONE: touch .git/index",
        "DONE: sh -c echo x >> .git/config",
        "DONE: chmod 640 new",
        "DONE: touch cache/x",
        "fn main() {}",
        "DONE: cat src/main.rs",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{text}");
    for new in ["new", "dir", ".git/index", ".git/config"] {
        let meta = std::fs::metadata(case.workspace.join(new)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 1234), "{new}");
    }
    let events = case.rig.events(&case.id);
    let mapped = events.iter().find(|e| e.reason == "workspace-mapped");
    let detail = mapped.unwrap().detail.clone().unwrap();
    // The workspace, the repository, its hooks, and the part elsewhere: neither tmpfs.
    let words =
        "what is 1234:1234's on the host is 1000:1000's inside, and the reverse, on 4 mounts";
    assert_eq!(detail, words);
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_for_root_and_for_roots_owners_stay() {
    for (name, owner, user, shown) in [
        ("ow1", None, "1000", "1234:1234 1000:1000 0:0 0:0 "),
        ("ow2", Some((0, 0)), "1000", "1234:1234 1000:1000 0:0 0:0 "),
        (
            "ow3",
            Some((1234, 1234)),
            "0",
            "1234:1234 1000:1000 0:0 0:0 ",
        ),
        (
            "ow4",
            Some((1234, 1234)),
            "1234",
            "1234:1234 1000:1000 0:0 0:0 ",
        ),
    ] {
        let case = case(name);
        let session = open(&case, owner, json!({})).await;
        let text = said(&inside(&case, &session, user, SCRIPT));
        assert_eq!(text.lines().next(), Some(shown), "{name}: {text}");
        let written = text.contains("DONE: touch new");
        assert_eq!(written, user != "1000", "{name}: {text}");
        let events = case.rig.events(&case.id);
        assert!(!events.iter().any(|e| e.reason.starts_with("workspace-")));
        session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_cannot_be_mapped_is_as_it_was_and_said() {
    let case = case("ow5");
    let session = open(&case, Some((1234, 1234)), json!({})).await;
    let before = "mount -t ramfs ramfs $PWD && cd $PWD && chown 1234:1234 . && chmod 755 .";
    let script = "stat -c %u:%g .; touch new 2>/dev/null || echo refused";
    let text = said(&case.inside_after(&session, before, "1000", script));
    assert_eq!(text, "1234:1234\nrefused\n");
    let events = case.rig.events(&case.id);
    let not = events.iter().find(|e| e.reason == "workspace-not-mapped");
    let not = not.unwrap();
    assert_eq!(not.verdict, audit::Verdict::Flag);
    let detail = not.detail.clone().unwrap();
    assert!(
        detail.contains("neither its filesystem nor the kernel lets it"),
        "{detail}"
    );
    session.close("test").await.unwrap();
}
