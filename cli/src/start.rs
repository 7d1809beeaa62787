//! Brings a session up: engine, enforcer and image side by side, then the container under the session's cgroup. What was begun
//! is on record before it is begun, so that whoever ends the session (`run` itself, `gc`) finds it.

use std::collections::BTreeMap;
use std::path::Path;

use api::v1;
use engine::git::Doing;
use engine::identity::Identity;
use engine::image::Image;
use engine::plan::Plan;
use engine::request::CreateRequest;
use engine::{Engine, EngineInfo};
use schema::diag::Diagnostic;
use schema::session::SessionId;
use tokio::sync::watch;

use crate::channel::{self, Enforcer};
use crate::loaded::Loaded;
use crate::progress::Progress;
use crate::record::{self, Record};
use crate::report::{self, Failure};

/// What `run` was asked for, beyond what the config says.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: Option<String>,
    pub env: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub detached: bool,
    pub tty: bool,
}

/// A container that was made and not started.
#[derive(Debug)]
pub struct Ready {
    pub engine: Engine,
    pub enforcer: Enforcer,
    pub container: String,
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
    record: &Record,
    mut cancelled: watch::Receiver<bool>,
) -> Result<Ready, Failure> {
    let sidecar = channel::sidecar(&loaded.places)?;
    let (engine, running) = tokio::join!(
        Engine::connect(loaded.host.engine().clone()),
        channel::running(&sidecar)
    );
    let (engine, running) = (engine?, running?);
    check(&cancelled)?;

    let opening = async {
        let (mut enforcer, status) = match running {
            Some(found) => found,
            None => channel::start(&engine, &sidecar).await?,
        };
        let opened = open(&mut enforcer, &status, loaded, record).await?;
        Ok::<_, Failure>((enforcer, opened))
    };
    let imaging = async {
        let info = engine.info().await?;
        info.check()?;
        let image = resolve(&engine, loaded, &mut cancelled).await?;
        let accounts = engine.accounts(&image.id, &loaded.places.images()).await?;
        Ok::<_, Failure>((info, image, accounts))
    };
    // Both to their end, even if one fails: an answer that is not waited for may still take effect.
    let (opened, imaged) = tokio::join!(opening, imaging);
    let ((info, image, accounts), (enforcer, opened)) = (imaged?, opened?);
    check(&cancelled)?;

    let planned = plan(loaded, asked, record, &info, &image, &accounts)
        .cgroup_parent(opened.cgroup_parent.clone())
        .make(Doing::Write)?;
    let checked = planned
        .request
        .check(&loaded.places.private())
        .map_err(|violation| Failure::from(engine::EngineError::from(violation)))?;
    let created = engine.create(&checked).await?;
    let mut remarks = planned.notes;
    remarks.extend(unenforced(&info, &planned.request, &created.warnings));
    remarks.extend(created.warnings);
    check(&cancelled)?;
    Ok(Ready {
        engine,
        enforcer,
        container: created.id,
        request: planned.request,
        identity: planned.identity,
        opened,
        remarks,
    })
}

fn check(cancelled: &watch::Receiver<bool>) -> Result<(), Failure> {
    if *cancelled.borrow() {
        return Err(Failure {
            diagnostics: Vec::new(),
            status: report::OURS,
        });
    }
    Ok(())
}

/// Opens the session, once the kernel is known to carry all of it.
async fn open(
    enforcer: &mut Enforcer,
    status: &v1::StatusReply,
    loaded: &Loaded,
    record: &Record,
) -> Result<v1::OpenSessionReply, Failure> {
    let missing: Vec<String> = status
        .capabilities
        .iter()
        // Rules on files and programs, which lsm carries, are refused when the config is read.
        .filter(|c| !c.there && c.name != "lsm")
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

/// The image, pulled if it has to be, until we are told to stop.
async fn resolve(
    engine: &Engine,
    loaded: &Loaded,
    cancelled: &mut watch::Receiver<bool>,
) -> Result<Image, Failure> {
    let reference = &loaded.config.image.value;
    let mut progress = Progress::new(reference.as_str());
    let mut hear = |step| progress.hear(step);
    tokio::select! {
        image = engine.resolve(reference, &mut hear) => Ok(image?),
        _ = cancelled.wait_for(|stop| *stop) => Err(Failure {
            diagnostics: Vec::new(),
            status: report::OURS,
        }),
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

/// A plan with what is not known before the session is open left to fill in.
pub struct Draft<'a> {
    loaded: &'a Loaded,
    asked: &'a Asked,
    record: &'a Record,
    info: &'a EngineInfo,
    image: &'a Image,
    accounts: &'a engine::identity::Accounts,
    cgroup_parent: String,
}

pub fn plan<'a>(
    loaded: &'a Loaded,
    asked: &'a Asked,
    record: &'a Record,
    info: &'a EngineInfo,
    image: &'a Image,
    accounts: &'a engine::identity::Accounts,
) -> Draft<'a> {
    Draft {
        loaded,
        asked,
        record,
        info,
        image,
        accounts,
        cgroup_parent: format!("/agentcontainer/{}", record.session),
    }
}

impl Draft<'_> {
    pub fn cgroup_parent(mut self, parent: String) -> Self {
        self.cgroup_parent = parent;
        self
    }

    pub fn make(self, doing: Doing) -> Result<engine::plan::Planned, Failure> {
        let loaded = self.loaded;
        Plan {
            config: &loaded.config,
            image: self.image,
            accounts: self.accounts,
            engine: self.info,
            workspace: &loaded.workspace,
            owner: loaded.owner,
            session: &self.record.session,
            name: self.asked.name.as_deref(),
            session_dir: &self.record.dir(&loaded.places),
            init_volume: format!("agentcontainer-init-{}", self.record.enforcer),
            cgroup_parent: self.cgroup_parent,
            command: &self.asked.command,
            detached: self.asked.detached,
            env: &self.asked.env,
            tty: self.asked.tty,
            stdin: !self.asked.detached,
            local_env: &|name| std::env::var(name).ok(),
            doing,
        }
        .make()
        .map_err(|error| Failure::from(Diagnostic::from(error)))
    }
}

/// The record of a session that is about to be opened.
pub fn record_of(loaded: &Loaded, asked: &Asked) -> Result<Record, Failure> {
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
    })
}
