//! What enforcers that are gone for good left in the kernel: cgroups and pins of sessions that nobody has a record of. A session that
//! any living enforcer holds is known by the lock on its cgroup, one that runs something by its processes; both are left alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use schema::session::SessionId;

use crate::cgroup::{self, Cgroup};
use crate::kernel;
use crate::places::Places;
use crate::slice;

/// What is younger may be on its way to becoming a session.
pub const AGE: Duration = Duration::from_secs(60);

/// Takes away what is older than `age` and nobody's; says of how many sessions.
pub fn sweep(places: &Places, age: Duration) -> usize {
    let found: BTreeSet<String> = [
        places.session_cgroups(),
        places.gateway_cgroup(""),
        places.pins.clone(),
    ]
    .iter()
    .flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten())
    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    .filter_map(|entry| entry.file_name().into_string().ok())
    .map(|name| slice::session(&name).unwrap_or(&name).to_owned())
    .filter(|name| SessionId::parse(name).is_ok())
    .collect();
    found
        .iter()
        .filter(|name| !places.sessions.join(name).exists() && is_nobodys(places, name, age))
        .filter(|name| match remove(places, name) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(session = %name, %error, "what is left of it cannot be removed");
                false
            }
        })
        .count()
}

/// Whether all there is of it is old, empty and held by no enforcer.
fn is_nobodys(places: &Places, name: &str, age: Duration) -> bool {
    let session = places.session_cgroup(name);
    [session, places.gateway_cgroup(name), places.pins.join(name)]
        .iter()
        .filter(|path| path.exists())
        .all(|path| is_old(path, age) && is_let_go(path))
}

fn is_old(path: &Path, age: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|passed| passed >= age)
    })
}

/// No process is in it, and its lock is to be had; pins are neither locked nor lived in.
fn is_let_go(path: &Path) -> bool {
    let events = path.join("cgroup.events");
    if !events.exists() {
        return true;
    }
    let empty = Cgroup::open(path).is_ok_and(|cgroup| cgroup.populated().is_ok_and(|p| !p));
    empty && File::open(path).is_ok_and(|directory| directory.try_lock().is_ok())
}

fn remove(places: &Places, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    cgroup::remove(&places.session_cgroup(name))?;
    cgroup::remove(&places.gateway_cgroup(name))?;
    kernel::remove_pins(&places.pins.join(name))?;
    if places.slices {
        slice::let_go(name);
    }
    Ok(())
}
