//! The guest's first stage: busybox, tests/vm/init, the modules that reach the host's root, and the job. Called by `vm::machine`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use crate::sh;

/// In the order they are loaded. What a kernel has built in, or does not have, is passed over: the mount says what is missing. The last is
/// the device that a test puts into a session's namespace.
const MODULES: [&str; 12] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "fs/netfs/netfs",
    "fs/fscache/fscache",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/9p/9p",
    "fs/overlayfs/overlay",
    "drivers/net/veth",
];

/// Writes `dir/initramfs`. The job is a script: process 1 of the guest once the root is there.
pub fn make(dir: &Path, kernel: &Kernel, tree: &Path, job: &str) -> Result<std::path::PathBuf> {
    let root = dir.join("root");
    for name in ["bin", "modules"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = Path::new("/bin/busybox");
    ensure!(
        busybox.is_file(),
        "{} is not there: cargo xtask setup --dev",
        busybox.display()
    );
    fs::copy(busybox, root.join("bin/busybox"))?;
    let init = root.join("init");
    fs::copy(tree.join("tests/vm/init"), &init)?;
    sh::run(Command::new("chmod").arg("755").arg(&init))?;
    fs::write(root.join("job"), job)?;

    let mut order = String::new();
    for path in MODULES {
        let Some(file) = kernel.module(path) else {
            continue;
        };
        let name = format!("{}.ko", path.rsplit('/').next().unwrap_or(path));
        let to = root.join("modules").join(&name);
        if file.extension().is_some_and(|extension| extension == "xz") {
            let unpacked = File::create(&to)?;
            sh::run(Command::new("xz").arg("-dc").arg(&file).stdout(unpacked))?;
        } else {
            fs::copy(&file, &to)?;
        }
        order.push_str(&name);
        order.push('\n');
    }
    fs::write(root.join("modules/order"), &order)?;

    let names = [
        "bin",
        "bin/busybox",
        "init",
        "job",
        "modules",
        "modules/order",
    ];
    let list = names
        .iter()
        .map(|name| (*name).to_owned())
        .chain(order.lines().map(|name| format!("modules/{name}")))
        .fold(String::new(), |list, name| list + &name + "\n");
    let archive = dir.join("initramfs");
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(File::create(&archive)?)
        .spawn()
        .context("cannot run cpio")?;
    cpio.stdin
        .take()
        .context("no input")?
        .write_all(list.as_bytes())?;
    ensure!(cpio.wait()?.success(), "cpio cannot pack the initramfs");
    Ok(archive)
}
