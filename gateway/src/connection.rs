//! One accepted connection from beginning to end: where it was dialled to, what that stands for, the decision, what the
//! wire has to say for it, the record, the dial, the relay. Whatever goes wrong on the way ends in a refusal: a page, an
//! alert or a reset. The accept loop is started by `run` for each listener that the enforcer hands over.

use std::net::{SocketAddr, SocketAddrV4};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1::Flow;
use schema::host::HostName;
use schema::net::Protocol;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::approval;
use crate::channel::Channel;
use crate::dial::{DialError, dial};
use crate::events;
use crate::http::head::Scheme;
use crate::http::pool::Pool;
use crate::http::{self, Site, Visit};
use crate::limits;
use crate::plan;
use crate::relay::{Carried, End, Patience, Pipes, relay, reset};
use crate::state::{Denied, Entry, Granted, Intent, Place, State};
use crate::sys;
use crate::tls;
use crate::tls::accept::{AcceptError, Ended};
use crate::tls::authority::Authority;
use crate::tls::client_hello::{Alert, Assembler, ClientHello, Refusal};
use crate::wire::Wire;
use crate::worker::{Accepted, Count, Worker};

/// The original destination of an accepted connection. Steering leaves it in the socket's own address; tests, whose
/// sockets are on loopback, translate.
pub type Destination = Arc<dyn Fn(SocketAddrV4) -> SocketAddrV4 + Send + Sync>;

/// What every connection of a thread uses; but for lane and pool it is the whole session's.
#[derive(Clone)]
pub struct Shared {
    pub state: Arc<State>,
    /// Where questions go, and the first thread's events.
    pub channel: Arc<Channel>,
    /// Where this thread's events go.
    pub lane: Arc<Channel>,
    pub destination: Destination,
    pub pipes: Pipes,
    pub patience: Patience,
    pub slots: Arc<Semaphore>,
    /// Upstream connections beyond the one that every slot stands for.
    pub extra: Arc<Semaphore>,
    /// Those that rest between two client connections.
    pub pool: Arc<Pool>,
    pub authority: Arc<Authority>,
}

/// A socket whose close is a reset unless it was said otherwise: what breaks off must not look finished.
pub struct Guarded {
    stream: TcpStream,
    armed: bool,
}

impl Guarded {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            armed: true,
        }
    }

    /// The close will be an orderly one.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Deref for Guarded {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.armed {
            reset(&self.stream);
        }
    }
}

/// Accepts for as long as the task lives, each connection for the thread that has the fewest. One beyond the bound waits in
/// the backlog.
pub async fn accept(shared: Arc<Shared>, workers: Arc<[Worker]>, listener: AsyncFd<OwnedFd>) {
    let here = Count::default();
    loop {
        let Ok(slot) = Arc::clone(&shared.slots).acquire_owned().await else {
            return;
        };
        match listener.async_io(Interest::READABLE, sys::accept).await {
            Ok((stream, Some(peer))) => {
                let there = workers.iter().min_by_key(|worker| worker.count().get());
                // This thread need not be woken.
                let there = there.filter(|worker| worker.count().get() < here.get());
                let counted = there.map_or(&here, Worker::count).one_more();
                let accepted = Accepted {
                    stream,
                    peer,
                    slot,
                    counted,
                };
                match there {
                    Some(worker) => worker.carry(accepted),
                    None => accepted.carry(&shared),
                }
            }
            Ok((_, None)) => {}
            // Out of descriptors or memory: the connection stays in the backlog.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Says so when a connection's task panics; its socket resets as the stack unwinds.
struct Unwinding<'a> {
    shared: &'a Shared,
    local: SocketAddrV4,
    flow: Flow,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let event = events::unknown(self.local, "internal-error");
            self.shared.lane.post(&event, Some(self.flow));
        }
    }
}

/// One accepted connection.
pub async fn connection(shared: Arc<Shared>, stream: Guarded, peer: SocketAddrV4) {
    let Ok(SocketAddr::V4(local)) = stream.local_addr() else {
        return;
    };
    let flow = events::flow(peer, local);
    let _unwinding = Unwinding {
        shared: &shared,
        local,
        flow,
    };
    let local = (shared.destination)(local);
    let port = local.port();
    if *local.ip() == plan::INTERNAL && port == 80 {
        return internal(&shared, stream, flow).await;
    }
    let place = if plan::is_synthetic(*local.ip()) {
        match shared.state.name_of(*local.ip()) {
            Some(name) => Place::Name(name),
            None => {
                let event = events::unknown(local, "unknown-address");
                return shared.lane.post_denial(&event, Some(flow));
            }
        }
    } else {
        Place::Address(*local.ip())
    };
    let intent = Intent { place, port };
    match shared.state.admit(&intent) {
        Err(why) => Box::pin(denied(&shared, stream, flow, intent, why)).await,
        Ok((granted, mut entry)) => {
            entry.socket = stream.as_raw_fd();
            let entry = Arc::new(entry);
            tokio::select! {
                biased;
                // The carrying future is dropped, and with it both sockets, which reset.
                () = entry.revoked() => {}
                () = carry(&shared, stream, flow, &intent, granted, Arc::clone(&entry)) => {}
            }
        }
    }
}

async fn internal(shared: &Arc<Shared>, stream: Guarded, flow: Flow) {
    let Ok(name) = HostName::parse(plan::INTERNAL_NAME) else {
        return;
    };
    let intent = Intent {
        place: Place::Name(name),
        port: 80,
    };
    let visit = Visit {
        shared: Arc::clone(shared),
        intent,
        flow,
        scheme: Scheme::Http,
        site: Site::Internal,
        carried: Arc::default(),
    };
    Box::pin(http::serve(stream, visit, false)).await;
}

/// What policy does not allow: words where the client can read them, else a reset.
async fn denied(
    shared: &Arc<Shared>,
    mut stream: Guarded,
    flow: Flow,
    intent: Intent,
    why: Denied,
) {
    let event = events::denied(&intent, &why);
    shared.lane.post_denial(&event, Some(flow));
    let host = intent.place.to_string();
    shared.state.denied(host, Some(intent.port), why.code);
    let visit = |scheme| Visit {
        shared: Arc::clone(shared),
        intent: intent.clone(),
        flow,
        scheme,
        site: Site::Denied(why.clone()),
        carried: Arc::default(),
    };
    match (&intent.place, intent.port) {
        (Place::Name(_), 80) => {
            Box::pin(http::serve(stream, visit(Scheme::Http), false)).await;
        }
        (Place::Name(name), 443) => {
            let mut raw = Vec::new();
            let alert = match read_hello(&mut stream, &mut raw).await {
                Ok(hello) if hello.server_name == *name => {
                    // Whoever trusts the session's certificate reads the page; to others the handshake's end says no.
                    if let Ok(ended) = end_tls(shared, stream, raw, &intent.place).await {
                        let h2 = ended.is_h2();
                        Box::pin(http::serve(ended, visit(Scheme::Https), h2)).await;
                    }
                    return;
                }
                Ok(_) => Some(Alert::AccessDenied),
                // Still a TLS client, if not one that could have been carried.
                Err(HelloError::Refused(refusal)) => refusal.alert().map(|_| Alert::AccessDenied),
                Err(HelloError::Ended) => None,
            };
            if let Some(alert) = alert {
                linger(stream, &alert.record()).await;
            }
        }
        _ => {}
    }
}

/// Ends TLS towards the agent, with a certificate for the place that was dialled.
async fn end_tls(
    shared: &Shared,
    stream: Guarded,
    first: Vec<u8>,
    place: &Place,
) -> Result<Ended, AcceptError> {
    let config = shared.authority.server(place)?;
    tls::accept::accept(stream, first, config).await
}

async fn carry(
    shared: &Arc<Shared>,
    stream: Guarded,
    flow: Flow,
    intent: &Intent,
    granted: Granted,
    entry: Arc<Entry>,
) {
    match granted.protocol {
        Protocol::Http => {
            let carried = Arc::new(Carried::default());
            let mut ending = Ending::new(shared, intent, &granted, flow, Arc::clone(&carried));
            let visit = Visit {
                shared: Arc::clone(shared),
                intent: intent.clone(),
                flow,
                scheme: Scheme::Http,
                site: Site::upstream(granted.clone(), entry, shared),
                carried,
            };
            // By itself, as below: a connection that is carried unread need not have room for it.
            ending.reason = Box::pin(http::serve(stream, visit, false)).await;
        }
        Protocol::Https | Protocol::Tls => {
            carry_tls(shared, stream, flow, intent, &granted, &entry).await;
        }
        Protocol::Tcp => {
            let bytes = Opaque {
                stream,
                first: Vec::new(),
                tls: false,
            };
            carry_bytes(shared, bytes, flow, intent, &granted, &entry).await;
        }
        // Nothing that arrives over TCP is granted as UDP.
        Protocol::Udp => {}
    }
}

async fn carry_tls(
    shared: &Arc<Shared>,
    mut stream: Guarded,
    flow: Flow,
    intent: &Intent,
    granted: &Granted,
    entry: &Arc<Entry>,
) {
    let mut first = Vec::new();
    let hello = read_hello(&mut stream, &mut first).await;
    let in_order = match (&hello, &intent.place) {
        (Ok(hello), Place::Name(name)) => hello.server_name == *name,
        // A literal address has no name to show; one that is shown cannot be checked.
        (Err(HelloError::Refused(Refusal::NoServerName)), Place::Address(_)) => true,
        _ => false,
    };
    let (code, alert, detail) = match hello {
        _ if in_order && granted.protocol == Protocol::Https => {
            let carried = carry_https(shared, stream, first, flow, intent, granted, entry);
            return Box::pin(carried).await;
        }
        _ if in_order => {
            let bytes = Opaque {
                stream,
                first,
                tls: true,
            };
            return carry_bytes(shared, bytes, flow, intent, granted, entry).await;
        }
        Ok(hello) => (
            "sni-mismatch",
            Some(Alert::UnrecognizedName),
            format!("the server name is {}", hello.server_name),
        ),
        Err(HelloError::Refused(refusal)) => (refusal.code(), refusal.alert(), refusal.to_string()),
        Err(HelloError::Ended) => {
            let detail = "no whole ClientHello came".to_owned();
            ("tls-no-hello", None, detail)
        }
    };
    let event = events::refused(intent, granted, code, &detail);
    shared.lane.post_denial(&event, Some(flow));
    let host = intent.place.to_string();
    shared.state.denied(host, Some(intent.port), code);
    if let Some(alert) = alert {
        linger(stream, &alert.record()).await;
    }
}

/// TLS that ends here: what is inside is served as HTTP.
async fn carry_https(
    shared: &Arc<Shared>,
    stream: Guarded,
    first: Vec<u8>,
    flow: Flow,
    intent: &Intent,
    granted: &Granted,
    entry: &Arc<Entry>,
) {
    let ended = match end_tls(shared, stream, first, &intent.place).await {
        Ok(ended) => ended,
        Err(error) => {
            let event = events::failed(intent, granted, error.code(), &error.to_string());
            return shared.lane.post_denial(&event, Some(flow));
        }
    };
    let carried = Arc::new(Carried::default());
    let mut ending = Ending::new(shared, intent, granted, flow, Arc::clone(&carried));
    let visit = Visit {
        shared: Arc::clone(shared),
        intent: intent.clone(),
        flow,
        scheme: Scheme::Https,
        site: Site::upstream(granted.clone(), Arc::clone(entry), shared),
        carried,
    };
    let h2 = ended.is_h2();
    ending.reason = Box::pin(http::serve(ended, visit, h2)).await;
}

/// A connection that is carried unread, with what was read of it.
struct Opaque {
    stream: Guarded,
    first: Vec<u8>,
    /// A refusal can be told as an alert.
    tls: bool,
}

/// Records and dials at once, or a name that the agent chose one after the other; carries when both have succeeded.
async fn carry_bytes(
    shared: &Arc<Shared>,
    bytes: Opaque,
    flow: Flow,
    intent: &Intent,
    granted: &Granted,
    entry: &Entry,
) {
    let Opaque {
        stream: mut agent,
        first,
        tls,
    } = bytes;
    let mut event = events::allowed(intent, granted);
    if granted.asked {
        let (held, answer) = ask(shared, flow, intent, granted, entry).await;
        events::waited(&mut event, Some(&held));
        if let Err(refusal) = answer {
            let mut event = events::refused(intent, granted, refusal.code(), &refusal.to_string());
            events::waited(&mut event, Some(&held));
            shared.lane.post_denial(&event, Some(flow));
            let host = intent.place.to_string();
            shared.state.denied(host, Some(intent.port), refusal.code());
            if tls {
                linger(agent, &Alert::AccessDenied.record()).await;
            }
            return;
        }
    }
    let record = shared.lane.record(&event, Some(flow));
    let dial = dial(&shared.state, &entry.active, intent);
    let (recorded, dialled) = if entry.active.is_chosen(&intent.place) {
        // The agent's own words go out with the resolution: not before they are on record.
        match record.await {
            Ok(()) => (Ok(()), dial.await),
            Err(error) => (Err(error), Err(DialError::NoAddress)),
        }
    } else {
        tokio::join!(record, dial)
    };
    let carried = Arc::new(Carried::default());
    let mut upstream = match (recorded, dialled) {
        (Ok(()), Ok(dialled)) => {
            record_dropped(shared, flow, intent, granted, dialled.dropped);
            Guarded::new(dialled.stream)
        }
        (recorded, dialled) => {
            if let Err(error) = &recorded {
                // Written when the log takes events again, so that the refusal has a reason.
                let event = events::refused(intent, granted, "not-recorded", &error.to_string());
                shared.lane.post_denial(&event, Some(flow));
            } else if let Err(error) = dialled {
                let event = if error.is_refusal() {
                    shared
                        .state
                        .denied(intent.place.to_string(), Some(intent.port), error.code());
                    events::refused(intent, granted, error.code(), &error.to_string())
                } else {
                    events::failed(intent, granted, error.code(), &error.to_string())
                };
                shared.lane.post_denial(&event, Some(flow));
            }
            if tls {
                linger(agent, &Alert::InternalError.record()).await;
            }
            return;
        }
    };
    let mut ending = Ending::new(shared, intent, granted, flow, Arc::clone(&carried));
    let end = relay(
        &mut agent,
        &mut upstream,
        first,
        &carried,
        &shared.pipes,
        shared.patience,
    )
    .await;
    if let End::Finished = end {
        agent.disarm();
        upstream.disarm();
    }
    ending.reason = end.code();
}

/// Has a person asked about a connection that is carried unread.
async fn ask(
    shared: &Shared,
    flow: Flow,
    intent: &Intent,
    granted: &Granted,
    entry: &Entry,
) -> (approval::Held, Result<(), approval::Refusal>) {
    let subject = approval::Subject {
        rule: &granted.rule,
        generation: entry.active.generation,
        protocol: granted.protocol.as_str(),
        request: None,
    };
    let socket = entry.socket;
    approval::ask(shared, intent, subject, approval::Origin { flow, socket }).await
}

/// A name that leads to a place it may not lead to is worth a line even where another address of it would do.
pub fn record_dropped(
    shared: &Shared,
    flow: Flow,
    intent: &Intent,
    granted: &Granted,
    dropped: Option<DialError>,
) {
    if let Some(error) = dropped {
        let event = events::refused(intent, granted, error.code(), &error.to_string());
        shared.lane.post_denial(&event, Some(flow));
    }
}

/// Records the end of a connection, however it comes.
struct Ending<'a> {
    shared: &'a Shared,
    intent: &'a Intent,
    granted: &'a Granted,
    flow: Flow,
    carried: Arc<Carried>,
    since: Instant,
    reason: &'static str,
}

impl<'a> Ending<'a> {
    fn new(
        shared: &'a Shared,
        intent: &'a Intent,
        granted: &'a Granted,
        flow: Flow,
        carried: Arc<Carried>,
    ) -> Self {
        Self {
            shared,
            intent,
            granted,
            flow,
            carried,
            since: Instant::now(),
            reason: "revoked",
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let event = events::closed(
            self.intent,
            self.granted,
            self.reason,
            &self.carried,
            self.since,
        );
        self.shared.lane.post(&event, Some(self.flow));
    }
}

enum HelloError {
    Refused(Refusal),
    /// The client closed, or the deadline passed.
    Ended,
}

impl From<Refusal> for HelloError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads until the ClientHello is whole. `raw` gets every byte that was read.
async fn read_hello(stream: &mut TcpStream, raw: &mut Vec<u8>) -> Result<ClientHello, HelloError> {
    let whole = async {
        let mut assembler = Assembler::new();
        let mut seen = 0;
        loop {
            if raw.len() >= limits::CLIENT_HELLO_RAW {
                return Err(Refusal::TooLong.into());
            }
            match stream.read_buf(raw).await {
                Ok(0) | Err(_) => return Err(HelloError::Ended),
                Ok(_) => {}
            }
            if let Some(hello) = assembler.push(&raw[seen..])? {
                return Ok(hello);
            }
            seen = raw.len();
        }
    };
    timeout(limits::CLIENT_HELLO_DEADLINE, whole)
        .await
        .unwrap_or(Err(HelloError::Ended))
}

/// Writes a last word and closes in good order: what the client still sends is read and thrown away for a moment, for a
/// close with unread bytes is a reset, which could overtake the word.
pub async fn linger(mut stream: impl Wire, last: &[u8]) {
    let farewell = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        let mut total = 0;
        while total < limits::LINGER_BYTES {
            match stream.read(&mut rest).await? {
                0 => return Ok(()),
                n => total += n,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    if matches!(timeout(limits::LINGER, farewell).await, Ok(Ok(()))) {
        stream.disarm();
    }
}
