//! Under a list of programs, what is mapped to be executed: the image's and what is listed, and memory of no file. Where the kernel takes no LSM
//! programs a list is about starts alone.

use audit::Verdict;
use policy::EffectivePolicy;
use serde_json::{Value, json};

use super::files::{rule, said};
use super::later::{happens, needs_lsm};
use super::programs::with_programs;
use crate::{open, policy as parsed};

fn listing(names: &[&str]) -> EffectivePolicy {
    let origin = &rule("x")["origin"];
    let names: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "origin": origin }))
        .collect();
    parsed(
        json!({ "version": 1, "network": [{}], "gateway": {}, "programs": { "allowed": names } }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mapped_to_be_executed_but_what_the_image_has_and_what_is_listed() {
    if !needs_lsm() {
        return;
    }
    let case = with_programs("map");
    let module = std::fs::read("/usr/bin/printf").unwrap();
    for name in [
        "listed.so",
        "copy.so",
        "gone.so",
        "image/lower.so",
        "image/written.so",
        "image/listed.so",
        "ro/x.so",
    ] {
        case.put(name, "");
        std::fs::write(case.workspace.join(name), &module).unwrap();
    }
    let listed = case.at("listed.so");
    // What is written is not noexec where something is listed.
    let lower = case.at("root/listed.so");
    let elf = case.at("bin/elf");
    let session = open(
        &case.rig,
        &case.id,
        listing(&["bash", "python3", &listed, &lower, &elf]),
        0,
    )
    .await;
    let script = r##"python3 - <<'P'
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
READ, WRITE, EXEC, SHARED, PRIVATE, ANONYMOUS = 1, 2, 4, 1, 2, 32
def mapped(fd, protection, flags=PRIVATE): 
    at = libc.mmap(None, 4096, protection, flags, fd, 0)
    return None if at == 2 ** 64 - 1 else at
def ways(fd):
    # At once, and after it was mapped to be read; and to be read it may be.
    at = mapped(fd, READ)
    return [bool(mapped(fd, READ | EXEC)), bool(mapped(fd, READ | EXEC, SHARED)), libc.mprotect(at, 4096, READ | EXEC) == 0]
def file(name, path): print(name, ways(os.open(path, os.O_RDONLY)))
library = next(line.split()[-1] for line in open("/proc/self/maps") if "libc.so" in line)
file("image", library); file("lower", "root/lower.so"); file("read-only", "ro/x.so"); file("listed", "listed.so"); file("running", "/proc/self/exe")
file("copy", "copy.so"); file("by another way", "/proc/self/root" + os.path.abspath("copy.so"))
os.link("copy.so", "linked.so"); file("link", "linked.so"); open("root/new.so", "wb").write(open("copy.so", "rb").read()); file("upper", "root/new.so")
os.chmod("root/written.so", 0o755); file("copied up", "root/written.so")
fd = os.open("gone.so", os.O_RDONLY); os.unlink("gone.so"); print("deleted", ways(fd))
fd = os.memfd_create("m"); os.write(fd, open("copy.so", "rb").read()); print("memory", ways(fd))
fd = os.open(".", os.O_TMPFILE | os.O_RDWR); os.write(fd, b"x" * 4096); print("nameless", ways(fd))
at = mapped(-1, READ | WRITE, PRIVATE | ANONYMOUS); print("no file", bool(mapped(-1, READ | WRITE | EXEC, PRIVATE | ANONYMOUS)), libc.mprotect(at, 4096, READ | EXEC) == 0)
print("started", subprocess.run(["bin/elf", "it ran"], stdout=subprocess.PIPE).stdout.decode())
P"##;
    let mount = format!(
        "mkdir -p {upper} {work} {root} && mount -t overlay overlay -o lowerdir={image},upperdir={upper},workdir={work} {root} && mount --bind {ro} {ro} && mount -o remount,bind,ro {ro}",
        image = case.at("image"),
        upper = case.at("upper"),
        work = case.at("work"),
        root = case.at("root"),
        ro = case.at("ro"),
    );
    let text = said(&case.inside_after(&session, &mount, "0", script));
    let free = "[True, True, True]";
    let refused = "[False, False, False]";
    assert_eq!(
        text,
        format!(
            "image {free}\nlower {free}\nread-only {free}\nlisted {free}\nrunning {free}\n\
             copy {refused}\nby another way {refused}\nlink {refused}\nupper {refused}\ncopied up {refused}\n\
             deleted {refused}\nmemory {refused}\nnameless {refused}\nno file True True\nstarted it ran\n"
        )
    );
    let recorded = |reason: &str, name: &str| {
        happens(&case, |event| {
            event.kind == audit::Kind::Exec
                && event.verdict == Verdict::Deny
                && event.reason == reason
                && event.detail.as_deref() == Some("map to be executed")
                && event
                    .binary
                    .as_ref()
                    .is_some_and(|binary| binary.ends_with(name))
                && event
                    .process
                    .as_ref()
                    .is_some_and(|process| process.comm == "python3")
        });
    };
    recorded("not-listed", &case.at("copy.so"));
    recorded("nameless", "gone.so");
    // What has no place has no path.
    recorded("nameless", "…");
    session.close("test").await.unwrap();
}
