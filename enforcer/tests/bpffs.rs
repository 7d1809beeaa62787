//! Pins live as long as the file system they are in: where none for BPF is mounted, the enforcer does not start, and mounts none.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn a_host_without_a_bpffs_is_refused_with_the_command_that_mounts_one() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_agentcontainer-enforcer"))
        .arg("serve")
        .env("AGENTCONTAINER_BPFFS", directory.path())
        .env("AGENTCONTAINER_STATE", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    let command = format!("mount -t bpf bpf {}", directory.path().display());
    assert!(said.contains(&command), "{said}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&directory.path().display().to_string()));
}
