//! A user namespace that says who stands for whom on a mount (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12): nobody is ever in it but the child that it is made
//! of, which ends at once. In it one user and one group change places with another, and everybody else is who they are: an id that is not in
//! it would be nobody's, and what it has could not be written (EOVERFLOW).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use crate::process;

/// One beyond the last id: that one is nobody's (include/linux/uidgid.h, INVALID_UID).
const END: u32 = u32::MAX;

/// The first group that is a person's and no service's (login.defs(5), GID_MIN).
const FIRST_GROUP: u32 = 1000;

/// Who changes places with whom: on disk, inside. At least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    pub user: Option<(u32, u32)>,
    pub group: Option<(u32, u32)>,
}

// === impl Swap ===

impl Swap {
    /// Between the workspace's owner and the container's user, where they differ. Root never takes part as either user, nor a group of the system's own as
    /// either group: what somebody inside makes there would be theirs here, with the bit that gives whoever starts it their rights.
    pub fn between(owner: (u32, u32), user: (u32, u32)) -> Option<Self> {
        if owner.0 == 0 || user.0 == 0 {
            return None;
        }
        let differ = |on_disk: u32, inside: u32, least: u32| {
            let may = |id: u32| id >= least && id != END;
            (on_disk != inside && may(on_disk) && may(inside)).then_some((on_disk, inside))
        };
        let swap = Self {
            user: differ(owner.0, user.0, 1),
            group: differ(owner.1, user.1, FIRST_GROUP),
        };
        (swap.user.is_some() || swap.group.is_some()).then_some(swap)
    }

    /// A namespace that says so.
    ///
    /// # Errors
    /// The machine lets no more be made, or none at all (user.max_user_namespaces), or this enforcer is not in the outermost one.
    pub fn namespace(self) -> io::Result<OwnedFd> {
        let child = Child::begin()?;
        let directory = process::directory(child.0.as_raw().unsigned_abs());
        std::fs::write(directory.join("uid_map"), map(self.user))?;
        std::fs::write(directory.join("gid_map"), map(self.group))?;
        Ok(File::open(directory.join("ns/user"))?.into())
    }
}

/// As uid_map and gid_map of user_namespaces(7) have it: every id, the two in each other's place.
fn map(swap: Option<(u32, u32)>) -> String {
    let mut text = String::new();
    let mut same = |from: u32, to: u32| {
        if to > from {
            text += &format!("{from} {from} {}\n", to - from);
        }
    };
    match swap {
        None => same(0, END),
        Some((one, other)) => {
            let (low, high) = (one.min(other), one.max(other));
            same(0, low);
            same(low + 1, high);
            same(high + 1, END);
            text += &format!("{low} {high} 1\n{high} {low} 1\n");
        }
    }
    text
}

/// A process in a user namespace of its own, which does nothing and goes with this.
struct Child(Pid);

impl Child {
    fn begin() -> io::Result<Self> {
        let (said, says) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child makes system calls on what was prepared and nothing else.
        let child = match unsafe { fork() }? {
            ForkResult::Child => run(says.as_raw_fd()),
            ForkResult::Parent { child } => Self(child),
        };
        drop(says);
        let mut code = [0; 4];
        File::from(said).read_exact(&mut code)?;
        match i32::from_ne_bytes(code) {
            0 => Ok(child),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

fn run(says: RawFd) -> ! {
    // SAFETY: system calls with a descriptor that is open and memory that is alive; the process does nothing else until it is ended.
    unsafe {
        // It outlives nobody.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let code = match libc::unshare(libc::CLONE_NEWUSER) {
            0 => 0,
            _ => *libc::__errno_location(),
        };
        let said = code.to_ne_bytes();
        if libc::write(says, said.as_ptr().cast(), said.len()) == 4 && code == 0 {
            loop {
                libc::pause();
            }
        }
        libc::_exit(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_stands_for_nobody_and_nobody_for_root() {
        let swap = |user, group| Some(Swap { user, group });
        for (owner, user, expected) in [
            (
                (1234, 1234),
                (1000, 1000),
                swap(Some((1234, 1000)), Some((1234, 1000))),
            ),
            ((1234, 2000), (1234, 1000), swap(None, Some((2000, 1000)))),
            ((1234, 999), (1234, 1000), None),
            ((1234, 1000), (1234, 999), None),
            ((1234, 0), (1234, 0), None),
            ((1234, 0), (1000, 1000), swap(Some((1234, 1000)), None)),
            ((1234, 1234), (1000, 0), swap(Some((1234, 1000)), None)),
            ((1234, 0), (1234, 1000), None),
            ((1000, 1000), (1000, 1000), None),
            ((0, 0), (1000, 1000), None),
            ((0, 1234), (1000, 1000), None),
            ((1234, 1234), (0, 0), None),
            ((1234, 1234), (0, 1000), None),
            ((END, END), (1000, 1000), None),
            ((1234, 1234), (END, END), None),
        ] {
            assert_eq!(Swap::between(owner, user), expected, "{owner:?} {user:?}");
        }
    }

    #[test]
    fn every_id_is_in_a_map_once_and_two_change_places() {
        assert_eq!(map(None), "0 0 4294967295\n");
        for swap in [(1234, 1000), (1000, 1234), (1, 2), (5, 0), (END - 1, 1)] {
            let text = map(Some(swap));
            let lines: Vec<Vec<u64>> = text
                .lines()
                .map(|line| line.split(' ').map(|n| n.parse().unwrap()).collect())
                .collect();
            assert!(lines.len() <= 5, "{text}");
            for column in [0, 1] {
                let mut ranges: Vec<_> = lines.iter().map(|l| (l[column], l[2])).collect();
                ranges.sort();
                let end = ranges.into_iter().fold(0, |end, (from, count)| {
                    assert_eq!(from, end, "{text}");
                    end + count
                });
                assert_eq!(end, u64::from(END), "{text}");
            }
            let to = |id: u32| {
                let id = u64::from(id);
                let line = lines
                    .iter()
                    .find(|l| l[0] <= id && id < l[0] + l[2])
                    .unwrap();
                u32::try_from(line[1] + id - line[0]).unwrap()
            };
            assert_eq!((to(swap.0), to(swap.1)), (swap.1, swap.0));
            assert_eq!(to(77), 77);
        }
    }
}
