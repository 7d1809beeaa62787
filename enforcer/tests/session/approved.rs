//! Programs that nothing lists, where a person is asked: denied at once, and after an answer started as far as it goes. Where the kernel does
//! not take programs about files, the same policy lets nothing start.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::Verdict;
use enforcer::approvals::{Broker, Change, MAX_HELD, Question};
use enforcer::session::{Answer, Session};
use enforcer::store::Store;
use enforcer::trusted::Trusted;
use policy::EffectivePolicy;
use schema::session::SessionId;
use serde_json::{Value, json};

use super::files::{Case, rule, said};
use super::later::{carried, happens};
use super::programs::with_programs;
use super::received::hand;
use crate::{Mount, policy as parsed};

/// `bash` and `python3` are listed, and a person is asked about anything else that is not denied.
fn asking(seconds: u32, denied: &[&str]) -> EffectivePolicy {
    let rules = |names: &[&str]| -> Vec<Value> {
        let origin = &rule("x")["origin"];
        let names = names.iter();
        names
            .map(|name| json!({ "name": name, "origin": origin }))
            .collect()
    };
    parsed(json!({
        "version": 1, "network": [{}], "gateway": { "approvalSeconds": seconds },
        "programs": {
            "allowed": rules(&["bash", "python3"]), "denied": rules(denied),
            "requireApproval": rule("x")["origin"],
        },
    }))
}

/// A person, who says of each question what the test does, and what became of it.
struct Person {
    asked: Arc<Mutex<Vec<Question>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Person {
    /// `says`: of a program's path and how often it was asked about before, whether it is allowed and for the session; none: nothing is said.
    fn answers(
        session: &Arc<Session>,
        broker: &Broker,
        says: impl Fn(&str, usize) -> Option<(bool, bool)> + Send + 'static,
        before: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let person = Self {
            asked: Arc::default(),
            refused: Arc::default(),
        };
        let (_, mut changes) = broker.listen(None);
        let (asked, refused) = (Arc::clone(&person.asked), Arc::clone(&person.refused));
        let session = Arc::clone(session);
        tokio::spawn(async move {
            while let Ok(change) = changes.recv().await {
                let Change::Open(question) = change else {
                    continue;
                };
                let program = question.request.start().unwrap().program.to_string();
                let earlier = {
                    let mut asked = asked.lock().unwrap();
                    asked.push(*question.clone());
                    let same =
                        |q: &&Question| q.request.start().unwrap().program.as_str() == program;
                    asked.iter().filter(same).count() - 1
                };
                let Some((allow, whole)) = says(&program, earlier) else {
                    continue;
                };
                before(&program);
                let answer = Answer {
                    allow,
                    session: whole,
                    by: Some(1000),
                };
                if let Err(error) = session.answer(&question.id, answer).await {
                    refused.lock().unwrap().push(format!("{program}: {error}"));
                }
            }
        });
        person
    }

    fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    fn about(&self, program: &str) -> Vec<Question> {
        let is = |q: &Question| q.request.start().unwrap().program.as_str() == program;
        self.asked().into_iter().filter(is).collect()
    }
}

async fn open(
    case: &Case,
    seconds: u32,
    denied: &[&str],
    broker: &Arc<Broker>,
) -> Option<Arc<Session>> {
    let words = "`requireApproval` asks a person about each program";
    if !carried(case, asking(seconds, denied), words).await {
        return None;
    }
    let session = Session::open(
        Arc::clone(&case.rig.places),
        SessionId::parse(&case.id).unwrap(),
        "/test".into(),
        asking(seconds, denied),
        Trusted::default(),
        0,
        Arc::clone(broker),
    );
    Some(session.await.unwrap())
}

const GOOD: &str = "#!/bin/bash\necho good\n";
const EVIL: &str = "#!/bin/bash\necho EVIL\n";

/// Until it is there, or half a minute has passed.
fn waits_for(path: &std::path::Path) {
    for _ in 0..600 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

const PYTHON: &str = r#"
import os, subprocess, time, ctypes
def run(*argv, **more):
    try: return subprocess.run(argv, stdout=subprocess.PIPE, **more).stdout.decode().strip()
    except PermissionError: return None
def until(*argv):
    for n in range(600):
        said = run(*argv)
        if said is not None: return said
        time.sleep(0.1)
    return "never"
def put(name, text, mode=0o755):
    open(name, "w").write(text); os.chmod(name, mode)
def there(name):
    for n in range(600):
        if os.path.exists(name): return
        time.sleep(0.1)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def mapped(name):
    # Shared, to be read and written, with no descriptor left open, and its page there to be written without a fault.
    fd = os.open(name, os.O_RDWR); at = libc.mmap(None, 4096, 3, 1, fd, 0); os.close(fd)
    assert at not in (None, 2 ** 64 - 1); first = ctypes.string_at(at, 1); ctypes.memmove(at, first, 1)
    return at
def store(at, text): ctypes.memmove(at, text.encode(), len(text))
def unmap(at): libc.munmap(ctypes.c_void_p(at), 4096)
def change(name, f):
    try: f(); print("CHANGED:", name)
    except OSError: pass
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nothing_lists_is_denied_and_asked_about_and_an_answer_is_about_that_program_alone()
 {
    let case = with_programs("ask");
    let broker = Arc::new(Broker::default());
    // One is denied through a link, and is not there when the container starts.
    std::fs::create_dir(case.workspace.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", case.workspace.join("alias")).unwrap();
    let later = case.at("alias/later");
    let Some(session) = open(&case, 60, &["absent", &later], &broker).await else {
        return;
    };
    let person = Person::answers(
        &session,
        &broker,
        |program, earlier| match program {
            "/usr/bin/id" => Some((true, true)),
            "/usr/bin/printf" => (earlier == 0).then_some((true, false)),
            _ => Some((false, false)),
        },
        |_| {},
    );
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
# The first start is denied, and what was allowed for the session is started as often as it is wanted, by every way.
print(run("/usr/bin/id", "-u"), until("/usr/bin/id", "-u"), run("id", "-u"), run("/proc/self/root/usr/bin/id", "-u"))
# Another program is not, and neither is a copy.
print(run("/usr/bin/env"), run("/usr/bin/uname"))
# What was allowed once is started once, however many try at once, and asked about again then.
end, pids = time.time() + 60, []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        while time.time() < end and not os.path.exists("over"):
            if run("/usr/bin/printf", "one") is not None: open("ran", "a").write("x")
        os._exit(0)
    pids.append(pid)
there("ran"); time.sleep(3); open("over", "w").close()
for pid in pids: os.waitpid(pid, 0)
print(len(open("ran").read()), run("/usr/bin/printf", "two"), run("/usr/bin/env"))
# A denial wins: nobody is asked about a program of that name, or at that place.
for name in ("elsewhere/absent", "elsewhere/later"): put(name, "#!/bin/bash\necho OPEN\n"); print(run(name))
# Nor about what has no name.
fd = os.memfd_create("m"); os.write(fd, open("/usr/bin/env", "rb").read()); print(run("/proc/self/fd/%d" % fd, pass_fds=[fd]))
P"##
    );
    let path = format!("{}:/usr/bin:/bin", case.at("bin"));
    let text = said(&case.inside_with(&session, &script, &[("PATH", path)]));
    assert_eq!(
        text,
        "None 0 0 0\nNone None\n1 None None\nNone\nNone\nNone\n"
    );
    let asked = person.asked();
    let programs: Vec<&str> = asked
        .iter()
        .map(|question| question.request.start().unwrap().program.as_str())
        .collect();
    assert_eq!(person.about("/usr/bin/id").len(), 1, "{programs:?}");
    assert_eq!(person.about("/usr/bin/printf").len(), 2, "{programs:?}");
    assert!(
        !programs
            .iter()
            .any(|program| program.contains("/elsewhere/") || program.contains("memfd")),
        "{programs:?}"
    );
    // Who said no is not asked again at once.
    assert_eq!(person.about("/usr/bin/env").len(), 1, "{programs:?}");
    happens(&case, |event| {
        event.binary.as_deref() == Some("/usr/bin/env")
            && event.detail.as_deref()
                == Some("execute; nobody is asked: a person said no a moment ago")
    });
    let question = person.about("/usr/bin/id").remove(0);
    let request = &question.request;
    let start = request.start().unwrap();
    assert_eq!(
        (request.rule.name.as_str(), request.rule.origin.as_str()),
        ("requireApproval", "agentcontainer.json:3:5")
    );
    assert_eq!(request.asker.as_ref().unwrap().comm, "python3");
    assert!(
        start.parents[0].program.contains("python3") && start.parents[0].line == ["python3", "-"],
        "{:?}",
        start.parents
    );
    assert_eq!(start.parents.last().unwrap().pid, 1, "{:?}", start.parents);
    happens(&case, |event| {
        event.kind == audit::Kind::Exec
            && event.verdict == Verdict::Deny
            && event.reason == "not-listed"
            && event.binary.as_deref() == Some("/usr/bin/id")
            && event.approval.as_deref() == Some(question.id.as_str())
    });
    let recorded = |reason: &str, verdict: Verdict, binary: &str| {
        happens(&case, |event| {
            event.reason == reason
                && event.verdict == verdict
                && event.binary.as_deref() == Some(binary)
                && event.approval.is_some()
        });
    };
    recorded("approval-asked", Verdict::Ask, "/usr/bin/id");
    recorded("approval-allowed-session", Verdict::Allow, "/usr/bin/id");
    recorded("approved-once", Verdict::Allow, "/usr/bin/printf");
    recorded("approval-denied", Verdict::Deny, "/usr/bin/env");
    for name in ["elsewhere/absent", "elsewhere/later"] {
        let nobody = case.at(name);
        happens(&case, |event| {
            event.binary.as_ref() == Some(&nobody)
                && event.approval.is_none()
                && event.detail.as_deref() == Some("execute; nobody is asked: a rule denies it")
        });
    }
    happens(&case, |event| event.reason == "nameless");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_what_was_asked_about_and_nobody_inside_changes_it() {
    what_is_allowed_stays("askf", ":").await;
    // The same on a disk's file system, where whoever starts this on a virtual machine says that one is.
    if let Ok(disk) = std::env::var("AGENTCONTAINER_TEST_DISK") {
        what_is_allowed_stays("askd", &format!("mkdir w && mount --bind {disk} w")).await;
    }
}

async fn what_is_allowed_stays(name: &str, before: &str) {
    let case = with_programs(name);
    let broker = Arc::new(Broker::default());
    let Some(session) = open(&case, 60, &[], &broker).await else {
        return;
    };
    let workspace = case.workspace.clone();
    let person = Person::answers(
        &session,
        &broker,
        |program, _| (!program.contains("filler")).then_some((true, true)),
        move |program| {
            // The answer comes after what is done meanwhile.
            let name = std::path::Path::new(program).file_name().unwrap();
            waits_for(&workspace.join("go").join(name));
        },
    );
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
os.mkdir("go"); os.makedirs("w", exist_ok=True)
GOOD, EVIL = "#!/bin/bash\necho good\n", "#!/bin/bash\necho EVIL\n"
def asked(name): print(name, run("w/" + name))
def go(name): open("go/" + name, "w").close()
# It is not what was asked about any more: changed in its place, replaced, still open to be written, or to be written by another name.
for name in ("changed", "replaced", "open", "mapped"):
    put("w/" + name, GOOD); asked(name)
time.sleep(3)
put("w/changed", EVIL); go("changed")
put("w/evil", EVIL); os.rename("w/evil", "w/replaced"); go("replaced")
fd = os.open("w/open", os.O_RDWR); go("open")
put("w/linked", GOOD); os.link("w/linked", "w/other"); asked("linked")
shared = mapped("w/mapped"); go("mapped")
# Nor where it was written through a page that could be written before it was asked about, which changes no time of it.
put("w/stored", GOOD)
for n in range(12): put("filler%d" % n, GOOD)
for name in ["filler%d" % n for n in range(12)] + ["w/stored"]:
    try: os.execv(name, [name])
    except PermissionError: pass
page = mapped("w/stored"); print("stored None"); time.sleep(3)
store(page, EVIL); unmap(page); go("stored")
time.sleep(4); os.close(fd); unmap(shared)
for name in ("changed", "replaced", "open", "mapped", "linked", "stored"): print(name, run("w/" + name))
# What is allowed stays what it is. What was there by its name before, and is open still, is not it.
put("w/tool", EVIL); evil = os.open("w/tool", os.O_RDONLY); os.unlink("w/tool"); put("w/tool", GOOD); asked("tool"); go("tool")
print(until("w/tool"), run("/proc/self/fd/%d" % evil, pass_fds=[evil]))
change("write", lambda: open("w/tool", "w")); change("unlink", lambda: os.unlink("w/tool")); change("rename", lambda: os.rename("w/tool", "w/t"))
put("w/evil", EVIL); change("over", lambda: os.rename("w/evil", "w/tool")); change("link", lambda: os.link("w/tool", "w/t")); change("directory", lambda: os.rename("w", "v")); change("chmod", lambda: os.chmod("w/tool", 0o777))
print(run("w/tool"))
# The rest of the directory is free.
put("w/free", GOOD); os.rename("w/free", "w/moved"); os.unlink("w/moved")
P"##
    );
    let text = said(&case.inside_after(&session, before, "0", &script));
    let denied = "changed None\nreplaced None\nopen None\nmapped None\nlinked None\nstored None\n";
    assert_eq!(
        text,
        format!("{denied}{denied}tool None\ngood None\ngood\n")
    );
    let refused = person.refused.lock().unwrap().join("\n");
    for (name, words) in [
        ("changed", "it is another file by now, or was changed"),
        ("replaced", "it is another file by now, or was changed"),
        ("open", "something that could still write it has it open"),
        ("mapped", "something that could still write it has it open"),
        ("stored", "it is another file by now, or was changed"),
    ] {
        let line = format!("{}: question ", case.at(&format!("w/{name}")));
        let said = refused.lines().find(|said| said.starts_with(&line));
        assert!(said.is_some_and(|said| said.ends_with(words)), "{refused}");
    }
    assert!(person.about(&case.at("w/linked")).is_empty());
    let linked = case.at("w/linked");
    happens(&case, |event| {
        let detail = event.detail.as_deref().unwrap_or_default();
        event.binary.as_ref() == Some(&linked) && detail.contains("it has another name")
    });
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_started_by_an_answer_is_the_file_that_it_was_about_and_no_other_that_comes_there()
{
    let case = with_programs("askid");
    let broker = Arc::new(Broker::default());
    let Some(session) = open(&case, 60, &[], &broker).await else {
        return;
    };
    let workspace = case.workspace.clone();
    let person = Person::answers(
        &session,
        &broker,
        |_, earlier| (earlier == 0).then_some((true, true)),
        move |program| {
            let name = std::path::Path::new(program).file_name().unwrap();
            waits_for(&workspace.join("go").join(name));
        },
    );
    // What the host does, each when the program inside has come so far.
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        let at = |name: &str| workspace.join(name);
        waits_for(&at("host-writes"));
        std::fs::write(at("w/written"), EVIL).unwrap();
        std::fs::write(at("host-wrote"), "").unwrap();
        waits_for(&at("host-replaces"));
        std::fs::write(at("new"), EVIL).unwrap();
        let runs = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(at("new"), runs).unwrap();
        std::fs::rename(at("new"), at("w/replaced")).unwrap();
        std::fs::write(at("host-replaced"), "").unwrap();
    });
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
import threading
GOOD, EVIL = {GOOD:?}, {EVIL:?}
os.mkdir("go")
def asked(name): print(name, run("w/" + name))
def go(name): open("go/" + name, "w").close()
def tell(name, then): open(name, "w").close(); there(then)
for name in ("again", "written", "replaced", "flies"): put("w/" + name, GOOD); asked(name)
for name in ("again", "written", "replaced"): go(name); print(until("w/" + name))
# By another name of the directory, which no answer is about.
open("v/again", "w").write(EVIL); print(open("w/again").read() == EVIL, run("w/again"))
tell("host-writes", "host-wrote"); print(open("w/written").read() == EVIL, run("w/written"))
tell("host-replaces", "host-replaced"); print(open("w/replaced").read() == EVIL, run("w/replaced"))
# A rename that waits while the answer comes: what is written holds it back.
put("evil", EVIL); fd = os.open("evil", os.O_WRONLY); large = bytes(200 << 20)
def write(): os.pwrite(fd, large, 1 << 20)
def rename(): os.rename("evil", "w/flies")
writes, renames = threading.Thread(target=write), threading.Thread(target=rename)
writes.start(); time.sleep(0.1); renames.start(); time.sleep(0.1); go("flies")
renames.join(); writes.join(); os.close(fd)
time.sleep(4); print(open("w/flies").read(len(EVIL)) == EVIL, run("w/flies"))
P"##
    );
    let mount = format!(
        "mkdir -p {w} {v} && mount --bind {w} {v}",
        w = case.at("w"),
        v = case.at("v")
    );
    let text = said(&case.inside_after(&session, &mount, "0", &script));
    host.join().unwrap();
    let first = "again None\nwritten None\nreplaced None\nflies None\n";
    let refused = "True None\n".repeat(4);
    let said_no = person.refused.lock().unwrap().join("; ");
    let expected = format!("{first}good\ngood\ngood\n{refused}");
    assert_eq!(text, expected, "{said_no}");
    // It is another file, about which a person is asked anew.
    assert_eq!(person.about(&case.at("w/again")).len(), 2);
    for name in ["again", "written", "replaced", "flies"] {
        let program = case.at(&format!("w/{name}"));
        happens(&case, |event| {
            event.reason == "changed-since-approved" && event.binary.as_ref() == Some(&program)
        });
    }
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_overlay_what_its_image_has_is_asked_about_and_what_is_written_there_is_not() {
    let case = with_programs("asko");
    let broker = Arc::new(Broker::default());
    let Some(session) = open(&case, 60, &[], &broker).await else {
        return;
    };
    let person = Person::answers(&session, &broker, |_, _| Some((true, true)), |_| {});
    for name in ["tool", "mapped", "copied"] {
        case.put(&format!("image/{name}"), GOOD);
        let runs = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(case.workspace.join("image").join(name), runs).unwrap();
    }
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
GOOD, EVIL = {GOOD:?}, {EVIL:?}
# What could be written later through a mapping that nothing tells of is not asked about.
page = mapped("root/mapped"); put("root/own", GOOD); os.chmod("root/copied", 0o755)
for name in ("mapped", "own", "copied"): print(run("root/" + name))
print(run("root/tool"), until("root/tool"))
store(page, EVIL); print(run("root/mapped"))
# What the image has stays what it is.
change("write", lambda: open("root/tool", "w")); change("chmod", lambda: os.chmod("root/tool", 0o777)); change("link", lambda: os.link("root/tool", "root/other")); change("times", lambda: os.utime("root/tool"))
print(run("root/tool"))
# As soon as it is the container's own it is another.
open("host-touches", "w").close(); there("host-touched"); print(run("root/tool"))
P"##
    );
    let (workspace, cgroup) = (
        case.workspace.clone(),
        case.rig.places.session_cgroup(&case.id).join("container"),
    );
    let host = std::thread::spawn(move || {
        waits_for(&workspace.join("host-touches"));
        let inside = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        let tool = workspace.join("root/tool");
        // The first that is there sees no mount of the container's, the last one does.
        let last = inside.lines().last().unwrap();
        let tool = format!("/proc/{last}/root{}", tool.display());
        let tool = std::fs::File::open(tool).unwrap();
        tool.set_modified(std::time::SystemTime::now()).unwrap();
        std::fs::write(workspace.join("host-touched"), "").unwrap();
    });
    let mount = format!(
        "mkdir -p {upper} {work} {root} && mount -t overlay overlay -o lowerdir={image},upperdir={upper},workdir={work} {root}",
        image = case.at("image"),
        upper = case.at("upper"),
        work = case.at("work"),
        root = case.at("root"),
    );
    let text = said(&case.inside_after(&session, &mount, "0", &script));
    host.join().unwrap();
    assert_eq!(text, "None\nNone\nNone\nNone good\nNone\ngood\nNone\n");
    let asked: Vec<String> = person
        .asked()
        .iter()
        .map(|q| q.request.start().unwrap().program.to_string())
        .collect();
    assert_eq!(asked, [case.at("root/tool")]);
    for name in ["mapped", "own", "copied", "tool"] {
        let program = case.at(&format!("root/{name}"));
        happens(&case, |event| {
            let detail = event.detail.as_deref().unwrap_or_default();
            let words = "nobody is asked: it is in the layer that the container itself writes";
            event.binary.as_ref() == Some(&program) && detail.contains(words)
        });
    }
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_a_denial_and_so_is_what_is_beyond_the_bound() {
    let case = with_programs("askt");
    let broker = Arc::new(Broker::default());
    let Some(session) = open(&case, 3, &[], &broker).await else {
        return;
    };
    let once = |program: &str, _| program.ends_with("/late").then_some((true, false));
    let person = Person::answers(&session, &broker, once, |_| {});
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
print(run("/usr/bin/id"))
for n in range({tries}): put("p%d" % n, "#!/bin/bash\necho OPEN\n")
print([run("./p%d" % n) for n in range({tries}) for again in range(3)].count(None))
time.sleep(5)
print(run("/usr/bin/id"))
# What was allowed once is not, once as much time has passed.
put("late", "#!/bin/bash\necho late\n"); print(run("./late")); time.sleep(6); print(run("./late"))
P"##,
        tries = MAX_HELD + 20
    );
    let text = said(&case.inside(&session, &script));
    let tries = 3 * (MAX_HELD + 20);
    assert_eq!(text, format!("None\n{tries}\nNone\nNone\nNone\n"));
    // One question a program, and no more at once than may wait.
    let programs: std::collections::BTreeSet<String> = person
        .asked()
        .iter()
        .map(|q| q.request.start().unwrap().program.to_string())
        .collect();
    let first = person.asked().iter().take(MAX_HELD).count();
    assert_eq!(first, MAX_HELD);
    let flood = programs.iter().filter(|p| p.contains("/p")).count();
    assert!(flood < MAX_HELD + 20, "{flood}");
    assert_eq!(person.about("/usr/bin/id").len(), 2);
    let id = &person.about("/usr/bin/id")[0].id;
    happens(&case, |event| {
        event.reason == "approval-timeout" && event.approval.as_ref() == Some(id)
    });
    happens(&case, |event| {
        event.detail.as_deref() == Some("execute; nobody is asked: approval-limit")
    });
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_held_and_asked_about_by_the_next_enforcer_too() {
    let case = with_programs("next");
    let words = "`requireApproval` asks a person about each program";
    if !carried(&case, asking(60, &[]), words).await {
        return;
    }
    let says = |program: &str, _: usize| {
        let allowed = ["/usr/bin/id", "/usr/bin/printf"].contains(&program);
        Some((allowed, true))
    };
    // What the first enforcer has begun ends with it.
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (places, id) = (Arc::clone(&case.rig.places), case.id.clone());
    let opened = threads.spawn(async move {
        let broker = Arc::new(Broker::default());
        let id = SessionId::parse(&id).unwrap();
        let session = Session::open(
            places,
            id,
            "/test".into(),
            asking(60, &[]),
            Trusted::default(),
            0,
            Arc::clone(&broker),
        );
        let session = session.await.unwrap();
        let person = Person::answers(&session, &broker, says, |_| {});
        (session, person)
    });
    let (first, before) = opened.await.unwrap();
    let (places, id) = (Arc::clone(&case.rig.places), case.id.clone());
    let workspace = case.workspace.clone();
    let host = tokio::spawn(async move {
        for _ in 0..1200 {
            if workspace.join("go").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(first);
        threads.shutdown_background();
        let broker = Arc::new(Broker::default());
        let id = SessionId::parse(&id).unwrap();
        let second = Session::adopt(places, id, Arc::clone(&broker))
            .await
            .unwrap();
        let person = Person::answers(&second, &broker, says, |_| {});
        std::fs::write(workspace.join("taken"), "").unwrap();
        (second, person)
    });
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
print(run("/usr/bin/id", "-u"), until("/usr/bin/id", "-u"), run("/usr/bin/env"))
open("go", "w").close(); there("taken")
# What was allowed is, what nobody allowed is not, and what comes next is asked about.
print(run("/usr/bin/id", "-u"), run("/usr/bin/uname"), until("/usr/bin/printf", "printf"), run("/usr/bin/id", "-u"), run("/usr/bin/uname"))
P"##
    );
    let path = [("PATH", format!("{}:/usr/bin:/bin", case.at("bin")))];
    let text = said(&tokio::task::block_in_place(|| {
        case.inside_of(&case.id, &script, &path)
    }));
    let (second, after) = host.await.unwrap();
    assert_eq!(text, "None 0 None\n0 None printf 0 None\n");
    assert_eq!(before.about("/usr/bin/id").len(), 1);
    assert_eq!(after.about("/usr/bin/id").len(), 0);
    assert_eq!(after.about("/usr/bin/printf").len(), 1);
    // Another container of that session is under the list, and what was answered was about the one before.
    let script = format!(
        "python3 - <<'P'\n{PYTHON}\nprint(run('/usr/bin/printf', 'x'), run('/usr/bin/uname'), until('/usr/bin/printf', 'again'))\nP"
    );
    let text = said(&tokio::task::block_in_place(|| {
        case.inside_with(&second, &script, &path)
    }));
    assert_eq!(text, "None None again\n");
    assert_eq!(after.about("/usr/bin/printf").len(), 2);
    // When it has ended, nothing is kept of it.
    let kept = || {
        let store = Store::open(&case.rig.places.sessions, &case.id).unwrap();
        let record = store.load().unwrap();
        record.begun.is_some() || !record.approved.is_empty()
    };
    for _ in 0..100 {
        if !kept() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!kept());
    second.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_kept_for_the_next_enforcer_is_not_held() {
    let case = with_programs("full");
    let broker = Arc::new(Broker::default());
    let sessions = &case.rig.places.sessions;
    let disk = Mount::make(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], sessions);
    let Some(session) = open(&case, 60, &[], &broker).await else {
        return;
    };
    let path = [("PATH", format!("{}:/usr/bin:/bin", case.at("bin")))];
    let mut zeroes = std::fs::File::create(sessions.join("zeroes")).unwrap();
    while zeroes.write_all(&[0; 4096]).is_ok() {}
    let text = said(&case.inside_with(&session, "echo started", &path));
    assert!(
        text.contains("what the kernel is to hold cannot be kept for the next enforcer")
            && !text.contains("started\n"),
        "{text}"
    );
    // The control: with room it begins, and is on record while it runs.
    std::fs::remove_file(sessions.join("zeroes")).unwrap();
    drop(zeroes);
    let (sessions, id) = (sessions.clone(), case.id.clone());
    let go = case.workspace.join("go");
    let host = std::thread::spawn(move || {
        waits_for(&go);
        let kept = Store::open(&sessions, &id).unwrap().load().unwrap().begun;
        std::fs::remove_file(&go).unwrap();
        kept.is_some_and(|begun| begun.listed && begun.namespace != 0)
    });
    let script = "echo > go; python3 -c 'import os, time\nwhile os.path.exists(\"go\"): time.sleep(0.1)'; echo started";
    let text = said(&tokio::task::block_in_place(|| {
        case.inside_with(&session, script, &path)
    }));
    assert_eq!(text, "started\n");
    assert!(host.join().unwrap());
    session.close("test").await.unwrap();
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_a_program_that_a_descriptor_from_outside_is_of() {
    let case = with_programs("askr");
    case.put("sub/x", "");
    let broker = Arc::new(Broker::default());
    let Some(session) = open(&case, 60, &[], &broker).await else {
        return;
    };
    let person = Person::answers(&session, &broker, |_, _| Some((true, true)), |_| {});
    let (socket, program) = (case.workspace.join("sub/hand"), case.at("bin/elf"));
    let at = program.clone();
    let host = std::thread::spawn(move || {
        hand(&socket, || {
            vec![("x", vec![std::fs::File::open(at).unwrap().into()])]
        });
    });
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
import socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); server.bind("sub/hand"); server.listen(); peer, _ = server.accept()
_, fds, _, _ = socket.recv_fds(peer, 8, 1)
print(len(fds), run("/proc/self/fd/%d" % fds[0], pass_fds=fds)); peer.send(b"."); time.sleep(2)
# The same by its path is asked about.
print(run("bin/elf", "x"), until("bin/elf", "x"))
P"##
    );
    let text = said(&case.inside(&session, &script));
    host.join().unwrap();
    assert_eq!(text, "1 None\nNone x\n");
    assert_eq!(person.asked().len(), 1);
    happens(&case, |event| {
        event.kind == audit::Kind::Exec
            && event.reason == "program-from-outside"
            && event.binary.as_ref() == Some(&program)
            && event.approval.is_none()
    });
    session.close("test").await.unwrap();
}
