//! A blob of any size, handed on as it comes and hashed on the way: what an export carries is never in memory whole.

use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest::header::RANGE;
use schema::digest::{Digest, Hasher};

use super::{Client, Repository, continues};
use crate::error::RegistryError;
use crate::token::Action;

/// How often a blob is gone on with that broke off before it brought anything.
const MAX_IDLE: u32 = 4;

impl Client {
    /// Hands on the blob of a descriptor, exactly as long as that says. Where the digest turns out to be another, what was handed on
    /// is worth nothing.
    ///
    /// # Errors
    /// Any [`RegistryError`]; [`RegistryError::Io`] is the taker's own.
    pub async fn download(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        take: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    ) -> Result<(), RegistryError> {
        let what = format!("the blob {}", repository.at(digest));
        self.online(&what)?;
        let scope = repository.scope(Action::Pull);
        let url = self.http.url(&scope, &format!("blobs/{digest}"));
        let length = || RegistryError::Length {
            what: what.clone(),
            expected: size,
        };
        let watched = self.watching(digest, repository);
        let (mut had, mut idle, mut hasher) = (0, 0, Hasher::default());
        while had < size || size == 0 {
            let response = self
                .http
                .send(&scope, &what, |client| match had {
                    0 => client.get(&url),
                    had => client.get(&url).header(RANGE, format!("bytes={had}-")),
                })
                .await?;
            // One that begins anew is heard again up to where it broke off; its bytes are hashed once, and the digest covers both.
            let mut skip = match response.status() {
                StatusCode::OK => had,
                StatusCode::PARTIAL_CONTENT
                    if had > 0
                        && continues(&response, usize::try_from(had).unwrap_or(usize::MAX)) =>
                {
                    0
                }
                _ => return Err(self.http.status(&scope, &what, response).await),
            };
            let began = had;
            let mut stream = response.bytes_stream();
            while let Some(Ok(chunk)) = stream.next().await {
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                let chunk = &chunk[usize::try_from(skipped).unwrap_or(chunk.len())..];
                had += chunk.len() as u64;
                if had > size {
                    return Err(length());
                }
                hasher.update(chunk);
                watched.had(had, Some(size));
                take(chunk).map_err(|error| RegistryError::Io {
                    what: what.clone(),
                    error,
                })?;
            }
            if size == 0 {
                break;
            }
            idle = if had > began { 0 } else { idle + 1 };
            if idle > MAX_IDLE {
                return Err(RegistryError::Unreachable {
                    registry: scope.registry,
                    why: format!("{what} breaks off after {had} of {size} bytes"),
                });
            }
        }
        let found = hasher.finish();
        if found != *digest {
            return Err(RegistryError::Digest {
                what,
                expected: *digest,
                found,
            });
        }
        Ok(())
    }
}
