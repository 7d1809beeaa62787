//! Values of a session's credentials while it is open: handed anew, or taken away. A change of them is a generation of its own, so
//! that the gateway has it when the call returns, or is ended and started again with it.

use std::sync::{MutexGuard, PoisonError};

use api::v1;
use audit::{Event, Kind, Verdict};

use super::{Session, SessionError};
use crate::secrets::Secrets;
use crate::trusted::{Handed, Trusted};

impl Session {
    pub(super) fn trusted(&self) -> MutexGuard<'_, Trusted> {
        // Every change under this lock is an assignment.
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes values, or takes them away, and returns the names that were refused once the gateway goes by the others.
    pub async fn set_secrets(&self, secrets: Vec<v1::Secret>) -> Result<Vec<String>, SessionError> {
        let _one = self.change.lock().await;
        let (mut refused, mut changed) = (Vec::new(), Vec::new());
        {
            let mut trusted = self.trusted();
            for secret in secrets {
                let name = secret.credential.clone();
                match trusted.hand(secret) {
                    Handed::Refused => refused.push(name),
                    Handed::Renewed => changed.push((name, "credential-renewed", Verdict::Allow)),
                    Handed::Revoked => changed.push((name, "credential-revoked", Verdict::Deny)),
                }
            }
        }
        if changed.is_empty() {
            return Ok(refused);
        }
        let (document, saved) = {
            let mut state = self.state.lock().await;
            // Written with the record when the generation is current; what was taken away is written even if it never is.
            state.record.credentials = self.trusted().kept();
            ((*state.current.document).clone(), state.save())
        };
        let told = Trusted {
            roots: Vec::new(),
            secrets: self.trusted().secrets.clone(),
            files: Secrets::default(),
            owner: None,
        };
        // The gateway goes by it whether or not it could be written down, and whoever asked is told that it was not.
        let applied = self.next_generation(document, &told).await;
        for (name, reason, verdict) in changed {
            let mut event = Event::new(Kind::Credential, verdict, reason);
            event.layer = Some("enforcer".into());
            event.credential = Some(name);
            self.write(event)?;
        }
        saved?;
        applied?;
        Ok(refused)
    }
}
