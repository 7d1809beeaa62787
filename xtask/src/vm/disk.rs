//! The engine's data with the test image in it, as a disk that guests work on a snapshot of. Importing the image takes an emulated
//! machine longer than the tests do, so it is done once, in a guest, and kept in the cache. Called by `vm`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::kernel::Kernel;
use super::machine::{Drive, Machine, quoted};
use super::suite::Job;
use crate::{ebpf, image, paths};

/// It is sparse: what is not written takes no room.
const SIZE: u64 = 6 << 30;

/// Copying half a gigabyte of small files and hashing them, emulated, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// The disk in the cache, filled where it is not there yet.
pub fn ensure(tree: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let tarball = image::tarball(image::TEST)?;
    let mut made_by = tarball.as_os_str().as_encoded_bytes().to_vec();
    for script in ["engine", "prepare"] {
        made_by.extend(fs::read(tree.join("tests/vm").join(script))?);
    }
    let dir = paths::cache().join("kernels");
    let disk = dir.join(format!("engine-{}.img", &ebpf::sha256(&made_by)[..12]));
    if disk.is_file() {
        return Ok(disk);
    }
    println!("filling {} (a minute or two, once)", disk.display());
    let part = dir.join(format!(".engine-{}.img", std::process::id()));
    File::create(&part)?.set_len(SIZE)?;
    let import: Vec<String> = image::IMPORT.iter().map(|word| quoted(word)).collect();
    let jobs = [Job {
        name: "prepare",
        environment: vec![
            ("tarball", tarball.to_string_lossy().into_owned()),
            ("import", import.join(" ")),
        ],
    }];
    let machine = Machine {
        kernel,
        tree,
        jobs: &jobs,
        drive: Some(Drive {
            file: &part,
            keep: true,
        }),
        lsm: None,
        systemd: false,
        deadline: DEADLINE,
    };
    let filled = machine.run().and_then(|counts| match counts.failed {
        0 => Ok(fs::rename(&part, &disk)?),
        _ => bail!(
            "the engine's disk cannot be filled: {}",
            counts.failures.join(", ")
        ),
    });
    if filled.is_err() {
        fs::remove_file(&part)?;
    } else {
        remove_others(&dir, &disk)?;
    }
    filled.map(|()| disk)
}

/// A disk is a gigabyte: only the newest is kept. A guest that runs on an older one keeps its open file.
fn remove_others(dir: &Path, kept: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("engine-") && name.ends_with(".img") && path != kept {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
