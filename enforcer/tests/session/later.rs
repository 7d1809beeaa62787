//! Rules about files that come later, which the kernel's own hooks carry where it takes programs there. Where it does not, the same rules
//! let nothing start: each test says so there.

use enforcer::kernel;
use enforcer::session::Session;
use enforcer::trusted::Trusted;
use enforcer_common::files::MAX_STEPS;
use policy::EffectivePolicy;
use schema::session::SessionId;
use serde_json::{Value, json};

use super::files::{Case, about, rule, said};
use super::programs::with_programs;
use crate::policy as parsed;

/// Whether rules about later files can be held here; if not, that they are refused.
async fn held(case: &Case, files: &Value) -> bool {
    carried(
        case,
        about(files.clone()),
        "which is also about files that come later",
    )
    .await
}

/// Whether a policy is carried here; if not, that it is refused with these words and the kernel's reason.
pub async fn carried(case: &Case, policy: EffectivePolicy, words: &str) -> bool {
    let Err(reason) = lsm() else {
        return true;
    };
    let opened = Session::open(
        case.rig.places.clone(),
        SessionId::parse(&case.id).unwrap(),
        "/test".into(),
        policy,
        Trusted::default(),
        0,
        Default::default(),
    )
    .await;
    let error = opened.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    assert!(error.contains(reason), "{error}");
    skipped(&format!(
        "BPF LSM is not there ({reason}): the rules are refused"
    ));
    false
}

/// Whether the kernel takes LSM programs; why not, where it may be without.
pub fn lsm() -> Result<(), &'static str> {
    let lsm = kernel::lsm();
    // Said by whoever starts it on a kernel that is known to have it.
    let needed = std::env::var_os("AGENTCONTAINER_NEEDS_LSM").is_some();
    assert!(lsm.is_ok() || !needed, "no BPF LSM: {lsm:?}");
    lsm
}

/// The same for a test that has nothing to say without.
pub fn needs_lsm() -> bool {
    match lsm() {
        Ok(()) => true,
        Err(reason) => {
            skipped(&format!("BPF LSM is not there ({reason})"));
            false
        }
    }
}

/// Tells whoever counts that this test had nothing, or not the whole, to say here.
pub fn skipped(why: &str) {
    let test = std::thread::current();
    let line = format!("{}: {why}", test.name().unwrap_or("?"));
    println!("SKIPPED {line}");
    if let Some(file) = std::env::var_os("AGENTCONTAINER_TEST_SKIPS") {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    }
}

/// An event that has come, or comes within a while: the kernel's records are read beside everything else.
pub fn happens(case: &Case, is: impl Fn(&audit::Event) -> bool) {
    for _ in 0..200 {
        if case.rig.events(&case.id).iter().any(&is) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{:#?}", case.rig.events(&case.id));
}

/// Until it is there, or two minutes have passed.
fn wait_for(path: &std::path::Path) {
    for _ in 0..6000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Tries a list of ways; each must fail.
const PYTHON: &str = r#"
import os, ctypes, errno, struct, sys
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", tag, 4, -1) for tag in (1, 4, 32))
libc = ctypes.CDLL(None, use_errno=True)
def way(name, f):
    try: f(); print("OPEN:", name)
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EROFS, errno.EXDEV): print("ODD:", name, e)
def reopen(p, flags):
    fd = os.open(p, os.O_PATH)
    os.open("/proc/self/fd/%d" % fd, flags)
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")
def attrs(p):
    way("chmod " + p, lambda: os.chmod(p, 0o777)); way("chown " + p, lambda: os.chown(p, 1, 1))
    way("truncate " + p, lambda: os.truncate(p, 0)); way("write " + p, lambda: os.open(p, os.O_WRONLY))
    way("rdwr " + p, lambda: os.open(p, os.O_RDWR)); way("trunc " + p, lambda: os.open(p, os.O_RDONLY | os.O_TRUNC))
    way("unlink " + p, lambda: os.unlink(p)); way("rename " + p, lambda: os.rename(p, "away"))
    way("over " + p, lambda: os.rename("free", p)); way("exchange " + p, lambda: exchange("free", p)); way("exchange back " + p, lambda: exchange(p, "free"))
    way("link " + p, lambda: os.link(p, "hard")); way("reopen for writing " + p, lambda: reopen(p, os.O_RDWR))
    way("touch " + p, lambda: os.utime(p)); way("times " + p, lambda: os.utime(p, (1, 1)))
    for name, value in (("user.x", b"x"), ("system.posix_acl_access", ACL)):
        way("set " + name + " " + p, lambda: os.setxattr(p, name, value)); way("remove " + name + " " + p, lambda: os.removexattr(p, name))
def hidden(p):
    way("read " + p, lambda: open(p).read()); way("reopen " + p, lambda: reopen(p, os.O_RDONLY))
    for alias in ("/proc/self/root", "/proc/thread-self/root", "/proc/%d/root" % os.getpid()):
        way(alias, lambda: open(alias + os.path.abspath(p)).read())
    way("cwd", lambda: open("/proc/self/cwd/" + p).read())
    try: os.symlink(p, "sym-" + p.replace("/", "_"))
    except OSError: pass
    way("symlink " + p, lambda: open("sym-" + p.replace("/", "_")).read())
    fd = os.open(os.path.dirname(p) or ".", os.O_PATH | os.O_DIRECTORY)
    way("openat " + p, lambda: os.open(os.path.basename(p), os.O_RDONLY, dir_fd=fd))
    way("execute " + p, lambda: os.execv(p, [p]))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_name_is_denied_whenever_and_however_its_file_comes() {
    let case = Case::new("later");
    let files = json!({ "denied": [rule("**/.env"), rule("vault/*.key"), rule("soon/hidden"), rule("absent/key")] });
    if !held(&case, &files).await {
        return;
    }
    let session = case.open(files).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        // After the start: what the host does is not refused.
        wait_for(&workspace.join("go"));
        for (name, text) in [
            ("sub/.env", "SECRET=3\n"),
            ("vault/a.key", "a key\n"),
            ("soon/hidden/x", "hidden\n"),
            ("sub/free", "free\n"),
        ] {
            let path = workspace.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sockets = ["vault/s.key", "sub/open"]
            .map(|name| std::os::unix::net::UnixListener::bind(workspace.join(name)).unwrap());
        let datagrams = ["vault/d.key", "sub/dgram"]
            .map(|name| std::os::unix::net::UnixDatagram::bind(workspace.join(name)).unwrap());
        std::fs::write(workspace.join("there"), "").unwrap();
        wait_for(&workspace.join("reached"));
        drop((sockets, datagrams));
    });
    let script = format!(
        r#"
        echo begun; echo > go; for n in $(seq 600); do [ -e there ] && break; sleep 0.05; done
        python3 - <<'P'
{PYTHON}
import socket
stream = lambda p: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(p)
gram = lambda p: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); own.bind("own"); own.listen(); stream("own")
mine = gram(0); mine.bind("mine"); gram(0).sendto(b"x", "mine"); gram(0).connect("mine"); os.unlink("own"); os.unlink("mine")
a, b = socket.socketpair(); a.send(b"x")
way("a socket from outside", lambda: stream("sub/open")); way("a datagram to outside", lambda: gram(0).sendto(b"x", "sub/dgram"))
way("a socket", lambda: stream("vault/s.key")); way("a datagram", lambda: gram(0).sendto(b"x", "vault/d.key")); way("a datagram socket", lambda: gram(0).connect("vault/d.key"))
way("a socket by its descriptor", lambda: stream("/proc/self/fd/%d" % os.open("vault/s.key", os.O_PATH)))
way("bound there", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind("vault/new.key"))
open("reached", "w")
open("free", "w").write("x")
for p in ("sub/.env", "vault/a.key", "soon/hidden/x", ".env"):
    hidden(p); attrs(p)
for p in ("app/new/.env", "sub/deep/.env"):
    os.makedirs(os.path.dirname(p), exist_ok=True)
    way("create " + p, lambda: os.open(p, os.O_CREAT | os.O_WRONLY)); way("mkdir " + p, lambda: os.mkdir(p)); way("mknod " + p, lambda: os.mknod(p))
    way("symlink at " + p, lambda: os.symlink("free", p)); way("link at " + p, lambda: os.link("free", p)); way("rename to " + p, lambda: os.rename("free", p))
# A path that is longer than a record's room for it.
deep = "/".join(["d" * 200] * 6); os.makedirs(deep); way("create far down", lambda: os.open(deep + "/.env", os.O_CREAT | os.O_WRONLY))
# No link stands where a rule has a name.
os.mkdir("public"); os.symlink("public", "elsewhere-link"); os.mkdir("absent"); os.rmdir("absent")
way("a link at a rule", lambda: os.symlink("public", "absent")); way("a link moved there", lambda: os.rename("elsewhere-link", "absent")); way("a link linked there", lambda: os.link("elsewhere-link", "absent", follow_symlinks=False))
os.mkdir("absent"); way("a link exchanged", lambda: exchange("elsewhere-link", "absent"))
# What has no path is nobody's.
r, w = os.pipe(); os.open("/proc/self/fd/%d" % w, os.O_WRONLY); fd = os.memfd_create("m"); os.open("/proc/self/fd/%d" % fd, os.O_RDWR); open("/proc/self/ns/net").close()
os.open(".", os.O_TMPFILE | os.O_RDWR)
way("a directory away", lambda: os.rename("vault", "elsewhere")); way("a directory there", lambda: os.rename("sub/deep", "vault"))
way("list", lambda: os.listdir("soon/hidden"))
# What rules are not about is free, a directory that holds such a file too.
os.rename("sub", "moved"); assert open("moved/free").read() == "free\n"; os.mkdir("d"); os.rename("d", "moved/d"); os.rmdir("moved/d"); os.link("free", "free2"); os.unlink("free2")
way("moved with its directory", lambda: open("moved/.env").read())
open("vault/a.txt", "w").write("x"); os.rename("vault/a.txt", "vault/b.txt"); os.unlink("vault/b.txt")
print("done")
P
"#
    );
    let output = case.inside(&session, &script);
    let text = said(&output);
    host.join().unwrap();
    assert_eq!(text, "begun\ndone\n");
    let far = format!("{}/.env", ["d"; 200].concat());
    happens(&case, |event| {
        let file = event.file.as_deref().unwrap_or_default();
        file.starts_with('…') && file.ends_with(&far)
    });
    assert_eq!(case.read("moved/.env"), "SECRET=3\n");
    assert_eq!(case.read("vault/a.key"), "a key\n");
    let about = |path: &str, reason: &str, detail: &str| {
        let path = case.at(path);
        happens(&case, |event| {
            event.file.as_ref() == Some(&path)
                && event.reason == reason
                && event.detail.as_deref() == Some(detail)
                && event.layer.as_deref() == Some("lsm")
                && event.process.as_ref().is_some_and(|p| p.comm == "python3")
        });
    };
    about("sub/.env", "file-denied", "open");
    about("absent", "link-at-a-rule", "create");
    happens(&case, |event| {
        event.reason == "socket-from-outside" && event.detail.as_deref() == Some("connect")
    });
    about("vault", "rules-would-move", "rename");
    about("sub/deep/.env", "file-denied", "create");
    session.close("test").await.unwrap();
}

/// Directories in one another, more than places are looked for in, and how many fewer are not.
const DEEP: usize = MAX_STEPS as usize + 1;
const FEWER: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_read_only_is_read_and_not_changed_and_what_is_writable_within_is() {
    let case = Case::new("lro");
    let files = json!({
        "readOnly": [rule("**/*.lock"), rule("**/generated")],
        "writable": [rule("**/generated/tmp")],
    });
    if !held(&case, &files).await {
        return;
    }
    case.put("a/Cargo.lock", "locked\n");
    let session = case.open(files).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("go"));
        std::fs::create_dir_all(workspace.join("b/generated/tmp")).unwrap();
        std::fs::write(workspace.join("b/other.lock"), "later\n").unwrap();
        std::fs::write(workspace.join("b/generated/x"), "made\n").unwrap();
        let deep = workspace.join("d/".repeat(DEEP));
        std::fs::create_dir_all(&deep).unwrap();
        for directory in [deep.as_path(), deep.ancestors().nth(FEWER).unwrap()] {
            std::fs::write(directory.join("x"), "deep\n").unwrap();
        }
        std::fs::write(workspace.join("there"), "").unwrap();
    });
    let script = format!(
        r#"
        echo begun; echo > go; for n in $(seq 600); do [ -e there ] && break; sleep 0.05; done
        python3 - <<'P'
{PYTHON}
open("free", "w").write("x")
for p in ("b/other.lock", "b/generated/x", "a/Cargo.lock"):
    attrs(p)
way("create", lambda: os.open("b/generated/new", os.O_CREAT | os.O_WRONLY)); way("mkdir", lambda: os.mkdir("b/generated/d")); way("rmdir", lambda: os.rmdir("b/generated/tmp"))
way("new lock", lambda: open("c.lock", "w"))
# Not by a descriptor either; and what rules are not about has times and attributes.
with open("b/other.lock") as f:
    way("times by a descriptor", lambda: os.utime(f.fileno(), (1, 1))); way("attributes by a descriptor", lambda: os.setxattr(f.fileno(), "user.x", b"x"))
os.utime("free", (1, 1)); assert os.stat("free").st_mtime == 1; os.utime("a", (1, 1)); os.setxattr("free", "system.posix_acl_access", ACL); os.removexattr("free", "system.posix_acl_access")
try: os.setxattr("free", "user.x", b"x"); os.removexattr("free", "user.x")
except OSError as e: assert e.errno == errno.EOPNOTSUPP, e
assert open("b/other.lock").read() == "later\n" and open("b/generated/x").read() == "made\n"
# Of what lies deeper than places are looked for nobody says anything.
at = os.open(".", os.O_PATH)
for n in range({DEEP} - {FEWER}): at = os.open("d", os.O_PATH, dir_fd=at)
os.utime("x", (1, 1), dir_fd=at)
for n in range({FEWER}): at = os.open("d", os.O_PATH, dir_fd=at)
way("times far down", lambda: os.utime("x", (1, 1), dir_fd=at))
open("b/generated/tmp/z", "w").write("x"); os.unlink("b/generated/tmp/z")
print("done")
P
"#
    );
    let text = said(&case.inside(&session, &script));
    host.join().unwrap();
    assert_eq!(text, "begun\ndone\n");
    assert_eq!(case.read("b/other.lock"), "later\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_but_what_is_listed_by_whatever_way() {
    let case = with_programs("list");
    // What is listed has one name.
    std::fs::remove_file(case.workspace.join("bin/tool-2")).unwrap();
    // By its path: in a virtual machine the workspace is no part of the image's file system.
    let tool = case.at("bin/tool");
    let listed: Vec<Value> = ["bash", "python3", &tool, "/usr/bin/printf"]
        .iter()
        .map(|name| json!({ "name": name, "origin": rule("x")["origin"] }))
        .collect();
    let policy =
        json!({ "version": 1, "network": [{}], "gateway": {}, "programs": { "allowed": listed } });
    let script = r##"
        tool; /usr/bin/printf 'printf\n'
        python3 - <<'P'
import ctypes, errno, os, shutil, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def way(name, argv, **more):
    try:
        ran = subprocess.run(argv, capture_output=True, **more)
        # Ended: by itself, or what it started.
        if ran.stdout or not ENDS or ran.returncode not in (-9, 137): print("OPEN:", name, ran)
    except PermissionError: pass
    except OSError as e: print("ODD:", name, e)
def write(name, f):
    try: f(); print("CHANGED:", name)
    except OSError as e:
        if e.errno not in (errno.EROFS, errno.EACCES, errno.EBUSY, errno.EXDEV, errno.ETXTBSY): print("ODD:", name, e)
id = "/usr/bin/id"
way("by its path", [id]); way("by PATH", ["id"]); way("by root", ["/proc/self/root" + id])
if not ENDS: way("by cwd", ["/proc/self/cwd/bin/two"])
os.symlink(id, "link"); way("a link", ["./link"])
shutil.copy(id, "copy"); os.chmod("copy", 0o755); way("a copy", ["./copy"])
os.rename("copy", "bin/newtool"); way("a copy in PATH", ["bin/newtool"])
way("the loader", ["/lib64/ld-linux-x86-64.so.2", id])
fd = os.memfd_create("git"); os.write(fd, open(id, "rb").read()); way("memfd", ["/proc/self/fd/%d" % fd], pass_fds=[fd])
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o755); os.write(fd, open(id, "rb").read()); ro = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY); os.close(fd); way("without a name", ["/proc/self/fd/%d" % ro], pass_fds=[ro])
fd = os.open("bin/newtool", os.O_RDONLY); os.unlink("bin/newtool"); way("removed", ["/proc/self/fd/%d" % fd], pass_fds=[fd])
for name, first in (("evil", "#!/usr/bin/id"), ("evil2", "#!/bin/bash\n/usr/bin/id")):
    open(name, "w").write(first + "\n"); os.chmod(name, 0o755); way(name, ["./" + name])
ENDS or way("another tool", ["bin/many"])
# What is listed stays what it is.
tool = os.path.abspath("bin/tool")
write("write", lambda: open(tool, "w")); write("truncate", lambda: os.truncate(tool, 0)); write("unlink", lambda: os.unlink(tool)); write("rename", lambda: os.rename(tool, "t")); write("over", lambda: os.rename("evil", tool))
write("link", lambda: os.link(tool, "t2")); write("chmod", lambda: os.chmod(tool, 0o777)); ENDS or write("its directory", lambda: os.rename("bin", "bin2")); write("unlink bash", lambda: os.unlink(os.path.realpath("/bin/bash")))
# And runs, by another name of a link and by /proc/self/exe too.
print(subprocess.run(["bin/toolbox"], capture_output=True).stdout, subprocess.run(["/proc/self/exe", "-c", "print(1)"], capture_output=True).stdout)
P
"##;
    // Without LSM what is not listed is started and ended; of a script what its first line names.
    let (layer, denied) = match lsm() {
        Ok(()) => ("lsm", case.at("evil2")),
        Err(_) => ("tracepoint", "/usr/bin/id".to_owned()),
    };
    let ends = if layer == "lsm" { "False" } else { "True" };
    let script = script.replace("ENDS", ends);
    // The control: without a list all of it is started.
    let open = |id: String, policy: Value, index| {
        let rig = &case.rig;
        async move { crate::open(rig, &id, parsed(policy), index).await }
    };
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", case.at("bin"));
    let path = [("PATH", path)];
    let without = json!({ "version": 1, "network": [{}], "gateway": {} });
    let session = open(format!("{}c", case.id), without, 1).await;
    let text = said(&case.inside_with(
        &session,
        "id -u; cp /usr/bin/id copy; ./copy -u; rm copy",
        &path,
    ));
    assert_eq!(text, "0\n0\n");
    session.close("test").await.unwrap();

    let session = open(case.id.clone(), policy, 0).await;
    let text = said(&case.inside_with(&session, &script, &path));
    assert_eq!(text, "ran tool\nprintf\nb'ran toolbox\\n' b'1\\n'\n");
    for binary in ["/usr/bin/id".to_owned(), denied] {
        happens(&case, |event| {
            event.binary.as_ref() == Some(&binary)
                && event.reason == "not-listed"
                && event.layer.as_deref() == Some(layer)
        });
    }
    let events = case.rig.events(&case.id);
    let held = events.iter().find(|e| e.reason == "programs-held").unwrap();
    assert_eq!(held.layer.as_deref(), Some(layer));
    let detail = held.detail.as_deref().unwrap_or_default();
    assert!(
        detail.contains("brought by scripts: ") && detail.contains(&case.at("bin/tool")),
        "{detail}"
    );
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_links_and_opens_at_once_change_no_verdict() {
    let case = Case::new("race");
    let files = json!({ "denied": [rule("**/.env"), rule("**/vault/*.key")] });
    if !held(&case, &files).await {
        return;
    }
    // Not there when it starts: nothing of it is held by mounts.
    let session = case.open(files).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("go"));
        for directory in ["r/one", "r/another-and-longer-name-than-fits-inline"] {
            for name in [".env", "free", "vault/a.key", "vault/free"] {
                let path = workspace.join(directory).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, format!("{name}\n")).unwrap();
            }
        }
        std::fs::write(workspace.join("there"), "").unwrap();
    });
    let script = r#"
        echo > go; for n in $(seq 600); do [ -e there ] && break; sleep 0.05; done
        python3 - <<'P'
import ctypes, errno, os, time
libc = ctypes.CDLL(None, use_errno=True)
a, b, c = "r/one", "r/another-and-longer-name-than-fits-inline", "r/c"
end = time.time() + 6
def moves():
    while time.time() < end:
        for x, y in ((a, c), (b, a), (c, b)):
            try: os.rename(x, y)
            except OSError as e:
                if e.errno in (errno.EACCES, errno.EXDEV, errno.EROFS): print("ODD: rename", e)
def swaps():
    while time.time() < end:
        libc.renameat2(-100, a.encode(), -100, b.encode(), 2)
def links():
    n = 0
    while time.time() < end:
        n += 1
        for x in (a, b):
            try: os.link(x + "/free", "l%d" % n); os.unlink("l%d" % n)
            except FileNotFoundError: pass
            except OSError as e: print("ODD: link", e)
            for secret in ("/.env", "/vault/a.key"):
                try: os.link(x + secret, "stolen"); print("OPEN: link", x + secret)
                except OSError: pass
pids = []
for work in (moves, swaps, links):
    pid = os.fork()
    if pid == 0:
        try: work()
        finally: os._exit(0)
    pids.append(pid)
read = 0
while time.time() < end:
    for x in (a, b, c):
        for secret in ("/.env", "/vault/a.key"):
            try: print("OPEN:", open(x + secret).read())
            except OSError: pass
        for free in ("/free", "/vault/free"):
            try: read += len(open(x + free).read())
            except FileNotFoundError: pass
            except OSError as e: print("ODD:", x + free, e)
for pid in pids: os.waitpid(pid, 0)
print("done" if read > 1000 else read)
P
    "#;
    let text = said(&case.inside(&session, script));
    host.join().unwrap();
    assert_eq!(text, "done\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_replaces_is_not_read_in_the_moment_before_it_is_held_again() {
    if let Err(reason) = lsm() {
        skipped(&format!(
            "BPF LSM is not there ({reason}): mounts have that moment"
        ));
        return;
    }
    let case = Case::new("plain");
    // No name is a pattern: mounts carry all of it, but for what comes in their place.
    let files = json!({ "denied": [rule(".env")] });
    let script = r#"
        touch go
        python3 - <<'P'
import os, socket
tried, read = 0, 0
while not os.path.exists("over"):
    tried += 1
    try: read += "SECRET" in open(".env").read()
    except OSError: pass
try: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("outside"); print("connected")
except PermissionError: print("refused")
print("read" if read else "never read", tried > 1000 or tried)
P
    "#;
    let id = format!("{}c", case.id);
    let control = crate::open(&case.rig, &id, about(json!({})), 1).await;
    let held = case.open(files).await;
    for (session, expected) in [
        (&control, "connected\nread True\n"),
        (&held, "refused\nnever read True\n"),
    ] {
        let workspace = case.workspace.clone();
        let host = std::thread::spawn(move || {
            let socket = std::os::unix::net::UnixListener::bind(workspace.join("outside"));
            wait_for(&workspace.join("go"));
            // Each time there is time for it to be held again.
            for n in 0..12 {
                std::fs::write(workspace.join(".env.new"), format!("SECRET={n}\n")).unwrap();
                std::fs::rename(workspace.join(".env.new"), workspace.join(".env")).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
            std::fs::write(workspace.join("over"), "").unwrap();
            socket.unwrap()
        });
        let text = said(&case.inside(session, script));
        drop(host.join().unwrap());
        assert_eq!(text, expected);
        for name in ["go", "over", "outside"] {
            std::fs::remove_file(case.workspace.join(name)).unwrap();
        }
    }
    // The mount did go, and the programs about files refused what lay bare.
    happens(&case, |event| event.reason == "files-held-again");
    happens(&case, |event| {
        event.reason == "file-denied" && event.file.as_ref() == Some(&case.at(".env"))
    });
    for session in [control, held] {
        session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_cannot_say_is_held_by_mounts_where_they_carry_it_and_refused_where_not() {
    let mut case = Case::new("star");
    // Of a star the table would make a pattern.
    case.workspace = case.rig.directory.path().join("st*r");
    case.put(".env", "SECRET=1\n");
    let mut refused = vec![("gone", "which is not there")];
    if lsm().is_ok() {
        refused.push(("**/.env", "or a `*` in one"));
    }
    for (n, (path, words)) in refused.into_iter().enumerate() {
        let files = json!({ "denied": [rule(path)] });
        let id = format!("{}x{n}", case.id);
        let session = crate::open(&case.rig, &id, about(files), 1).await;
        let output = case.inside(&session, "echo started");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(125), "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
        session.close("test").await.unwrap();
    }
    let session = case.open(json!({ "denied": [rule(".env")] })).await;
    let text = said(&case.inside(&session, "cat .env 2>/dev/null; echo started"));
    assert_eq!(text, "started\n");
    if lsm().is_ok() {
        happens(&case, |event| {
            let detail = event.detail.as_deref().unwrap_or_default();
            event.layer.as_deref() == Some("lsm")
                && detail.starts_with("nothing of it, which mounts alone hold: ")
                && detail.contains("st*r")
        });
    }
    session.close("test").await.unwrap();
}
