//! The command line's shape (clap), and which file carries out which command.

mod approvals;
mod approve;
mod audit;
mod bundle;
mod completions;
mod config;
mod credential;
mod doctor;
mod drift;
mod enforcer;
mod exec;
mod gc;
mod grant;
mod init;
mod lock;
mod logs;
mod man;
mod policy;
mod ps;
mod rm;
mod run;
mod sign;
mod stop;
mod suggest;
mod trust;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use clap::{Parser, Subcommand};

use crate::report::{self, Failure};

/// Runs AI coding agents in containers that can do what agentcontainer.json declares and nothing else
#[derive(Debug, Parser)]
#[command(name = "agentcontainer", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an agentcontainer.json from what the project is
    Init(init::Args),
    /// Look up what the config names and write it down by digest
    Lock(lock::Args),
    /// Show what the names in the lockfile stand for now, and what that does differently
    Drift(drift::Args),
    /// Check what is locked: that it still is what was locked, and who signed it
    Verify(verify::Args),
    /// Sign what a reference names
    Sign(sign::Args),
    /// Put a signed statement, provenance or an inventory, beside what a reference names
    Attest(sign::AttestArgs),
    /// Carry what is locked to a machine without a network
    Bundle(bundle::Args),
    /// Start a session in this directory and run a program in it
    Run(run::Args),
    /// Run a command in a session
    Exec(exec::Args),
    /// List sessions
    Ps(ps::Args),
    /// Show what a session wrote, or what it reached and was refused
    Logs(logs::Args),
    /// End sessions
    Stop(stop::Args),
    /// Remove what is left of a session that has ended
    Rm(rm::Args),
    /// Remove everything that no session uses
    Gc(gc::Args),
    /// Check this machine, with one attempt that must be refused and one that must pass
    Doctor(doctor::Args),
    /// Start, stop or look at the enforcer
    Enforcer(enforcer::Args),
    /// Show what waits for a person
    Approvals(approvals::Args),
    /// Allow what waits, once, for the session, or for good
    Approve(approve::Args),
    /// Deny what waits
    Deny(approve::DenyArgs),
    /// Look at what is on record
    Audit(audit::Args),
    /// Check or show the workspace's config
    Config(config::Args),
    /// Show or explain the effective policy, or suggest entries from what was refused
    Policy(policy::Args),
    /// Let a workspace use a credential, or take that back
    Grant(grant::Args),
    /// List or try what is granted, take it from open sessions, or hand them new values
    Credential(credential::Args),
    /// List or revoke approvals
    Trust(trust::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
}

/// Carries the command out; what comes back is the exit status.
pub async fn dispatch(cli: Cli) -> u8 {
    let result = match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Lock(args) => lock::run(args).await,
        Command::Drift(args) => drift::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Sign(args) => sign::run(args).await,
        Command::Attest(args) => sign::attest(args).await,
        Command::Bundle(args) => bundle::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Exec(args) => exec::run(args).await,
        Command::Ps(args) => ps::run(&args).await,
        Command::Logs(args) => logs::run(&args).await,
        Command::Stop(args) => stop::run(&args).await,
        Command::Rm(args) => rm::run(&args).await,
        Command::Gc(args) => gc::run(&args).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Enforcer(args) => enforcer::run(&args).await,
        Command::Approvals(args) => approvals::run(&args).await,
        Command::Approve(args) => approve::run(&args).await,
        Command::Deny(args) => approve::deny(&args).await,
        Command::Audit(args) => audit::run(&args).await,
        Command::Config(args) => config::run(&args),
        Command::Policy(args) => policy::run(&args).await,
        Command::Grant(args) => grant::run(&args).await,
        Command::Credential(args) => credential::run(&args).await,
        Command::Trust(args) => trust::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    match result {
        Ok(status) => status,
        Err(failure) => {
            failure.print();
            failure.status
        }
    }
}

/// What every command about sessions begins with.
struct Desk {
    places: crate::places::Places,
    engine: engine::Engine,
    sessions: Vec<crate::record::Session>,
}

impl Desk {
    async fn open() -> Result<Self, Failure> {
        let places = crate::places::Places::from_env()?;
        let host = crate::loaded::host()?;
        let engine = engine::Engine::connect(host.engine().clone()).await?;
        let containers = engine.sessions().await?;
        let sessions = crate::record::join(crate::record::all(&places), &containers);
        Ok(Self {
            places,
            engine,
            sessions,
        })
    }

    /// The enforcer, if one runs. A program without an embedded one has none to talk to.
    async fn enforcer(&self) -> Result<Option<crate::channel::Enforcer>, Failure> {
        let Ok(sidecar) = crate::channel::sidecar(&self.places) else {
            return Ok(None);
        };
        Ok(crate::channel::running(&sidecar)
            .await?
            .map(|(enforcer, _)| enforcer))
    }

    fn pick(
        &self,
        name: Option<&str>,
        fits: impl Fn(&crate::record::Session) -> bool,
    ) -> Result<&crate::record::Session, Failure> {
        crate::record::pick(&self.sessions, name, &crate::loaded::workspace()?, fits)
    }
}

pub use suggest::absolute;

/// `--json` of a command: also how its failures are printed.
fn json(on: bool) -> bool {
    report::set_json(on);
    on
}

/// What `-e` sets. As with engines, a name without a value is taken from here, and one that is not set here is left out.
#[derive(Debug, Default)]
struct Environment {
    set: BTreeMap<String, String>,
    /// Those of them whose values are this host's: policies have a ceiling on such.
    taken: BTreeSet<String>,
}

fn environment(given: &[String]) -> Result<Environment, Failure> {
    let mut env = Environment::default();
    for entry in given {
        let (name, value, taken) = match entry.split_once('=') {
            Some((name, value)) => (name, value.to_owned(), false),
            None => match std::env::var(entry) {
                Ok(value) => (entry.as_str(), value, true),
                Err(_) => continue,
            },
        };
        let good = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good || name.starts_with("AGENTCONTAINER_") {
            return Err(Failure::new(
                "variable-name",
                format!("{name} is not a variable that can be set"),
            ));
        }
        if taken {
            env.taken.insert(name.to_owned());
        } else {
            env.taken.remove(name);
        }
        env.set.insert(name.to_owned(), value);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn variables_are_taken_apart_and_ours_cannot_be_set() {
        let env = environment(&["A=b=c".into(), "EMPTY=".into(), "PATH".into()]).unwrap();
        assert_eq!(env.set["A"], "b=c");
        assert_eq!(env.set["EMPTY"], "");
        assert_eq!(env.taken, ["PATH".to_owned()].into());
        let said = environment(&["PATH".into(), "PATH=/bin".into()]).unwrap();
        assert!(said.taken.is_empty() && said.set["PATH"] == "/bin");
        for bad in ["=x", "1A=x", "A B=x", "AGENTCONTAINER_SESSION=x"] {
            assert!(environment(&[bad.into()]).is_err(), "{bad}");
        }
        assert!(
            environment(&["SURELY_NOT_SET_ANYWHERE".into()])
                .unwrap()
                .set
                .is_empty()
        );
    }
}
