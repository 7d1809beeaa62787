//! Values of sessions that are open: handed anew to those that hold a credential or a secret, or taken away from them. Used by
//! `credential revoke|rotate`, by `grant --revoke`, and by the `run` that keeps its session's values.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::v1;
use schema::hostconfig::HostConfig;
use secrets::Fetched;

use super::supply::{Kind, Supply};
use super::{Asker, expires};
use crate::channel::{self, Enforcer};
use crate::loaded;
use crate::places::Places;
use crate::record::{self, Record};
use crate::report::{Failure, escape};

/// A session that has a credential or a secret of that name.
#[derive(Debug)]
pub struct Holder {
    pub session: String,
    pub workspace: PathBuf,
    /// held, missing or revoked.
    pub state: String,
    pub kind: Kind,
    /// How long a secret's file is there from now on, in seconds.
    ttl: Option<u64>,
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
        let of = |held: &[v1::Held], kind| {
            let held = held.iter().find(|held| held.credential == name)?;
            Some((held.clone(), kind))
        };
        let (held, kind) =
            of(&open.credentials, Kind::Credential).or_else(|| of(&open.secrets, Kind::Secret))?;
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
            kind,
            ttl: Some(held.ttl).filter(|ttl| *ttl > 0),
            granted: record
                .and_then(|record| record.granted.as_ref()?.get(name))
                .cloned(),
            session: open.session,
        })
    });
    holders.collect()
}

/// Takes a credential away from a session, for good.
pub async fn take(
    enforcer: &mut Enforcer,
    session: &str,
    kind: Kind,
    name: &str,
) -> Result<(), Failure> {
    let mut request = v1::SetSecretsRequest::default();
    match kind {
        Kind::Credential => request.secrets.push(v1::Secret {
            credential: name.to_owned(),
            revoked: true,
            ..Default::default()
        }),
        Kind::Secret => request.files.push(v1::SecretFile {
            name: name.to_owned(),
            revoked: true,
            ..Default::default()
        }),
    }
    send(enforcer, session, request).await.map(drop)
}

/// Hands a value to a session, for a file until then at most; false where it did not take it.
pub async fn give(
    enforcer: &mut Enforcer,
    session: &str,
    kind: Kind,
    name: &str,
    fetched: &Fetched,
    until: Option<u64>,
) -> Result<bool, Failure> {
    let mut request = v1::SetSecretsRequest::default();
    let (value, expires) = (fetched.value.expose().to_vec(), expires(fetched, until));
    match kind {
        Kind::Credential => request.secrets.push(v1::Secret {
            credential: name.to_owned(),
            value,
            expires,
            ..Default::default()
        }),
        Kind::Secret => request.files.push(v1::SecretFile {
            name: name.to_owned(),
            value,
            expires,
            revoked: false,
        }),
    }
    let refused = send(enforcer, session, request).await?;
    Ok(refused.is_empty())
}

async fn send(
    enforcer: &mut Enforcer,
    session: &str,
    request: v1::SetSecretsRequest,
) -> Result<Vec<String>, Failure> {
    let request = v1::SetSecretsRequest {
        session: session.to_owned(),
        ..request
    };
    enforcer
        .set_secrets(request)
        .await
        .map(|reply| reply.into_inner().refused)
        .map_err(|status| channel::refused("change the session's credentials and secrets", &status))
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
            match take(&mut enforcer, &holder.session, holder.kind, name).await {
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
    let mut values: BTreeMap<(PathBuf, Kind), Result<Fetched, Option<Failure>>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for holder in holders.iter().filter(|holder| holder.state != "revoked") {
        let granted = grant(places, &holder.workspace, holder.kind, name);
        // The session sends to the places of the grant that it began with: another's value is not theirs.
        if let Ok((_, grant)) = &granted
            && holder.granted.as_ref() != Some(&grant.bound)
        {
            others.insert(holder.session.clone());
            continue;
        }
        let key = (holder.workspace.clone(), holder.kind);
        if let Entry::Vacant(vacant) = values.entry(key) {
            let fetched = match granted {
                Ok((host, grant)) => super::fetch(&host, name, &grant, Asker::Command).await,
                Err(failure) => Err(failure),
            };
            vacant.insert(fetched.map_err(Some));
        }
    }
    let mut out = Vec::new();
    for holder in holders {
        let key = (holder.workspace.clone(), holder.kind);
        let result = match values.get_mut(&key) {
            _ if holder.state == "revoked" => Err(taken(name, &holder)),
            _ if others.contains(&holder.session) => Err(changed(name, &holder)),
            Some(Ok(fetched)) => {
                let until = holder.ttl.map(|ttl| record::now() + ttl);
                let (session, kind) = (&holder.session, holder.kind);
                match give(enforcer, session, kind, name, fetched, until).await {
                    Ok(true) => Ok(()),
                    // Meanwhile.
                    Ok(false) => Err(taken(name, &holder)),
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
    kind: Kind,
    name: &str,
) -> Result<(HostConfig, Supply), Failure> {
    let host = loaded::host_for(places, workspace)?;
    let grant = Supply::of(&host, kind, name);
    grant.map(|grant| (host, grant)).ok_or_else(|| {
        Failure::new(
            kind.code("credential-not-granted"),
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
