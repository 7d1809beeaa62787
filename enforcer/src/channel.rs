//! The enforcer's end of a gateway's channel: one prost message a datagram on a SOCK_SEQPACKET pair, descriptors beside
//! it (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use api::v1::{FromGateway, ToGateway};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use prost::Message as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest message, in bytes; the socket keeps message boundaries.
pub const MAX_MESSAGE: usize = 64 * 1024;

#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// The enforcer's end, and the end that is given to the gateway.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        // SAFETY: an OwnedFd names the same open socket for as long as it lives, and the AsyncFd owns it.
        let socket = unsafe {
            AsyncFd::register_with_interest(ours, Interest::READABLE | Interest::WRITABLE)
        }
        .map_err(io::Error::from)?;
        Ok((Self { socket }, theirs))
    }

    pub async fn send(&self, message: &ToGateway, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::other(
                "a message is longer than the channel carries",
            ));
        }
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| {
                let rights = [ControlMessage::ScmRights(&raw)];
                let control: &[ControlMessage] = if raw.is_empty() { &[] } else { &rights };
                sendmsg::<()>(
                    socket.as_raw_fd(),
                    &[IoSlice::new(&bytes)],
                    control,
                    MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                    None,
                )
                .map_err(io::Error::from)
            });
            if let Ok(result) = sent {
                return result.map(|_| ());
            }
        }
    }

    /// The next message; `None` when the gateway is gone.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<FromGateway>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                recv(
                    socket.as_raw_fd(),
                    buffer,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
                )
                .map_err(io::Error::from)
            });
            let Ok(length) = received else { continue };
            let length = match length {
                Ok(0) => return Ok(None),
                Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => return Ok(None),
                other => other?,
            };
            let bytes = buffer
                .get(..length)
                .ok_or_else(|| io::Error::other("a message is longer than the channel carries"))?;
            return FromGateway::decode(bytes)
                .map(Some)
                .map_err(io::Error::other);
        }
    }
}
