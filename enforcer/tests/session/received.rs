//! Descriptors that a process outside hands to one inside: of a file that a rule or a mount is about they are worth no more than its path.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use audit::Verdict;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::json;

use super::files::{Case, about, rule, said};
use super::later::{happens, needs_lsm};
use super::programs::with_programs;
use crate::{open, policy as parsed};

/// Says of what each message brings whether it came, and what can be done with it: of a directory with the name after the colon.
const INSIDE: &str = r#"
import errno, os, socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); server.bind("sub/hand"); server.listen(); peer, _ = server.accept()
def tried(f):
    try: f(); return True
    except OSError as e: return errno.errorcode[e.errno]
while True:
    words, fds, flags, _ = socket.recv_fds(peer, 64, 4)
    if not words: break
    name, _, within = words.decode().partition(":")
    fd = fds[0] if fds else None
    if fd is None: print(name, "did not come", bool(flags & socket.MSG_CTRUNC))
    elif within: print(name, within, *[tried(lambda: os.open(within, how, dir_fd=fd)) for how in (os.O_RDONLY, os.O_RDWR)])
    elif name == "directory": print(name, tried(lambda: os.open(".env", os.O_RDONLY, dir_fd=fd)), tried(lambda: os.open("free", os.O_RDWR, dir_fd=fd)), tried(lambda: os.mkdir("made", dir_fd=fd)), tried(lambda: os.rename("free", "other", src_dir_fd=fd, dst_dir_fd=fd)))
    elif name in ("free", "read"): print(name, os.read(fd, 5), tried(lambda: os.utime(fd)), tried(lambda: os.chmod(fd, 0o644)))
    else: print(name, "came", len(fds))
    for fd in fds: os.close(fd)
    peer.send(b".")
print("done")
"#;

/// What is sent in one message each.
type Messages = Vec<(&'static str, Vec<OwnedFd>)>;

fn script() -> String {
    format!("python3 - <<'P'\n{INSIDE}\nP")
}

/// Sends what is made once whoever is inside listens at that place, one message after the other.
pub fn hand(socket: &Path, make: impl FnOnce() -> Messages) {
    let mut peer = None;
    for _ in 0..2000 {
        peer = UnixStream::connect(socket).ok();
        if peer.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut peer = peer.unwrap();
    for (name, descriptors) in make() {
        let descriptors: Vec<RawFd> = descriptors.iter().map(|one| one.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let words = [IoSlice::new(name.as_bytes())];
        sendmsg::<()>(peer.as_raw_fd(), &words, &rights, MsgFlags::empty(), None).unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    std::fs::remove_file(socket).unwrap();
}

fn file(path: &Path, write: bool, flags: i32) -> OwnedFd {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(flags);
    options.open(path).unwrap().into()
}

fn directory(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// The directory `sub` at another place besides, in a mount namespace of this thread's own.
fn elsewhere(workspace: &Path) -> PathBuf {
    use nix::mount::{MsFlags, mount};
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let elsewhere = workspace.with_file_name("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (sub, bind) = (workspace.join("sub"), MsFlags::MS_BIND);
    mount(Some(&sub), &elsewhere, None::<&str>, bind, None::<&str>).unwrap();
    elsewhere
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_of_what_a_rule_is_about_is_not_received_from_outside() {
    if !needs_lsm() {
        return;
    }
    let case = Case::new("recv");
    for (name, text) in [
        ("sub/.env", "SECRET=3\n"),
        ("sub/x.lock", "locked\n"),
        ("sub/free", "free!\n"),
    ] {
        case.put(name, text);
    }
    let received = |session: &enforcer::session::Session| {
        let workspace = case.workspace.clone();
        let host = std::thread::spawn(move || {
            hand(&workspace.join("sub/hand"), || {
                let at = |name: &str| workspace.join("sub").join(name);
                let denied = || file(&at(".env"), false, 0);
                let path = file(&at(".env"), false, libc::O_PATH);
                let written = file(&at("x.lock"), true, 0);
                let (read, free) = (file(&at("x.lock"), false, 0), file(&at("free"), true, 0));
                let elsewhere = elsewhere(&workspace);
                let (pipe, other) = nix::unistd::pipe().unwrap();
                let memory = nix::sys::memfd::MFdFlags::empty();
                let memory = nix::sys::memfd::memfd_create(c"m", memory).unwrap();
                let (pair, _peer) = UnixStream::pair().unwrap();
                vec![
                    ("denied", vec![denied()]),
                    ("a path alone", vec![path]),
                    ("elsewhere", vec![file(&elsewhere.join(".env"), false, 0)]),
                    ("written", vec![written]),
                    // The kernel goes no further than the first that is refused.
                    ("a pipe behind it", vec![denied(), other]),
                    ("read", vec![read]),
                    ("free", vec![free]),
                    ("directory", vec![directory(&elsewhere)]),
                    ("pipe", vec![pipe]),
                    ("memory", vec![memory]),
                    ("socket", vec![pair.into()]),
                ]
            });
        });
        let text = said(&case.inside(session, &script()));
        host.join().unwrap();
        let _ = std::fs::remove_dir(case.workspace.join("sub/made"));
        let _ = std::fs::rename(
            case.workspace.join("sub/other"),
            case.workspace.join("sub/free"),
        );
        std::fs::remove_dir(case.workspace.with_file_name("elsewhere")).unwrap();
        text
    };
    let free = "free b'free!' True True\n";
    let nobodys = "pipe came 1\nmemory came 1\nsocket came 1\ndone\n";
    // The control: without rules all of it comes.
    let id = format!("{}c", case.id);
    let session = open(&case.rig, &id, about(json!({})), 1).await;
    let came = "denied came 1\na path alone came 1\nelsewhere came 1\nwritten came 1\na pipe behind it came 2\n";
    let text = received(&session);
    assert_eq!(
        text,
        format!("{came}read b'locke' True True\n{free}directory True True True True\n{nobodys}")
    );
    session.close("test").await.unwrap();

    let rules = json!({ "denied": [rule("**/.env")], "readOnly": [rule("**/*.lock")] });
    let session = case.open(rules).await;
    let text = received(&session);
    let not = [
        "denied",
        "a path alone",
        "elsewhere",
        "written",
        "a pipe behind it",
    ]
    .map(|name| format!("{name} did not come True\n"))
    .concat();
    assert_eq!(
        text,
        format!(
            "{not}read b'locke' EROFS EROFS\n{free}directory EACCES True EACCES EACCES\n{nobodys}"
        )
    );
    let recorded = |name: &str, reason: &str, detail: &str| {
        happens(&case, |event| {
            event
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with(name))
                && event.reason == reason
                && event.detail.as_deref() == Some(detail)
                && event.verdict == Verdict::Deny
                && event.process.as_ref().is_some_and(|p| p.comm == "python3")
        });
    };
    recorded("/sub/.env", "file-denied", "receive a descriptor");
    recorded("/sub/x.lock", "file-read-only", "receive a descriptor");
    recorded("/sub/x.lock", "file-read-only", "change");
    recorded("/.env", "file-denied", "open");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_only_with_all_of_the_root_is_not_changed_by_a_descriptor_from_outside() {
    if !needs_lsm() {
        return;
    }
    let case = Case::new("recr");
    case.put("sub/free", "free!\n");
    let files =
        json!({ "readOnly": [rule("/")], "writable": [rule("sub")], "denied": [rule("**/.env")] });
    let session = case.open(files).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        hand(&workspace.join("sub/hand"), || {
            let at = |name: &str| workspace.join(name);
            vec![
                ("written", vec![file(&at("src/main.rs"), true, 0)]),
                ("read", vec![file(&at("src/main.rs"), false, 0)]),
                ("held:main.rs", vec![directory(&at("src"))]),
                ("within:src/main.rs", vec![directory(&workspace)]),
                ("free", vec![file(&at("sub/free"), true, 0)]),
                ("writable:free", vec![directory(&at("sub"))]),
            ]
        });
    });
    let text = said(&case.inside(&session, &script()));
    host.join().unwrap();
    assert_eq!(
        text,
        "written did not come True\nread b'fn ma' EROFS EROFS\nheld main.rs True EROFS\nwithin src/main.rs True EROFS\nfree b'free!' True True\nwritable free True True\ndone\n"
    );
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_or_covered_is_not_come_to_by_a_descriptor_from_outside() {
    if !needs_lsm() {
        return;
    }
    let case = with_programs("recm");
    case.put("sub/x", "");
    for name in ["app/control", "app/config", "app/same"] {
        case.put(name, "real!\n");
    }
    case.put("empty", "");
    case.put("copy", "copy!\n");
    let denied = json!({ "name": case.at("bin/tool"), "origin": rule("x")["origin"] });
    let policy = parsed(json!({
        "version": 1, "network": [{}], "gateway": {},
        "files": { "denied": [rule("**/.env")] }, "programs": { "denied": [denied] }
    }));
    let session = open(&case.rig, &case.id, policy, 0).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        hand(&workspace.join("sub/hand"), || {
            let at = |name: &str| workspace.join(name);
            vec![
                ("program", vec![file(&at("bin/tool"), false, 0)]),
                ("its other name", vec![file(&at("bin/tool-2"), false, 0)]),
                ("another", vec![file(&at("bin/many"), false, 0)]),
                ("programs:tool", vec![directory(&at("bin"))]),
                ("covered", vec![file(&at("app/control"), false, 0)]),
                ("by its directory:control", vec![directory(&at("app"))]),
                ("by its directory:config", vec![directory(&at("app"))]),
                ("written", vec![file(&at("app/same"), true, 0)]),
                ("read", vec![file(&at("app/same"), false, 0)]),
                ("free", vec![file(&at("copy"), true, 0)]),
            ]
        });
    });
    let covers = [("empty", "control"), ("app/same", "same")].map(|(of, name)| {
        format!("mount --bind {of} app/{name} && mount -o remount,bind,ro app/{name} && ")
    });
    let before = format!(
        "export PATH={}:/usr/bin:/bin && {}mount --bind copy app/config",
        case.at("bin"),
        covers.concat()
    );
    let own = "touch app/config && cat app/config";
    let script = format!("{}\n{own}", script());
    let text = said(&case.inside_after(&session, &before, "0", &script));
    assert_eq!(
        text,
        "program did not come True\nits other name did not come True\nanother came 1\nprograms tool EACCES EACCES\ncovered did not come True\nby its directory control EACCES EACCES\nby its directory config EACCES EACCES\nwritten did not come True\nread b'real!' EROFS EROFS\nfree b'copy!' True True\ndone\ncopy!\n"
    );
    host.join().unwrap();
    session.close("test").await.unwrap();
}
