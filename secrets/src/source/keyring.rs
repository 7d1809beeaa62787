//! `keyring://SERVICE/ACCOUNT`: an item of the desktop's keyring (the Secret Service of freedesktop.org: GNOME Keyring, KWallet,
//! KeePassXC), by the attributes that Python's keyring and secret-tool's users give it. Its value crosses D-Bus encrypted.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::{EncryptionType, SecretService};
use thiserror::Error;
use zeroize::Zeroizing;

/// How long it may take; a locked keyring asks its person.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, Error)]
pub enum KeyringError {
    #[error(
        "there is no keyring to ask: {0}; it is the desktop session's (DBUS_SESSION_BUS_ADDRESS)"
    )]
    NoService(Box<secret_service::Error>),
    #[error("it failed: {0}")]
    Failed(Box<secret_service::Error>),
    #[error(
        "it has no item {service}/{account}; `secret-tool store --label={service} service {service} username {account}` makes one"
    )]
    NoItem { service: String, account: String },
    #[error("it has {0} items of that service and account, and nothing says which is meant")]
    Several(usize),
    #[error("it is locked, and nobody unlocked it within {} s", DEADLINE.as_secs())]
    Locked,
}

impl From<secret_service::Error> for KeyringError {
    fn from(error: secret_service::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The item's secret.
pub async fn fetch(service: &str, account: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    tokio::time::timeout(DEADLINE, read(service, account))
        .await
        .map_err(|_| KeyringError::Locked)?
}

async fn read(service: &str, account: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let keyring = SecretService::connect(EncryptionType::Dh)
        .await
        .map_err(|error| KeyringError::NoService(Box::new(error)))?;
    // Python's keyring and most others; some of GNOME's own.
    for key in ["username", "account"] {
        let attributes = HashMap::from([("service", service), (key, account)]);
        let found = keyring.search_items(attributes).await?;
        let mut items: Vec<_> = found.unlocked.iter().chain(&found.locked).collect();
        match items.len() {
            0 => continue,
            1 => {}
            several => return Err(KeyringError::Several(several)),
        }
        if let Some(item) = items.pop() {
            item.unlock().await?;
            return Ok(Zeroizing::new(item.get_secret().await?));
        }
    }
    Err(KeyringError::NoItem {
        service: service.to_owned(),
        account: account.to_owned(),
    })
}
