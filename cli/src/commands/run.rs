//! `agentcontainer run`: config, review, session, container, program; and nothing left behind, however it ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::v1;
use engine::git::Doing;
use engine::{Engine, control};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::json;
use crate::agent;
use crate::channel::Enforcer;
use crate::credentials::keep::Keeper;
use crate::credentials::{self, Resolved};
use crate::events::{self, Denials};
use crate::install::{self, Done, How};
use crate::loaded::Loaded;
use crate::lock::{self, Unlocked, features};
use crate::organisation;
use crate::record::{self, Record};
use crate::relay::{self, End, Remote, Signals};
use crate::report::{self, Failure, OURS};
use crate::start::{self, Asked, Ready};
use crate::terminal::{self, Raw};
use crate::{authority, banner, prompt, session, trust};

/// How long a detached session may take until its network is wired.
const WIRED: Duration = Duration::from_secs(15);
/// How long the events that are under way are waited for, once the program has ended.
const LAST_EVENTS: Duration = Duration::from_millis(150);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name for the session, in place of its id
    #[arg(long)]
    name: Option<String>,
    /// Leave it running and print its id
    #[arg(short, long)]
    detach: bool,
    /// Set a variable inside; without a value, to what it is here
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The config to use: a file, or the name of a folder in .devcontainer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show what would be created, and create nothing
    #[arg(long)]
    plan: bool,
    /// Approve what the config asks for without being asked
    #[arg(long)]
    yes: bool,
    /// Lock first what is not locked; with AGENT in a workspace without a config, look its image up again
    #[arg(long, conflicts_with = "plan")]
    lock: bool,
    /// Ask no registry: image, policies and whatever is required are those that are here, as after `bundle import`
    #[arg(long, conflicts_with = "lock")]
    offline: bool,
    /// With --plan and --detach: as JSON
    #[arg(long)]
    json: bool,
    /// An agent to run, which brings what it needs: claude, codex, gemini, opencode, shell
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    /// With AGENT: the image to use in place of the profile's, where the workspace has no config
    #[arg(long, value_name = "IMAGE", requires = "agent")]
    image: Option<String>,
    /// Another version of the agent than the one that is known to work, where it has to be installed
    #[arg(long, value_name = "VERSION", requires = "agent")]
    agent_version: Option<String>,
    /// The program, in place of the image's own; with AGENT its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    if let Some(name) = &args.name {
        record::check_name(name)?;
    }
    let mut chosen = agent::chosen(args.agent.as_deref(), args.agent_version, args.image)?;
    if !args.plan && !args.offline {
        organisation::up_to_date().await?;
    }
    let mut loaded = match &mut chosen {
        Some(chosen) => agent::load(chosen, args.config.as_deref())?,
        None => Loaded::read(args.config.as_deref())?,
    };
    loaded.offline = args.offline;
    features::refuse_run(&loaded.config)?;
    let brought = chosen.as_ref().is_some_and(|chosen| chosen.brought);
    let unlocked = match (args.plan, args.lock) {
        (true, _) => Unlocked::Plan,
        (false, true) => Unlocked::Lock { yes: args.yes },
        (false, false) => Unlocked::Stop,
    };
    lock::require(&mut loaded, brought, unlocked).await?;
    let env = super::environment(&args.env)?;
    let mut asked = Asked {
        name: args.name,
        env: env.set,
        command: args.command,
        detached: args.detach,
        tty: !args.detach && terminal::is_interactive(),
        agent: None,
    };
    credentials::check_variables(&loaded.policy, &asked.env)?;
    let mut to_install = None;
    if let Some(chosen) = &chosen {
        let how = if args.plan {
            How::Plan
        } else {
            How::Run { yes: args.yes }
        };
        to_install = install::settle(chosen, &mut loaded, &mut asked, how).await?;
    }
    if args.plan {
        loaded.hold_under_own()?;
        organisation::hold_variables(&loaded, &env.taken)?;
        loaded.remarks.iter().for_each(report::warning);
        loaded.limits.clone().apply(&mut loaded.config);
        return plan(&loaded, &asked, as_json).await;
    }
    trust::require(&loaded, args.yes)?;
    lock::hold(&mut loaded, args.yes).await?;
    organisation::hold_variables(&loaded, &env.taken)?;
    loaded.remarks.iter().for_each(report::warning);
    let mut reviewed = loaded.clone();
    // What was reviewed is what the workspace says; the container is made with what is left of it.
    loaded.limits.clone().apply(&mut loaded.config);
    agent::keep_grant(&mut loaded)?;
    reviewed.config.profile = loaded.config.profile.clone();
    let mut record = start::record_of(&loaded, &asked)?;
    refuse_taken_name(&loaded, &record)?;
    let mut signals = Signals::register()?;
    let mut is_new = false;
    if let Some(volume) = to_install {
        match install::run(&loaded, &volume, &mut signals).await? {
            Done::Installed(pin) => {
                agent::know_pin(&mut loaded, pin);
                is_new = true;
            }
            Done::Told(number) => return Ok(by_signal(number)),
        }
    }
    lock::agents::keep(&mut loaded, brought)?;
    if is_new {
        // What was approved was to be installed; from now on it is these packages.
        let mut installed = reviewed.clone();
        installed.config.profile = loaded.config.profile.clone();
        trust::approve_installed(&reviewed, &installed)?;
    }
    let credentials = credentials::resolve(&loaded, args.detach).await?;
    record.save(&loaded.places)?;

    let before = control::present(&loaded.workspace);
    let mut up = None;
    let result = bring_up(
        &loaded,
        &asked,
        &credentials,
        &record,
        &mut signals,
        &mut up,
    )
    .await;
    if let (Ok(OURS_TO_KEEP), true) = (&result, asked.detached) {
        record.holder = None;
        record.save(&loaded.places)?;
        if as_json {
            report::out_json(&record);
        } else {
            report::out(&record.session);
        }
        return Ok(0);
    }
    let ended = clean_up(&loaded, &mut record, up).await;
    for name in control::present(&loaded.workspace).difference(&before) {
        report::warning(format!(
            "{name} appeared in the workspace while the session ran; look at it before a program on this machine obeys it"
        ));
    }
    let status = result?;
    ended?;
    Ok(status)
}

/// The status of a detached session that is up.
const OURS_TO_KEEP: u8 = 0;

/// What was brought up, as far as it got; what `clean_up` works from.
struct Up {
    engine: Engine,
    enforcer: Enforcer,
}

/// From nothing to the program's end. Whatever is up when it returns is in `up`.
async fn bring_up(
    loaded: &Loaded,
    asked: &Asked,
    credentials: &[Resolved],
    record: &Record,
    signals: &mut Signals,
    up: &mut Option<Up>,
) -> Result<u8, Failure> {
    let (stop, stopped) = watch::channel(false);
    let ready = {
        let mut preparing =
            std::pin::pin!(start::prepare(loaded, asked, credentials, record, stopped));
        let mut told = None;
        loop {
            tokio::select! {
                ready = &mut preparing => break match (ready, told) {
                    (Ok(ready), None) => Ok(ready),
                    (Ok(ready), Some(number)) => {
                        *up = Some(Up { engine: ready.engine, enforcer: ready.enforcer });
                        return Ok(by_signal(number));
                    }
                    (Err(_), Some(number)) => return Ok(by_signal(number)),
                    (Err(failure), None) => Err(failure),
                },
                number = signals.stop() => {
                    if told.replace(number).is_some() {
                        return Ok(by_signal(number));
                    }
                    let _ = stop.send(true);
                }
            }
        }?
    };
    *up = Some(Up {
        engine: ready.engine.clone(),
        enforcer: ready.enforcer.clone(),
    });
    banner::print(loaded, record, &ready);
    if asked.detached {
        detached(ready, record).await
    } else {
        let keeper = Keeper::new(loaded, credentials);
        attached(ready, record, asked, signals, keeper).await
    }
}

fn by_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(OURS)
}

/// A name means one session that has not ended.
fn refuse_taken_name(loaded: &Loaded, record: &Record) -> Result<(), Failure> {
    let Some(name) = &record.name else {
        return Ok(());
    };
    let taken = record::all(&loaded.places).into_iter().any(|other| {
        other.session != record.session
            && other.ended.is_none()
            && (other.name.as_deref() == Some(name) || other.session.as_str() == name)
    });
    if taken {
        return Err(Failure::new(
            "name-taken",
            format!("a session named {name} has not ended"),
        )
        .help(format!(
            "`agentcontainer stop {name}`, or `agentcontainer gc` if it is left from a crash"
        )));
    }
    Ok(())
}

/// Starts it and waits until its network is wired.
async fn detached(mut ready: Ready, record: &Record) -> Result<u8, Failure> {
    ready.engine.start(&ready.container).await?;
    let began = Instant::now();
    loop {
        let listed = ready
            .enforcer
            .list_sessions(v1::ListSessionsRequest {})
            .await
            .map_err(|status| {
                crate::channel::refused("say whether the session is wired", &status)
            })?;
        let wired = listed
            .into_inner()
            .sessions
            .iter()
            .any(|s| s.session == record.session.as_str() && s.wired);
        if wired {
            remarks(&mut ready.enforcer, record).await;
            return Ok(OURS_TO_KEEP);
        }
        let state = ready.engine.inspect(&ready.container).await?;
        if !state.running {
            // It may have done all it had to; only init's own status says that it never ran.
            return match state.exit_code {
                Some(125..=127) => Err(never_ran(&ready, state.exit_code).await),
                _ => Ok(OURS_TO_KEEP),
            };
        }
        if began.elapsed() > WIRED {
            return Err(never_ran(&ready, None).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says what the beginning of a session had to say, which is on record when it is wired.
async fn remarks(enforcer: &mut Enforcer, record: &Record) {
    let Ok(mut stream) = events::open(enforcer, record.session.as_str(), 0, false).await else {
        return;
    };
    while let Ok(Some(line)) = stream.message().await {
        if let Some(remark) = events::parse(&line).as_ref().and_then(events::remark) {
            report::warning(remark);
        }
    }
}

async fn never_ran(ready: &Ready, status: Option<i64>) -> Failure {
    let logs = engine::containers::Logs {
        follow: false,
        tail: Some(5),
        timestamps: false,
    };
    let mut said = Vec::new();
    if let Ok(mut output) = ready.engine.logs(&ready.container, false, logs).await {
        while let Ok(Some((_, bytes))) = output.next().await {
            said.extend(bytes);
        }
    }
    let said = String::from_utf8_lossy(&said);
    let mut failure = Failure::new(
        "not-started",
        format!("the program was not started: {}", said.trim()),
    );
    if let Some(Ok(status)) = status.map(u8::try_from) {
        failure.status = status;
    }
    failure
}

/// What reaches the container's program.
struct Main<'a> {
    engine: &'a Engine,
    container: &'a str,
}

impl Remote for Main<'_> {
    async fn resize(&self, rows: u16, columns: u16) {
        let _ = self.engine.resize(self.container, rows, columns).await;
    }

    async fn signal(&self, name: &'static str) {
        let _ = self.engine.kill(self.container, name).await;
    }
}

/// Runs the program in the foreground.
async fn attached(
    ready: Ready,
    record: &Record,
    asked: &Asked,
    signals: &mut Signals,
    keeper: Keeper,
) -> Result<u8, Failure> {
    let (engine, container) = (&ready.engine, ready.container.as_str());
    let (input, output) = engine.attach(container, asked.tty, true).await?;
    let raw = asked.tty.then(Raw::enter).flatten();
    let live = report::stderr_is_terminal() && !asked.tty;
    let (tell, told) = oneshot::channel();
    let (replaced, gateways) = watch::channel(0);
    let watching = tokio::spawn(watch_events(
        ready.enforcer.clone(),
        record.session.to_string(),
        live,
        asked.tty,
        told,
        replaced,
    ));
    // Both end with the one that tells them.
    let kept = keeper.keep(
        ready.enforcer.clone(),
        record.session.clone(),
        gateways.clone(),
    );
    tokio::spawn(kept);
    tokio::spawn(authority::keep(
        ready.enforcer.clone(),
        record.session.clone(),
        ready.session_dir.clone(),
        gateways,
    ));
    let asking = tokio::spawn(prompt::ask(
        ready.enforcer.clone(),
        record.session.to_string(),
        asked.tty,
    ));
    let status = foreground(&ready, input, output, asked, signals).await;
    asking.abort();
    drop(raw);
    finish_events(watching, tell, live).await;
    status
}

async fn foreground(
    ready: &Ready,
    input: engine::stream::Input,
    output: engine::stream::Output,
    asked: &Asked,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let (engine, container) = (&ready.engine, ready.container.as_str());
    engine.start(container).await?;
    let remote = Main { engine, container };
    match relay::relay(Some(input), output, signals, asked.tty, &remote).await? {
        End::Output => {}
        End::Interrupted => {
            engine.kill(container, "SIGKILL").await?;
            return Ok(by_signal(libc::SIGINT));
        }
        End::Told(number) => {
            engine
                .stop(container, Some(ready.request.stop_timeout))
                .await?;
            return Ok(by_signal(number));
        }
    }
    // The program closed its output; it may still run.
    tokio::select! {
        code = engine.wait(container) => Ok(u8::try_from(code?).unwrap_or(OURS)),
        number = signals.stop() => {
            engine.stop(container, Some(ready.request.stop_timeout)).await?;
            Ok(by_signal(number))
        }
    }
}

/// Follows the session's events until told that the program has ended: denials are shown as they come where the terminal is
/// ours, and kept where it is the program's. An enforcer that goes away is said once, and asked again.
async fn watch_events(
    mut enforcer: Enforcer,
    session: String,
    live: bool,
    tty: bool,
    mut told: oneshot::Receiver<()>,
    replaced: watch::Sender<u64>,
) -> Denials {
    let mut denials = Denials::default();
    let (mut next, mut gone, mut again) = (0, false, false);
    loop {
        let follow = async {
            let mut stream = events::open(&mut enforcer, &session, next, true)
                .await
                .ok()?;
            if again {
                // An enforcer that is back has new gateways too.
                replaced.send_modify(|n| *n += 1);
            }
            while let Ok(Some(line)) = stream.message().await {
                let Some(event) = events::parse(&line) else {
                    continue;
                };
                next = event.seq + 1;
                if event.reason == "gateway-restarted" {
                    replaced.send_modify(|n| *n += 1);
                }
                match events::remark(&event) {
                    Some(remark) if tty => denials.remarks.push(remark.to_owned()),
                    Some(remark) => report::warning(remark),
                    None => {}
                }
                if let (Some(line), true) = (denials.hear(&event), live) {
                    report::denied(line);
                }
            }
            Some(())
        };
        tokio::select! {
            _ = &mut told => return denials,
            _ = follow => {}
        }
        again = true;
        if !gone {
            gone = true;
            if live {
                report::warning(
                    "the enforcer is gone: every new connection is refused until it is back; the program goes on",
                );
            }
        }
        tokio::select! {
            _ = &mut told => return denials,
            _ = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

async fn finish_events(watching: JoinHandle<Denials>, tell: oneshot::Sender<()>, live: bool) {
    if report::stderr_is_terminal() {
        tokio::time::sleep(LAST_EVENTS).await;
    }
    let _ = tell.send(());
    if let Ok(denials) = watching.await
        && !live
        && report::stderr_is_terminal()
    {
        denials.remarks.iter().for_each(report::warning);
        for line in denials.summary() {
            report::denied(line);
        }
    }
}

/// Ends what is up, or what may have come up half-way.
async fn clean_up(loaded: &Loaded, record: &mut Record, up: Option<Up>) -> Result<(), Failure> {
    let (engine, mut enforcer) = match up {
        Some(up) => (Some(up.engine), Some(up.enforcer)),
        None => {
            let enforcer = match crate::channel::sidecar(&loaded.places) {
                Ok(sidecar) => crate::channel::running(&sidecar).await.ok().flatten(),
                Err(_) => None,
            };
            // One that could not be reached to begin anything holds nothing.
            let engine = Engine::connect(loaded.host.engine().clone()).await.ok();
            (engine, enforcer.map(|(enforcer, _)| enforcer))
        }
    };
    session::end(
        engine.as_ref(),
        enforcer.as_mut(),
        &loaded.places,
        record,
        "ended",
    )
    .await
}

async fn plan(loaded: &Loaded, asked: &Asked, as_json: bool) -> Result<u8, Failure> {
    let engine = Engine::connect(loaded.host.engine().clone()).await?;
    let info = engine.info().await?;
    info.check()?;
    let reference = &loaded.config.image.value;
    let Some(image) = lock::present(&engine, loaded).await? else {
        return Err(Failure::new(
            "image-not-found",
            format!(
                "{} is not on this machine, and a plan pulls nothing",
                reference.as_str()
            ),
        )
        .help("`agentcontainer run` pulls it, or `docker pull` does"));
    };
    let contents = engine.contents(&image, &loaded.places.images()).await?;
    let mut record = start::record_of(loaded, asked)?;
    record.session = start::new_session()?;
    let planned = start::plan(loaded, asked, &record, &info, &image, &contents)
        .with_placeholders(&credentials::unresolved(&loaded.policy))
        .make(Doing::Look)?;
    planned
        .request
        .check(&loaded.places.private())
        .map_err(|violation| Failure::from(engine::EngineError::from(violation)))?;
    if as_json {
        report::out_json(&planned.request);
    } else {
        report::out(banner::plan(loaded, &record, &planned));
        let pretty = serde_json::to_string_pretty(&planned.request).unwrap_or_default();
        report::out(pretty);
    }
    Ok(0)
}
