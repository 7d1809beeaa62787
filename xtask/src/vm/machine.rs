//! One virtual machine from power-on to its verdict. The verdict is what the guest says on its second serial port under a word that
//! only it knows; a machine that dies, hangs or says nothing has failed. Called by `vm`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::suite::Job;
use super::{initramfs, verdict::Counts, verdict::Verdict};
use crate::{ebpf, paths};

pub struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub tree: &'a Path,
    pub jobs: &'a [Job],
    pub drive: Option<Drive<'a>>,
    /// The security modules that the kernel is to start with; otherwise its own choice, without AppArmor.
    pub lsm: Option<&'a str>,
    /// Whether systemd is process 1 there.
    pub systemd: bool,
    pub deadline: Duration,
}

/// A disk, /dev/vda in the guest.
pub struct Drive<'a> {
    pub file: &'a Path,
    /// What the guest writes stays; otherwise it goes with the guest.
    pub keep: bool,
}

/// MiB; the root's overlay, the engine's data and everything that runs share it.
const MEMORY: &str = "6144";

impl Machine<'_> {
    pub fn run(&self) -> Result<Counts> {
        let dir = Temporary::new()?;
        let nonce = nonce()?;
        let initramfs = initramfs::make(&dir.0, self.kernel, self.tree, &self.script(&nonce))?;
        let console = dir.0.join("console");
        let mut guest = self.start(&initramfs, &console)?;
        let stdout = guest.0.stdout.take().context("no output")?;
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });

        let names: Vec<&str> = self.jobs.iter().map(|job| job.name).collect();
        let mut verdict = Verdict::new(&nonce, &names);
        let began = Instant::now();
        let cut = loop {
            let left = self.deadline.saturating_sub(began.elapsed());
            match receiver.recv_timeout(left) {
                Ok(line) => {
                    let line = String::from_utf8_lossy(&line);
                    if let Some(line) = verdict.line(line.trim_end_matches('\r')) {
                        println!("{line}");
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break false,
                Err(mpsc::RecvTimeoutError::Timeout) => break true,
            }
        };
        let status = guest.end(cut)?;
        let _ = reader.join();
        if cut {
            verdict.fail(format!(
                "the guest was not done after {} s",
                self.deadline.as_secs()
            ));
        } else if !status.success() {
            verdict.fail(format!("QEMU ended with {status}"));
        }
        let counts = verdict.counts();
        if !counts.complete {
            println!("--- the guest's console");
            println!("{}", tail(&console, 60));
        }
        Ok(counts)
    }

    /// The first program of the guest once it has its root.
    fn script(&self, nonce: &str) -> String {
        let mut script = String::from("#!/bin/bash\n");
        for (name, value) in self.jobs.iter().flat_map(|job| &job.environment) {
            script += &format!("export {name}={}\n", quoted(value));
        }
        let guest = self.tree.join("tests/vm/guest");
        let first = match self.systemd {
            true => format!(
                ". {}",
                quoted(&self.tree.join("tests/vm/systemd").to_string_lossy())
            ),
            false => "exec /bin/bash".to_owned(),
        };
        let mut words = vec![
            first,
            quoted(&guest.to_string_lossy()),
            quoted(&self.tree.to_string_lossy()),
            nonce.to_owned(),
            quoted(&self.kernel.modules.to_string_lossy()),
        ];
        words.extend(self.jobs.iter().map(|job| job.name.to_owned()));
        script + &words.join(" ") + "\n"
    }

    /// No hardware acceleration: the result is then the same in a machine that is itself virtual.
    fn start(&self, initramfs: &Path, console: &Path) -> Result<Guest> {
        let modules = match self.lsm {
            Some(list) => format!("lsm={list}"),
            None => "apparmor=0".to_owned(),
        };
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                MEMORY,
            ])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-nic", "none", "-monitor", "none"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .arg("-virtfs")
            .arg("local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap")
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 {modules}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(drive) = &self.drive {
            let snapshot = if drive.keep { "off" } else { "on" };
            let file = drive.file.display().to_string().replace(',', ",,");
            qemu.arg("-drive").arg(format!(
                "if=virtio,format=raw,cache=unsafe,snapshot={snapshot},file={file}"
            ));
        }
        Ok(Guest(qemu.spawn().context("cannot run setpriv and QEMU")?))
    }
}

/// As one word of a shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A word that nothing in the guest prints by chance.
fn nonce() -> Result<String> {
    use std::io::Read;
    let mut random = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("vm-{}", &ebpf::sha256(&random)[..16]))
}

fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A running QEMU; it ends with this, however this ends.
struct Guest(Child);

impl Guest {
    /// Waits for it; kills it first where its time is up.
    fn end(mut self, kill: bool) -> Result<std::process::ExitStatus> {
        if kill {
            self.0.kill()?;
        }
        Ok(self.0.wait()?)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that goes with its owner; one whose owner was killed goes with the next one.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self> {
        let all = paths::target().join("vm");
        fs::create_dir_all(&all)?;
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            if !Path::new("/proc").join(entry.file_name()).exists() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let dir = all.join(std::process::id().to_string());
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
