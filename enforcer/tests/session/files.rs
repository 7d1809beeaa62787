//! Rules about files: held by mounts before init is released, whatever a program inside with every right of root but mounting tries.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use enforcer::session::Session;
use enforcer_common::files::MAX_NAME;
use policy::EffectivePolicy;
use serde_json::{Value, json};

use crate::later::lsm;
use crate::{Rig, open, policy as parsed};

/// A workspace on the rig's disk, and a session with rules about it.
pub struct Case {
    pub rig: Rig,
    pub id: String,
    pub workspace: PathBuf,
    /// What is done in the namespace before anything of it is looked at.
    pub prepare: String,
}

/// Until the script inside has made that file: by then it runs under its rules, however long its start took.
pub fn wait_for(path: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < until, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Case {
    pub fn new(name: &str) -> Self {
        let rig = Rig::new();
        let workspace = rig.directory.path().join("work");
        let case = Self {
            id: format!("f{name}{}", std::process::id()),
            rig,
            workspace,
            prepare: ":".to_owned(),
        };
        case.put("src/main.rs", "fn main() {}\n");
        case.put("src/deep/er/key.pem", "a key\n");
        case.put(".env", "SECRET=1\n");
        case.put("app/.env", "SECRET=2\n");
        case.put("cache/old", "x\n");
        case.put("secret/a/b", "hidden\n");
        case
    }

    pub fn put(&self, name: &str, text: &str) {
        let path = self.workspace.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.workspace.join(name)).unwrap_or_default()
    }

    pub async fn open(&self, files: Value) -> Arc<Session> {
        open(&self.rig, &self.id, about(files), 0).await
    }

    /// As a container would run it: the workspace's folder is init's directory, nothing that mounts is left to it.
    pub fn inside(&self, session: &Session, script: &str) -> Output {
        self.inside_with(session, script, &[])
    }

    /// With variables that an engine would have set.
    pub fn inside_with(
        &self,
        session: &Session,
        script: &str,
        variables: &[(&str, String)],
    ) -> Output {
        self.inside_of(session.id.as_str(), script, variables)
    }

    /// Of a session by its id: its enforcer may be another one by then.
    pub fn inside_of(&self, id: &str, script: &str, variables: &[(&str, String)]) -> Output {
        let cgroup = self.rig.places.session_cgroup(id).join("container");
        std::fs::create_dir_all(&cgroup).unwrap();
        let outer = format!(
            "exec unshare --pid --fork --net -- unshare --mount-proc --propagation private -- setpriv --bounding-set -sys_admin --inh-caps -sys_admin -- env \"${{@:2}}\" {} -- /bin/bash -c \"$1\"",
            self.rig.places.init.display()
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", &outer, "bash", script])
            .args(
                variables
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .current_dir(&self.workspace);
        let procs = cgroup.join("cgroup.procs");
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                std::fs::write(&procs, "0")
            });
        }
        command.output().unwrap()
    }

    /// As that user, after root's commands in the namespace.
    pub fn inside_after(
        &self,
        session: &Session,
        before: &str,
        user: &str,
        script: &str,
    ) -> Output {
        let cgroup = self
            .rig
            .places
            .session_cgroup(session.id.as_str())
            .join("container");
        std::fs::create_dir_all(&cgroup).unwrap();
        let outer = "exec unshare --pid --fork --net -- unshare --mount-proc --propagation private -- bash -c \"$2\" bash \"$1\"";
        let then = format!(
            "{before} && exec setpriv --reuid {user} --regid {user} --clear-groups --bounding-set -sys_admin --inh-caps -sys_admin -- {} -- /bin/bash -c \"$1\"",
            self.rig.places.init.display()
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", outer, "bash", script, &then])
            .current_dir(&self.workspace);
        let procs = cgroup.join("cgroup.procs");
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                std::fs::write(&procs, "0")
            });
        }
        command.output().unwrap()
    }

    /// With every right of root, and the processes of the machine in `../machine`: for what the kernel refuses all the same.
    pub fn inside_whole(&self, session: &Session, script: &str) -> Output {
        let cgroup = self
            .rig
            .places
            .session_cgroup(session.id.as_str())
            .join("container");
        std::fs::create_dir_all(&cgroup).unwrap();
        let outer = format!(
            "mkdir -p ../machine && mount --bind /proc ../machine && exec unshare --pid --fork --net -- unshare --mount-proc --propagation private -- {} -- /bin/bash -c \"$1\"",
            self.rig.places.init.display()
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "bash", "-c"])
            .args([&outer, "bash", script])
            .current_dir(&self.workspace);
        let procs = cgroup.join("cgroup.procs");
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                std::fs::write(&procs, "0")
            });
        }
        command.output().unwrap()
    }

    /// A `PATH` that begins with the workspace's programs.
    pub fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.at("bin"))
    }

    pub fn at(&self, name: &str) -> String {
        self.workspace.join(name).display().to_string()
    }
}

pub fn rule(path: &str) -> Value {
    json!({ "path": path, "origin": { "file": "agentcontainer.json", "line": 3, "column": 5 } })
}

pub fn about(files: Value) -> EffectivePolicy {
    parsed(json!({ "version": 1, "network": [{}], "gateway": {}, "files": files }))
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_only_is_not_written_by_any_way_and_what_is_writable_in_it_is() {
    let case = Case::new("ro");
    let session = case
        .open(json!({ "readOnly": [rule(".")], "writable": [rule("cache")] }))
        .await;
    let script = r#"
        try() { if "$@" 2>/dev/null; then echo "OPEN: $*"; fi; }
        try sh -c 'echo x > src/main.rs'; try sh -c 'echo x >> src/main.rs'; try touch new; try mkdir dir
        try rm .env; try mv src away; try ln src/main.rs link; try ln -s x sym; try chmod 777 .env; try truncate -s 0 .env
        try sh -c "echo x > $PWD/src/main.rs"; try sh -c 'echo x > /proc/self/cwd/src/main.rs'; try sh -c "echo x > /proc/$$/cwd/src/main.rs"
        try sh -c "echo x > /proc/self/root$PWD/src/main.rs"; try mv cache elsewhere; try rmdir cache
        python3 - <<'P'
import os
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
    try: os.open("src/main.rs", flags); print("OPEN: flags", flags)
    except OSError as e: assert e.errno in (30, 13), e
fd = os.open("src", os.O_PATH | os.O_DIRECTORY)
try: os.open("main.rs", os.O_WRONLY, dir_fd=fd); print("OPEN: openat")
except OSError: pass
P
        echo ok > cache/new && mkdir cache/d && mv cache/old cache/d/ && cat cache/new src/main.rs && echo done
    "#;
    let output = case.inside(&session, script);
    let text = said(&output);
    assert!(text.contains("ok\nfn main() {}\ndone"), "{text}");
    assert!(!text.contains("OPEN"), "{text}");
    assert_eq!(case.read("src/main.rs"), "fn main() {}\n");
    assert_eq!(case.read("cache/new"), "ok\n");
    let held = case.rig.events(&case.id);
    let held = held.iter().find(|e| e.reason == "files-held").unwrap();
    assert!(
        held.detail
            .as_ref()
            .unwrap()
            .starts_with("1 read-only, 1 writable within"),
        "{held:?}"
    );
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_neither_read_nor_moved_away_with_a_directory_above_it() {
    let case = Case::new("no");
    let script = r#"
        cat .env secret/a/b src/deep/er/key.pem 2>/dev/null; ls secret 2>/dev/null
        mv src/deep src/other 2>/dev/null; mv src elsewhere 2>/dev/null; cat elsewhere/deep/er/key.pem src/other/er/key.pem 2>/dev/null
        mv .env env 2>/dev/null; ln .env hard 2>/dev/null; cp .env copy 2>/dev/null; rm -rf secret .env 2>/dev/null
        cat /proc/self/root$PWD/.env /proc/self/cwd/.env /proc/$$/cwd/.env 2>/dev/null
        echo written > src/new; echo x 2>/dev/null > src/deep/er/key.pem; cat src/main.rs; echo done
    "#;
    // The control: without rules all of it is there.
    let session = open(&case.rig, &format!("{}c", case.id), about(json!({})), 1).await;
    let text = said(&case.inside(&session, "cat .env secret/a/b src/deep/er/key.pem"));
    assert_eq!(text, "SECRET=1\nhidden\na key\n");
    session.close("test").await.unwrap();

    let session = case
        .open(json!({ "denied": [rule(".env"), rule("secret"), rule(&case.at("src/deep/er/key.pem"))] }))
        .await;
    let text = said(&case.inside(&session, script));
    assert_eq!(text, "fn main() {}\ndone\n");
    for (name, words) in [
        (".env", "SECRET=1\n"),
        ("secret/a/b", "hidden\n"),
        ("src/deep/er/key.pem", "a key\n"),
        ("src/new", "written\n"),
        ("copy", ""),
        ("hard", ""),
    ] {
        assert_eq!(case.read(name), words, "{name}");
    }
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_held_let_nothing_start_and_say_why() {
    let case = Case::new("why");
    std::os::unix::fs::symlink("src", case.workspace.join("linked")).unwrap();
    std::os::unix::fs::symlink("nowhere", case.workspace.join("dangling")).unwrap();
    // A name that the kernel's table does not take, so that mounts alone hold it.
    let long = format!("src/{}", "n".repeat(MAX_NAME + 1));
    let mut refused = vec![
        (long.as_str(), "which is not there"),
        ("linked", "goes through a link to"),
        ("linked/main.rs", "goes through a link to"),
        ("dangling", "goes through a link to nothing that is there"),
        ("/etc/mtab", "goes through a link to"),
    ];
    // What comes later is held where the kernel takes programs for it.
    if lsm().is_err() {
        refused.push(("not-there", "which is not there"));
        refused.push(("src/main.rs/x", "which is not there"));
    }
    for (n, (path, words)) in refused.into_iter().enumerate() {
        let id = format!("{}x{n}", case.id);
        let files = json!({ "denied": [rule(path)] });
        let session = open(&case.rig, &id, about(files), n as u32).await;
        let output = case.inside(&session, "echo started");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(125), "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
        assert!(text.contains("agentcontainer.json:3:5"), "{path}: {text}");
        assert!(!text.contains("started"), "{path}: {text}");
        session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_held_for_what_is_there_and_only_where_the_host_says_that_this_is_enough() {
    let case = Case::new("glob");
    let denied = [
        rule("**/.env"),
        rule("src/*/er/*.pem"),
        rule("gone*"),
        rule("secret/**"),
    ];
    let strict = Session::open(
        Arc::clone(&case.rig.places),
        schema::session::SessionId::parse(&case.id).unwrap(),
        "/test".into(),
        about(json!({ "denied": denied })),
        enforcer::trusted::Trusted::default(),
        0,
        Arc::default(),
    )
    .await;
    match (enforcer::kernel::lsm(), strict) {
        (Err(reason), Err(error)) => {
            let error = error.to_string();
            let words = "which is also about files that come later";
            assert!(error.contains(words) && error.contains(reason), "{error}");
        }
        // Where the kernel takes programs for it, these carry them.
        (Ok(()), Ok(session)) => drop(session.close("test").await.unwrap()),
        (lsm, strict) => panic!("{lsm:?} {strict:?}"),
    }

    let said_so = json!({ "file": "config.toml", "line": 1, "column": 9 });
    let session = case
        .open(json!({ "denied": denied, "mountsSuffice": said_so }))
        .await;
    let script = "{ cat .env app/.env src/deep/er/key.pem; echo later > cache/.env; cat cache/.env src/main.rs; touch secret/new && echo made; } 2>/dev/null";
    let text = said(&case.inside(&session, script));
    // What comes later is nobody's where mounts carry it alone.
    let later = enforcer::kernel::lsm().map_or("later\n", |()| "");
    assert_eq!(text, format!("{later}fn main() {{}}\n"));
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisations_path_may_be_missing_where_the_host_says_so_and_is_held_where_it_is() {
    let case = Case::new("org");
    let of = |path: &str| {
        let mut rule = rule(path);
        rule["organisation"] = json!("acme");
        rule
    };
    let denied = json!([of("/no/such"), of(&case.at(".env"))]);
    let id = format!("{}s", case.id);
    let strict = open(&case.rig, &id, about(json!({ "denied": denied })), 1).await;
    let text = said(&case.inside(&strict, "echo started"));
    match lsm() {
        // It is held if it comes.
        Ok(()) => assert_eq!(text, "started\n"),
        Err(_) => assert!(
            text.contains("`denials.paths` has \"/no/such\"") && !text.contains("started"),
            "{text}"
        ),
    }
    strict.close("test").await.unwrap();

    let said_so = json!({ "file": "config.toml", "line": 1, "column": 9 });
    let session = case
        .open(json!({ "denied": denied, "mountsSuffice": said_so }))
        .await;
    // One that is there is waited for when the host takes it away.
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("begun"));
        std::fs::remove_file(workspace.join(".env")).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        std::fs::write(workspace.join(".env"), "SECRET=4\n").unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        std::fs::write(workspace.join("go"), "go\n").unwrap();
    });
    let script = "touch begun; cat .env 2>/dev/null; for n in $(seq 200); do sleep 0.05; cat go 2>/dev/null && break; done; cat .env 2>/dev/null; echo done";
    let text = said(&case.inside(&session, script));
    host.join().unwrap();
    assert_eq!(text, "go\ndone\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_writable_stays_so_as_a_mount_of_its_own_and_when_the_host_makes_it_anew() {
    let case = Case::new("rw");
    case.put("volume/old", "x\n");
    let volume = case.at("volume");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&volume)
        .status()
        .unwrap();
    assert!(mounted.success());
    let session = case
        .open(json!({ "readOnly": [rule(".")], "writable": [rule("volume"), rule("cache")] }))
        .await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("volume/new"));
        std::fs::remove_dir_all(workspace.join("cache")).unwrap();
        std::fs::create_dir(workspace.join("cache")).unwrap();
    });
    let script = "echo x >volume/new && echo volume; for n in $(seq 100); do sleep 0.05; ls cache/old >/dev/null 2>&1 || break; done
         sleep 2; echo x >cache/new && echo cache; echo x >src/new || echo closed";
    let text = said(&case.inside(&session, script));
    host.join().unwrap();
    let unmounted = Command::new("umount").arg(&volume).status().unwrap();
    assert!(unmounted.success());
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(':')).collect();
    assert_eq!(lines, ["volume", "cache", "closed"], "{text}");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_host_replaces_is_held_again_and_that_is_on_record() {
    let case = Case::new("again");
    let session = case
        .open(json!({ "denied": [rule(".env")], "readOnly": [rule("src"), rule("cache/old")] }))
        .await;
    let (script, workspace) = (
        "touch begun; for n in $(seq 100); do sleep 0.05; cat .env go 2>/dev/null && break; done; sleep 1.5
         grep -q SECRET .env 2>/dev/null && echo OPEN .env; echo x 2>/dev/null > cache/old && echo OPEN old; echo x 2>/dev/null > src/main.rs && echo OPEN src; cat src/main.rs",
        case.workspace.clone(),
    );
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("begun"));
        // As editors write, as `rm` and a later write do, and a whole directory.
        std::fs::write(workspace.join(".env.new"), "SECRET=3\n").unwrap();
        std::fs::rename(workspace.join(".env.new"), workspace.join(".env")).unwrap();
        std::fs::remove_file(workspace.join("cache/old")).unwrap();
        std::fs::write(workspace.join("cache/old"), "y\n").unwrap();
        std::fs::rename(workspace.join("src"), workspace.join("src.old")).unwrap();
        std::fs::create_dir(workspace.join("src")).unwrap();
        std::fs::write(workspace.join("src/main.rs"), "new\n").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        std::fs::write(workspace.join("go"), "go\n").unwrap();
    });
    let text = said(&case.inside(&session, script));
    host.join().unwrap();
    assert!(text.ends_with("go\nnew\n"), "{text}");
    assert!(!text.contains("OPEN"), "{text}");
    for (name, words) in [
        (".env", "SECRET=3\n"),
        ("cache/old", "y\n"),
        ("src/main.rs", "new\n"),
    ] {
        assert_eq!(case.read(name), words, "{name}");
    }
    let events = case.rig.events(&case.id);
    assert!(events.iter().any(|e| e.reason == "files-held-again"));
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_about_files_do_not_change_while_a_session_runs() {
    let case = Case::new("same");
    let session = case.open(json!({ "denied": [rule(".env")] })).await;
    let error = session.set_policy(about(json!({}))).await.unwrap_err();
    assert!(
        error.to_string().contains("from the next start on"),
        "{error}"
    );
    let same = about(json!({ "denied": [rule(".env")] }));
    session.set_policy(same).await.unwrap();
    session.close("test").await.unwrap();
}

#[test]
fn the_rig_has_what_it_needs() {
    assert!(Path::new("/usr/bin/setpriv").exists(), "util-linux");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_read_only_leaves_what_is_named_and_the_kernels_own() {
    let case = Case::new("root");
    let files = json!({ "readOnly": [rule("/")], "writable": [rule("cache"), rule("/var/tmp")], "denied": [rule(".env")] });
    let session = case.open(files).await;
    let script = r#"
        try() { if "$@" 2>/dev/null; then echo "OPEN $*"; fi; }
        for at in / /etc /usr/bin /tmp /run . src; do try touch "$at/new"; try mkdir "$at/dir"; done
        try sh -c 'echo x >>src/main.rs'; try mv src src2; try rm .env; try grep -q SECRET .env; try mv cache cache2
        try mount -o remount,rw /; try touch /var/new
        echo x >cache/new && rm cache/old && mkdir cache/sub && touch cache/sub/x && echo cache
        touch "/var/tmp/root.$$" && rm "/var/tmp/root.$$" && echo tmp
        echo x >/dev/null; echo self >/proc/self/comm; echo x >/dev/shm/root.$$ && rm /dev/shm/root.$$ && echo kernel
        cat src/main.rs
    "#;
    let text = said(&case.inside(&session, script));
    assert_eq!(text, "cache\ntmp\nkernel\nfn main() {}\n");
    session.close("test").await.unwrap();
    assert!(case.workspace.join("cache/sub/x").exists() && !case.workspace.join("new").exists());
}
