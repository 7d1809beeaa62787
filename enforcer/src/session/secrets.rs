//! Files of a session's secrets: put into its container before init is released, replaced and taken away while it runs, and taken up again
//! after an enforcer's restart. Where that cannot be done any more, the session ends: a file would outlive what was said of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::v1;
use audit::{Event, Kind, Verdict};
use policy::EffectivePolicy;
use schema::config::secret::DIRECTORY;
use zeroize::Zeroizing;

use super::held_files::blocking;
use super::{Session, SessionError};
use crate::files::FilesError;
use crate::files::secrets::Mounted;
use crate::process;
use crate::secrets::{Secrets, Standing};
use crate::trusted::Handed;

/// What is known of them, and the container's files where one runs.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) values: Secrets,
    mounted: Option<Mounted>,
    /// In whose namespace: its init, and its network namespace.
    place: Option<(u32, (u64, u64))>,
}

impl Kept {
    pub(super) fn of(values: Secrets) -> Self {
        Self {
            values,
            mounted: None,
            place: None,
        }
    }

    /// Makes the files what is known of them, after a restart or for a start that is tried again; those that went, and why.
    fn settle(
        &mut self,
        document: &EffectivePolicy,
    ) -> Result<Vec<(String, &'static str)>, FilesError> {
        let mut gone = Vec::new();
        let Some(mounted) = &mut self.mounted else {
            return Ok(gone);
        };
        let asked: BTreeSet<&str> = document
            .secrets
            .all
            .iter()
            .map(|own| own.name.as_str())
            .collect();
        for name in &asked {
            if let Standing::There(value) = self.values.standing(name) {
                mounted.put(name, value)?;
            }
        }
        for name in mounted.names() {
            let stays =
                asked.contains(name.as_str()) && self.values.standing(&name) != Standing::Gone;
            if !stays && mounted.remove(&name)? {
                let reason = self.values.why_gone(&name);
                gone.push((name, reason));
            }
        }
        Ok(gone)
    }
}

impl Session {
    /// Puts the policy's secrets into the namespace of an init that waits. One that had its time, or was taken away, is not there.
    pub(super) async fn put_secrets(
        &self,
        pid: u32,
        network: (u64, u64),
        document: &EffectivePolicy,
    ) -> Result<(), FilesError> {
        if document.secrets.is_empty() {
            return Ok(());
        }
        let mut kept = self.secrets.lock().await;
        if kept.mounted.is_some() && kept.place == Some((pid, network)) {
            return kept.settle(document).map(drop);
        }
        let mut files: Vec<(String, Zeroizing<Vec<u8>>)> = Vec::new();
        for secret in &document.secrets.all {
            match kept.values.standing(&secret.name) {
                Standing::There(value) => {
                    files.push((secret.name.clone(), Zeroizing::new(value.to_vec())));
                }
                Standing::Gone => {}
                Standing::Missing => return Err(FilesError::NoValue(secret.name.clone())),
            }
        }
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        let put = move || {
            let owner = owner(pid)?;
            let files = files
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()));
            Mounted::put_in_place(pid, network, owner, files)
        };
        kept.mounted = Some(blocking(pid, put).await?);
        kept.place = Some((pid, network));
        for name in names {
            let _ = self.said_of(&name, "secret-put", Verdict::Allow);
        }
        Ok(())
    }

    /// The namespace is gone, and what was mounted in it.
    pub(super) async fn release_secrets(&self) {
        self.secrets.lock().await.mounted = None;
    }

    /// After a restart: what is there is held again, and what had its time meanwhile goes.
    pub(super) async fn take_up_secrets(self: &Arc<Self>, pid: u32) {
        let document = Arc::clone(&self.state.lock().await.current.document);
        let directory = process::directory(pid);
        let Some(network) = process::network_namespace(&directory) else {
            return;
        };
        if document.secrets.is_empty() {
            return;
        }
        let mut kept = self.secrets.lock().await;
        let take = move || Mounted::take_up(pid, network, owner(pid)?);
        match blocking(pid, take).await {
            Ok(mounted) => {
                kept.mounted = Some(mounted);
                kept.place = Some((pid, network));
            }
            Err(_) if process::network_namespace(&directory) != Some(network) => return,
            Err(error) => {
                drop(kept);
                self.lose_secrets(&error.to_string()).await;
                return;
            }
        }
        // What was said meanwhile is done now.
        let settled = kept.settle(&document);
        drop(kept);
        match settled {
            Ok(gone) => {
                for (name, reason) in gone {
                    let _ = self.said_of(&name, reason, Verdict::Deny);
                }
            }
            Err(error) => self.lose_secrets(&error.to_string()).await,
        }
    }

    /// For whoever will not be taken up: a container that runs on with files that nobody could take away.
    pub(super) async fn lose_what_is_not_held(&self) {
        let released = self.state.lock().await.record.released;
        let held = self.secrets.lock().await.mounted.is_some();
        if released && !held && self.cgroup.populated().unwrap_or(true) {
            self.lose_secrets("the container was not taken up again")
                .await;
        }
    }

    /// Ends a session whose files nobody could take away any more, where it has any.
    pub(super) async fn lose_secrets(&self, why: &str) {
        if self.secrets.lock().await.values.kept().is_empty() {
            return;
        }
        tracing::error!(session = %self.id, why, "files of secrets are not held any more: closed");
        let mut event = Event::new(Kind::Secret, Verdict::Deny, "secrets-lost");
        event.layer = Some("mounts".into());
        event.detail = Some(why.to_owned());
        let _ = self.write(event);
        if let Err(error) = self.close("secrets-lost").await {
            tracing::error!(session = %self.id, %error, "close");
        }
    }

    /// Takes away what had its time; asked every second.
    pub(super) async fn expire_secrets(&self) {
        let mut failed = None;
        {
            let mut kept = self.secrets.lock().await;
            let expired = kept.values.expired();
            let Some(mounted) = &mut kept.mounted else {
                return;
            };
            for name in expired {
                match mounted.remove(&name) {
                    Ok(true) => {
                        let _ = self.said_of(&name, "secret-expired", Verdict::Deny);
                    }
                    Ok(false) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        if let Some(error) = failed {
            self.lose_secrets(&error.to_string()).await;
        }
    }

    /// Takes values, or takes them away, and returns the names that were refused once the files are what was said.
    pub async fn set_secret_files(
        &self,
        files: Vec<v1::SecretFile>,
    ) -> Result<Vec<String>, SessionError> {
        let mut refused = Vec::new();
        let mut kept = self.secrets.lock().await;
        for file in files {
            let name = file.name.clone();
            let handed = kept.values.hand(file);
            if handed == Handed::Refused {
                refused.push(name);
                continue;
            }
            let saved = {
                let mut state = self.state.lock().await;
                // What was taken away is written even where it cannot be removed.
                state.record.secrets = kept.values.kept();
                state.save()
            };
            let Kept {
                values, mounted, ..
            } = &mut *kept;
            let changed = match (values.standing(&name), mounted) {
                (_, None) => Ok(()),
                (Standing::There(value), Some(mounted)) => {
                    // The value before does not stay with the time of this one.
                    mounted
                        .put(&name, value)
                        .map_err(|error| (error, mounted.remove(&name).is_ok()))
                }
                (_, Some(mounted)) => mounted
                    .remove(&name)
                    .map(drop)
                    .map_err(|error| (error, false)),
            };
            if let Err((error, gone)) = changed {
                drop(kept);
                if !gone {
                    self.lose_secrets(&error.to_string()).await;
                }
                return Err(SessionError::Secret(error.to_string()));
            }
            let (reason, verdict) = match handed {
                Handed::Revoked => ("secret-revoked", Verdict::Deny),
                _ => ("secret-renewed", Verdict::Allow),
            };
            self.said_of(&name, reason, verdict)?;
            saved?;
        }
        Ok(refused)
    }

    fn said_of(&self, name: &str, reason: &str, verdict: Verdict) -> Result<u64, audit::LogError> {
        let mut event = Event::new(Kind::Secret, verdict, reason);
        event.layer = Some("mounts".into());
        event.file = Some(format!("{DIRECTORY}/{name}"));
        self.write(event)
    }
}

/// Whose files they are: init's, which acts as the container's user.
fn owner(pid: u32) -> Result<(u32, u32), FilesError> {
    process::owner(pid).ok_or_else(|| FilesError::Io {
        call: "read the user of",
        path: format!("process {pid}"),
        source: std::io::ErrorKind::NotFound.into(),
    })
}
