//! The control channel's server: one Unix socket, its peers known by the kernel's word, every session of this enforcer.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use api::v1::{self, enforcer_server};
use audit::Reader;
use policy::EffectivePolicy;
use schema::session::SessionId;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::approvals::{Broker, Change, NoQuestion, Question};
use crate::kernel;
use crate::leftover;
use crate::places::Places;
use crate::retention;
use crate::secrets::Secrets;
use crate::session::{self, Answer, AnswerError, Session, SessionError};
use crate::store;
use crate::trusted::Trusted;

/// Sessions at a time. With LSM programs there are fewer ([`crate::kernel::MAX_AT_A_HOOK`]).
pub const MAX_SESSIONS: usize = 64;
/// Longest request, in bytes: a policy, 4 MiB of roots and the values of credentials.
pub const MAX_REQUEST: usize = policy::MAX_POLICY_BYTES + 6 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot {call} {path}: {source}")]
    Io {
        call: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error("the control channel failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

#[derive(Debug)]
struct Enforcer {
    places: Arc<Places>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// One opening at a time: gateway user ids are given out under it.
    opening: Mutex<()>,
    /// What waits for a person, of every session.
    broker: Arc<Broker>,
    /// All but LSM programs, which take longer to try.
    capabilities: Vec<v1::Capability>,
}

/// Adopts what is pinned, then serves until told to stop. Sessions stay when it does.
pub async fn serve(places: Places) -> Result<(), ServeError> {
    let places = Arc::new(places);
    let btf = kernel::btf();
    let capabilities = kernel::capabilities()
        .into_iter()
        .chain([("btf", btf)])
        .map(|(name, result)| v1::Capability {
            name: name.to_owned(),
            there: result.is_ok(),
            detail: result.err().unwrap_or_default(),
        })
        .collect();
    // Nobody waits for it before he asks.
    tokio::task::spawn_blocking(kernel::layers);
    let broker = Arc::new(Broker::default());
    let mut sessions = HashMap::new();
    for id in store::sessions(&places.sessions)? {
        let Ok(session_id) = SessionId::parse(&id) else {
            continue;
        };
        match Session::adopt(Arc::clone(&places), session_id, Arc::clone(&broker)).await {
            Ok(session) => {
                sessions.insert(id, session);
            }
            Err(error) => {
                tracing::error!(session = %id, %error, "a session that was left does not match what the kernel holds: closed");
                discard(&places, id);
            }
        }
    }
    sweep(&places).await;
    let enforcer = Enforcer {
        places: Arc::clone(&places),
        sessions: Mutex::new(sessions),
        opening: Mutex::new(()),
        broker,
        capabilities,
    };
    let peers = peers(listen(&places)?, places.uid);
    let service = enforcer_server::EnforcerServer::new(Service(Arc::new(enforcer)))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(MAX_REQUEST);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(peers, stop())
        .await?;
    Ok(())
}

fn listen(places: &Places) -> Result<UnixListener, ServeError> {
    let path = &places.socket;
    let io = |call: &'static str| {
        let path = path.display().to_string();
        move |source| ServeError::Io { call, path, source }
    };
    // A socket an earlier run left; nobody listens on it, for that run held the same directory alone.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("replace")(e)),
        _ => {}
    }
    // Made under another name, so that nobody reaches it before owner and mode are right.
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(io("bind"))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(io("chmod"))?;
    std::os::unix::fs::chown(&new, Some(places.uid), None).map_err(io("chown"))?;
    std::fs::rename(&new, path).map_err(io("rename"))?;
    Ok(listener)
}

/// Who may speak to an enforcer of that user's, as they come; others are turned away before a byte of theirs is read.
pub fn peers(
    listener: UnixListener,
    uid: u32,
) -> impl Stream<Item = std::io::Result<UnixStream>> + Unpin {
    UnixListenerStream::new(listener).filter(move |stream| match stream {
        Ok(stream) => admitted(stream, uid),
        Err(_) => true,
    })
}

/// Root and the enforcer's user, by the credentials that the kernel took when the peer connected.
fn admitted(stream: &UnixStream, uid: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == uid => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "a peer was turned away");
            false
        }
        Err(_) => false,
    }
}

async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Takes away what enforcers that are gone left behind.
async fn sweep(places: &Arc<Places>) {
    let places = Arc::clone(places);
    let swept = tokio::task::spawn_blocking(move || leftover::sweep(&places, leftover::AGE)).await;
    if let Ok(count @ 1..) = swept {
        tracing::warn!(count, "sessions that nobody has a record of were swept up");
    }
}

/// Takes away a session that cannot be taken up. While a process of it lives it is held by its programs, and tried again.
fn discard(places: &Arc<Places>, id: String) {
    const AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
    let Err(error) = session::discard(places, &id) else {
        return;
    };
    tracing::error!(session = %id, %error, "discard");
    let places = Arc::clone(places);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(AGAIN).await;
            let (places, id) = (Arc::clone(&places), id.clone());
            let again = tokio::task::spawn_blocking(move || session::discard(&places, &id));
            if again.await.is_ok_and(|discarded| discarded.is_ok()) {
                return;
            }
        }
    });
}

impl Enforcer {
    async fn session(&self, id: &str) -> Result<Arc<Session>, Status> {
        self.sessions
            .lock()
            .await
            .get(id)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no open session {id:?}")))
    }

    fn policy(bytes: &[u8]) -> Result<EffectivePolicy, Status> {
        EffectivePolicy::from_json(bytes)
            .map_err(|e| Status::invalid_argument(format!("the policy cannot be read: {e}")))
    }

    async fn open(
        self: Arc<Self>,
        request: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionReply, Status> {
        let id = SessionId::parse(&request.session)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let policy = Self::policy(&request.policy)?;
        let _one = self.opening.lock().await;
        let (taken, count): (Vec<u32>, usize) = {
            let mut sessions = self.sessions.lock().await;
            sessions.retain(|_, session| !session.is_over());
            if sessions.contains_key(id.as_str()) {
                return Err(Status::already_exists(format!("session {id} is open")));
            }
            let mut taken = Vec::new();
            for session in sessions.values() {
                taken.push(session.gateway_index().await);
            }
            (taken, sessions.len())
        };
        if count >= MAX_SESSIONS {
            return Err(Status::resource_exhausted(format!(
                "{MAX_SESSIONS} sessions are open"
            )));
        }
        let index = (0..)
            .find(|index| !taken.contains(index))
            .unwrap_or_default();
        let places = Arc::clone(&self.places);
        let session = Session::open(
            places,
            id.clone(),
            request.workspace,
            policy,
            Trusted {
                roots: request.roots,
                secrets: request.secrets,
                files: Secrets::new(request.files),
                owner: request.owner.map(|owner| (owner.uid, owner.gid)),
            },
            index,
            Arc::clone(&self.broker),
        )
        .await
        .map_err(failed)?;
        let status = session.status().await;
        let reply = v1::OpenSessionReply {
            cgroup_parent: session.cgroup_parent(),
            generation: status.generation,
            hooks: status.hooks,
            ca_certificate: status.ca_certificate,
        };
        self.sessions.lock().await.insert(id.to_string(), session);
        Ok(reply)
    }

    async fn change(
        self: Arc<Self>,
        request: v1::SetPolicyRequest,
    ) -> Result<v1::SetPolicyReply, Status> {
        let policy = Self::policy(&request.policy)?;
        let session = self.session(&request.session).await?;
        let generation = session.set_policy(policy).await.map_err(failed)?;
        Ok(v1::SetPolicyReply { generation })
    }

    async fn set_secrets(
        self: Arc<Self>,
        request: v1::SetSecretsRequest,
    ) -> Result<v1::SetSecretsReply, Status> {
        let session = self.session(&request.session).await?;
        let mut refused = session.set_secrets(request.secrets).await.map_err(failed)?;
        let files = session.set_secret_files(request.files).await;
        refused.extend(files.map_err(failed)?);
        Ok(v1::SetSecretsReply { refused })
    }

    async fn close(
        self: Arc<Self>,
        request: v1::CloseSessionRequest,
    ) -> Result<v1::CloseSessionReply, Status> {
        let session = match self.session(&request.session).await {
            Ok(session) => session,
            Err(_) => {
                // It may be the one that is being opened, for a caller that has gone.
                let _one = self.opening.lock().await;
                self.session(&request.session).await?
            }
        };
        let closed = session.close(&request.reason).await;
        // One that would not end is closed later, and is listed until then.
        if session.is_over() {
            self.sessions.lock().await.remove(&request.session);
            let places = Arc::clone(&self.places);
            tokio::task::spawn_blocking(move || retention::prune(&places));
        }
        let (events, lost) = closed.map_err(|error| match error {
            // It ended by itself.
            SessionError::Closed => Status::not_found(error.to_string()),
            error => failed(error),
        })?;
        Ok(v1::CloseSessionReply { events, lost })
    }
}

/// The enforcer as tonic has it.
struct Service(Arc<Enforcer>);

/// Runs work to its end although whoever asked for it goes away: tonic drops what it need not answer any more, and a session is
/// never left half opened or half closed.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    match tokio::spawn(work).await {
        Ok(done) => done.map(Response::new),
        Err(_) => Err(Status::internal("it could not be done to its end")),
    }
}

fn failed(error: SessionError) -> Status {
    Status::internal(error.to_string())
}

#[tonic::async_trait]
impl enforcer_server::Enforcer for Service {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let untried = Err("it could not be tried");
        let layers = tokio::task::spawn_blocking(kernel::layers).await;
        let layers = layers.unwrap_or(policy::Layers {
            lsm: untried,
            starts: untried,
        });
        let mut capabilities = self.0.capabilities.clone();
        for (name, there) in [("lsm", layers.lsm), ("starts", layers.starts)] {
            capabilities.push(v1::Capability {
                name: name.to_owned(),
                there: there.is_ok(),
                detail: there.err().unwrap_or_default().to_owned(),
            });
        }
        Ok(Response::new(v1::StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            binary_sha256: self.0.places.binary_sha256.clone(),
            kernel: nix::sys::utsname::uname()
                .map(|uname| uname.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            capabilities,
            sessions: self.0.sessions.lock().await.len() as u32,
        }))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionReply>, Status> {
        whole(Arc::clone(&self.0).open(request.into_inner())).await
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::SetPolicyReply>, Status> {
        whole(Arc::clone(&self.0).change(request.into_inner())).await
    }

    async fn set_secrets(
        &self,
        request: Request<v1::SetSecretsRequest>,
    ) -> Result<Response<v1::SetSecretsReply>, Status> {
        whole(Arc::clone(&self.0).set_secrets(request.into_inner())).await
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionReply>, Status> {
        whole(Arc::clone(&self.0).close(request.into_inner())).await
    }

    async fn list_sessions(
        &self,
        _request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsReply>, Status> {
        sweep(&self.0.places).await;
        let sessions: Vec<_> = {
            let mut sessions = self.0.sessions.lock().await;
            sessions.retain(|_, session| !session.is_over());
            sessions.values().cloned().collect()
        };
        let mut listed = Vec::new();
        for session in sessions {
            listed.push(session.status().await);
        }
        listed.sort_by(|a, b| a.session.cmp(&b.session));
        Ok(Response::new(v1::ListSessionsReply { sessions: listed }))
    }

    type ApprovalsStream = ReceiverStream<Result<v1::Approval, Status>>;

    async fn approvals(
        &self,
        request: Request<v1::ApprovalsRequest>,
    ) -> Result<Response<Self::ApprovalsStream>, Status> {
        let v1::ApprovalsRequest { session, follow } = request.into_inner();
        let session = Some(session).filter(|session| !session.is_empty());
        let (open, changes) = self.0.broker.listen(session.as_deref());
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(show(open, follow.then_some(changes), session, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn answer(
        &self,
        request: Request<v1::AnswerRequest>,
    ) -> Result<Response<v1::AnswerReply>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>();
        let by = peer.and_then(|peer| peer.peer_cred).map(|cred| cred.uid());
        let request = request.into_inner();
        let enforcer = Arc::clone(&self.0);
        whole(async move {
            let no = |error: NoQuestion| Status::not_found(error.to_string());
            let question = enforcer.broker.look(&request.id).map_err(no)?;
            let session = enforcer.session(&question.request.session).await?;
            let answer = Answer {
                allow: request.allow,
                session: request.session,
                by,
            };
            let question =
                session
                    .answer(&question.id, answer)
                    .await
                    .map_err(|error| match error {
                        AnswerError::NoQuestion(error) => no(error),
                        stale @ AnswerError::Stale(_) => Status::not_found(stale.to_string()),
                        full @ AnswerError::TooMany(_) => {
                            Status::resource_exhausted(full.to_string())
                        }
                        unfit @ AnswerError::Unfit { .. } => {
                            Status::failed_precondition(unfit.to_string())
                        }
                        error @ (AnswerError::NotRecorded(_) | AnswerError::NotHeld { .. }) => {
                            Status::internal(error.to_string())
                        }
                    })?;
            Ok(v1::AnswerReply {
                question: Some((&question).into()),
            })
        })
        .await
    }

    type EventsStream = ReceiverStream<Result<v1::EventLine, Status>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let id = SessionId::parse(&request.session)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let reader = Reader::open(&self.0.places.log(id.as_str()))
            .map_err(|_| Status::not_found(format!("there is no event log of session {id}")))?;
        let session = self.0.sessions.lock().await.get(id.as_str()).cloned();
        let follow = if request.follow { session } else { None };
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(stream(reader, request.from_seq, follow, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What waits for a person, to one reader; with `changes`, for as long as it reads.
async fn show(
    open: Vec<Question>,
    changes: Option<broadcast::Receiver<Change>>,
    session: Option<String>,
    sender: mpsc::Sender<Result<v1::Approval, Status>>,
) {
    use v1::approval::Change as Shown;
    let send = async |change: Shown| {
        let approval = v1::Approval {
            change: Some(change),
        };
        sender.send(Ok(approval)).await.is_ok()
    };
    for question in &open {
        if !send(Shown::Open(question.into())).await {
            return;
        }
    }
    if !send(Shown::Listed(v1::Listed {})).await {
        return;
    }
    let Some(mut changes) = changes else { return };
    let fits = |of: &str| session.as_deref().is_none_or(|session| session == of);
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = sender.closed() => return,
        };
        let shown = match change {
            Ok(Change::Open(question)) if fits(&question.request.session) => {
                Shown::Open((&*question).into())
            }
            Ok(Change::Gone { id, session, how }) if fits(&session) => {
                Shown::Gone(v1::QuestionGone {
                    id,
                    how: how.to_owned(),
                })
            }
            Ok(_) => continue,
            // It is behind, and begins again.
            Err(_) => return,
        };
        if !send(shown).await {
            return;
        }
    }
}

/// Lines of a log to one reader; with a session, for as long as it is open.
async fn stream(
    mut reader: Reader,
    from: u64,
    follow: Option<Arc<Session>>,
    sender: mpsc::Sender<Result<v1::EventLine, Status>>,
) {
    let mut position = follow.as_ref().map(|session| session.log_position());
    let mut ended = false;
    loop {
        if let Some(position) = &mut position {
            position.mark_unchanged();
        }
        loop {
            match reader.next_line() {
                Ok(Some(line)) => {
                    let seq = serde_json::from_slice::<audit::Event>(&line).map_or(0, |e| e.seq);
                    if seq >= from && sender.send(Ok(v1::EventLine { json: line })).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = sender.send(Err(Status::internal(error.to_string()))).await;
                    return;
                }
            }
        }
        let (Some(position), Some(session)) = (&mut position, &follow) else {
            return;
        };
        if ended {
            return;
        }
        let mut closed = session.closed();
        let closing = tokio::select! {
            changed = position.changed() => changed.is_err(),
            closed = closed.wait_for(|closed| *closed) => closed.is_ok(),
            () = sender.closed() => return,
        };
        if closing {
            // The last record is written after the session is marked closed.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            ended = true;
        }
    }
}
