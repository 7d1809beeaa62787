//! Descriptors that a process outside hands to one inside: of a file that a rule is about they are worth no more than its path.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use audit::Verdict;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::json;

use super::files::{Case, about, rule, said};
use super::later::{happens, lsm};
use crate::open;

/// Says of each descriptor whether it came, and what can be done with it.
const INSIDE: &str = r#"
import errno, os, socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); server.bind("hand"); server.listen(); peer, _ = server.accept()
def tried(f):
    try: f(); return True
    except OSError as e: return errno.errorcode[e.errno]
while True:
    name, fds, flags, _ = socket.recv_fds(peer, 32, 4)
    if not name: break
    name, fd = name.decode(), fds[0] if fds else None
    if fd is None: print(name, "did not come", bool(flags & socket.MSG_CTRUNC))
    elif name == "directory": print(name, tried(lambda: os.open(".env", os.O_RDONLY, dir_fd=fd)), tried(lambda: os.open("free", os.O_RDWR, dir_fd=fd)), tried(lambda: os.mkdir("made", dir_fd=fd)), tried(lambda: os.rename("free", "other", src_dir_fd=fd, dst_dir_fd=fd)))
    elif name in ("free", "read"): print(name, os.read(fd, 5))
    else: print(name, "came")
    for fd in fds: os.close(fd)
    peer.send(b".")
print("done")
"#;

/// What is handed in, from a mount namespace of its own in which the directory is at another place besides.
fn hand(workspace: &Path) {
    use std::io::Read as _;
    let socket = workspace.join("hand");
    let mut peer = None;
    for _ in 0..2000 {
        peer = UnixStream::connect(&socket).ok();
        if peer.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut peer = peer.unwrap();
    let file = |path: &str, write: bool, flags: i32| -> OwnedFd {
        let mut options = OpenOptions::new();
        options.read(true).write(write).custom_flags(flags);
        options.open(workspace.join(path)).unwrap().into()
    };
    let bind = nix::mount::MsFlags::MS_BIND;
    let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let elsewhere = workspace.with_file_name("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    nix::mount::mount(
        Some(&workspace.join("sub")),
        &elsewhere,
        None::<&str>,
        bind,
        None::<&str>,
    )
    .unwrap();
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let memory = nix::sys::memfd::memfd_create(c"m", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let (pair, _peer) = UnixStream::pair().unwrap();
    let all: Vec<(&str, OwnedFd)> = vec![
        ("denied", file("sub/.env", false, 0)),
        ("a path alone", file("sub/.env", false, libc::O_PATH)),
        (
            "elsewhere",
            File::open(elsewhere.join(".env")).unwrap().into(),
        ),
        ("written", file("sub/x.lock", true, 0)),
        ("read", file("sub/x.lock", false, 0)),
        ("free", file("sub/free", true, 0)),
        ("directory", File::open(&elsewhere).unwrap().into()),
        ("pipe", pipe),
        ("memory", memory),
        ("socket", pair.into()),
    ];
    for (name, descriptor) in all {
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let words = [IoSlice::new(name.as_bytes())];
        sendmsg::<()>(peer.as_raw_fd(), &words, &rights, MsgFlags::empty(), None).unwrap();
        // One after the other.
        peer.read_exact(&mut [0]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_of_what_a_rule_is_about_is_not_received_from_outside() {
    if lsm().is_err() {
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
    let script = format!("python3 - <<'P'\n{INSIDE}\nP");
    let received = |session: &enforcer::session::Session| {
        let workspace = case.workspace.clone();
        let host = std::thread::spawn(move || hand(&workspace));
        let text = said(&case.inside(session, &script));
        host.join().unwrap();
        std::fs::remove_file(case.workspace.join("hand")).unwrap();
        let _ = std::fs::remove_dir(case.workspace.join("sub/made"));
        let _ = std::fs::rename(
            case.workspace.join("sub/other"),
            case.workspace.join("sub/free"),
        );
        std::fs::remove_dir(case.workspace.with_file_name("elsewhere")).unwrap();
        text
    };
    let free = "read b'locke'\nfree b'free!'\n";
    let nobodys = "pipe came\nmemory came\nsocket came\ndone\n";
    // The control: without rules all of it comes.
    let id = format!("{}c", case.id);
    let session = open(&case.rig, &id, about(json!({})), 1).await;
    let came = "denied came\na path alone came\nelsewhere came\nwritten came\n";
    let text = received(&session);
    assert_eq!(
        text,
        format!("{came}{free}directory True True True True\n{nobodys}")
    );
    session.close("test").await.unwrap();

    let rules = json!({ "denied": [rule("**/.env")], "readOnly": [rule("**/*.lock")] });
    let session = case.open(rules).await;
    let text = received(&session);
    let not = ["denied", "a path alone", "elsewhere", "written"]
        .map(|name| format!("{name} did not come True\n"))
        .concat();
    assert_eq!(
        text,
        format!("{not}{free}directory EACCES True EACCES EACCES\n{nobodys}")
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
    recorded("/.env", "file-denied", "open");
    session.close("test").await.unwrap();
}
