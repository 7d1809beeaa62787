//! The session's side of its gateway: started, told what it needs, answered, and started again when it dies, with the
//! same sockets, policy and log.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use api::v1::{self, from_gateway, to_gateway};
use audit::Event;
use enforcer_common::FlowKey;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use prost::Message as _;
use schema::host::HostName;
use socket2::SockRef;
use tokio::sync::{Notify, watch};

use super::asking::Asked;
use super::{Generation, Session};
use crate::attribution::Attribution;
use crate::channel::{Buffers, Channel};
use crate::gateway;
use crate::trusted::Trusted;

/// Threads of a gateway beside its first, each with a lane for its events.
const LANES: usize = 1;
/// Events in one message of a gateway's, as its own bound is.
const RECORDS: usize = 32;
/// For what a gateway that has ended said before.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pause before a gateway that died is started again; grows with each death in a row.
const RESTART: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// A gateway that lived this long starts the row anew.
const STEADY: Duration = Duration::from_secs(10);
/// Connections wait in the backlog for a gateway that comes back, but not longer than this.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the gateway has to be ready for sockets.
const READY: Duration = Duration::from_secs(10);

/// What the session knows of its gateway.
#[derive(Debug)]
pub(super) struct Link {
    channel: StdMutex<Option<Arc<Channel>>>,
    /// The generation that the gateway decides by; 0 while there is none.
    applied: watch::Sender<u32>,
    pid: AtomicU32,
    /// The certificate of its authority (DER).
    ca_certificate: StdMutex<Vec<u8>>,
    /// A gateway that may decide by what nobody else does is given up.
    give_up: Notify,
    /// Whether somebody still sees to the gateway and writes down what it says.
    attended: watch::Sender<bool>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            channel: StdMutex::new(None),
            applied: watch::Sender::new(0),
            pid: AtomicU32::new(0),
            ca_certificate: StdMutex::default(),
            give_up: Notify::new(),
            attended: watch::Sender::new(false),
        }
    }
}

impl Link {
    pub(super) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(super) fn ca_certificate(&self) -> Vec<u8> {
        self.ca_certificate
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// From here on somebody sees to the gateway, until the session closes.
    pub(super) fn attend(&self) {
        self.attended.send_replace(true);
    }

    /// Waits until what the session's last gateway said is written down.
    pub(super) async fn said_all(&self) {
        let mut attended = self.attended.subscribe();
        let left = attended.wait_for(|attended| !attended);
        let _ = tokio::time::timeout(LAST_WORDS * 2, left).await;
    }

    fn channel(&self) -> Option<Arc<Channel>> {
        self.channel
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set(&self, channel: Option<Arc<Channel>>, pid: u32) {
        *self
            .channel
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = channel;
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Sends a generation and waits until the gateway decides by it. A gateway that is just starting gets the pending
    /// generation with its first snapshot.
    pub(super) async fn apply(
        &self,
        next: &Generation,
        session: &Session,
        told: &Trusted,
        limit: Duration,
    ) -> Result<(), String> {
        let mut applied = self.applied.subscribe();
        if let Some(channel) = self.channel() {
            // A failure here is the channel's end: the supervisor starts another gateway, with this generation.
            let _ = session.send_snapshot(&channel, next, told).await;
        }
        let number = next.number;
        tokio::time::timeout(limit, applied.wait_for(|at| *at >= number))
            .await
            .map_err(|_| "the gateway did not take the policy in time".to_owned())?
            .map(|_| ())
            .map_err(|_| "the session is closed".to_owned())
    }

    /// Ends the gateway that runs; another one takes its place, with the policy that is current.
    pub(super) fn give_up(&self) {
        if self.channel().is_some() {
            self.give_up.notify_one();
        }
    }

    /// Hands the wired namespace's sockets to the gateway once it decides by a policy.
    pub(super) async fn wired(&self, session: &Session) -> Result<(), String> {
        let mut applied = self.applied.subscribe();
        tokio::time::timeout(READY, applied.wait_for(|at| *at > 0))
            .await
            .map_err(|_| "the gateway is not ready".to_owned())?
            .map_err(|_| "the session is closed".to_owned())?;
        let channel = self.channel().ok_or("the gateway is gone")?;
        session
            .send_wired(&channel)
            .await
            .map_err(|e| e.to_string())
    }
}

/// The first of a gateway's channels.
const CONTROL: usize = 0;

/// The enforcer's ends of a gateway's channels, and who opened the connections that it speaks of.
struct Ears {
    /// The control channel, then the lanes.
    channels: Vec<(Arc<Channel>, Buffers)>,
    attribution: Attribution,
    /// Events that are out of their sockets and not on record yet, with the numbers of their channels.
    heard: Vec<(usize, v1::Record)>,
    /// What went wrong while another channel had something: told next.
    failed: Option<std::io::Error>,
}

impl Ears {
    fn new(channels: Vec<Channel>) -> Self {
        let channels = channels.into_iter().map(Arc::new);
        Self {
            channels: channels.map(|one| (one, Buffers::default())).collect(),
            attribution: Attribution::default(),
            heard: Vec::new(),
            failed: None,
        }
    }

    /// What has come by the channels, by their numbers: at least one has something, and whatever the others have by then goes
    /// with it.
    async fn come(&mut self) -> std::io::Result<Vec<(usize, Vec<v1::FromGateway>)>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let failed = &mut self.failed;
        let channels = self.channels.iter_mut();
        let mut receiving: Vec<_> = channels
            .map(|(channel, buffers)| Box::pin(channel.receive(buffers)))
            .collect();
        std::future::poll_fn(|cx| {
            let mut come = Vec::new();
            for (from, receiving) in receiving.iter_mut().enumerate() {
                match receiving.as_mut().poll(cx) {
                    Poll::Ready(Ok(messages)) => come.push((from, messages)),
                    Poll::Ready(Err(error)) => *failed = Some(error),
                    Poll::Pending => {}
                }
            }
            if !come.is_empty() {
                // What these said is not lost for what another one did.
                return Poll::Ready(Ok(come));
            }
            failed
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
        })
        .await
    }
}

/// Events, with the number of the channel that they came by; whatever else there is; and whether a channel is at its end.
type Sorted = (
    Vec<(usize, v1::Record)>,
    Vec<Option<from_gateway::Message>>,
    bool,
);

/// Tells events from the rest, and refuses what no gateway of ours sends.
fn sorted(come: Vec<(usize, Vec<v1::FromGateway>)>) -> std::io::Result<Sorted> {
    let (mut records, mut rest, mut ended) = (Vec::new(), Vec::new(), false);
    for (from, messages) in come {
        // Each end of a gateway's is open for as long as it runs.
        ended |= messages.is_empty();
        for message in messages {
            match message.message {
                Some(from_gateway::Message::Records(of)) if of.records.len() <= RECORDS => {
                    records.extend(of.records.into_iter().map(|record| (from, record)));
                }
                Some(from_gateway::Message::Records(_)) => {
                    return Err(std::io::Error::other(
                        "a message of more events than there may be",
                    ));
                }
                _ if from != CONTROL => {
                    return Err(std::io::Error::other("a lane is for events alone"));
                }
                other => rest.push(other),
            }
        }
    }
    Ok((records, rest, ended))
}

/// A connection as the agent's side of the kernel has it.
pub(super) fn key(flow: &v1::Flow) -> FlowKey {
    FlowKey {
        local_addr: flow.peer_address,
        remote_addr: flow.local_address,
        local_port: flow.peer_port as u16,
        remote_port: flow.local_port as u16,
    }
}

impl Session {
    pub(super) async fn supervise_gateway(self: Arc<Self>) {
        let mut closing = self.closed();
        let mut deaths = 0;
        loop {
            let started = std::time::Instant::now();
            let result = self.run_gateway(&mut closing).await;
            self.link.set(None, 0);
            if *closing.borrow() {
                break;
            }
            if let Err(error) = result {
                tracing::warn!(session = %self.id, %error, "gateway");
            }
            self.withdraw_all();
            self.link.applied.send_replace(0);
            if started.elapsed() > STEADY {
                deaths = 0;
            }
            self.restarts.fetch_add(1, Ordering::Relaxed);
            let mut event = Event::new(
                audit::Kind::Lifecycle,
                audit::Verdict::Flag,
                "gateway-restarted",
            );
            event.layer = Some("enforcer".into());
            let _ = self.write(event);
            let pause = RESTART[deaths.min(RESTART.len() - 1)];
            deaths += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = closing.wait_for(|closing| *closing) => break,
            }
            if pause >= PATIENCE {
                self.reset_waiting().await;
            }
        }
        self.link.attended.send_replace(false);
    }

    /// Resets the connections that waited for a gateway in vain.
    async fn reset_waiting(&self) {
        let state = self.state.lock().await;
        let Some(wired) = &state.wired else { return };
        for listener in [&wired.listener, &wired.dns_tcp] {
            // Nonblocking: ends when nobody waits.
            while let Ok((stream, _)) = listener.accept() {
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// One gateway, from start to end, and then what it had said by then.
    async fn run_gateway(&self, closing: &mut watch::Receiver<bool>) -> std::io::Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..=LANES {
            let (end, other) = Channel::pair()?;
            ours.push(end);
            theirs.push(other);
        }
        let uid = self.state.lock().await.record.gateway_uid;
        let program = &self.places.gateway;
        let gateway = gateway::spawn(program, uid, &self.gateway_cgroup, theirs)?;
        let mut ears = Ears::new(ours);
        let served = tokio::select! {
            served = self.serve_gateway(&mut ears, gateway.pid()) => served,
            () = self.link.give_up.notified() => {
                Err(std::io::Error::other("it did not take a policy in time, and may have taken it since"))
            }
            _ = closing.wait_for(|closing| *closing) => Ok(()),
        };
        // Killed, whatever ended this: what it has said is in its sockets, and nothing is added to it.
        drop(gateway);
        self.last_words(&mut ears).await;
        served
    }

    async fn serve_gateway(&self, ears: &mut Ears, pid: u32) -> std::io::Result<()> {
        let mut asked = Asked::default();
        let control = Arc::clone(&ears.channels[CONTROL].0);
        loop {
            let end = self.broker().next_end(self.id.as_str());
            let come = tokio::select! {
                come = ears.come() => come?,
                Some(answered) = asked.told.recv() => {
                    asked.answered(answered.id);
                    self.tell(&control, to_gateway::Message::Answered(answered)).await?;
                    continue;
                }
                () = tokio::time::sleep_until(end.unwrap_or_else(std::time::Instant::now).into()), if end.is_some() => {
                    self.expire();
                    continue;
                }
            };
            let (records, rest, ended) = sorted(come)?;
            ears.heard.extend(records);
            let answers = self.record(ears).await;
            if ended {
                return Ok(());
            }
            for ((to, _), answer) in ears.channels.iter().zip(answers) {
                if answer != v1::Recorded::default() {
                    self.tell(to, to_gateway::Message::Recorded(answer)).await?;
                }
            }
            for message in rest {
                match message {
                    Some(from_gateway::Message::Ask(ask)) => {
                        let answered = self.ask(ask, &mut asked, &mut ears.attribution).await;
                        self.tell(&control, to_gateway::Message::Answered(answered))
                            .await?;
                    }
                    Some(from_gateway::Message::Opener(opener)) => {
                        let opened = self.opened(&opener, &mut ears.attribution).await;
                        self.tell(&control, to_gateway::Message::Opened(opened))
                            .await?;
                    }
                    Some(from_gateway::Message::Withdraw(withdraw)) => {
                        self.withdraw_asked(withdraw.id, &mut asked);
                    }
                    other => self.obey(&control, pid, other).await?,
                }
            }
        }
    }

    /// What a gateway that was killed had said is recorded: its sockets have it still. Nobody is there to be answered.
    async fn last_words(&self, ears: &mut Ears) {
        let rest = async {
            // Whatever ended it may have come between a socket and the record.
            self.record(ears).await;
            for from in 0..ears.channels.len() {
                loop {
                    let (channel, buffers) = &mut ears.channels[from];
                    let Ok(messages) = channel.receive(buffers).await else {
                        // That was no message of ours; there may be more.
                        continue;
                    };
                    if messages.is_empty() {
                        break;
                    }
                    let Ok((records, _, _)) = sorted(vec![(from, messages)]) else {
                        continue;
                    };
                    ears.heard.extend(records);
                    self.record(ears).await;
                }
            }
        };
        if tokio::time::timeout(LAST_WORDS, rest).await.is_err() {
            tracing::warn!(session = %self.id, "a gateway that was killed did not end in time");
        }
    }

    /// Whatever is no record.
    async fn obey(
        &self,
        channel: &Arc<Channel>,
        pid: u32,
        message: Option<from_gateway::Message>,
    ) -> std::io::Result<()> {
        use from_gateway::Message;
        match message {
            Some(Message::Ready(v1::Ready { ca_certificate })) => {
                *self
                    .link
                    .ca_certificate
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = ca_certificate;
                self.link.set(Some(Arc::clone(channel)), pid);
                let generation = {
                    let state = self.state.lock().await;
                    state
                        .pending
                        .clone()
                        .unwrap_or_else(|| state.current.clone())
                };
                // They stay for the gateway's life: later snapshots come without, but where they change.
                let trusted = self.trusted().for_gateway();
                self.send_snapshot(channel, &generation, &trusted).await?;
            }
            Some(Message::Applied(applied)) => {
                let first = *self.link.applied.borrow() == 0;
                if first && self.state.lock().await.wired.is_some() {
                    self.send_wired(channel).await?;
                }
                self.link.applied.send_replace(applied.generation);
            }
            Some(Message::Allocate(request)) => {
                let answer = match HostName::parse(&request.name) {
                    Ok(name) => self.allocate(&name).await,
                    Err(_) => Err("not_a_name"),
                };
                let (address, refusal) = match answer {
                    Ok(address) => (address.into(), String::new()),
                    Err(refusal) => (0, refusal.to_owned()),
                };
                let allocated = v1::Allocated {
                    id: request.id,
                    address,
                    refusal,
                };
                self.tell(channel, to_gateway::Message::Allocated(allocated))
                    .await?;
            }
            Some(
                Message::Records(_) | Message::Ask(_) | Message::Withdraw(_) | Message::Opener(_),
            )
            | None => {
                return Err(std::io::Error::other("the gateway sent an empty message"));
            }
        }
        Ok(())
    }

    /// Has the gateway that runs show something on the agent's page.
    pub(super) async fn show(&self, message: to_gateway::Message) {
        if let Some(channel) = self.link.channel() {
            // One that is gone shows nothing.
            let _ = self.tell(&channel, message).await;
        }
    }

    async fn tell(&self, channel: &Channel, message: to_gateway::Message) -> std::io::Result<()> {
        channel
            .send(
                &v1::ToGateway {
                    message: Some(message),
                },
                &[],
            )
            .await
    }

    /// Which program opened a connection, by the kernel's word alone.
    async fn opened(&self, opener: &v1::Opener, attribution: &mut Attribution) -> v1::Opened {
        let process = match &opener.flow {
            Some(flow) => self.state.lock().await.maps.process(&key(flow)),
            None => None,
        };
        v1::Opened {
            id: opener.id,
            program: attribution.program(process).unwrap_or_default(),
        }
    }

    /// Writes a gateway's events in one go, each with the process that the kernel saw open the connection, and says which of
    /// those that are waited for are written, in the answer to whichever channel they came by.
    async fn record(&self, ears: &mut Ears) -> Vec<v1::Recorded> {
        let mut answers = vec![v1::Recorded::default(); ears.channels.len()];
        if ears.heard.is_empty() {
            return answers;
        }
        let mut ids = Vec::with_capacity(ears.heard.len());
        let mut events = Vec::with_capacity(ears.heard.len());
        {
            // The one wait: from here on nothing ends this half-way.
            let state = self.state.lock().await;
            for (from, record) in ears.heard.drain(..) {
                let Ok(mut event) = serde_json::from_slice::<Event>(&record.event) else {
                    tracing::warn!(session = %self.id, "the gateway sent what is not an event");
                    answers[from]
                        .refused
                        .extend((record.id != 0).then_some(record.id));
                    continue;
                };
                event.process = None;
                if let Some(flow) = &record.flow {
                    let opener = || state.maps.process(&key(flow));
                    ears.attribution
                        .attribute(&mut event, flow.connection, record.id != 0, opener);
                }
                ids.push((from, record.id));
                events.push(event);
            }
        }
        let written = self.write_all(&mut events);
        for ((from, id), written) in ids.into_iter().zip(written) {
            match (id, written) {
                // Nobody waits for it.
                (0, _) => {}
                (id, true) => answers[from].written.push(id),
                (id, false) => answers[from].refused.push(id),
            }
        }
        answers
    }

    pub(super) async fn send_snapshot(
        &self,
        channel: &Channel,
        generation: &Generation,
        trusted: &Trusted,
    ) -> std::io::Result<()> {
        let names = {
            let state = self.state.lock().await;
            state
                .names
                .iter()
                .map(|(name, address)| v1::Name {
                    name: name.to_string(),
                    address: address.into(),
                })
                .collect()
        };
        let document = v1::SnapshotDocument {
            generation: generation.number,
            policy: generation.document.to_json(),
            names,
            session: self.id.to_string(),
            roots: trusted.roots.clone(),
            secrets: trusted.secrets.clone(),
        };
        let memfd = memfd_create(
            c"snapshot",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )?;
        let mut file = std::fs::File::from(memfd);
        std::io::Write::write_all(&mut file, &document.encode_to_vec())?;
        fcntl(
            &file,
            FcntlArg::F_ADD_SEALS(
                SealFlag::F_SEAL_WRITE
                    | SealFlag::F_SEAL_GROW
                    | SealFlag::F_SEAL_SHRINK
                    | SealFlag::F_SEAL_SEAL,
            ),
        )?;
        let snapshot = v1::Snapshot {
            generation: generation.number,
        };
        let message = v1::ToGateway {
            message: Some(to_gateway::Message::Snapshot(snapshot)),
        };
        channel.send(&message, &[file.as_fd()]).await
    }

    async fn send_wired(&self, channel: &Channel) -> std::io::Result<()> {
        let state = self.state.lock().await;
        let Some(wired) = &state.wired else {
            return Ok(());
        };
        let message = v1::ToGateway {
            message: Some(to_gateway::Message::Wired(v1::Wired {
                netns_cookie: wired.cookie,
            })),
        };
        let fds = [
            wired.listener.as_fd(),
            wired.dns_udp.as_fd(),
            wired.dns_tcp.as_fd(),
        ];
        channel.send(&message, &fds).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: from_gateway::Message) -> v1::FromGateway {
        v1::FromGateway {
            message: Some(message),
        }
    }

    fn events(count: usize) -> v1::FromGateway {
        of(from_gateway::Message::Records(v1::Records {
            records: vec![v1::Record::default(); count],
        }))
    }

    #[test]
    fn the_last_events_that_a_message_may_have_are_taken_and_one_more_is_not() {
        let come = |count| vec![(1, vec![events(count)]), (CONTROL, Vec::new())];
        let Ok((records, rest, ended)) = sorted(come(RECORDS)) else {
            unreachable!("refused")
        };
        assert_eq!((records.len(), rest.len(), ended), (RECORDS, 0, true));
        assert!(sorted(come(RECORDS + 1)).is_err());
    }

    #[test]
    fn a_lane_is_for_events_alone() {
        let applied = || of(from_gateway::Message::Applied(v1::Applied::default()));
        assert!(sorted(vec![(1, vec![applied()])]).is_err());
        assert!(sorted(vec![(CONTROL, vec![applied(), events(1)])]).is_ok());
    }
}
