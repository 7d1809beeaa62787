//! What a session's calls are held to, asked of the kernel from inside.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::place::token;

/// Each with its control: without the filter the kernel's answer is another one on any filesystem.
const SNAPSHOTS: &str = r#"
import errno, fcntl, os, sys
folder = os.open(".", os.O_RDONLY)
for command in (0x50009401, 0x5000940e, 0x5000940f, 0x50009417, 0x50009418, 0x5000943f, 0x4020bc10, 0x4020bc11):
    try:
        fcntl.ioctl(folder, command, bytearray(4096))
        print("done", hex(command))
    except OSError as error:
        print(errno.errorcode[error.errno], hex(command))
try:
    fcntl.ioctl(folder, 0x50009402, bytearray(4096))
except OSError as error:
    print("control", errno.errorcode[error.errno])
"#;

#[test]
fn names_are_not_made_past_every_rule_about_paths() {
    let out = Workspace::new().run(&["python3", "-c", SNAPSHOTS]);
    out.status(0);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.len(), 9, "{}", out.stdout);
    assert!(
        lines[..8].iter().all(|line| line.starts_with("EPERM ")),
        "{lines:?}"
    );
    // What is beside them is the filesystem's to answer.
    assert!(lines[8].starts_with("control ENOT"), "{lines:?}");
}

/// The limit, after it was set to none at all in both ways, and what another limit became.
const CORE: &str = r#"
import ctypes, resource
libc = ctypes.CDLL(None, use_errno=True)
for limit in ((0, 0), (4096, 4096)):
    print(libc.setrlimit(4, (ctypes.c_ulong * 2)(*limit)), libc.prlimit(0, 4, (ctypes.c_ulong * 2)(*limit), None))
print(libc.syscall(160, 4, (ctypes.c_ulong * 2)(0, 0)) if __import__("os").uname().machine == "x86_64" else 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (77, 77))
print(*[line.split()[4:6] for line in open("/proc/self/limits") if line.startswith("Max core")])
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"#;

#[test]
fn a_program_that_crashes_leaves_its_memory_to_nobody() {
    let workspace = Workspace::new();
    let name = token("core");
    let session = workspace.session(&name);
    let python = ["python3", "-c", CORE];
    for out in [workspace.run(&python), session.exec(&python)] {
        out.status(0);
        assert_eq!(out.stdout, "0 0\n0 0\n0\n['1', '1']\n(77, 77)\n");
    }
    let crash = [
        "bash",
        "-c",
        "ulimit -c 0; ulimit -c unlimited; bash -c 'kill -SEGV $$'; ls -A",
    ];
    let out = session.exec(&crash);
    assert!(!out.stdout.contains("core"), "{}", out.stdout);
}
