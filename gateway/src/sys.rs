//! The system calls that need `unsafe` or a raw structure, each once; everywhere else in this room unsafe code is denied.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, UnixAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams in one call of [`send_all`].
const SENT_AT_ONCE: usize = 32;

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

/// Sends datagrams in order without waiting, at most [`SENT_AT_ONCE`] of them, and says how many the socket took.
pub fn send_all<'a>(
    fd: &impl AsRawFd,
    messages: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    // SAFETY: a message header of zeros is one without name, data and control.
    let mut headers: [libc::mmsghdr; SENT_AT_ONCE] = unsafe { std::mem::zeroed() };
    let mut parts: Vec<libc::iovec> = messages
        .take(SENT_AT_ONCE)
        .map(|message| libc::iovec {
            iov_base: message.as_ptr().cast_mut().cast(),
            iov_len: message.len(),
        })
        .collect();
    for (header, part) in headers.iter_mut().zip(&mut parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: as many headers as there are parts, each of a message that outlives the call and that sendmmsg only reads.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            parts.len() as libc::c_uint,
            (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
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
