//! `agentcontainer doctor`: what a session needs, asked of the engine and the kernel, and two live attempts from inside a
//! throwaway session: a raw address that must be refused, and a name that must answer. 0 all there, 1 something is missing,
//! 2 something could not be asked.

mod fix;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use api::v1;
use engine::containers::Exec;
use engine::request::{CreateRequest, INIT, InitArguments, Limits};
use engine::sidecar::Sidecar;
use engine::{Engine, EngineInfo};
use policy::EffectivePolicy;
use serde::Serialize;

use super::json;
use crate::channel::{self, Enforcer};
use crate::places::Places;
use crate::record::{self, Record};
use crate::report::{self, Failure, escape};
use crate::{loaded, session, start};

/// The oldest kernel that everything was tried on.
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// An address that belongs to nobody (RFC 5737).
const RAW_ADDRESS: &str = "192.0.2.1:443";
/// What the gateway itself answers.
const OWN_NAME: &str = "agentcontainer.internal:80";
const WIRED: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON, one array; with --fix one object
    #[arg(long)]
    json: bool,
    /// Print what to change on this machine for its kernel to have BPF LSM; nothing is changed
    #[arg(long)]
    fix: bool,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    /// `None`: could not be asked.
    holds: Option<bool>,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn add(
        &mut self,
        name: &str,
        holds: Option<bool>,
        detail: impl Into<String>,
        help: Option<&str>,
    ) {
        self.0.push(Check {
            name: name.to_owned(),
            holds,
            detail: detail.into(),
            help: help.filter(|_| holds != Some(true)).map(str::to_owned),
        });
    }

    fn failed(&mut self, name: &str, holds: Option<bool>, failure: &Failure) {
        let words: Vec<&str> = failure
            .diagnostics
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        let help = failure.diagnostics.iter().find_map(|d| d.help.as_deref());
        self.add(name, holds, words.join("; "), help);
    }

    fn unknown(&mut self, names: &[&str], why: &str) {
        for name in names {
            self.add(name, None, why, None);
        }
    }

    fn status(&self) -> u8 {
        if self.0.iter().any(|c| c.holds == Some(false)) {
            1
        } else {
            u8::from(self.0.iter().any(|c| c.holds.is_none())) * 2
        }
    }
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    if args.fix {
        return fix_it(as_json).await;
    }
    let mut findings = Findings::default();
    examine(&mut findings).await;
    if as_json {
        report::out_json(&findings.0);
    } else {
        for check in &findings.0 {
            report::out(format!(
                "{}  {:<18} {}",
                report::mark(check.holds),
                check.name,
                escape(&check.detail)
            ));
            if let Some(help) = &check.help {
                report::out(format!("{:29}{}", "", escape(help)));
            }
        }
    }
    Ok(findings.status())
}

/// 0: there is nothing to change.
async fn fix_it(as_json: bool) -> Result<u8, Failure> {
    let engine = connect().await?;
    let places = Places::from_env()?;
    let sidecar = channel::sidecar(&places)?;
    let (_, status) = match channel::running(&sidecar).await? {
        Some(found) => found,
        None => channel::start(&engine, &sidecar).await?,
    };
    let lsm = status.capabilities.iter().find(|c| c.name == "lsm");
    let refused = lsm.filter(|lsm| !lsm.there).map(|lsm| lsm.detail.as_str());
    let fix = fix::Facts::gather().fix(refused);
    match as_json {
        true => report::out_json(&fix),
        false => {
            report::out(escape(&fix.finding));
            for step in &fix.steps {
                report::out(format!("  {}", escape(step)));
            }
            if !fix.steps.is_empty() {
                report::out("Then `agentcontainer doctor` says whether it is there.");
            }
        }
    }
    Ok(u8::from(refused.is_some()))
}

const LATER: &[&str] = &["enforcer", "refused attempt", "allowed attempt"];

async fn examine(findings: &mut Findings) {
    let engine = match connect().await {
        Ok(engine) => engine,
        Err(failure) => {
            findings.failed("engine", Some(false), &failure);
            findings.unknown(
                &["cgroup v2", "cgroup driver", "kernel"],
                "no engine to ask",
            );
            findings.unknown(LATER, "no engine to ask");
            return;
        }
    };
    let info = match engine.info().await {
        Ok(info) => info,
        Err(error) => {
            findings.failed("engine", Some(false), &error.into());
            findings.unknown(LATER, "the engine does not answer");
            return;
        }
    };
    let endpoint = engine.endpoint();
    findings.add(
        "engine",
        Some(true),
        format!(
            "{} (API {}) at {}, named by {}",
            info.version,
            info.api,
            endpoint.socket.display(),
            endpoint.by
        ),
        None,
    );
    engine_checks(findings, &info);
    if findings.status() == 1 {
        findings.unknown(LATER, "what comes before it is missing");
        return;
    }
    let sidecar = Places::from_env().and_then(|places| Ok((channel::sidecar(&places)?, places)));
    let (sidecar, places) = match sidecar {
        Ok(found) => found,
        Err(failure) => {
            findings.failed("enforcer", Some(false), &failure);
            findings.unknown(&LATER[1..], "there is no enforcer");
            return;
        }
    };
    let running = match channel::running(&sidecar).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => channel::start(&engine, &sidecar).await,
        Err(failure) => Err(failure),
    };
    match running {
        Ok((enforcer, status)) => {
            enforcer_checks(findings, &sidecar, &status);
            attempts(findings, &engine, enforcer, &sidecar, &places).await;
        }
        Err(failure) => {
            findings.failed("enforcer", Some(false), &failure);
            findings.unknown(&LATER[1..], "there is no enforcer");
        }
    }
}

async fn connect() -> Result<Engine, Failure> {
    let host = loaded::host()?;
    Ok(Engine::connect(host.engine().clone()).await?)
}

fn engine_checks(findings: &mut Findings, info: &EngineInfo) {
    findings.add(
        "cgroup v2",
        Some(info.cgroup_version == "2"),
        format!("cgroup v{}", info.cgroup_version),
        Some("boot with systemd.unified_cgroup_hierarchy=1, then restart the engine"),
    );
    let driver = matches!(info.cgroup_driver.as_str(), "cgroupfs" | "systemd");
    findings.add(
        "cgroup driver",
        Some(driver),
        if driver { info.cgroup_driver.clone() } else { format!("{}, which is not supported", info.cgroup_driver) },
        Some("set \"exec-opts\": [\"native.cgroupdriver=systemd\"] in /etc/docker/daemon.json and restart the engine"),
    );
    findings.add(
        "limits",
        Some(true),
        if info.without.is_empty() {
            "memory, cpus and pids are enforced".to_owned()
        } else {
            format!("this engine does not enforce {}", info.without.join(", "))
        },
        None,
    );
    let version = kernel_version(&info.kernel);
    findings.add(
        "kernel",
        version.map(|v| v >= OLDEST_KERNEL),
        info.kernel.clone(),
        Some("a session needs Linux 6.1 or newer"),
    );
    findings.add(
        "BTF",
        Some(Path::new("/sys/kernel/btf/vmlinux").exists()),
        "/sys/kernel/btf/vmlinux",
        Some("a kernel built with CONFIG_DEBUG_INFO_BTF; every distribution's own is"),
    );
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn enforcer_checks(findings: &mut Findings, sidecar: &Sidecar, status: &v1::StatusReply) {
    findings.add(
        "enforcer",
        Some(true),
        format!("{} version {}", sidecar.container_name(), status.version),
        None,
    );
    let lsm = status
        .capabilities
        .iter()
        .any(|c| c.name == "lsm" && c.there);
    findings.add(
        "files",
        Some(true),
        match lsm {
            true => "carried by mounts and BPF LSM: every rule, also about what comes later",
            false => "carried by mounts: rules about what is there when a session starts; patterns need BPF LSM, or files = \"mounts\" in config.toml",
        },
        None,
    );
    for capability in &status.capabilities {
        // Rules need these, and a start that has any is refused without them.
        let by = match capability.name.as_str() {
            "lsm" => Some(
                "patterns about files need it, and what replaces a file while a session runs is open for a moment without it",
            ),
            "starts" if lsm => Some("BPF LSM does what it is for"),
            "starts" => Some("`allowedBinaries` needs it"),
            _ => None,
        };
        let detail = match (capability.there, by) {
            (true, _) if capability.name == "starts" => {
                "a program that must not be started was ended".to_owned()
            }
            (true, _) => "a program of this kind was loaded".to_owned(),
            (false, None) => capability.detail.clone(),
            (false, Some(by)) => format!("not there ({}); {by}", capability.detail),
        };
        findings.add(
            &format!("bpf {}", capability.name),
            Some(capability.there || by.is_some()),
            detail,
            Some("the kernel, or what it runs in, does not let programs of this kind be loaded"),
        );
    }
}

/// The throwaway session.
async fn attempts(
    findings: &mut Findings,
    engine: &Engine,
    mut enforcer: Enforcer,
    sidecar: &Sidecar,
    places: &Places,
) {
    let record = match new_record(sidecar) {
        Ok(record) => record,
        Err(failure) => {
            findings.failed("refused attempt", None, &failure);
            findings.unknown(&["allowed attempt"], "there was no session to try it in");
            return;
        }
    };
    let mut record = record;
    match try_both(engine, &mut enforcer, sidecar, places, &record).await {
        Ok((refused, allowed)) => {
            let as_it_should = refused.starts_with("refused 1 ");
            findings.add(
                "refused attempt",
                Some(as_it_should),
                format!("connect to {RAW_ADDRESS}: {}", refused.trim()),
                Some("a session here would not be held; do not use it, and tell us"),
            );
            findings.add(
                "allowed attempt",
                Some(allowed.starts_with("answered HTTP/1.1 200")),
                format!("ask {OWN_NAME} for its page: {}", allowed.trim()),
                Some("the gateway does not answer; see `agentcontainer enforcer status`"),
            );
        }
        Err(failure) => {
            findings.failed("refused attempt", None, &failure);
            findings.unknown(&["allowed attempt"], "the session did not come up");
        }
    }
    if let Err(failure) = session::end(
        Some(engine),
        Some(&mut enforcer),
        places,
        &mut record,
        "doctor",
    )
    .await
    {
        findings.failed("cleaning up", Some(false), &failure);
    }
    let _ = std::fs::remove_dir_all(record.dir(places));
}

fn new_record(sidecar: &Sidecar) -> Result<Record, Failure> {
    Ok(Record {
        session: start::new_session()?,
        name: None,
        workspace: "/".into(),
        config: "doctor".to_owned(),
        image: "the enforcer's own".to_owned(),
        enforcer: sidecar.embedded.short(),
        created: record::now(),
        ended: None,
        holder: record::Process::this(),
        granted: Some(Default::default()),
        host_variables: None,
        left: Vec::new(),
    })
}

async fn try_both(
    engine: &Engine,
    enforcer: &mut Enforcer,
    sidecar: &Sidecar,
    places: &Places,
    record: &Record,
) -> Result<(String, String), Failure> {
    record.save(places)?;
    let opened = enforcer
        .open_session(v1::OpenSessionRequest {
            session: record.session.to_string(),
            workspace: "doctor".to_owned(),
            policy: EffectivePolicy::deny_all().to_json(),
            roots: Vec::new(),
            secrets: Vec::new(),
            files: Vec::new(),
            owner: None,
        })
        .await
        .map_err(|status| channel::refused("open the session", &status))?
        .into_inner();
    let request = CreateRequest {
        session: record.session.clone(),
        name: None,
        workspace: "doctor".to_owned(),
        image: engine.sidecar_image(&sidecar.embedded).await?,
        cgroup_parent: opened.cgroup_parent,
        init_volume: sidecar.embedded.init_volume(),
        init: InitArguments::default(),
        user: "65534:65534".to_owned(),
        hostname: "doctor".to_owned(),
        working_dir: "/tmp".to_owned(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        limits: Limits::default(),
        tty: false,
        stdin: false,
        stop_signal: None,
        stop_timeout: 1,
    };
    let checked = request
        .check(&places.private())
        .map_err(|violation| Failure::from(engine::EngineError::from(violation)))?;
    let container = engine.create(&checked).await?.id;
    engine.start(&container).await?;
    wired(engine, enforcer, &container, record).await?;
    let refused = probe(engine, &container, RAW_ADDRESS).await?;
    let allowed = probe(engine, &container, OWN_NAME).await?;
    Ok((refused, allowed))
}

async fn wired(
    engine: &Engine,
    enforcer: &mut Enforcer,
    container: &str,
    record: &Record,
) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let listed = enforcer
            .list_sessions(v1::ListSessionsRequest {})
            .await
            .map_err(|status| channel::refused("list its sessions", &status))?
            .into_inner();
        if listed
            .sessions
            .iter()
            .any(|s| s.session == record.session.as_str() && s.wired)
        {
            return Ok(());
        }
        if began.elapsed() > WIRED || !engine.inspect(container).await?.running {
            return Err(Failure::new(
                "not-wired",
                "the enforcer did not wire the session's network",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn probe(engine: &Engine, container: &str, target: &str) -> Result<String, Failure> {
    let exec = Exec {
        // The session's own init has waited for the enforcer already.
        command: [INIT, "--wait-ms", "0", "--probe", target]
            .map(str::to_owned)
            .to_vec(),
        ..Exec::default()
    };
    let id = engine.exec_create(container, &exec).await?;
    let (_input, mut output) = engine.exec_start(&id, false).await?;
    let mut said = Vec::new();
    while let Some((_, bytes)) = output
        .next()
        .await
        .map_err(|e| Failure::new("stream", format!("the attempt's output broke off: {e}")))?
    {
        said.extend(bytes);
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("6.12"), Some((6, 12)));
        assert_eq!(kernel_version("5.15.0+"), Some((5, 15)));
        assert_eq!(kernel_version("x"), None);
    }

    #[test]
    fn the_status_says_missing_before_unknown() {
        let mut findings = Findings::default();
        findings.add("a", Some(true), "", Some("help"));
        assert_eq!((findings.status(), &findings.0[0].help), (0, &None));
        findings.unknown(&["b"], "");
        assert_eq!(findings.status(), 2);
        findings.add("c", Some(false), "", None);
        assert_eq!(findings.status(), 1);
    }
}
