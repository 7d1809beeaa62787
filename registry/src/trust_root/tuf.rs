//! Trusted roots by TUF: the public-good one as its repository has it now, or a private repository's, from a first root that is
//! embedded or given. What was fetched is kept and verified again in full when there is no network.
//! <https://theupdateframework.github.io/specification/latest/>

use std::path::Path;
use std::time::Duration;

use sigstore_trust_root::{TrustedRoot, TufBootstrap, TufConfig};

use super::{TrustRootError, TrustRoots};

/// How long a refresh may take; after it, what is embedded or kept has to do.
const LONGEST: Duration = Duration::from_secs(30);

/// Where a root comes from, and where it is kept.
pub struct Repository(TufConfig);

// === impl Repository ===

impl Repository {
    /// Sigstore's public-good instance, from its embedded first root. `kept` is a directory of its own.
    pub fn public_good(kept: &Path) -> Self {
        Self(TufConfig::production().with_cache_dir(kept.to_owned()))
    }

    /// Another instance, from a `root.json` that the host named.
    pub fn private(url: &str, root: &[u8], kept: &Path) -> Self {
        let bootstrap = TufBootstrap::trusted(root);
        Self(TufConfig::custom(url, bootstrap).with_cache_dir(kept.to_owned()))
    }

    /// No network: what is kept, if all of it still verifies.
    #[must_use]
    pub fn offline(self) -> Self {
        Self(self.0.offline())
    }

    /// The same, with these certificates (DER) for servers.
    ///
    /// # Errors
    /// One is no certificate.
    pub fn with_roots(self, roots: &[Vec<u8>]) -> Result<Self, TrustRootError> {
        let client = crate::sign::keyless::client(roots);
        client
            .map(|client| self.with_client(client))
            .map_err(|e| TrustRootError::Tuf("the repository".to_owned(), e.to_string()))
    }

    /// The client to fetch with, which knows proxies and authorities of the host.
    #[must_use]
    pub fn with_client(self, client: reqwest::Client) -> Self {
        Self(self.0.with_http_client(client))
    }
}

impl TrustRoots {
    /// One more root, as its repository has it at `now`.
    ///
    /// # Errors
    /// [`TrustRootError::Tuf`] where it cannot be fetched or does not verify; else as [`TrustRoots::with_json`].
    pub async fn with_tuf(
        self,
        name: &str,
        repository: Repository,
        now: jiff::Timestamp,
    ) -> Result<Self, TrustRootError> {
        let refused = |error: String| TrustRootError::Tuf(name.to_owned(), error);
        let fetched = TrustedRoot::from_tuf_at(repository.0, now);
        let root = tokio::time::timeout(LONGEST, fetched)
            .await
            .map_err(|_| refused("no answer in 30 s".to_owned()))?
            .map_err(|error| refused(error.to_string()))?;
        let json = serde_json::to_vec(&root).map_err(|error| refused(error.to_string()))?;
        self.with_json(name, &json)
    }
}

#[cfg(test)]
#[path = "tuf/tests.rs"]
mod tests;
