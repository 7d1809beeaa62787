//! Commands that are killed in the middle of what they write: in the middle of a file, and between a file and its name. What they
//! leave is believed by nobody, and the next one does its work.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Outcome, Workspace, docker, outcome};
use serde_json::{Value, json};

use crate::lock::{on_its_own_mounts, workspace};
use crate::organisation::{Acme, plain};

/// What gives a file its name.
const NAMING: &str = "rename,renameat,renameat2,link,linkat";

/// Where a command ends, as `kill -9` ends it: nothing of it runs after that.
#[derive(Clone, Debug)]
enum End {
    /// Before a thread of it gives so many files their names.
    Naming(u32),
    /// In the first file that gets larger than so many bytes (the signal is another one, which nothing of it hears either).
    Larger(u64),
}

/// Whether it came so far.
fn killed(command: &Command, end: &End) -> bool {
    let mut wrapped = match end {
        End::Naming(n) => {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
            strace.arg(format!("trace={NAMING}")).arg("-e");
            strace.arg(format!("inject={NAMING}:signal=SIGKILL:when={n}"));
            strace
        }
        End::Larger(bytes) => {
            let mut prlimit = Command::new("prlimit");
            prlimit.arg(format!("--fsize={bytes}:{bytes}"));
            prlimit
        }
    };
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    let out = wrapped.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    match out.status.code() {
        Some(0) => false,
        // strace ends as what it ran.
        None if [libc::SIGKILL, libc::SIGXFSZ].contains(&out.status.signal().unwrap()) => true,
        other => panic!("{end:?}: {other:?}: {said}"),
    }
}

/// Every end of a command, until it is not reached any more.
fn ends(sizes: &[u64]) -> impl Iterator<Item = End> {
    let naming = (1..=12).map(End::Naming);
    naming.chain(sizes.iter().copied().map(End::Larger))
}

/// Files of a directory and of what is in it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

struct Carried {
    registry: Registry,
    here: Workspace,
    /// Of the image in the engine.
    id: String,
    file: PathBuf,
}

impl Carried {
    fn new() -> Self {
        let registry = Registry::start();
        registry.push("app:1", "carried\n");
        let image = format!("{}/app:1", registry.name());
        let here = workspace(&registry.name(), &image);
        here.cli(&["lock", "--yes"]).status(0);
        let (manifest, _) = registry.manifest("app", "1");
        let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let file = here.path().with_file_name("carried.tar");
        Self {
            registry,
            here,
            id,
            file,
        }
    }

    fn export(&self) -> Command {
        let file = self.file.display().to_string();
        self.here.command(["bundle", "export", &file, "--force"])
    }

    fn exported(&self) -> Vec<u8> {
        outcome::finish(self.export(), outcome::DEADLINE).status(0);
        fs::read(&self.file).unwrap()
    }

    /// Another host: nothing in its cache, no lockfile.
    fn there(&self, cache: &Path) -> There {
        let workspace = Workspace::new()
            .without_locking()
            .host_table(&Registry::host_table(&self.registry.name()));
        let image = format!("{}/app:1", self.registry.name());
        workspace.put("agentcontainer.json", json!({ "image": image }).to_string());
        workspace.write_host_config();
        docker::attempt(&["rmi", "--force", &self.id]);
        There {
            workspace,
            cache: cache.to_owned(),
        }
    }
}

struct There {
    workspace: Workspace,
    cache: PathBuf,
}

impl There {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.workspace.command(words);
        command.env("XDG_CACHE_HOME", &self.cache);
        command
    }

    fn cli(&self, words: &[&str]) -> Outcome {
        outcome::finish(self.command(words), outcome::DEADLINE)
    }
}

#[test]
fn an_export_that_is_killed_leaves_the_file_that_was_there_and_nothing_for_long() {
    let carried = Carried::new();
    let whole = carried.exported();
    let length = whole.len() as u64;
    let mut number = 0;
    for end in ends(&[0, 1, 600, length / 2, length - 1]) {
        // One that is there stays as it is; where there is none, none is there.
        for before in [Some(&b"another"[..]), None] {
            let _ = fs::remove_file(&carried.file);
            if let Some(text) = before {
                fs::write(&carried.file, text).unwrap();
            }
            let was_killed = killed(&carried.export(), &end);
            number += u32::from(was_killed);
            let found = fs::read(&carried.file).ok();
            match was_killed {
                true => assert!(found.as_deref() == before, "{end:?}"),
                false => assert!(found.as_deref() == Some(&whole[..]), "{end:?}"),
            }
        }
    }
    assert!(number >= 12, "killed {number} times");
    // What they left beside it goes with the next one that is whole.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(carried.exported() == whole);
    let beside = fs::read_dir(carried.file.parent().unwrap()).unwrap();
    let left: Vec<_> = beside
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".carried.tar"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_import_that_is_killed_brings_nothing_that_is_not_whole() {
    let carried = Carried::new();
    let file = carried.file.display().to_string();
    carried.exported();
    let import = ["bundle", "import", file.as_str()];
    // What a whole one writes, to be killed in the middle of each.
    let whole = tempfile::tempdir().unwrap();
    let there = carried.there(whole.path());
    there.cli(&import).status(0);
    let pins = fs::read(there.workspace.path().join("agentcontainer-lock.json")).unwrap();
    let mut sizes: Vec<u64> = files(whole.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .chain([pins.len() as u64])
        .filter(|size| *size > 0)
        .flat_map(|size| [size / 2, size - 1])
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut number = 0;
    for end in ends(&sizes) {
        let cache = tempfile::tempdir().unwrap();
        let there = carried.there(cache.path());
        if !killed(&there.command(&import), &end) {
            continue;
        }
        number += 1;
        // The lockfile is the last that is written: nothing of it is there before everything else is.
        let lockfile = there.workspace.path().join("agentcontainer-lock.json");
        let found = fs::read(&lockfile).ok();
        assert!(found.is_none_or(|found| found == pins), "{end:?}");
        there.cli(&["run", "--yes", "--offline"]).status(125);
        // With the pins from elsewhere what came is used as far as it is whole.
        fs::write(&lockfile, &pins).unwrap();
        let run = there.cli(&["run", "--yes", "--offline"]);
        assert!(
            run.status == 125 || run.stdout.trim() == "carried",
            "{end:?}: {} {}",
            run.stdout,
            run.stderr
        );
        there.cli(&import).status(0);
        assert_eq!(there.cli(&["run", "--yes", "--offline"]).ok(), "carried");
    }
    assert!(number >= 5, "killed {number} times");
    docker::attempt(&["rmi", "--force", &carried.id]);
}

#[test]
fn a_policy_that_is_pulled_and_killed_is_the_one_before_or_the_new_one() {
    let acme = Acme::new(&plain);
    acme.publish(1, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    let notes = acme.workspace.state().join("agentcontainer/policies");
    let note = || {
        let all = files(&notes).into_iter();
        let mut notes = all.filter(|path| path.extension().is_some_and(|e| e == "json"));
        notes.next().unwrap()
    };
    let serial = || {
        let bytes = fs::read(note()).unwrap();
        let note: Value = serde_json::from_slice(&bytes).unwrap();
        (note["serial"].as_u64().unwrap(), bytes.len() as u64)
    };
    let (_, length) = serial();
    let (mut number, mut now) = (0, 1);
    for end in ends(&[1, length / 2, length - 1, 2 * length]) {
        now += 1;
        acme.publish(now, &json!({}), "ours");
        let (before, _) = serial();
        let was_killed = killed(&acme.workspace.command(["policy", "pull"]), &end);
        number += u32::from(was_killed);
        let (after, _) = serial();
        assert!([before, now].contains(&after), "{end:?}: {after}");
        assert!(was_killed || after == now, "{end:?}");
        // It holds by what is here alone.
        acme.registry
            .tell(&json!({ "at": { "": { "status": 500 } } }));
        acme.workspace.cli(&["policy", "show"]).status(0);
        if now % 4 == 0 {
            let run = acme.workspace.cli(&["run", "--yes"]);
            run.status(0).says("the last one");
        }
        acme.registry.tell(&json!({}));
        assert_eq!(serial().0, after, "{end:?}");
        if now % 4 == 0 {
            acme.workspace.cli(&["policy", "pull"]).status(0);
            assert_eq!(serial().0, now);
        }
    }
    assert!(number >= 5, "killed {number} times");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    assert_eq!(serial().0, now);
    // What is cut short above is what else a pull writes, too: of the note itself, that it is another file each time and never written over.
    let inode = || fs::metadata(note()).unwrap().ino();
    let before = inode();
    acme.publish(now + 1, &json!({}), "ours");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    assert_eq!(serial().0, now + 1);
    assert_ne!(inode(), before, "written in place");
    assert_eq!(acme.run().ok(), "it runs");
}

#[test]
fn a_policy_that_is_pulled_onto_a_full_disk_is_the_one_before() {
    let acme = Acme::new(&plain);
    acme.publish(1, &json!({}), "ours");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    acme.publish(2, &json!({}), "ours");
    let state = acme.workspace.state().join("agentcontainer/policies");
    let copy = acme.workspace.path().with_file_name("copy");
    let serial = "grep -oh '\"serial\":[0-9]*' *.json";
    let script = format!(
        "cp -a {state} {copy} && mount -t tmpfs -o size=32k none {state} && cp -a {copy}/. {state}/ && cd {state} || exit 9
         head -c 100000 /dev/zero >filler 2>/dev/null
         (cd {ws}; $BIN policy pull >&2); echo $?; {serial}; (cd {ws}; $BIN policy show >&2); echo $?
         rm filler
         (cd {ws}; $BIN policy pull >&2); echo $?; {serial}",
        ws = acme.workspace.path().display(),
        state = state.display(),
        copy = copy.display()
    );
    let out = on_its_own_mounts(&acme.workspace, &script);
    let said: Vec<&str> = out.ok().lines().collect();
    let expected = ["125", "\"serial\":1", "0", "0", "\"serial\":2"];
    assert_eq!(said, expected, "{}", out.stderr);
    out.says("No space left");
}
