//! Values of sessions that are open: handed anew to those that hold a credential, or taken away from them. Used by
//! `credential revoke|rotate`, by `grant --revoke`, and by the `run` that keeps its session's values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::v1;
use schema::hostconfig::{Grant, HostConfig, Setting};
use secrets::Fetched;

use super::Asker;
use crate::channel::{self, Enforcer};
use crate::loaded;
use crate::places::Places;
use crate::record::{self, Record};
use crate::report::Failure;

/// A session that has a credential of that name.
#[derive(Debug)]
pub struct Holder {
    pub session: String,
    pub workspace: PathBuf,
    /// held, missing or revoked.
    pub state: String,
    shown: String,
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
    let records = record::all(places);
    let holders = listed.into_inner().sessions.into_iter().filter_map(|open| {
        let record = records.iter().find(|r| r.session.as_str() == open.session);
        let held = open.credentials.iter().find(|h| h.credential == name)?;
        let meant = session.is_none_or(|wanted| {
            open.session == wanted || record.is_some_and(|r| r.name.as_deref() == Some(wanted))
        });
        meant.then(|| Holder {
            workspace: record
                .map_or_else(|| open.workspace.clone().into(), |r| r.workspace.clone()),
            shown: record
                .map_or(open.session.as_str(), Record::shown)
                .to_owned(),
            state: held.state.clone(),
            session: open.session,
        })
    });
    let holders = holders.collect();
    Ok(Some((enforcer, holders)))
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

/// Takes it away from every session that is meant and has it; those that had it.
pub async fn revoke(
    places: &Places,
    name: &str,
    session: Option<&str>,
    workspace: Option<&Path>,
) -> Result<Vec<Holder>, Failure> {
    let Some((mut enforcer, mut holders)) = holders(places, name, session).await? else {
        return Ok(Vec::new());
    };
    holders.retain(|holder| {
        holder.state != "revoked" && workspace.is_none_or(|wanted| holder.workspace == wanted)
    });
    for holder in &holders {
        take(&mut enforcer, &holder.session, name).await?;
    }
    Ok(holders)
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
    // All of them before the first is handed: one that takes its time leaves no session behind the others.
    let mut values: BTreeMap<PathBuf, Result<Fetched, Option<Failure>>> = BTreeMap::new();
    for holder in holders.iter().filter(|holder| holder.state != "revoked") {
        if !values.contains_key(&holder.workspace) {
            let fetched = match grant(places, &holder.workspace, name) {
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
            Some(Ok(fetched)) => {
                let values = [(name, &*fetched)];
                match give(&mut enforcer, &holder.session, &values).await {
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
    Ok(out)
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
