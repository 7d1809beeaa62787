//! The roots that certificates and logs are measured with: Sigstore's public ones as they were built in, until its repository was
//! asked; from then on as that has them, refreshed once a day where the network may be used, and never back to what was built in.

mod kept;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use registry::trust_root::{BYTES, Repository, TrustRootError, TrustRoots};
use schema::digest::Digest;
use schema::hostconfig::{HostConfig, SigstoreConfig};

use kept::Kept;

use crate::places::{Places, make_private, write_private};
use crate::report::{self, Failure};
use crate::{files, roots};

/// How old what was fetched may be before it is asked for again.
const FRESH: SignedDuration = SignedDuration::from_hours(24);
/// How long its repository is waited for where there are roots that may be used.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that did not answer in that time is not asked again.
const PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// The largest `root.json`, in bytes.
const MAX_ROOT: usize = 1 << 20;

/// Where roots come from on this host.
struct Source<'h> {
    host: &'h HostConfig,
    kept: PathBuf,
    first: Option<(String, Vec<u8>)>,
}

/// The roots. `may_ask`: the repository is asked where what is kept is older than a day.
///
/// # Errors
/// What was fetched before is not in force any more and cannot be had anew, or a repository of the host's choice was never reached.
pub async fn trusted(
    places: &Places,
    host: &HostConfig,
    may_ask: bool,
) -> Result<TrustRoots, Failure> {
    if let Some((file, json)) = pinned(host)? {
        return TrustRoots::none()
            .with_json(&file.display().to_string(), &json)
            .map_err(|e| Failure::new("trusted-root", e.to_string()));
    }
    let source = Source::of(places, host)?;
    let (now, fetched) = (Timestamp::now(), source.fetched());
    let age = fetched.map(|at| now.duration_since(at));
    // A clock that was set back says nothing about how old it is.
    let is_fresh = age.is_some_and(|age| age < FRESH && age > -SignedDuration::from_hours(1));
    let kept = match fetched {
        Some(_) => Some(source.held(now).await),
        None => None,
    };
    let is_spare = matches!(kept, Some(Ok(_))) || (fetched.is_none() && source.first.is_none());
    if let Some(Ok(roots)) = kept
        && (is_fresh || !may_ask)
    {
        return Ok(roots);
    }
    if !may_ask {
        return match fetched {
            Some(_) => Err(gone(source.held(now).await.err())),
            None => source.built_in(),
        };
    }
    match source.asked(is_spare, now).await {
        Ok(roots) => {
            source.note(now)?;
            Ok(roots)
        }
        Err(error) => {
            let roots = match fetched {
                Some(_) => source.held(now).await.map_err(|e| gone(Some(e))),
                None => source.built_in(),
            }
            .map_err(|failure| failure.about(error.to_string()))?;
            report::warning(format!(
                "the roots that signatures are measured with are the last ones that are here: {error}"
            ));
            Ok(roots)
        }
    }
}

fn gone(error: Option<TrustRootError>) -> Failure {
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    Failure::new(
        "trusted-root",
        format!("the roots that were fetched do not hold any more{why}"),
    )
    .help("`agentcontainer verify` asks for them anew where the network may be used; --trusted-root measures with others")
}

/// The file that the host names in place of any repository.
fn pinned(host: &HostConfig) -> Result<Option<(&Path, Vec<u8>)>, Failure> {
    match host.sigstore.as_ref().map(|setting| &setting.value) {
        Some(SigstoreConfig::File { trusted_root }) => {
            let json = files::named(trusted_root, BYTES)?;
            Ok(Some((trusted_root, json)))
        }
        Some(SigstoreConfig::Repository { .. }) | None => Ok(None),
    }
}

/// What tells this host's source of roots from another.
pub fn source(places: &Places, host: &HostConfig) -> Result<String, Failure> {
    if let Some((_, json)) = pinned(host)? {
        return Ok(format!("file {}", Digest::of(&json).hex()));
    }
    let source = Source::of(places, host)?;
    let name = source.kept.file_name().unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

// === impl Source ===

impl<'h> Source<'h> {
    fn of(places: &Places, host: &'h HostConfig) -> Result<Self, Failure> {
        let first = match host.sigstore.as_ref().map(|setting| &setting.value) {
            Some(SigstoreConfig::Repository { tuf, root }) => {
                Some((tuf.clone(), files::named(root, MAX_ROOT)?))
            }
            Some(SigstoreConfig::File { .. }) | None => None,
        };
        let name = match &first {
            None => "public-good".to_owned(),
            Some((url, root)) => Digest::of(&[url.as_bytes(), b"\0", root].concat()).hex(),
        };
        // In the state, not the cache: that it was fetched once is not to be forgotten with a cache.
        Ok(Self {
            host,
            kept: places.state.join("sigstore").join(name),
            first,
        })
    }

    /// When it was last fetched.
    fn fetched(&self) -> Option<Timestamp> {
        let path = self.kept.join("fetched");
        if !path.exists() {
            return None;
        }
        // One that cannot be read was there all the same.
        let read = std::fs::read_to_string(path).unwrap_or_default();
        Some(read.trim().parse().unwrap_or(Timestamp::UNIX_EPOCH))
    }

    fn note(&self, now: Timestamp) -> Result<(), Failure> {
        write_private(&self.kept.join("fetched"), now.to_string().as_bytes())
    }

    /// From its repository. Where other roots may be used, one that is silent is not waited for long, nor each time.
    async fn asked(&self, is_spare: bool, now: Timestamp) -> Result<TrustRoots, TrustRootError> {
        let silent = self.kept.join("silent");
        let url = self.first.as_ref().map_or("public-good", |(url, _)| url);
        let refused = |why: String| TrustRootError::Tuf(url.to_owned(), why);
        if !is_spare {
            return self.refreshed(now).await;
        }
        let since = std::fs::read_to_string(&silent).ok();
        if let Some(since) = since.and_then(|at| at.trim().parse::<Timestamp>().ok())
            && now.duration_since(since) < PAUSE
            && now >= since
        {
            let again = since.saturating_add(PAUSE).unwrap_or(since);
            return Err(refused(format!(
                "no answer in {} s when it was last asked, and it is asked again after {again:.0}",
                PATIENCE.as_secs()
            )));
        }
        match tokio::time::timeout(PATIENCE, self.refreshed(now)).await {
            Ok(loaded) => {
                let _ = std::fs::remove_file(&silent);
                loaded
            }
            Err(_) => {
                let _ = write_private(&silent, now.to_string().as_bytes());
                Err(refused(format!("no answer in {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// From its repository, and kept if it holds.
    async fn refreshed(&self, now: Timestamp) -> Result<TrustRoots, TrustRootError> {
        let refused = |what: &str, why: &str| TrustRootError::Tuf(what.to_owned(), why.to_owned());
        let unwritten = || refused("its directory", "cannot be written");
        make_private(&self.kept).map_err(|_| unwritten())?;
        let kept = Kept::at(&self.kept);
        let fresh = kept.copy().map_err(|_| unwritten())?;
        let roots = roots::if_any(self.host)
            .map_err(|_| refused("the host's root certificates", "they cannot be read"))?;
        let repository = self.repository(fresh.dir()).with_roots(&roots)?;
        let loaded = self.load(repository, now).await?;
        fresh.keep().map_err(|_| unwritten())?;
        Ok(loaded)
    }

    /// As it was kept: nobody is asked.
    async fn held(&self, now: Timestamp) -> Result<TrustRoots, TrustRootError> {
        let current = Kept::at(&self.kept).current();
        self.load(self.repository(&current).offline(), now).await
    }

    fn repository(&self, dir: &Path) -> Repository {
        match &self.first {
            None => Repository::public_good(dir),
            Some((url, root)) => Repository::private(url, root, dir),
        }
    }

    async fn load(
        &self,
        repository: Repository,
        now: Timestamp,
    ) -> Result<TrustRoots, TrustRootError> {
        let name = self.first.as_ref().map_or("public-good", |(url, _)| url);
        TrustRoots::none().with_tuf(name, repository, now).await
    }

    /// What this program brought along, where the repository is the public one.
    fn built_in(&self) -> Result<TrustRoots, Failure> {
        match &self.first {
            None => {
                TrustRoots::public_good().map_err(|e| Failure::new("trusted-root", e.to_string()))
            }
            Some((url, _)) => Err(Failure::new(
                "trusted-root",
                format!("{url} was not reached yet, and there is no other root on this host"),
            )),
        }
    }
}
