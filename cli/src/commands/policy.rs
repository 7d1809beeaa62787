//! `agentcontainer policy show|explain`: the effective policy, and what it says about one destination; `suggest` and what is about an
//! organisation's document are files of their own.

mod document;
mod publish;

use std::path::{Path, PathBuf};

use policy::explain::Target;
use policy::text;
use schema::config::filesystem::PathPattern;
use schema::inspection::Inspector;

use super::{json, suggest};
use crate::agent;
use crate::loaded::Loaded;
use crate::report::{self, Failure, OURS, escape};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show every entry and where it comes from
    Show {
        /// The config to use
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// With what the profile of this agent adds
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Under this organisation's policy too, to try it out before it is published
        #[arg(long, value_name = "FILE")]
        organisation: Vec<PathBuf>,
        /// As it travels to the enforcer
        #[arg(long)]
        json: bool,
    },
    /// Say what is decided about a destination, by which rule, and what the wire must say: 0 allowed or asked about, 1 denied
    Explain {
        /// A name or an address; without a port, every port that policy names for it. A path in the container
        #[arg(value_name = "HOST[:PORT] | /PATH | ./PATH")]
        target: String,
        /// The config to use
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// With what the profile of this agent adds
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Under this organisation's policy too, to try it out before it is published
        #[arg(long, value_name = "FILE")]
        organisation: Vec<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write an organisation's policy to begin with
    Init(document::Init),
    /// Check an organisation's policy: 0 it can be published, 1 it cannot, 2 it could not be read
    Check(document::Check),
    /// Say what a new policy allows that the old one does not: 0 nothing, 1 something
    Diff(document::Diff),
    /// Put an organisation's policy into a registry
    Push(publish::Push),
    /// Sign a policy that is in a registry
    Sign(publish::Sign),
    /// Fetch the policy that config.toml names, and believe it if it holds
    Pull(publish::Pull),
    /// Say which entries would have let pass what a session was refused, and by which program
    Suggest(suggest::Args),
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    match &args.command {
        Command::Suggest(args) => suggest::run(args).await,
        Command::Init(args) => document::init(args),
        Command::Check(args) => document::check(args),
        Command::Diff(args) => document::diff(args),
        Command::Push(args) => publish::push(args).await,
        Command::Sign(args) => publish::sign(args).await,
        Command::Pull(args) => publish::pull(args).await,
        Command::Show {
            config,
            agent,
            organisation,
            json: as_json,
        } => {
            let as_json = json(*as_json);
            let loaded = read(config.as_deref(), agent.as_deref(), organisation)?;
            show(&loaded, as_json)
        }
        Command::Explain {
            target,
            config,
            agent,
            organisation,
            json: as_json,
        } => {
            let as_json = json(*as_json);
            if let Some(path) = path(target) {
                let path = path.map_err(|f| f.status(2))?;
                let loaded = read(config.as_deref(), agent.as_deref(), organisation)
                    .map_err(|f| f.status(2))?;
                let explanation = policy::explain_path(&loaded.policy, &loaded.config, &path);
                if as_json {
                    report::out_json(&explanation);
                } else {
                    report::out(lines(&explanation.to_string()));
                }
                return Ok(u8::from(!explanation.is_open()));
            }
            let target: Target = target
                .parse()
                .map_err(|e| Failure::new("target", format!("{target}: {e}")).status(2))?;
            let loaded =
                read(config.as_deref(), agent.as_deref(), organisation).map_err(|f| f.status(2))?;
            let explanation =
                policy::explain(&loaded.policy.compile(), &target, &loaded.config.file)
                    .with_credentials(&loaded.policy.credentials);
            let allowed = explanation.answers.iter().any(|a| a.verdict != "deny");
            if as_json {
                report::out_json(&explanation);
            } else {
                report::out(lines(&explanation.to_string()));
            }
            Ok(u8::from(!allowed))
        }
    }
}

fn read(
    config: Option<&Path>,
    agent: Option<&str>,
    organisation: &[PathBuf],
) -> Result<Loaded, Failure> {
    let local = organisation.iter().map(|path| document::read(path, OURS));
    let local = local.collect::<Result<Vec<_>, _>>()?;
    let mut loaded = match agent::chosen(agent, None, None)? {
        Some(mut chosen) => agent::load_under(&mut chosen, config, local),
        None => Loaded::read_under(config, local),
    }?;
    loaded.hold_under_own()?;
    loaded.remarks.iter().for_each(report::warning);
    Ok(loaded)
}

/// Several lines of a stranger's words, each escaped.
fn lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Rules about files, each with the layer that carries it.
/// A path of the container, or below the workspace's folder there, where that is what is asked about.
fn path(target: &str) -> Option<Result<PathPattern, Failure>> {
    let below = target.strip_prefix("./");
    if below.is_none() && !target.starts_with('/') {
        return None;
    }
    let parsed: Result<PathPattern, _> = below.unwrap_or(target).parse();
    let named = match parsed {
        Ok(path) if path.is_glob() => Err("a pattern is no path".to_owned()),
        Ok(path) => Ok(path),
        Err(error) => Err(error.to_string()),
    };
    Some(named.map_err(|why| Failure::new("target", format!("{target}: {why}"))))
}

/// Rules about files and programs.
fn files(policy: &policy::EffectivePolicy) {
    let (files, programs) = (&policy.files, &policy.programs);
    let mut rows: Vec<_> = files
        .all()
        .map(|(right, rule)| vec![text::file(right, rule), rule.origin.to_string()])
        .collect();
    let started = programs.all();
    rows.extend(
        started.map(|(right, rule)| vec![text::program(right, rule), rule.origin.to_string()]),
    );
    if let Some(origin) = &programs.require_approval {
        rows.push(vec![text::PROGRAMS_ASKED.to_owned(), origin.to_string()]);
    }
    if let Some(origin) = &files.mounts_suffice {
        let words =
            "files \"mounts\": where there is no BPF LSM, what is there when a session starts"
                .to_owned();
        rows.push(vec![words, origin.to_string()]);
    }
    if !rows.is_empty() {
        report::out(lines(&report::table(&rows)));
    }
}

fn show(loaded: &Loaded, as_json: bool) -> Result<u8, Failure> {
    if as_json {
        report::out(String::from_utf8_lossy(&loaded.policy.to_json()));
        return Ok(0);
    }
    let mut rows = Vec::new();
    for layer in loaded.policy.network.layers() {
        let mut row = |words: String, origin: &policy::Origin| {
            rows.push(vec![words, origin.to_string()]);
        };
        layer
            .allowed
            .iter()
            .for_each(|r| row(text::allowed_domain(r), &r.origin));
        layer
            .denied
            .iter()
            .for_each(|r| row(text::denied_domain(r), &r.origin));
        layer
            .rules
            .iter()
            .for_each(|r| row(text::rule(r), &r.origin));
        layer
            .networks
            .iter()
            .for_each(|r| row(text::network(r), &r.origin));
        layer
            .ask_unlisted
            .iter()
            .for_each(|origin| row(text::UNLISTED.to_owned(), origin));
    }
    for (words, origin) in loaded.policy.ceilings().iter().flat_map(text::ceiling) {
        rows.push(vec![words, origin.to_string()]);
    }
    if let Some(origin) = &loaded.policy.unasked {
        rows.push(vec![text::UNASKED.to_owned(), origin.to_string()]);
    }
    for credential in &loaded.policy.credentials {
        rows.push(vec![
            text::credential(credential),
            credential.origin.to_string(),
        ]);
    }
    if rows.is_empty() {
        report::out("nothing is reachable");
    } else {
        report::out(lines(&report::table(&rows)));
        let layers = loaded.policy.network.layers();
        if layers.iter().all(|layer| layer.ask_unlisted.is_some()) {
            report::out("everything else is asked about at ports 443 and 80, and denied at others");
        } else {
            report::out("everything else is denied");
        }
    }
    files(&loaded.policy);
    let inspection = &loaded.policy.inspection;
    let levels = Inspector::ALL.map(|inspector| {
        let origin = inspection.origin(inspector).map(ToString::to_string);
        vec![
            text::inspection(inspector, inspection),
            origin.unwrap_or_default(),
        ]
    });
    report::out(lines(&report::table(&levels)));
    let held = loaded.limits.words().into_iter();
    let held: Vec<_> = held
        .chain(loaded.requirements.words())
        .map(|(words, origin)| vec![words, origin.to_string()])
        .collect();
    if !held.is_empty() {
        report::out(lines(&report::table(&held)));
    }
    let added = policy::Review::of_profile(&loaded.config);
    if !added.is_empty() {
        report::out(added.join("\n"));
    }
    Ok(0)
}
