//! The enforcer's end of a gateway's channel: one prost message a datagram on a SOCK_SEQPACKET pair, descriptors beside
//! it (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use api::v1::{FromGateway, ToGateway};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use prost::Message as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest message, in bytes; the socket keeps message boundaries.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Messages that are received in one call.
pub const BATCH: usize = 16;

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

    /// The messages that have come, at least one, at most [`BATCH`]; none when the gateway is gone.
    pub async fn receive(&self, buffers: &mut Buffers) -> io::Result<Vec<FromGateway>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let reset = |e: &io::Error| e.raw_os_error() == Some(libc::ECONNRESET);
            let received = ready.try_io(|socket| match buffers.fill(socket.as_raw_fd()) {
                // A peer that ended without reading all is told of once, before what it had sent (net/unix/af_unix.c,
                // unix_release_sock).
                Err(e) if reset(&e) => match buffers.fill(socket.as_raw_fd()) {
                    Err(e) if reset(&e) => Ok(0),
                    other => other,
                },
                other => other,
            });
            let Ok(count) = received else { continue };
            let count = count?;
            if count < BATCH {
                // Nothing more was there; what comes next wakes us.
                ready.clear_ready();
            }
            let mut messages = Vec::with_capacity(count);
            for bytes in buffers.messages(count) {
                match bytes {
                    // The gateway sends no empty message (each has its oneof), so this is the end.
                    Some([]) => break,
                    Some(bytes) => {
                        messages.push(FromGateway::decode(bytes).map_err(io::Error::other)?);
                    }
                    None => {
                        return Err(io::Error::other(
                            "a message is longer than the channel carries",
                        ));
                    }
                }
            }
            return Ok(messages);
        }
    }
}

/// Where a batch of messages is received; the pages of one are touched when a message comes to lie in them.
#[derive(Debug)]
pub struct Buffers {
    bytes: Vec<u8>,
    lengths: [usize; BATCH],
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            bytes: vec![0; BATCH * MAX_MESSAGE],
            lengths: [0; BATCH],
        }
    }
}

impl Buffers {
    /// recvmmsg(2), without waiting: how many messages came.
    fn fill(&mut self, socket: i32) -> io::Result<usize> {
        let mut parts: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(MAX_MESSAGE)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: chunk.len(),
            })
            .collect();
        // SAFETY: a message header of zeros is one without name, data and control.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every header names one live buffer of MAX_MESSAGE bytes that no other header names.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                headers.as_mut_ptr(),
                BATCH as u32,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = header.msg_len as usize;
        }
        Ok(count)
    }

    /// The first `count`; `None` for one that did not fit.
    fn messages(&self, count: usize) -> impl Iterator<Item = Option<&[u8]>> {
        let chunks = self.bytes.chunks_exact(MAX_MESSAGE);
        let lengths = self.lengths.iter().take(count);
        chunks
            .zip(lengths)
            .map(|(chunk, length)| chunk.get(..*length))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use api::v1::{self, from_gateway, to_gateway};
    use nix::sys::socket::{recv, send};

    fn allocate(id: u64) -> Vec<u8> {
        let name = "a.example".to_owned();
        FromGateway {
            message: Some(from_gateway::Message::Allocate(v1::Allocate { id, name })),
        }
        .encode_to_vec()
    }

    fn id(message: &FromGateway) -> u64 {
        match &message.message {
            Some(from_gateway::Message::Allocate(allocate)) => allocate.id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_batch_is_full_at_its_bound_and_the_next_message_begins_another() {
        let (channel, theirs) = Channel::pair().unwrap();
        let mut buffers = Buffers::default();
        for at in 0..=BATCH as u64 {
            send(theirs.as_raw_fd(), &allocate(at), MsgFlags::empty()).unwrap();
        }
        let first = channel.receive(&mut buffers).await.unwrap();
        assert_eq!(
            first.iter().map(id).collect::<Vec<_>>(),
            (0..BATCH as u64).collect::<Vec<_>>()
        );
        let second = channel.receive(&mut buffers).await.unwrap();
        assert_eq!(second.iter().map(id).collect::<Vec<_>>(), [BATCH as u64]);
        send(theirs.as_raw_fd(), &allocate(7), MsgFlags::empty()).unwrap();
        drop(theirs);
        let last = channel.receive(&mut buffers).await.unwrap();
        assert_eq!(last.iter().map(id).collect::<Vec<_>>(), [7]);
        assert!(channel.receive(&mut buffers).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_longest_message_is_received_and_a_longer_one_is_an_error() {
        let (channel, theirs) = Channel::pair().unwrap();
        let mut buffers = Buffers::default();
        let message = |length: usize| {
            let mut bytes = allocate(1);
            // An unknown field of bytes, which decoding skips: tag 15, three bytes of length.
            let fill = length - bytes.len() - 4;
            bytes.push(15 << 3 | 2);
            for shift in [0, 7, 14] {
                let more = if shift < 14 { 0x80 } else { 0 };
                bytes.push((fill >> shift) as u8 & 0x7f | more);
            }
            bytes.resize(length, 0);
            bytes
        };
        send(theirs.as_raw_fd(), &message(MAX_MESSAGE), MsgFlags::empty()).unwrap();
        assert_eq!(channel.receive(&mut buffers).await.unwrap().len(), 1);
        let longer = message(MAX_MESSAGE + 1);
        send(theirs.as_raw_fd(), &longer, MsgFlags::empty()).unwrap();
        assert!(channel.receive(&mut buffers).await.is_err());
    }

    #[tokio::test]
    async fn the_answer_about_as_many_events_as_there_may_be_is_one_message() {
        let (channel, theirs) = Channel::pair().unwrap();
        let answer = |count: u64| ToGateway {
            message: Some(to_gateway::Message::Recorded(v1::Recorded {
                written: (1 << 62..(1 << 62) + count).collect(),
                refused: vec![7],
            })),
        };
        // A number of nine bytes each.
        let most = (MAX_MESSAGE as u64 - 16) / 9;
        channel.send(&answer(most), &[]).await.unwrap();
        let mut buffer = vec![0; MAX_MESSAGE];
        let length = recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(ToGateway::decode(&buffer[..length]).unwrap(), answer(most));
        assert!(channel.send(&answer(most + 2), &[]).await.is_err());
    }

    #[test]
    fn events_that_were_sent_one_behind_the_other_are_one_message() {
        let records = |ids: &[u64]| {
            let record = |id: &u64| v1::Record {
                id: *id,
                ..v1::Record::default()
            };
            FromGateway {
                message: Some(from_gateway::Message::Records(v1::Records {
                    records: ids.iter().map(record).collect(),
                })),
            }
        };
        let mut bytes = records(&[1]).encode_to_vec();
        bytes.extend(records(&[2, 3]).encode_to_vec());
        assert_eq!(
            FromGateway::decode(bytes.as_slice()).unwrap(),
            records(&[1, 2, 3])
        );
    }
}
