//! Work inside another network namespace: a thread of its own enters it and ends, so that no thread of the enforcer is
//! ever left in the wrong one (setns(2) moves the calling thread only).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns};

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self {
            file: File::open(format!("/proc/{pid}/ns/net"))?,
        })
    }

    /// Device and inode of the namespace file: equal exactly for the same namespace while one of them is open.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    pub fn fd(&self) -> impl AsFd + '_ {
        &self.file
    }

    /// Runs `work` in the namespace, on a thread of its own.
    pub fn within<T, W>(&self, work: W) -> io::Result<T>
    where
        T: Send,
        W: FnOnce() -> io::Result<T> + Send,
    {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    work()
                })?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace panicked")))
        })
    }
}

/// The cookie of the namespace a socket was made in (SO_NETNS_COOKIE, Linux 5.14).
pub fn cookie_of(socket: &impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to a u64 and its length, both alive for the call.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if status == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Names of the interfaces in the calling thread's namespace, with whether they are up (netdevice(7)).
pub fn interfaces() -> io::Result<Vec<(String, bool)>> {
    let socket = any_socket()?;
    let mut found = Vec::new();
    for interface in &nix::net::if_::if_nameindex()? {
        let name = interface.name().to_string_lossy().into_owned();
        let mut request = request(&name);
        control(&socket, libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        found.push((name, i32::from(flags) & libc::IFF_UP != 0));
    }
    Ok(found)
}

/// Brings the loopback device up, as engines do for their containers.
pub fn loopback_up() -> io::Result<()> {
    let mut request = request("lo");
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    control(&any_socket()?, libc::SIOCSIFFLAGS, &mut request)
}

fn any_socket() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(libc::IFNAMSIZ - 1))
    {
        *to = from as libc::c_char;
    }
    request
}

fn control(socket: &OwnedFd, call: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the calls made here read and write an ifreq, which lives across the call.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), call, &raw mut *request) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
