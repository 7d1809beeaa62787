//! The control channel to the enforcer, and the lanes beside it, one for each further thread, that carry events and nothing
//! else. Answers are matched by id, events gather in a queue within a bound while what was sent before them is being written.
//! The gateway carries nothing that it cannot record, so every question that goes unanswered is a refusal and a closed
//! channel ends the process. Made by `run`, used by everything that allocates or records.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use api::v1::{self, FromGateway, ToGateway, from_gateway, to_gateway};
use audit::{Event, Kind, Verdict};
use nix::sys::socket::{self, MsgFlags};
use prost::Message;
use schema::host::HostName;
use tokio::io::{Interest, unix::AsyncFd};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

use crate::bucket::Bucket;
use crate::limits;
use crate::sys;

/// How long an event that nobody waits for may wait for others.
const HOLD: Duration = Duration::from_millis(5);
/// So many are not held back.
const HELD_EVENTS: usize = 32;
/// Between two counts of what was lost.
const LOSS: Duration = Duration::from_secs(1);

/// Why the channel ends. Whatever it is, the process must not outlive it.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot {call} the control channel: {source}")]
    Io {
        call: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the enforcer closed the control channel")]
    Closed,
    #[error("a message of the control channel is malformed: {0}")]
    Malformed(&'static str),
}

/// Why a name got no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the enforcer refused: {0}")]
    Enforcer(String),
    #[error("too many names wait for the enforcer")]
    Busy,
    #[error("the enforcer did not answer")]
    NoAnswer,
}

/// The event could not be written, so what it says must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event could not be recorded")]
pub struct NotRecorded;

/// What the enforcer sends unasked.
#[derive(Debug)]
pub enum Incoming {
    Snapshot {
        generation: u32,
        document: OwnedFd,
    },
    Wired {
        listener: OwnedFd,
        dns_udp: OwnedFd,
        dns_tcp: OwnedFd,
    },
    /// A program was not started, and a person is asked about it.
    Refused(v1::Refused),
    /// That question does not wait any more.
    Over(v1::Over),
}

enum Waiting {
    Allocate(oneshot::Sender<v1::Allocated>),
    Record(oneshot::Sender<bool>),
    Opener(oneshot::Sender<String>),
    /// More than one answer may come: word that it waits, then the answer.
    Ask(mpsc::UnboundedSender<v1::Answered>),
}

/// The gateway's end.
pub struct Channel {
    fd: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_id: AtomicU64,
    allocates: Semaphore,
    queue: Mutex<VecDeque<Queued>>,
    /// Something is queued that somebody waits for, or enough that nobody does.
    asked: Notify,
    /// Something is queued, or was lost, that nobody waits for.
    posted: Notify,
    /// Questions were sent that have no answer yet.
    writing: AtomicBool,
    /// They have one.
    written: Notify,
    lost: AtomicU64,
    /// Of the whole gateway.
    denials: Arc<Bucket>,
}

/// A message that waits to be sent.
struct Queued {
    bytes: Vec<u8>,
    /// Events can be sent as one message.
    event: bool,
    /// Somebody waits for its answer.
    question: bool,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("fd", &self.fd.as_raw_fd())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// Takes over a connected SOCK_SEQPACKET socket. Must be called inside the runtime.
    pub fn new(fd: OwnedFd) -> Result<Self, ChannelError> {
        let denials = Bucket::new(
            limits::DENIAL_BURST,
            limits::DENIALS_PER_SECOND,
            Instant::now(),
        );
        Self::with(fd, Arc::new(denials))
    }

    /// A lane of this channel: for another thread, inside whose runtime this must be called. The rate of denials is one.
    pub fn lane(&self, fd: OwnedFd) -> Result<Self, ChannelError> {
        Self::with(fd, Arc::clone(&self.denials))
    }

    fn with(fd: OwnedFd, denials: Arc<Bucket>) -> Result<Self, ChannelError> {
        let io = |call| move |source| ChannelError::Io { call, source };
        sys::set_nonblocking(&fd).map_err(io("configure"))?;
        sys::set_cloexec(&fd).map_err(io("configure"))?;
        Ok(Self {
            fd: sys::register(fd).map_err(io("register"))?,
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
            allocates: Semaphore::new(limits::PENDING_ALLOCATES),
            queue: Mutex::default(),
            asked: Notify::new(),
            posted: Notify::new(),
            writing: AtomicBool::new(false),
            written: Notify::new(),
            lost: AtomicU64::new(0),
            denials,
        })
    }

    /// Waits for the next message that is not an answer; answers are handed to those who wait for them.
    pub async fn receive(&self, buffer: &mut Vec<u8>) -> Result<Incoming, ChannelError> {
        loop {
            let (message, fds) = self.receive_message(buffer).await?;
            let mut fds = fds.into_iter();
            let incoming = match message.message {
                Some(to_gateway::Message::Allocated(allocated)) => {
                    if let Some(Waiting::Allocate(sender)) =
                        lock(&self.waiting).remove(&allocated.id)
                    {
                        let _ = sender.send(allocated);
                    }
                    continue;
                }
                Some(to_gateway::Message::Recorded(recorded)) => {
                    self.recorded(&recorded);
                    continue;
                }
                Some(to_gateway::Message::Opened(opened)) => {
                    if let Some(Waiting::Opener(sender)) = lock(&self.waiting).remove(&opened.id) {
                        let _ = sender.send(opened.program);
                    }
                    continue;
                }
                Some(to_gateway::Message::Answered(answered)) => {
                    if let Some(Waiting::Ask(sender)) = lock(&self.waiting).get(&answered.id) {
                        let _ = sender.send(answered);
                    }
                    continue;
                }
                Some(to_gateway::Message::Snapshot(snapshot)) => Incoming::Snapshot {
                    generation: snapshot.generation,
                    document: fds
                        .next()
                        .ok_or(ChannelError::Malformed("a snapshot without its descriptor"))?,
                },
                Some(to_gateway::Message::Wired(_)) => match (fds.next(), fds.next(), fds.next()) {
                    (Some(listener), Some(dns_udp), Some(dns_tcp)) => Incoming::Wired {
                        listener,
                        dns_udp,
                        dns_tcp,
                    },
                    _ => {
                        return Err(ChannelError::Malformed(
                            "wired without its three descriptors",
                        ));
                    }
                },
                Some(to_gateway::Message::Refused(refused)) => Incoming::Refused(refused),
                Some(to_gateway::Message::Over(over)) => Incoming::Over(over),
                None => return Err(ChannelError::Malformed("an unknown message")),
            };
            return if fds.next().is_some() {
                Err(ChannelError::Malformed(
                    "more descriptors than belong to it",
                ))
            } else {
                Ok(incoming)
            };
        }
    }

    /// [`Self::receive`] for a lane, on which nothing else comes than answers about events.
    pub async fn receive_answers(
        &self,
        buffer: &mut Vec<u8>,
    ) -> Result<std::convert::Infallible, ChannelError> {
        loop {
            match self.receive_message(buffer).await? {
                (
                    ToGateway {
                        message: Some(to_gateway::Message::Recorded(recorded)),
                    },
                    fds,
                ) if fds.is_empty() => self.recorded(&recorded),
                _ => return Err(ChannelError::Malformed("not what a lane is for")),
            }
        }
    }

    fn recorded(&self, recorded: &v1::Recorded) {
        let answers = [(true, &recorded.written), (false, &recorded.refused)];
        {
            let mut waiting = lock(&self.waiting);
            for (ok, ids) in answers {
                for id in ids {
                    if let Some(Waiting::Record(sender)) = waiting.remove(id) {
                        let _ = sender.send(ok);
                    }
                }
            }
        }
        self.done();
    }

    fn done(&self) {
        self.writing.store(false, Ordering::Relaxed);
        self.written.notify_one();
    }

    async fn receive_message(
        &self,
        buffer: &mut Vec<u8>,
    ) -> Result<(ToGateway, Vec<OwnedFd>), ChannelError> {
        buffer.resize(limits::CHANNEL_MESSAGE, 0);
        let received = self
            .fd
            .async_io(Interest::READABLE, |fd| sys::receive(fd, buffer))
            .await
            .map_err(|source| ChannelError::Io {
                call: "receive from",
                source,
            })?;
        let sys::Received {
            bytes,
            fds,
            truncated,
        } = received;
        if truncated {
            return Err(ChannelError::Malformed("longer than a message may be"));
        }
        // The enforcer sends no empty datagram (each has its oneof), so this is the end.
        if bytes == 0 {
            return Err(ChannelError::Closed);
        }
        let message = ToGateway::decode(&buffer[..bytes])
            .map_err(|_| ChannelError::Malformed("it does not decode"))?;
        Ok((message, fds))
    }

    /// Tells the enforcer something that has no answer and must not be lost: Ready, Applied.
    pub async fn tell(&self, message: from_gateway::Message) -> Result<(), ChannelError> {
        self.send(&encode(message)).await
    }

    /// Asks for the address of a name.
    pub async fn allocate(&self, name: &HostName) -> Result<Ipv4Addr, Refused> {
        let _permit = self.allocates.try_acquire().map_err(|_| Refused::Busy)?;
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(id, Waiting::Allocate(sender));
        let _forget = Forget { channel: self, id };
        let message = encode(from_gateway::Message::Allocate(v1::Allocate {
            id,
            name: name.as_str().to_owned(),
        }));
        let answer = tokio::time::timeout(limits::CHANNEL_ANSWER, async {
            self.send(&message).await.ok()?;
            receiver.await.ok()
        });
        match answer.await {
            Ok(Some(v1::Allocated {
                address: 0,
                refusal,
                ..
            })) => Err(Refused::Enforcer(refusal)),
            Ok(Some(allocated)) => Ok(Ipv4Addr::from_bits(allocated.address)),
            Ok(None) | Err(_) => Err(Refused::NoAnswer),
        }
    }

    /// The path of the program that opened a connection, by the kernel's word; `None`: nobody knows.
    pub async fn opener(&self, flow: v1::Flow) -> Option<String> {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(id, Waiting::Opener(sender));
        let _forget = Forget { channel: self, id };
        let flow = Some(flow);
        let message = encode(from_gateway::Message::Opener(v1::Opener { id, flow }));
        let answer = timeout(limits::RECORD_ANSWER, async {
            self.send(&message).await.ok()?;
            receiver.await.ok()
        });
        let program = answer.await.ok().flatten()?;
        (!program.is_empty()).then_some(program)
    }

    /// Has a person asked. `None`: the channel has ended. Dropped before its last answer, the question is withdrawn.
    pub async fn ask(&self, mut ask: v1::Ask) -> Option<Talk<'_>> {
        let (sender, answers) = mpsc::unbounded_channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        ask.id = id;
        lock(&self.waiting).insert(id, Waiting::Ask(sender));
        let talk = Talk {
            forget: Forget { channel: self, id },
            answers,
            over: false,
        };
        self.send(&encode(from_gateway::Message::Ask(ask)))
            .await
            .ok()?;
        Some(talk)
    }

    /// Records an event and waits until it is written.
    pub async fn record(&self, event: &Event, flow: Option<v1::Flow>) -> Result<(), NotRecorded> {
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(id, Waiting::Record(sender));
        let _forget = Forget { channel: self, id };
        let message = record_message(id, event, flow).ok_or(NotRecorded)?;
        let answer = tokio::time::timeout(limits::RECORD_ANSWER, async {
            if let Err(message) = self.enqueue(message, true) {
                self.send(&message).await.ok()?;
            } else {
                self.asked.notify_one();
            }
            receiver.await.ok()
        });
        match answer.await {
            Ok(Some(true)) => Ok(()),
            Ok(_) => Err(NotRecorded),
            Err(_) => {
                // What came since has waited long enough.
                self.done();
                Err(NotRecorded)
            }
        }
    }

    /// Records an event without waiting. When the queue has no room it is counted as lost, and the count is recorded as
    /// soon as there is room again.
    pub fn post(&self, event: &Event, flow: Option<v1::Flow>) {
        let queued = record_message(0, event, flow).map(|message| self.enqueue(message, false));
        match queued {
            Some(Ok(HELD_EVENTS..)) => self.asked.notify_one(),
            Some(Ok(_)) => self.posted.notify_one(),
            Some(Err(_)) | None => self.lose(),
        }
    }

    /// [`Self::post`] for what the agent can cause at will: beyond a rate only counted.
    pub fn post_denial(&self, event: &Event, flow: Option<v1::Flow>) {
        if self.denials.take(Instant::now()) {
            self.post(event, flow);
        } else {
            self.lose();
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.posted.notify_one();
    }

    /// The queue's new length, or the message back when there is no room.
    fn enqueue(&self, bytes: Vec<u8>, question: bool) -> Result<usize, Vec<u8>> {
        let mut queue = lock(&self.queue);
        if queue.len() >= limits::QUEUED_EVENTS {
            return Err(bytes);
        }
        queue.push_back(Queued {
            bytes,
            event: true,
            question,
        });
        Ok(queue.len())
    }

    /// Sends what is queued: a question together with what this moment's other connections ask and what comes while the
    /// questions before are being written, an event that nobody waits for with the next question or after [`HOLD`], so that
    /// the enforcer wakes for many at a time. What was lost is sent as a count, at most once a second. Runs for as long as the
    /// channel.
    pub async fn drain(&self) -> Result<std::convert::Infallible, ChannelError> {
        let mut loss_due = None;
        loop {
            let asked = tokio::select! {
                biased;
                () = self.asked.notified() => true,
                () = self.posted.notified() => timeout(HOLD, self.asked.notified()).await.is_ok(),
                () = sleep_until(loss_due.unwrap_or_else(Instant::now).into()), if loss_due.is_some() => false,
            };
            if asked {
                behind_the_others().await;
                while self.writing.load(Ordering::Relaxed) {
                    self.written.notified().await;
                }
            }
            self.flush().await?;
            // However much else there is to send.
            if loss_due.is_some_and(|due| due <= Instant::now()) {
                loss_due = None;
                self.send_loss().await?;
            }
            if loss_due.is_none() && self.lost.load(Ordering::Relaxed) > 0 {
                loss_due = Some(Instant::now() + LOSS);
            }
        }
    }

    async fn send_loss(&self) -> Result<(), ChannelError> {
        let mut event = Event::new(Kind::Loss, Verdict::Flag, "gateway-events-lost");
        event.layer = Some("gateway".to_owned());
        event.lost = Some(self.lost.swap(0, Ordering::Relaxed));
        match record_message(0, &event, None) {
            Some(message) => self.send(&message).await,
            None => Ok(()),
        }
    }

    async fn flush(&self) -> Result<(), ChannelError> {
        loop {
            let more = self
                .fd
                .async_io(Interest::WRITABLE, |fd| {
                    let mut queue = lock(&self.queue);
                    let count = together(&queue);
                    if count == 0 {
                        return Ok(false);
                    }
                    let first = || queue.iter().take(count);
                    // Said first: the answer may come to another thread before this one goes on.
                    let asks = first().any(|queued| queued.question);
                    let before = asks && self.writing.swap(true, Ordering::Relaxed);
                    let sent = sys::send_parts(fd, first().map(|queued| queued.bytes.as_slice()));
                    if sent.is_err() && asks && !before {
                        self.done();
                    }
                    sent?;
                    queue.drain(..count);
                    Ok(!queue.is_empty())
                })
                .await
                .map_err(|source| ChannelError::Io {
                    call: "send to",
                    source,
                })?;
            if !more {
                return Ok(());
            }
        }
    }

    fn try_send(&self, message: &[u8]) -> io::Result<()> {
        socket::send(
            self.fd.as_raw_fd(),
            message,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(())
    }

    async fn send(&self, message: &[u8]) -> Result<(), ChannelError> {
        self.fd
            .async_io(Interest::WRITABLE, |_| self.try_send(message))
            .await
            .map_err(|source| ChannelError::Io {
                call: "send to",
                source,
            })
    }
}

/// Takes a question back when whoever asked it is gone.
struct Forget<'a> {
    channel: &'a Channel,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.channel.waiting).remove(&self.id);
    }
}

/// A question that a person is asked.
pub struct Talk<'a> {
    forget: Forget<'a>,
    answers: mpsc::UnboundedReceiver<v1::Answered>,
    over: bool,
}

impl Talk<'_> {
    /// What is said next of it; `None` once nothing more will be.
    pub async fn next(&mut self) -> Option<v1::Answered> {
        let said = self.answers.recv().await;
        self.over |= said.as_ref().is_none_or(|said| said.outcome != "held");
        said
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let Forget { channel, id } = self.forget;
        // Never left out for want of room: as many as may be held is what there may be of them.
        let bytes = encode(from_gateway::Message::Withdraw(v1::Withdraw { id }));
        lock(&channel.queue).push_back(Queued {
            bytes,
            event: false,
            question: false,
        });
        channel.asked.notify_one();
    }
}

/// Lets whatever else can run now run before.
async fn behind_the_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How many from the front are one message: events, as many as fit, or a single one of another kind.
fn together(queue: &VecDeque<Queued>) -> usize {
    let mut room = limits::CHANNEL_MESSAGE;
    let fits = |queued: &&Queued| {
        let left = room.checked_sub(queued.bytes.len());
        room = left.unwrap_or_default();
        queued.event && left.is_some()
    };
    let events = queue.iter().take(sys::PARTS).take_while(fits).count();
    events.max(queue.len().min(1))
}

fn encode(message: from_gateway::Message) -> Vec<u8> {
    FromGateway {
        message: Some(message),
    }
    .encode_to_vec()
}

/// `None` when the event does not fit in a message; its parts are bounded where they are made.
fn record_message(id: u64, event: &Event, flow: Option<v1::Flow>) -> Option<Vec<u8>> {
    let event = serde_json::to_vec(event).ok()?;
    let records = vec![v1::Record { id, event, flow }];
    let message = encode(from_gateway::Message::Records(v1::Records { records }));
    (message.len() <= limits::CHANNEL_MESSAGE).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lengths: &[(usize, bool)]) -> VecDeque<Queued> {
        let queued = |&(length, event): &(usize, bool)| Queued {
            bytes: vec![0; length],
            event,
            question: false,
        };
        lengths.iter().map(queued).collect()
    }

    #[test]
    fn one_message_has_as_many_events_as_it_has_room_and_parts_for() {
        assert_eq!(together(&queue(&[])), 0);
        assert_eq!(together(&queue(&[(1, true); sys::PARTS])), sys::PARTS);
        assert_eq!(together(&queue(&[(1, true); sys::PARTS + 1])), sys::PARTS);
        let half = limits::CHANNEL_MESSAGE / 2;
        assert_eq!(together(&queue(&[(half, true), (half, true)])), 2);
        assert_eq!(together(&queue(&[(half, true), (half + 1, true)])), 1);
        assert_eq!(together(&queue(&[(limits::CHANNEL_MESSAGE, true)])), 1);
    }

    #[test]
    fn what_is_no_event_is_a_message_of_its_own() {
        assert_eq!(together(&queue(&[(1, false), (1, false)])), 1);
        assert_eq!(together(&queue(&[(1, false), (1, true)])), 1);
        assert_eq!(together(&queue(&[(1, true), (1, true), (1, false)])), 2);
    }
}
