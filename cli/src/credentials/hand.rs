//! Values of sessions that are open: handed anew to those that hold a credential, or taken away from them. Used by
//! `credential revoke|rotate`, by `grant --revoke`, and by the `run` that keeps its session's values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::v1;
use schema::hostconfig::{Grant, HostConfig, Setting};
use secrets::Fetched;

use super::{Asker, bound};
use crate::channel::{self, Enforcer};
use crate::loaded;
use crate::places::Places;
use crate::record::{self, Record};
use crate::report::{Failure, escape};

/// A session that has a credential of that name.
#[derive(Debug)]
pub struct Holder {
    pub session: String,
    pub workspace: PathBuf,
    /// held, missing or revoked.
    pub state: String,
    shown: String,
    /// What its grant was known by as the session began.
    granted: Option<String>,
}

impl Holder {
    /// The name that a person would use.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

/// The open sessions that have the credential. `None`: no enforcer runs, and so no session.
pub async fn holders(
    places: &Places,
    name: &str,
    session: Option<&str>,
) -> Result<Option<(Enforcer, Vec<Holder>)>, Failure> {
    let sidecar = channel::sidecar(places)?;
    let Some((mut enforcer, _)) = channel::running(&sidecar).await? else {
        return Ok(None);
    };
    let listed = enforcer
        .list_sessions(v1::ListSessionsRequest {})
        .await
        .map_err(|status| channel::refused("list its sessions", &status))?;
    let holders = meant(places, listed.into_inner().sessions, name, session);
    Ok(Some((enforcer, holders)))
}

/// Those of the sessions that are meant and have the credential.
fn meant(
    places: &Places,
    listed: Vec<v1::Session>,
    name: &str,
    session: Option<&str>,
) -> Vec<Holder> {
    let records = record::all(places);
    let holders = listed.into_iter().filter_map(|open| {
        let record = records.iter().find(|r| r.session.as_str() == open.session);
        let held = open.credentials.iter().find(|h| h.credential == name)?;
        let meant = session.is_none_or(|wanted| {
            open.session == wanted || record.is_some_and(|record| record.is(wanted))
        });
        meant.then(|| Holder {
            workspace: record
                .map_or_else(|| open.workspace.clone().into(), |r| r.workspace.clone()),
            shown: record
                .map_or(open.session.as_str(), Record::shown)
                .to_owned(),
            state: held.state.clone(),
            granted: record
                .and_then(|record| record.granted.as_ref()?.get(name))
                .cloned(),
            session: open.session,
        })
    });
    holders.collect()
}

/// Takes a credential away from a session, for good.
pub async fn take(enforcer: &mut Enforcer, session: &str, name: &str) -> Result<(), Failure> {
    let secret = v1::Secret {
        credential: name.to_owned(),
        revoked: true,
        ..Default::default()
    };
    send(enforcer, session, vec![secret]).await.map(drop)
}

/// Hands values to a session; the names that it did not take.
pub async fn give(
    enforcer: &mut Enforcer,
    session: &str,
    values: &[(&str, &Fetched)],
) -> Result<Vec<String>, Failure> {
    let secrets = values
        .iter()
        .map(|(name, fetched)| v1::Secret {
            credential: (*name).to_owned(),
            value: fetched.value.expose().to_vec(),
            expires: fetched.expires.unwrap_or_default(),
            ..Default::default()
        })
        .collect();
    send(enforcer, session, secrets).await
}

async fn send(
    enforcer: &mut Enforcer,
    session: &str,
    secrets: Vec<v1::Secret>,
) -> Result<Vec<String>, Failure> {
    let request = v1::SetSecretsRequest {
        session: session.to_owned(),
        secrets,
    };
    enforcer
        .set_secrets(request)
        .await
        .map(|reply| reply.into_inner().refused)
        .map_err(|status| channel::refused("change the session's credentials", &status))
}

/// What came of taking a credential away.
#[derive(Debug, Default)]
pub struct Revoked {
    pub taken: Vec<Holder>,
    /// One for each session that may have it still.
    pub failed: Vec<Failure>,
}

/// Takes it away from every session that is meant and has it, whichever enforcer holds it, and from one that lost it already too: an
/// earlier try may have come to nothing. Sessions that nobody answers for are among the failures.
pub async fn revoke(
    places: &Places,
    name: &str,
    session: Option<&str>,
    workspace: Option<&Path>,
) -> Revoked {
    let mut revoked = Revoked::default();
    let (mut seen, mut answered) = (BTreeSet::new(), BTreeSet::new());
    for (short, mut enforcer) in channel::every(places).await {
        let listed = match enforcer.list_sessions(v1::ListSessionsRequest {}).await {
            Ok(listed) => listed.into_inner().sessions,
            // Its sessions are among those that nobody answers for.
            Err(_) => continue,
        };
        answered.insert(short);
        seen.extend(listed.iter().map(|open| open.session.clone()));
        for holder in meant(places, listed, name, session) {
            if workspace.is_some_and(|wanted| holder.workspace != wanted) {
                continue;
            }
            match take(&mut enforcer, &holder.session, name).await {
                Ok(()) => revoked.taken.push(holder),
                Err(failure) => revoked.failed.push(kept(name, holder.shown(), &failure)),
            }
        }
    }
    // After the enforcers were asked: one that begins now reads what is granted now.
    for record in record::all(places) {
        let is_meant = session.is_none_or(|wanted| record.is(wanted))
            && workspace.is_none_or(|wanted| record.workspace == wanted);
        let has_it = record
            .granted
            .as_ref()
            .is_none_or(|granted| granted.contains_key(name));
        // One that its enforcer does not have is over, unless it is only beginning.
        let over = record.ended.is_some()
            || seen.contains(record.session.as_str())
            || answered.contains(&record.enforcer)
                && !record.holder.is_some_and(record::Process::is_alive);
        if is_meant && has_it && !over {
            revoked.failed.push(untold(name, &record));
        }
    }
    revoked
}

fn kept(name: &str, shown: &str, failure: &Failure) -> Failure {
    let said: Vec<&str> = failure
        .diagnostics
        .iter()
        .map(|d| d.message.as_str())
        .collect();
    Failure::new(
        "credential-kept",
        format!(
            "{name} may not be gone from {}: {}",
            escape(shown),
            escape(&said.join("; "))
        ),
    )
    .help(again(name, shown))
    .status(1)
}

fn untold(name: &str, record: &Record) -> Failure {
    let shown = record.shown();
    Failure::new(
        "credential-kept",
        format!(
            "the session {} could not be told, and keeps {name} if it has it: no enforcer answers for it",
            escape(shown)
        ),
    )
    .help(again(name, shown))
    .status(1)
}

fn again(name: &str, shown: &str) -> String {
    format!(
        "`agentcontainer credential revoke {name}` tries again, `agentcontainer stop {shown}` ends the session, and `agentcontainer gc` forgets one that is over"
    )
}

/// Resolves it anew, once for each workspace, and hands it to every session that is meant and has it; what came of each.
pub async fn rotate(
    places: &Places,
    name: &str,
    session: Option<&str>,
) -> Result<Vec<(Holder, Result<(), Failure>)>, Failure> {
    let Some((mut enforcer, holders)) = holders(places, name, session).await? else {
        return Ok(Vec::new());
    };
    Ok(renew(places, &mut enforcer, holders, name).await)
}

async fn renew(
    places: &Places,
    enforcer: &mut Enforcer,
    holders: Vec<Holder>,
    name: &str,
) -> Vec<(Holder, Result<(), Failure>)> {
    // All of them before the first is handed: one that takes its time leaves no session behind the others.
    let mut values: BTreeMap<PathBuf, Result<Fetched, Option<Failure>>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for holder in holders.iter().filter(|holder| holder.state != "revoked") {
        let granted = grant(places, &holder.workspace, name);
        // The session sends to the places of the grant that it began with: another's value is not theirs.
        if let Ok((_, grant)) = &granted
            && holder.granted != Some(bound(&grant.value))
        {
            others.insert(holder.session.clone());
            continue;
        }
        if !values.contains_key(&holder.workspace) {
            let fetched = match granted {
                Ok((host, grant)) => super::fetch(&host, name, &grant, Asker::Command).await,
                Err(failure) => Err(failure),
            };
            values.insert(holder.workspace.clone(), fetched.map_err(Some));
        }
    }
    let mut out = Vec::new();
    for holder in holders {
        let result = match values.get_mut(&holder.workspace) {
            _ if holder.state == "revoked" => Err(taken(name, &holder)),
            _ if others.contains(&holder.session) => Err(changed(name, &holder)),
            Some(Ok(fetched)) => {
                let values = [(name, &*fetched)];
                match give(enforcer, &holder.session, &values).await {
                    Ok(refused) if refused.is_empty() => Ok(()),
                    // Meanwhile.
                    Ok(_) => Err(taken(name, &holder)),
                    Err(failure) => Err(failure),
                }
            }
            // Said once for the workspace.
            Some(Err(failure)) => Err(failure.take().unwrap_or_else(|| unrenewed(name, &holder))),
            None => Err(unrenewed(name, &holder)),
        };
        out.push((holder, result));
    }
    out
}

fn changed(name: &str, holder: &Holder) -> Failure {
    Failure::new(
        "credential-changed",
        format!(
            "the grant of {name} is not known to be the one that {} began with, and its value was not handed there",
            holder.shown()
        ),
    )
    .help("a session keeps the hosts, header and format that it began with: start it again")
}

fn taken(name: &str, holder: &Holder) -> Failure {
    Failure::new(
        "credential-revoked",
        format!(
            "{name} was taken away from {}, and does not come back in that session",
            holder.shown()
        ),
    )
}

fn unrenewed(name: &str, holder: &Holder) -> Failure {
    Failure::new(
        "credential-source",
        format!("{name} in {} has the value that it had", holder.shown()),
    )
}

/// What is granted to a workspace now.
fn grant(
    places: &Places,
    workspace: &Path,
    name: &str,
) -> Result<(HostConfig, Setting<Grant>), Failure> {
    let mut host = loaded::host_for(places, workspace)?;
    let grant = host.credentials.remove(name);
    grant.map(|grant| (host, grant)).ok_or_else(|| {
        Failure::new(
            "credential-not-granted",
            format!("{name} is not granted to {} any more", workspace.display()),
        )
        .help(format!(
            "`agentcontainer credential revoke {name}` takes it from the sessions that still have it"
        ))
    })
}

#[cfg(test)]
#[path = "hand_tests.rs"]
mod tests;
