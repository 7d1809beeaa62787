//! Lists of what may be started where the kernel takes no LSM programs: what is not listed is ended when it is started. Where it takes them
//! they carry the list, and these tests have nothing to say but of which file is listed.

use std::sync::Arc;
use std::time::Duration;

use enforcer::kernel::{self, Carrier};
use enforcer::session::Session;
use policy::EffectivePolicy;
use schema::session::SessionId;
use serde_json::{Value, json};

use crate::files::{Case, rule, said};
use crate::later::{happens, skipped};
use crate::programs::with_programs;
use crate::{open, policy as parsed};

fn listing(names: &[&str]) -> EffectivePolicy {
    let listed: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "origin": rule("x")["origin"] }))
        .collect();
    parsed(
        json!({ "version": 1, "network": [{}], "gateway": {}, "programs": { "allowed": listed } }),
    )
}

/// What carries a list here. It may not be nobody.
fn carrier() -> Carrier {
    let carrier = Carrier::of(&listing(&["sh"]), &kernel::layers());
    assert_ne!(carrier, Carrier::Nobody);
    if carrier == Carrier::Starts {
        kernel::starts().unwrap();
    }
    carrier
}

/// Whether starts are that.
fn by_starts() -> bool {
    let is = carrier() == Carrier::Starts;
    if !is {
        skipped("BPF LSM carries lists here");
    }
    is
}

/// An x86-64 program of nine instructions, whose first five write an `x`.
const TINY: &str = r#"
import os, struct, sys
code = bytes.fromhex("b801000000bf01000000488d3510000000ba010000000f05b83c00000031ff0f0578")
head = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 4096)
open("tiny", "wb").write(head + segment + code); os.chmod("tiny", 0o755)
r, w = os.pipe()
ends, pids = {}, []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        for _ in range(250):
            child = os.posix_spawn("./tiny", ["tiny"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])
            status = os.waitpid(child, 0)[1]
            if status != int(sys.argv[1]): os._exit(1)
        os._exit(0)
    pids.append(pid)
ends = [os.waitpid(pid, 0)[1] for pid in pids]
os.close(w)
print(ends, len(os.read(r, 65536)))
"#;

/// By BPF LSM as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_no_program_that_an_earlier_session_may_have_put_there() {
    let case = with_programs("pname");
    case.put("volume/none", "");
    let volume = case.at("volume");
    let mount = |words: &[&str]| {
        let done = std::process::Command::new(words[0])
            .args(&words[1..])
            .status();
        assert!(done.unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "tmpfs", &volume]);
    let own = case.at("volume/own");
    std::fs::copy(case.workspace.join("bin/elf"), &own).unwrap();
    let path = format!("{volume}:{}", case.path());
    let run = async |n: u32, listed: &[&str]| {
        let session = open(&case.rig, &format!("{}x{n}", case.id), listing(listed), n).await;
        let text =
            said(&case.inside_with(&session, "own 'ran\n'; echo", &[("PATH", path.clone())]));
        session.close("test").await.unwrap();
        text
    };
    let named = run(0, &["bash", "own"]).await;
    // The control: it is meant where its path says so.
    let by_path = run(1, &["bash", &own]).await;
    mount(&["umount", &volume]);
    assert!(!named.contains("ran\n"), "{named}");
    assert!(by_path.contains("ran\n"), "{by_path}");
    let events = case.rig.events(&format!("{}x0", case.id));
    let mut details = events.iter().filter_map(|event| event.detail.as_deref());
    assert!(details.any(|words| words.contains("unless its path is: own (")));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the program is one of x86-64")]
async fn what_is_ended_has_run_no_instruction() {
    if !by_starts() {
        return;
    }
    let case = Case::new("tiny");
    case.put("tiny.py", TINY);
    let without = parsed(json!({ "version": 1, "network": [{}], "gateway": {} }));
    let session = open(&case.rig, &format!("{}c", case.id), without, 1).await;
    let usual = [("PATH", "/usr/bin:/bin".to_owned())];
    let text = said(&case.inside_with(&session, "python3 tiny.py 0", &usual));
    assert_eq!(text, "[0, 0, 0, 0] 1000\n");
    session.close("test").await.unwrap();

    let session = open(&case.rig, &case.id, listing(&["bash", "python3"]), 0).await;
    let text = said(&case.inside_with(&session, "python3 tiny.py 9", &usual));
    assert_eq!(text, "[0, 0, 0, 0] 0\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_puts_in_the_place_of_a_program_is_not_started_in_a_session_that_runs() {
    let killed = carrier() == Carrier::Starts;
    let case = with_programs("put");
    // By its path: where the workspace is a mount of its own a name would mean no program of it.
    let listed = listing(&["bash", "sleep", &case.at("bin/elf")]);
    let session = open(&case.rig, &case.id, listed, 0).await;
    let bin = case.workspace.join("bin");
    let host = std::thread::spawn(move || {
        for _ in 0..400 {
            if bin.join("go").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::copy("/usr/bin/printf", bin.join("new")).unwrap();
        std::fs::rename(bin.join("new"), bin.join("elf")).unwrap();
        std::fs::write(bin.join("there"), "").unwrap();
    });
    // Long enough for whatever is held again to be.
    let script = "exec 2>/dev/null; bin/elf 'before\n'; > bin/go; while ! [ -e bin/there ]; do sleep 0.05; done; sleep 3; bin/elf after; bin/elf after; echo $?";
    let text = said(&case.inside_with(&session, script, &[("PATH", case.path())]));
    host.join().unwrap();
    // Ended, or refused.
    let status = if killed { 137 } else { 126 };
    assert_eq!(text, format!("before\n{status}\n"));
    if !killed {
        happens(&case, |event| {
            event.reason == "replaced-since-listed" && event.binary == Some(case.at("bin/elf"))
        });
    }
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_held_by_the_next_enforcer() {
    if !by_starts() {
        return;
    }
    let case = with_programs("next");
    let first = open(&case.rig, &case.id, listing(&["bash", "sleep", "elf"]), 0).await;
    let (places, id) = (Arc::clone(&case.rig.places), case.id.clone());
    let directory = case.workspace.clone();
    let host = tokio::spawn(async move {
        for _ in 0..400 {
            if directory.join("go").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let id = SessionId::parse(&id).unwrap();
        let second = Session::adopt(places, id, Arc::default()).await.unwrap();
        assert!(
            second
                .status()
                .await
                .hooks
                .iter()
                .any(|hook| hook.starts && hook.attached)
        );
        std::fs::write(directory.join("taken"), "").unwrap();
        second
    });
    let script = "exec 2>/dev/null; bin/elf 'runs\n'; id; > go; while ! [ -e taken ]; do sleep 0.05; done; sleep 3; bin/elf 'still\n'; id; /lib64/ld-linux-x86-64.so.2 /usr/bin/id; echo $?";
    let output = {
        let session = Arc::clone(&first);
        let variables = [("PATH", case.path())];
        tokio::task::block_in_place(|| case.inside_with(&session, script, &variables))
    };
    assert_eq!(said(&output), "runs\nstill\n137\n");
    // Whichever of the two ends it first.
    let second = host.await.unwrap();
    let _ = second.close("test").await;
    let _ = first.close("test").await;
}

/// Writes what was asked into a file and starts it by a descriptor that was there before.
const WRITES: &str = r##"
import ctypes, os, time
fd = os.open("bin/elf", os.O_PATH)
open("go", "w").close()
while not os.path.exists("taken"): time.sleep(0.05)
time.sleep(3)
def start():
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).syscall(322, fd, b"", (ctypes.c_char_p * 3)(b"elf", b"still\n", None), (ctypes.c_char_p * 1)(None), 0x1000)
        os._exit(9)
    print(os.waitpid(pid, 0)[1], flush=True)
start()
try: open("bin/elf", "wb").write(b"#!/usr/bin/id\n"); print("WRITTEN")
except OSError as e: print(e.strerror, flush=True)
start()
"##;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_stays_read_only_although_a_rule_says_writable_and_an_enforcer_comes_anew() {
    if !by_starts() {
        return;
    }
    let case = with_programs("anew");
    case.put("writes.py", WRITES);
    let listed: Vec<Value> = ["bash", "python3", "elf"]
        .iter()
        .map(|name| json!({ "name": name, "origin": rule("x")["origin"] }))
        .collect();
    let policy = parsed(json!({
        "version": 1, "network": [{}], "gateway": {},
        "files": { "readOnly": [rule(".")], "writable": [rule("bin/elf"), rule("other")] },
        "programs": { "allowed": listed },
    }));
    case.put("other/x", "");
    // What the script says to the host is in what is writable.
    std::os::unix::fs::symlink("other/go", case.workspace.join("go")).unwrap();
    let first = open(&case.rig, &case.id, policy, 0).await;
    let (places, id) = (Arc::clone(&case.rig.places), case.id.clone());
    let directory = case.workspace.clone();
    let host = tokio::spawn(async move {
        for _ in 0..400 {
            if directory.join("other/go").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let id = SessionId::parse(&id).unwrap();
        let second = Session::adopt(places, id, Arc::default()).await.unwrap();
        std::fs::write(directory.join("taken"), "").unwrap();
        second
    });
    let path = format!("{}:/usr/bin:/bin", case.at("bin"));
    let output = {
        let session = Arc::clone(&first);
        tokio::task::block_in_place(|| {
            case.inside_with(&session, "python3 writes.py", &[("PATH", path)])
        })
    };
    assert_eq!(said(&output), "still\n0\nRead-only file system\nstill\n0\n");
    let second = host.await.unwrap();
    let _ = second.close("test").await;
    let _ = first.close("test").await;
}

/// Programs of a mount namespace that the number of an ended one was given to again.
fn strangers() -> bool {
    let own = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", "/usr/bin/id -u >/dev/null"])
        .status();
    own.unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_nobodys_any_more_when_its_container_has_ended() {
    if !by_starts() {
        return;
    }
    let case = Case::new("over");
    let session = open(&case.rig, &case.id, listing(&["bash"]), 0).await;
    let usual = [("PATH", "/usr/bin:/bin".to_owned())];
    let text = said(&case.inside_with(&session, "exec 2>/dev/null; id; echo $?", &usual));
    assert_eq!(text, "137\n");
    // At once, while its number is held, and when it has been let go of.
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        assert!(strangers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The next container of the same session is under it again.
    let text = said(&case.inside_with(&session, "exec 2>/dev/null; id; echo $?", &usual));
    assert_eq!(text, "137\n");
    session.close("test").await.unwrap();
    assert!(strangers());
}
