//! An enforcer of the tests' own, on a socket of its own: it says which sessions it has, and keeps what it is told about them.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::v1;
use api::v1::enforcer_server::EnforcerServer;
use schema::hostconfig::Grant;
use schema::session::SessionId;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::places::Places;
use crate::record::Record;

/// A session, and a value that was handed to it.
pub type Given = (String, Vec<u8>);

/// Holds sessions with one credential, and maybe a secret; those that fail are told nothing.
#[derive(Clone, Default)]
pub struct Fake {
    pub sessions: Vec<(&'static str, &'static str)>,
    pub fails: Option<&'static str>,
    pub taken: Arc<Mutex<Vec<String>>>,
    /// What was handed, by session.
    pub given: Arc<Mutex<Vec<Given>>>,
    /// Whether each has a secret as well, with this time in seconds.
    pub secret: Option<u64>,
    /// What was handed of those.
    pub files: Arc<Mutex<Vec<v1::SecretFile>>>,
    /// Version and digest that it says of itself.
    pub is: Option<(String, String)>,
}

type Reply<T> = Result<Response<T>, Status>;

fn not_asked<T>() -> Reply<T> {
    Err(Status::unimplemented("not asked in these tests"))
}

#[tonic::async_trait]
impl v1::enforcer_server::Enforcer for Fake {
    type EventsStream = tokio_stream::Empty<Result<v1::EventLine, Status>>;
    type ApprovalsStream = tokio_stream::Empty<Result<v1::Approval, Status>>;

    async fn set_secrets(
        &self,
        request: Request<v1::SetSecretsRequest>,
    ) -> Reply<v1::SetSecretsReply> {
        let request = request.into_inner();
        if self.fails == Some(request.session.as_str()) {
            return Err(Status::internal("no space left"));
        }
        self.files.lock().unwrap().extend(request.files);
        for secret in request.secrets {
            let session = request.session.clone();
            if secret.revoked {
                self.taken.lock().unwrap().push(session);
            } else {
                self.given.lock().unwrap().push((session, secret.value));
            }
        }
        Ok(Response::new(v1::SetSecretsReply::default()))
    }

    async fn list_sessions(
        &self,
        _: Request<v1::ListSessionsRequest>,
    ) -> Reply<v1::ListSessionsReply> {
        let session = |(session, state): &(&str, &str)| v1::Session {
            session: (*session).into(),
            workspace: "/w".into(),
            credentials: vec![v1::Held {
                credential: "github".into(),
                state: (*state).into(),
                ..Default::default()
            }],
            secrets: { self.secret.iter() }
                .map(|ttl| v1::Held {
                    credential: "NPM_TOKEN".into(),
                    state: (*state).into(),
                    ttl: *ttl,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        Ok(Response::new(v1::ListSessionsReply {
            sessions: self.sessions.iter().map(session).collect(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Reply<v1::StatusReply> {
        let Some((version, binary_sha256)) = self.is.clone() else {
            return not_asked();
        };
        Ok(Response::new(v1::StatusReply {
            version,
            binary_sha256,
            ..Default::default()
        }))
    }
    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Reply<v1::OpenSessionReply> {
        not_asked()
    }
    async fn set_policy(&self, _: Request<v1::SetPolicyRequest>) -> Reply<v1::SetPolicyReply> {
        not_asked()
    }
    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> Reply<v1::CloseSessionReply> {
        not_asked()
    }
    async fn events(&self, _: Request<v1::EventsRequest>) -> Reply<Self::EventsStream> {
        not_asked()
    }
    async fn approvals(&self, _: Request<v1::ApprovalsRequest>) -> Reply<Self::ApprovalsStream> {
        not_asked()
    }
    async fn answer(&self, _: Request<v1::AnswerRequest>) -> Reply<v1::AnswerReply> {
        not_asked()
    }
}

pub fn places(dir: &Path) -> Places {
    Places {
        home: None,
        state: dir.join("agentcontainer"),
        config: dir.join("c"),
        cache: dir.join("k"),
    }
}

pub fn serve(places: &Places, short: &str, fake: &Fake) {
    let directory = places.control(short);
    std::fs::create_dir_all(&directory).unwrap();
    let fd = std::fs::File::open(&directory).unwrap();
    let path = format!("/proc/self/fd/{}/enforcer.sock", fd.as_raw_fd());
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let server = tonic::transport::Server::builder().add_service(EnforcerServer::new(fake.clone()));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
}

pub fn record(session: &str, enforcer: &str, workspace: &str) -> Record {
    Record {
        session: SessionId::parse(session).unwrap(),
        name: None,
        workspace: workspace.into(),
        config: "agentcontainer.json".into(),
        image: "x".into(),
        enforcer: enforcer.into(),
        created: 1,
        ended: None,
        holder: None,
        granted: None,
        host_variables: None,
        left: Vec::new(),
    }
}

/// A grant whose value is a file's.
pub fn grant(dir: &Path, value: &str, hosts: &[&str]) -> Grant {
    let file = dir.join("value");
    std::fs::write(&file, value).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Grant {
        paths: Vec::new(),
        methods: Vec::new(),
        source: format!("file://{}", file.display()).parse().unwrap(),
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        header: Default::default(),
        format: Default::default(),
        query: None,
        env: None,
    }
}
