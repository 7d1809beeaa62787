//! The whole root as one tree: every mount of the namespace is read-only but what the rules leave writable and the kernel's own trees. The
//! mounts themselves are changed, none is made: whoever is in one already, with a file of it open for writing, is an error.

use std::collections::BTreeSet;
use std::path::Path;

use super::enter::{self, Inside, Mount};
use super::{FilesError, io_error, shown, sys};

/// The kernel's, and what is mounted in them: the engine sets them up, and masks what is dangerous.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];

/// `exempt`: mounts that stay writable, with what is on them.
pub fn close(inside: &Inside, exempt: &BTreeSet<u64>) -> Result<(), FilesError> {
    let open = writable(&inside.mounts()?, exempt);
    inside.within(|| {
        for mount in &open {
            let path = enter::place(&mount.at);
            let failed = |call| io_error(call, shown(&path));
            let there = inside.open(&path).map_err(failed("open"))?;
            let on = sys::mount_of(&there).map_err(failed("look at the mount of"))?;
            // One that lies hidden under another: the next that is listed there is.
            if on.id == mount.id {
                sys::set_flags(&there, sys::RDONLY, false).map_err(failed("make read-only"))?;
            }
        }
        Ok(())
    })?;
    // The kernel's word, of what can be reached.
    for mount in writable(&inside.mounts()?, exempt) {
        let path = enter::place(&mount.at);
        let there = inside.open(&path).and_then(|there| sys::mount_of(&there));
        let there = there.map_err(io_error("look at the mount of", shown(&path)))?;
        if there.id == mount.id {
            return Err(FilesError::NotHeld {
                path: shown(&path),
                what: "it is writable",
            });
        }
    }
    Ok(())
}

fn writable(mounts: &[Mount], exempt: &BTreeSet<u64>) -> Vec<Mount> {
    let left: BTreeSet<u64> = exempt
        .iter()
        .flat_map(|id| enter::below(mounts, *id, &BTreeSet::new()))
        .map(|mount| mount.id)
        .collect();
    let is_kernels = |path: &Path| KERNEL.iter().any(|tree| path.starts_with(tree));
    mounts
        .iter()
        .filter(|mount| !mount.read_only && !left.contains(&mount.id))
        .filter(|mount| !is_kernels(&enter::place(&mount.at)))
        .cloned()
        .collect()
}
