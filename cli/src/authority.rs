//! Keeps the session's trust files at the certificate of the gateway that serves it: one that was replaced has another
//! authority, and what starts in the container from then on has to trust that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::v1;
use engine::trust;
use schema::session::SessionId;
use tokio::sync::watch;

use crate::channel::{self, Enforcer};
use crate::places::Places;
use crate::record::{Process, Record};
use crate::report;

/// How long the next gateway is waited for; the enforcer is more patient, and says so when it comes.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Renews them each time that `changed` is told of a gateway that went, until its other end is gone.
pub async fn keep(
    mut enforcer: Enforcer,
    session: SessionId,
    dir: PathBuf,
    mut changed: watch::Receiver<u64>,
) {
    while changed.changed().await.is_ok() {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // The one that is gone is told of until there is another.
            if let Some(ca) = current(&mut enforcer, &session).await {
                match trust::renew(&dir, &ca) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        report::warning(format!(
                            "programs that start from now on do not trust the gateway: {error}"
                        ));
                        return;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The same once, before a command starts in a session that no `run` watches over. Without an enforcer there is nothing to
/// trust, and the command finds that by itself.
pub async fn refresh(places: &Places, record: &Record) {
    if record.holder.is_some_and(Process::is_alive) {
        return;
    }
    let Ok(sidecar) = channel::sidecar(places) else {
        return;
    };
    if let Ok(Some((mut enforcer, _))) = channel::running(&sidecar).await
        && let Some(ca) = current(&mut enforcer, &record.session).await
        && let Err(error) = trust::renew(&record.dir(places), &ca)
    {
        report::warning(format!("the command may not trust the gateway: {error}"));
    }
}

async fn current(enforcer: &mut Enforcer, session: &SessionId) -> Option<Vec<u8>> {
    let listed = enforcer
        .list_sessions(v1::ListSessionsRequest {})
        .await
        .ok()?;
    let mut sessions = listed.into_inner().sessions.into_iter();
    let ours = sessions.find(|s| s.session == session.as_str())?;
    Some(ours.ca_certificate).filter(|ca| !ca.is_empty())
}
