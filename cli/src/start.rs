//! Brings a session up: engine, enforcer and image side by side, then the container under the session's cgroup. What was begun
//! is on record before it is begun, so that whoever ends the session (`run` itself, `gc`) finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::v1;
use engine::agent::AgentParts;
use engine::contents::Contents;
use engine::git::Doing;
use engine::identity::Identity;
use engine::image::Image;
use engine::plan::Plan;
use engine::request::CreateRequest;
use engine::{Engine, EngineInfo, trust};
use schema::diag::Diagnostic;
use schema::organisation::EngineKind;
use schema::session::SessionId;
use tokio::sync::{oneshot, watch};

use crate::channel::{self, Enforcer};
use crate::credentials::supply::{Kind, Supply};
use crate::credentials::{self, Resolved};
use crate::loaded::Loaded;
use crate::lock;
use crate::progress::Progress;
use crate::record::{self, Record};
use crate::report::{self, Failure};
use crate::roots;
use crate::{session, terminal};

/// What `run` was asked for, beyond what the config says.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: Option<String>,
    pub env: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub detached: bool,
    pub tty: bool,
    /// What an agent's profile brings.
    pub agent: Option<AgentParts>,
}

/// A container that was made and not started.
#[derive(Debug)]
pub struct Ready {
    pub engine: Engine,
    pub enforcer: Enforcer,
    pub container: String,
    pub session_dir: PathBuf,
    pub request: CreateRequest,
    pub identity: Identity,
    pub opened: v1::OpenSessionReply,
    /// For people: what is different from what was asked.
    pub remarks: Vec<String>,
}

/// Sixty-four bits of the kernel's randomness.
pub fn new_session() -> Result<SessionId, Failure> {
    use std::io::Read;
    let mut random = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|e| Failure::io("read", Path::new("/dev/urandom"), &e))?;
    Ok(SessionId::generate(random))
}

/// Everything up to the container, which is made and not started. `cancelled` turns true when we are told to stop: what is
/// under way is finished (it could not be taken back half-way), and nothing new is begun.
pub async fn prepare(
    loaded: &Loaded,
    asked: &Asked,
    credentials: &[Resolved],
    record: &Record,
    mut cancelled: watch::Receiver<bool>,
) -> Result<Ready, Failure> {
    let sidecar = channel::sidecar(&loaded.places)?;
    let roots = roots::read(&loaded.host, &loaded.policy)?;
    let (found, engine) = oneshot::channel();
    let (up, is_up) = oneshot::channel();
    // What takes longest, and needs no engine where an enforcer runs: the session.
    let opening = async {
        let (mut enforcer, status) = match channel::running(&sidecar).await? {
            Some(found) => found,
            None => {
                let Ok(engine) = engine.await else {
                    // There is no engine to start one with, as the other half says.
                    return Ok(None);
                };
                channel::start(&engine, &sidecar).await?
            }
        };
        // Its volume holds init from now on.
        let _ = up.send(());
        let without = asked.agent.as_ref().is_some_and(|agent| agent.alone);
        let owner = engine::plan::mapped_owner(&loaded.config, loaded.owner);
        let trusted = Trusted {
            roots,
            credentials,
            owner: owner.filter(|_| !without),
        };
        let opened = open(&mut enforcer, &status, loaded, record, trusted).await?;
        Ok::<_, Failure>(Some((enforcer, opened)))
    };
    // Meanwhile the container: made for the session's cgroup, which is named after the session, and not started.
    let making = async {
        let engine = Engine::connect(loaded.host.engine().clone()).await?;
        let info = engine.info().await?;
        info.check()?;
        check_engine(loaded, &info)?;
        let _ = found.send(engine.clone());
        session::check_neighbours(&engine, loaded, record).await?;
        let image = resolve(&engine, loaded, &mut cancelled).await?;
        let contents = engine.contents(&image, &loaded.places.images()).await?;
        check(&cancelled)?;
        let inside = credentials::placeholders(credentials);
        let planned = plan(loaded, asked, record, &info, &image, &contents)
            .with_placeholders(&inside)
            .make(Doing::Write)?;
        credentials::check_request(credentials, &planned.request)?;
        let checked = planned
            .request
            .check(&loaded.places.private())
            .map_err(|violation| Failure::from(engine::EngineError::from(violation)))?;
        if is_up.await.is_err() {
            return Err(nothing_to_say());
        }
        let created = engine.create(&checked).await?;
        if let Some(parts) = &asked.agent {
            let folder = &planned.request.working_dir;
            let added = loaded.config.profile.as_ref();
            let seeds = added.map_or_else(Vec::new, |a| a.profile.beginnings(folder, &inside));
            engine
                .furnish(&created.id, parts, &seeds, &planned.identity)
                .await?;
        }
        let mut remarks = planned.notes;
        remarks.extend(unenforced(&info, &planned.request, &created.warnings));
        remarks.extend(created.warnings);
        Ok::<_, Failure>((
            engine,
            planned.request,
            planned.identity,
            created.id,
            contents.trust,
            remarks,
        ))
    };
    // Both to their end, even if one fails: an answer that is not waited for may still take effect.
    let (opened, made) = tokio::join!(opening, making);
    let ((engine, request, identity, container, in_image, remarks), (enforcer, opened)) =
        match (made, opened) {
            (Ok(made), Ok(Some(opened))) => (made, opened),
            // The one that has words for it.
            (Err(failure), Ok(_)) => return Err(failure),
            (Err(failure), Err(_)) if !failure.diagnostics.is_empty() => return Err(failure),
            (_, Err(failure)) => return Err(failure),
            (Ok(_), Ok(None)) => return Err(Failure::new("enforcer-gone", "there is no enforcer")),
        };
    if opened.cgroup_parent != request.cgroup_parent {
        return Err(Failure::new(
            "cgroup-parent",
            format!(
                "the enforcer holds {} and the container was made for {}",
                opened.cgroup_parent, request.cgroup_parent
            ),
        )
        .help("was the engine's cgroup driver changed? `agentcontainer enforcer stop` and start again"));
    }
    let session_dir = record.dir(&loaded.places);
    trust::complete(&session_dir, &in_image, &opened.ca_certificate)?;
    check(&cancelled)?;
    Ok(Ready {
        engine,
        enforcer,
        container,
        session_dir,
        request,
        identity,
        opened,
        remarks,
    })
}

/// What the engine says it is, whatever it was named by, is one that every policy allows.
fn check_engine(loaded: &Loaded, info: &EngineInfo) -> Result<(), Failure> {
    let kind = if info.name.to_ascii_lowercase().contains("podman") {
        EngineKind::Podman
    } else {
        EngineKind::Docker
    };
    let found = policy::organisation::check_engine(&loaded.organisations, kind);
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.into())
    }
}

fn check(cancelled: &watch::Receiver<bool>) -> Result<(), Failure> {
    if *cancelled.borrow() {
        return Err(nothing_to_say());
    }
    Ok(())
}

/// What is given up because of something that is said elsewhere.
fn nothing_to_say() -> Failure {
    Failure {
        diagnostics: Vec::new(),
        status: report::OURS,
    }
}

/// What the session is trusted with, beside the policy.
struct Trusted<'a> {
    roots: Vec<Vec<u8>>,
    credentials: &'a [Resolved],
    /// Whose files are the container's user's inside.
    owner: Option<(u32, u32)>,
}

/// Opens the session, once the kernel is known to carry all of it.
async fn open(
    enforcer: &mut Enforcer,
    status: &v1::StatusReply,
    loaded: &Loaded,
    record: &Record,
    trusted: Trusted<'_>,
) -> Result<v1::OpenSessionReply, Failure> {
    loaded.check_carried(status)?;
    let missing: Vec<String> = status
        .capabilities
        .iter()
        // Needed by some rules about files and programs alone.
        .filter(|c| !c.there && !matches!(c.name.as_str(), "lsm" | "starts"))
        .map(|c| format!("{} ({})", c.name, c.detail))
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            "kernel-capability",
            format!(
                "the kernel {} does not carry what a session needs: {}",
                status.kernel,
                missing.join(", ")
            ),
        )
        .help("see `agentcontainer doctor`"));
    }
    let request = v1::OpenSessionRequest {
        session: record.session.to_string(),
        workspace: record.workspace.display().to_string(),
        policy: loaded.policy.to_json(),
        roots: trusted.roots,
        secrets: credentials::for_gateway(trusted.credentials),
        files: credentials::for_files(trusted.credentials),
        owner: trusted.owner.map(|(uid, gid)| v1::Owner { uid, gid }),
    };
    let opened = enforcer
        .open_session(request)
        .await
        .map_err(|status| channel::refused("open the session", &status))?
        .into_inner();
    let detached: Vec<&str> = opened
        .hooks
        .iter()
        .filter(|hook| !hook.attached)
        .map(|hook| hook.name.as_str())
        .collect();
    if opened.hooks.is_empty() || !detached.is_empty() {
        return Err(Failure::new(
            "hooks",
            format!(
                "the kernel does not have the session's programs attached: {}",
                detached.join(", ")
            ),
        ));
    }
    Ok(opened)
}

/// The locked image, pulled if it has to be, until we are told to stop.
pub async fn resolve(
    engine: &Engine,
    loaded: &Loaded,
    cancelled: &mut watch::Receiver<bool>,
) -> Result<Image, Failure> {
    let reference = &loaded.config.image.value;
    let mut progress = Progress::new(reference.as_str());
    let mut hear = |step| progress.hear(step);
    tokio::select! {
        image = lock::image(engine, loaded, &mut hear) => image,
        _ = cancelled.wait_for(|stop| *stop) => Err(nothing_to_say()),
    }
}

/// Limits that the engine discards, where it does not say so itself.
fn unenforced(info: &EngineInfo, request: &CreateRequest, said: &[String]) -> Vec<String> {
    info.without
        .iter()
        .filter(|limit| match limit.as_str() {
            "memory" => request.limits.memory.is_some(),
            "cpus" => request.limits.milli_cpus.is_some(),
            _ => true,
        })
        .filter(|limit| {
            !said
                .iter()
                .any(|w| w.to_lowercase().contains(limit.as_str()))
        })
        .map(|limit| format!("this engine does not enforce the limit on {limit}"))
        .collect()
}

/// What `run` and `run --plan` make a request from.
pub struct Draft<'a> {
    loaded: &'a Loaded,
    asked: &'a Asked,
    record: &'a Record,
    info: &'a EngineInfo,
    image: &'a Image,
    contents: &'a Contents,
    placeholders: BTreeMap<String, String>,
}

pub fn plan<'a>(
    loaded: &'a Loaded,
    asked: &'a Asked,
    record: &'a Record,
    info: &'a EngineInfo,
    image: &'a Image,
    contents: &'a Contents,
) -> Draft<'a> {
    Draft {
        loaded,
        asked,
        record,
        info,
        image,
        contents,
        placeholders: BTreeMap::new(),
    }
}

impl Draft<'_> {
    /// With what stands for credentials inside, by variable.
    pub fn with_placeholders(mut self, placeholders: &BTreeMap<String, String>) -> Self {
        self.placeholders = placeholders.clone();
        self
    }

    pub fn make(self, doing: Doing) -> Result<engine::plan::Planned, Failure> {
        let loaded = self.loaded;
        Plan {
            config: &loaded.config,
            image: self.image,
            contents: self.contents,
            engine: self.info,
            workspace: &loaded.workspace,
            owner: loaded.owner,
            repository: &loaded.repository,
            session: &self.record.session,
            name: self.asked.name.as_deref(),
            session_dir: &self.record.dir(&loaded.places),
            init_volume: format!("agentcontainer-init-{}", self.record.enforcer),
            cgroup_parent: self.info.cgroup_parent(&self.record.session),
            command: &self.asked.command,
            detached: self.asked.detached,
            env: &self.asked.env,
            placeholders: &self.placeholders,
            tty: self.asked.tty,
            terminal: self.asked.tty.then(terminal::size).flatten(),
            stdin: !self.asked.detached,
            local_env: &|name| std::env::var(name).ok(),
            agent: self.asked.agent.as_ref(),
            doing,
        }
        .make()
        .map_err(|error| Failure::from(Diagnostic::from(error)))
    }
}

/// The record of a session that is about to be opened.
pub fn record_of(loaded: &Loaded, asked: &Asked) -> Result<Record, Failure> {
    let credentials = loaded.policy.credentials.iter();
    let credentials = credentials.map(|credential| (Kind::Credential, &credential.name));
    let secrets = loaded.policy.secrets.all.iter();
    let secrets = secrets.map(|secret| (Kind::Secret, &secret.name));
    let granted = credentials.chain(secrets).filter_map(|(kind, name)| {
        let grant = Supply::of(&loaded.host, kind, name)?;
        Some((name.clone(), grant.bound))
    });
    Ok(Record {
        session: new_session()?,
        name: asked.name.clone(),
        workspace: loaded.workspace.clone(),
        config: loaded.config.file.clone(),
        image: loaded.config.image.value.as_str().to_owned(),
        enforcer: crate::embedded::sidecar()?.short(),
        created: record::now(),
        ended: None,
        holder: record::Process::this(),
        granted: Some(granted.collect()),
        host_variables: policy::organisation::host_variables(&loaded.organisations),
        left: Vec::new(),
    })
}
