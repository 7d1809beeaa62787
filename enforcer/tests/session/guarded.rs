//! What nobody inside does, where programs about files hold: look into init or into what is not of the session, mount, load programs into the
//! kernel, make user namespaces. Here root inside has every capability and no filter of system calls, so that nothing else refuses it.

use audit::Verdict;
use serde_json::json;

use super::files::{Case, about, rule, said};
use super::later::{happens, needs_lsm};
use crate::open;

const PYTHON: &str = r#"
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments): return libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
def said(name, done): print(name, "done" if done else "refused")
def read(path):
    try: return bool(open(path, "rb").read(16)) or True
    except OSError: return False
def link(path):
    try: return bool(os.readlink(path))
    except OSError: return False
def memory(pid):
    try: os.close(os.open("%s/mem" % pid, os.O_RDONLY)); return True
    except OSError: return False
def looks(name, at, pid):
    said(name + " environ", read(at + "/environ")); said(name + " maps", read(at + "/maps")); said(name + " mem", memory(at)); said(name + " exe", link(at + "/exe"))
    # PTRACE_SEIZE
    if pid: said(name + " trace", call(101, 0x4206, pid, 0, 0) == 0)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_inside_looks_into_what_is_not_of_the_session_or_does_what_is_the_hosts() {
    if !needs_lsm() {
        return;
    }
    let case = Case::new("guard");
    let script = format!(
        r##"python3 - <<'P'
{PYTHON}
sys.stdout.flush(); child = os.fork()
if child == 0: time.sleep(600); os._exit(0)
looks("child", "/proc/%d" % child, child)
print("seen", open("/proc/1/comm").read()[:14], bool(open("/proc/1/cmdline").read()), bool(open("../machine/{pid}/comm").read()))
looks("init", "/proc/1", 1); looks("outside", "../machine/{pid}", 0)
os.mkdir("m")
said("mount", libc.mount(b"x", b"m", b"tmpfs", 0, None) == 0); said("bind", libc.mount(b"src", b"m", None, 4096, None) == 0)
tree = call(428, -100, ctypes.c_char_p(b"src"), 1); said("move", tree >= 0 and call(429, tree, ctypes.c_char_p(b""), -100, ctypes.c_char_p(b"m"), 4) == 0)
said("unmount", libc.umount2(b"../machine", 2) == 0)
# BPF_MAP_CREATE of an array.
attributes = (ctypes.c_uint32 * 16)(2, 4, 4, 1); said("bpf", call(321, 0, ctypes.byref(attributes), 64) >= 0)
sys.stdout.flush()
if os.fork() == 0: said("user namespace", libc.unshare(0x10000000) == 0); sys.stdout.flush(); os._exit(0)
os.wait(); os.kill(child, 9)
open("done", "w").close()
for n in range(600):
    if os.path.exists("go"): break
    time.sleep(0.1)
P"##,
        pid = std::process::id()
    );
    let looks = |name: &str, what: &str, trace: bool| -> String {
        let mut ways = vec!["environ", "maps", "mem", "exe"];
        if trace {
            ways.push("trace");
        }
        ways.iter()
            .map(|way| format!("{name} {way} {what}\n"))
            .collect()
    };
    let acts = |what: &str| -> String {
        let acts = ["mount", "bind", "move", "unmount", "bpf", "user namespace"];
        acts.iter().map(|act| format!("{act} {what}\n")).collect()
    };
    let free = looks("child", "done", true) + "seen agentcontainer True True\n";
    case.put("go", "");
    // The control: without such programs root does all of it.
    let id = format!("{}c", case.id);
    let session = open(&case.rig, &id, about(json!({})), 1).await;
    let text = said(&case.inside_whole(&session, &script));
    let done = looks("init", "done", true) + &looks("outside", "done", false) + &acts("done");
    assert_eq!(text, format!("{free}{done}"));
    session.close("test").await.unwrap();
    for name in ["go", "done"] {
        std::fs::remove_file(case.workspace.join(name)).unwrap();
    }
    std::fs::remove_dir(case.workspace.join("m")).unwrap();

    let rules = json!({ "denied": [rule("**/.env")], "readOnly": [rule("cache/old")] });
    let session = case.open(rules).await;
    let workspace = case.workspace.clone();
    // The enforcer itself goes on mounting there: what the host replaces is held again.
    let host = std::thread::spawn(move || {
        for _ in 0..600 {
            if workspace.join("done").exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::fs::write(workspace.join("new"), "new\n").unwrap();
        std::fs::rename(workspace.join("new"), workspace.join("cache/old")).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(4));
        std::fs::write(workspace.join("go"), "").unwrap();
    });
    let text = said(&case.inside_whole(&session, &script));
    host.join().unwrap();
    let refused = looks("init", "refused", true) + &looks("outside", "refused", false);
    assert_eq!(text, format!("{free}{refused}{}", acts("refused")));
    let recorded = |detail: &str, kind: audit::Kind| {
        happens(&case, |event| {
            event.reason == "never-inside"
                && event.verdict == Verdict::Deny
                && event.kind == kind
                && event.detail.as_deref() == Some(detail)
        });
    };
    recorded("look into a process that runs it", audit::Kind::Exec);
    recorded("bpf", audit::Kind::Exec);
    recorded("make a user namespace", audit::Kind::Exec);
    recorded("mount", audit::Kind::File);
    happens(&case, |event| event.reason == "files-held-again");
    session.close("test").await.unwrap();
}
