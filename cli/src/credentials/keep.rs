//! Keeps the values of a session in the foreground there: renewed before they end, and handed again to an enforcer that was
//! started anew, which has kept none. What a person took away meanwhile stays away: the enforcer refuses it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::v1;
use schema::hostconfig::HostConfig;
use schema::session::SessionId;
use secrets::Fetched;
use tokio::sync::watch;

use super::supply::Supply;
use super::{Asker, Resolved, hand};
use crate::channel::Enforcer;
use crate::loaded::{self, Loaded};
use crate::places::Places;
use crate::record::now;
use crate::report::{self, Failure};

/// How long an enforcer that is back is asked for the session.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Between two tries to renew what could not be renewed, at least.
const AGAIN: Duration = Duration::from_secs(5);

/// One value that is kept.
struct Kept {
    grant: Supply,
    fetched: Fetched,
    /// When a secret's file goes in any case.
    until: Option<u64>,
    /// When it is to be renewed.
    due: Option<Instant>,
}

/// What is kept, by name.
pub struct Keeper {
    places: Places,
    workspace: PathBuf,
    host: HostConfig,
    kept: BTreeMap<String, Kept>,
}

impl Keeper {
    pub fn new(loaded: &Loaded, resolved: &[Resolved]) -> Self {
        let kept = |resolved: &Resolved| {
            let grant = Supply::of(&loaded.host, resolved.kind, &resolved.name)?;
            let due = due(resolved.fetched.expires, resolved.until);
            let kept = Kept {
                grant,
                fetched: resolved.fetched.clone(),
                until: resolved.until,
                due,
            };
            Some((resolved.name.clone(), kept))
        };
        Self {
            places: loaded.places.clone(),
            workspace: loaded.workspace.clone(),
            host: loaded.host.clone(),
            kept: resolved.iter().filter_map(kept).collect(),
        }
    }

    /// Until the other end of `changed`, which is told of an enforcer or gateway that came back, is gone.
    pub async fn keep(
        mut self,
        mut enforcer: Enforcer,
        session: SessionId,
        mut changed: watch::Receiver<u64>,
    ) {
        if self.kept.is_empty() {
            return;
        }
        loop {
            let due = self.kept.values().filter_map(|kept| kept.due).min();
            let result = tokio::select! {
                told = changed.changed() => match told {
                    Ok(()) => self.restore(&mut enforcer, &session).await,
                    Err(_) => return,
                },
                () = until(due), if due.is_some() => self.renew(&mut enforcer, &session).await,
            };
            if let Err(failure) = result {
                for diagnostic in &failure.diagnostics {
                    report::warning(&diagnostic.message);
                }
            }
        }
    }

    /// Hands what the session is missing. A source is asked again, for its value may be another by now; what it does not
    /// give is what it gave before.
    async fn restore(
        &mut self,
        enforcer: &mut Enforcer,
        session: &SessionId,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let missing = loop {
            match missing(enforcer, session).await {
                Some(missing) => break missing,
                None if began.elapsed() > PATIENCE => return Ok(()),
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        for name in missing {
            if !self.still_granted(enforcer, session, &name).await? {
                continue;
            }
            let Some(kept) = self.kept.get_mut(&name) else {
                continue;
            };
            if let Ok(fetched) = again(&self.host, &name, kept).await {
                kept.due = due(fetched.expires, kept.until);
                kept.fetched = fetched;
            }
            kept.give(enforcer, session, &name).await?;
        }
        Ok(())
    }

    /// Whether it is kept and granted as it was when the session began; where a person took the grant back or changed it, it is
    /// taken away instead. What cannot be read grants nothing.
    async fn still_granted(
        &mut self,
        enforcer: &mut Enforcer,
        session: &SessionId,
        name: &str,
    ) -> Result<bool, Failure> {
        let Some(kept) = self.kept.get(name) else {
            return Ok(false);
        };
        let host = loaded::host_for(&self.places, &self.workspace)?;
        let kind = kept.grant.kind;
        let now = Supply::of(&host, kind, name);
        if now.is_some_and(|now| now.bound == kept.grant.bound) {
            return Ok(true);
        }
        hand::take(enforcer, session.as_str(), kind, name).await?;
        self.kept.remove(name);
        report::warning(format!(
            "{name} was taken away from this session: it is not granted any more as it was when the session began"
        ));
        Ok(false)
    }

    /// Renews what is due.
    async fn renew(&mut self, enforcer: &mut Enforcer, session: &SessionId) -> Result<(), Failure> {
        let now = Instant::now();
        let mut result = Ok(());
        let over = |kept: &Kept| kept.due.is_some_and(|due| due <= now);
        let due_now: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, kept)| over(kept))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &due_now {
            let granted = self.still_granted(enforcer, session, name).await;
            let Some(kept) = self.kept.get_mut(name) else {
                continue;
            };
            let renewed = match granted {
                Ok(_) => match again(&self.host, name, kept).await {
                    Ok(fetched) => {
                        kept.fetched = fetched;
                        kept.give(enforcer, session, name).await
                    }
                    Err(failure) => Err(failure),
                },
                Err(failure) => Err(failure),
            };
            kept.due = match renewed {
                Ok(()) => due(kept.fetched.expires, kept.until),
                Err(failure) => {
                    result = Err(failure);
                    Some(
                        now + remaining(kept.fetched.expires.unwrap_or_default())
                            .div_f32(2.0)
                            .max(AGAIN),
                    )
                }
            };
        }
        result
    }
}

impl Kept {
    async fn give(
        &self,
        enforcer: &mut Enforcer,
        session: &SessionId,
        name: &str,
    ) -> Result<(), Failure> {
        let (session, kind) = (session.as_str(), self.grant.kind);
        let given = hand::give(enforcer, session, kind, name, &self.fetched, self.until);
        given.await.map(drop)
    }
}

/// What its source gives now. What was read once has no source any more.
async fn again(host: &HostConfig, name: &str, kept: &Kept) -> Result<Fetched, Failure> {
    super::fetch(host, name, &kept.grant, Asker::Session(&kept.fetched)).await
}

/// With a fifth of its time left, and not at once again; never where a file is gone by then.
fn due(ends: Option<u64>, until: Option<u64>) -> Option<Instant> {
    let ends = ends?;
    if until.is_some_and(|until| until <= ends) {
        return None;
    }
    let wait = remaining(ends).mul_f32(0.8).max(Duration::from_secs(1));
    Some(Instant::now() + wait)
}

fn remaining(ends: u64) -> Duration {
    Duration::from_secs(ends.saturating_sub(now()))
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Names of which the session has no value. `None`: nobody says so yet.
async fn missing(enforcer: &mut Enforcer, session: &SessionId) -> Option<Vec<String>> {
    let listed = enforcer
        .list_sessions(v1::ListSessionsRequest {})
        .await
        .ok()?;
    let mut sessions = listed.into_inner().sessions.into_iter();
    let ours = sessions.find(|s| s.session == session.as_str())?;
    let missing = { ours.credentials.into_iter() }
        .chain(ours.secrets)
        .filter(|h| h.state == "missing");
    Some(missing.map(|held| held.credential).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::super::fake::{Fake, grant, places, serve};
    use super::super::supply::Kind;
    use super::*;
    use crate::{channel, grants};

    #[test]
    fn a_file_is_renewed_before_its_source_ends_it_and_not_where_it_is_gone_by_then() {
        let at = |seconds| Some(now() + seconds);
        assert!(due(None, at(60)).is_none());
        assert!(due(at(60), None).is_some());
        assert!(due(at(60), at(120)).is_some());
        assert!(due(at(120), at(60)).is_none());
    }

    #[tokio::test]
    async fn what_is_not_granted_any_more_is_taken_away_instead_of_handed() {
        let name = "github".parse().unwrap();
        let workspace = Path::new("/w");
        let session = SessionId::parse("aaa1").unwrap();
        for (meanwhile, is_due) in [
            ("as it was", false),
            ("as it was", true),
            ("gone", false),
            ("gone", true),
            ("other hosts", false),
            ("other hosts", true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let places = places(dir.path());
            let ours = Fake {
                sessions: vec![("aaa1", "missing")],
                ..Default::default()
            };
            serve(&places, "ours", &ours);
            let first = grant(dir.path(), "value-of-it", &["a.test"]);
            grants::record(&places, workspace, &name, &first).unwrap();
            let host = loaded::host_for(&places, workspace).unwrap();
            let supply = Supply::of(&host, Kind::Credential, "github").unwrap();
            let fetched = crate::credentials::fetch(&host, "github", &supply, Asker::List);
            let kept = Kept {
                fetched: fetched.await.unwrap(),
                grant: supply,
                until: None,
                due: is_due.then(Instant::now),
            };
            let mut keeper = Keeper {
                places: places.clone(),
                workspace: workspace.into(),
                host,
                kept: [("github".to_owned(), kept)].into(),
            };
            match meanwhile {
                "gone" => drop(grants::revoke(&places, workspace, &name).unwrap()),
                "other hosts" => {
                    let other = grant(dir.path(), "value-of-it", &["b.test"]);
                    grants::record(&places, workspace, &name, &other).unwrap();
                }
                _ => {}
            }
            let (_, mut enforcer) = channel::every(&places).await.pop().unwrap();
            match is_due {
                true => keeper.renew(&mut enforcer, &session).await.unwrap(),
                false => keeper.restore(&mut enforcer, &session).await.unwrap(),
            }
            let stays = usize::from(meanwhile == "as it was");
            let (given, taken) = (
                ours.given.lock().unwrap().len(),
                ours.taken.lock().unwrap().len(),
            );
            assert_eq!((given, taken), (stays, 1 - stays), "{meanwhile} {is_due}");
        }
    }
}
