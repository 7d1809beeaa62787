//! The system calls that need `unsafe` or a raw structure, each once; everywhere else in this room unsafe code is denied.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, UnixAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Parts of one datagram that [`send_parts`] sends.
pub const PARTS: usize = 32;

/// One datagram.
#[derive(Debug)]
pub struct Received {
    pub bytes: usize,
    pub fds: Vec<OwnedFd>,
    /// The datagram, or its descriptors, did not fit.
    pub truncated: bool,
}

/// Receives one datagram and the descriptors beside it, without waiting.
pub fn receive(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!([RawFd; crate::limits::CHANNEL_FDS]);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = socket::recvmsg::<UnixAddr>(
        fd.as_raw_fd(),
        &mut iov,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let truncated = message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let mut fds = Vec::new();
    if let Ok(messages) = message.cmsgs() {
        for control in messages {
            if let ControlMessageOwned::ScmRights(rights) = control {
                for right in rights {
                    // SAFETY: the kernel has just made this descriptor for us by SCM_RIGHTS; nothing else owns it.
                    fds.push(unsafe { OwnedFd::from_raw_fd(right) });
                }
            }
        }
    }
    Ok(Received {
        bytes: message.bytes,
        fds,
        truncated,
    })
}

/// Sends one datagram of at most [`PARTS`] parts, without waiting.
pub fn send_parts<'a>(
    fd: &impl AsRawFd,
    parts: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
        count += 1;
    }
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(socket::sendmsg::<()>(
        fd.as_raw_fd(),
        &slices[..count],
        &[],
        flags,
        None,
    )?)
}

/// Takes a connection that waits at a listener, without waiting; `None` for one that is not of IPv4.
pub fn accept(listener: &impl AsRawFd) -> io::Result<(OwnedFd, Option<SocketAddrV4>)> {
    // SAFETY: an address of zeros is one of no family.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the address, and how many it would have written to `length`.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::from_mut(&mut address).cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    let stream = unsafe { OwnedFd::from_raw_fd(fd) };
    let inet = address.sin_family == libc::AF_INET as libc::sa_family_t;
    let peer = inet.then(|| {
        let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
        SocketAddrV4::new(ip, u16::from_be(address.sin_port))
    });
    Ok((stream, peer))
}

/// Registers a descriptor with the runtime, for reading and writing.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor, and keeps it open until it is dropped with the AsyncFd.
    let registered =
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE) };
    Ok(registered?)
}

pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

pub fn set_cloexec(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// The process's effective and permitted capabilities, as capget(2) says.
pub fn capabilities() -> io::Result<u64> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes a header and an array of two data structures, both live and of the kernel's layout
    // (include/uapi/linux/capability.h).
    let result = unsafe {
        libc::syscall(
            libc::SYS_capget,
            std::ptr::from_mut(&mut header),
            data.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = data.map(|d| u64::from(d.effective | d.permitted | d.inheritable));
    Ok(high << 32 | low)
}

/// Takes over a descriptor whose number came on the command line.
///
/// # Errors
/// When the number is a standard stream or no open descriptor.
pub fn take_fd(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, it was handed to this process for this use, and this is called once, at start, by main.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether the peer of a connection has closed its side, whatever of its bytes is still unread.
pub fn is_hung_up(socket: RawFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket,
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: poll writes one pollfd, which lives until the call returns; it does not wait, and a number that is no
    // descriptor any more is an answer too (POLLNVAL).
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}
