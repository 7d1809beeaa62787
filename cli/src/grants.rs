//! What a person granted on this host with `agentcontainer grant`: where the value of a credential comes from and which hosts may
//! see it, or where that of a secret comes from, which is a file inside; bound to one workspace. One file a workspace in the state directory, outside of anything a session sees; it stands
//! above config.toml for that workspace and for no other. Written under one lock, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::{Flock, FlockArg};
use schema::config::agent::Domain;
use schema::config::secret::MAX_SECRETS;
use schema::credential::{CredentialName, MAX_CREDENTIALS, MAX_HOSTS};
use schema::diag::Position;
use schema::digest::Digest;
use schema::hostconfig::{Grant, HostConfig, SecretGrant, Setting};
use schema::request::{MAX_IN_RULE, Method, PathGlob};
use serde::{Deserialize, Serialize};

use crate::credentials;
use crate::loaded::Loaded;
use crate::places::{Places, make_private, write_private};
use crate::record::now;
use crate::report::Failure;

/// The largest file of grants that is read, in bytes.
pub const MAX_GRANTS: u64 = 4 << 20;

/// What was granted to one workspace, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    pub workspace: PathBuf,
    grants: Vec<Kept>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<KeptSecret>,
}

/// One grant in the spelling of config.toml, read by the same parsers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: String,
    source: String,
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    header: String,
    format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<String>,
    /// Seconds since 1970.
    at: u64,
}

/// One of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSecret {
    name: String,
    source: String,
    /// Seconds since 1970.
    at: u64,
}

/// All of a workspace's, read.
#[derive(Clone, Debug, Default)]
pub struct AllGranted {
    pub credentials: Vec<Granted>,
    pub secrets: Vec<GrantedSecret>,
}

/// One grant of a secret, read.
#[derive(Clone, Debug)]
pub struct GrantedSecret {
    pub name: CredentialName,
    pub grant: SecretGrant,
    pub at: u64,
}

/// One grant, read.
#[derive(Clone, Debug)]
pub struct Granted {
    pub name: CredentialName,
    pub grant: Grant,
    pub at: u64,
}

fn path_of(places: &Places, workspace: &Path) -> PathBuf {
    let digest = Digest::of(workspace.as_os_str().as_encoded_bytes());
    places.grants().join(format!("{}.json", digest.hex()))
}

/// Records a person's word, in place of an earlier one about the same name in the same workspace.
///
/// # Errors
/// The store is damaged, full, or cannot be written.
pub fn record(
    places: &Places,
    workspace: &Path,
    name: &CredentialName,
    grant: &Grant,
) -> Result<(), Failure> {
    change(places, workspace, |Grants { grants, .. }| {
        grants.retain(|kept| kept.name != name.as_str());
        bound(grants.len(), MAX_CREDENTIALS)?;
        grants.push(Kept::of(name, grant));
        grants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    })
}

/// The same of a secret.
///
/// # Errors
/// As of a credential.
pub fn record_secret(
    places: &Places,
    workspace: &Path,
    name: &CredentialName,
    grant: &SecretGrant,
) -> Result<(), Failure> {
    change(places, workspace, |Grants { secrets, .. }| {
        secrets.retain(|kept| kept.name != name.as_str());
        bound(secrets.len(), MAX_SECRETS)?;
        secrets.push(KeptSecret {
            name: name.to_string(),
            source: grant.source.to_string(),
            at: now(),
        });
        secrets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    })
}

fn bound(count: usize, limit: usize) -> Result<(), Failure> {
    if count < limit {
        return Ok(());
    }
    Err(Failure::new(
        "too-many",
        format!("this workspace has {limit} grants of that kind, which is the limit"),
    )
    .help("take one back with `agentcontainer grant --revoke NAME`"))
}

/// Takes one back, of either kind; false when there was none.
pub fn revoke(places: &Places, workspace: &Path, name: &CredentialName) -> Result<bool, Failure> {
    let mut was = false;
    change(
        places,
        workspace,
        |Grants {
             grants, secrets, ..
         }| {
            let before = grants.len() + secrets.len();
            grants.retain(|kept| kept.name != name.as_str());
            secrets.retain(|kept| kept.name != name.as_str());
            was = grants.len() + secrets.len() != before;
            Ok(())
        },
    )?;
    Ok(was)
}

/// What was granted to a workspace, by name. A file that cannot be understood grants nothing and is an error.
pub fn of(places: &Places, workspace: &Path) -> Result<AllGranted, Failure> {
    let path = path_of(places, workspace);
    match read(&path)? {
        Some(grants) if grants.workspace == workspace => grants.read(&path),
        Some(_) => Err(damaged(&path)),
        None => Ok(AllGranted::default()),
    }
}

/// Every workspace with grants. A damaged file is left out, as it grants nothing.
pub fn all(places: &Places) -> Vec<(PathBuf, AllGranted)> {
    let Ok(entries) = fs::read_dir(places.grants()) else {
        return Vec::new();
    };
    let mut all: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter_map(|path| {
            let grants = read(&path).ok().flatten()?;
            let granted = grants.read(&path).ok()?;
            let none = granted.credentials.is_empty() && granted.secrets.is_empty();
            (!none).then_some((grants.workspace, granted))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Puts the workspace's grants above those of config.toml.
pub fn add_to(host: &mut HostConfig, places: &Places, workspace: &Path) -> Result<(), Failure> {
    let file = path_of(places, workspace);
    fn setting<T>(value: T, file: &Path) -> Setting<T> {
        Setting {
            value,
            file: file.display().to_string(),
            at: Position { line: 1, column: 1 },
        }
    }
    let all = of(places, workspace)?;
    let credentials = all.credentials.into_iter();
    host.credentials
        .extend(credentials.map(|one| (one.name, setting(one.grant, &file))));
    let secrets = all.secrets.into_iter();
    host.secrets
        .extend(secrets.map(|one| (one.name, setting(one.grant, &file))));
    Ok(())
}

/// Whether a grant is one of this store's, and not config.toml's.
pub fn is_ours(places: &Places, file: &str) -> bool {
    Path::new(file).starts_with(places.grants())
}

/// What a review says beside what is asked: who granted it, from where, to whom.
pub fn shown(loaded: &Loaded) -> Vec<String> {
    let offered = loaded.config.profile.as_ref().and_then(|added| {
        let credential = added.credential.as_ref()?;
        credential
            .offered
            .as_ref()
            .map(|_| credential.name.as_str())
    });
    let one = |credential: &policy::Credential| {
        // What approving this would grant is a line of its own.
        if offered == Some(credential.name.as_str()) {
            return None;
        }
        let grant = loaded.host.credentials.get(credential.name.as_str())?;
        let remote = loaded.host.remote.as_ref();
        let hosts = credentials::places(&credential.name, &grant.value, remote);
        let by = by(loaded, &grant.file, grant.at);
        Some(format!(
            "credential {} is granted by {by}: {} for {}",
            credential.name,
            credentials::source(&grant.value.source),
            hosts.join(" ")
        ))
    };
    let file = |secret: &policy::Secret| {
        let grant = loaded.host.secrets.get(secret.name.as_str())?;
        Some(format!(
            "secret {} is granted by {}: {}, inside as a file",
            secret.name,
            by(loaded, &grant.file, grant.at),
            credentials::source(&grant.value.source)
        ))
    };
    let credentials = loaded.policy.credentials.iter().filter_map(one);
    credentials
        .chain(loaded.policy.secrets.all.iter().filter_map(file))
        .collect()
}

fn by(loaded: &Loaded, file: &str, at: Position) -> String {
    if is_ours(&loaded.places, file) {
        "`agentcontainer grant`".to_owned()
    } else {
        format!("{file}:{}", at.line)
    }
}

/// Reads, changes and writes under the lock that every change takes.
fn change(
    places: &Places,
    workspace: &Path,
    work: impl FnOnce(&mut Grants) -> Result<(), Failure>,
) -> Result<(), Failure> {
    make_private(&places.grants())?;
    let _one = lock(&places.grants().join("lock"))?;
    let path = path_of(places, workspace);
    let mut grants = match read(&path)? {
        Some(grants) if grants.workspace == workspace => grants,
        Some(_) => return Err(damaged(&path)),
        None => Grants {
            workspace: workspace.to_owned(),
            grants: Vec::new(),
            secrets: Vec::new(),
        },
    };
    grants.read(&path)?;
    work(&mut grants)?;
    write_private(&path, &serde_json::to_vec(&grants).unwrap_or_default())
}

fn lock(path: &Path) -> Result<Flock<fs::File>, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::io("open", path, &e))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Failure::io("lock", path, &errno.into()))
}

fn read(path: &Path) -> Result<Option<Grants>, Failure> {
    use std::io::Read;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io("read", path, &e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_GRANTS + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("read", path, &e))?;
    if bytes.len() as u64 > MAX_GRANTS {
        return Err(damaged(path));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| damaged(path))
}

fn damaged(path: &Path) -> Failure {
    Failure::new(
        "grants",
        format!(
            "{} is not a file of grants as it was written",
            path.display()
        ),
    )
    .help("look at it, remove it, and grant anew")
}

impl Grants {
    fn read(&self, path: &Path) -> Result<AllGranted, Failure> {
        if self.grants.len() > MAX_CREDENTIALS || self.secrets.len() > MAX_SECRETS {
            return Err(damaged(path));
        }
        let credentials: Option<Vec<_>> = self.grants.iter().map(Kept::read).collect();
        let secrets: Option<Vec<_>> = self.secrets.iter().map(KeptSecret::read).collect();
        match (credentials, secrets) {
            (Some(credentials), Some(secrets)) => Ok(AllGranted {
                credentials,
                secrets,
            }),
            _ => Err(damaged(path)),
        }
    }
}

impl KeptSecret {
    fn read(&self) -> Option<GrantedSecret> {
        Some(GrantedSecret {
            name: self.name.parse().ok()?,
            grant: SecretGrant {
                source: self.source.parse().ok()?,
            },
            at: self.at,
        })
    }
}

impl Kept {
    fn of(name: &CredentialName, grant: &Grant) -> Self {
        Self {
            name: name.to_string(),
            source: grant.source.to_string(),
            hosts: grant.hosts.iter().map(ToString::to_string).collect(),
            paths: grant.paths.iter().map(ToString::to_string).collect(),
            methods: grant.methods.iter().map(ToString::to_string).collect(),
            header: grant.header.to_string(),
            format: grant.format.to_string(),
            query: grant.query.as_ref().map(ToString::to_string),
            env: grant.env.as_ref().map(ToString::to_string),
            at: now(),
        }
    }

    fn read(&self) -> Option<Granted> {
        fn parsed<T: FromStr>(text: &str) -> Option<T> {
            text.parse().ok()
        }
        let hosts: Option<Vec<Domain>> = self.hosts.iter().map(|host| parsed(host)).collect();
        let hosts = hosts.filter(|hosts| (1..=MAX_HOSTS).contains(&hosts.len()))?;
        let paths: Option<Vec<PathGlob>> = self.paths.iter().map(|path| parsed(path)).collect();
        let paths = paths.filter(|paths| paths.len() <= MAX_IN_RULE)?;
        let methods: Option<Vec<Method>> = self.methods.iter().map(|one| parsed(one)).collect();
        let methods = methods.filter(|methods| methods.len() <= MAX_IN_RULE)?;
        Some(Granted {
            name: parsed(&self.name)?,
            grant: Grant {
                source: parsed(&self.source)?,
                hosts,
                paths,
                methods,
                header: parsed(&self.header)?,
                format: parsed(&self.format)?,
                query: match &self.query {
                    Some(query) => Some(parsed(query)?),
                    None => None,
                },
                env: match &self.env {
                    Some(env) => Some(parsed(env)?),
                    None => None,
                },
            },
            at: self.at,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::fake::places;
    use std::os::unix::fs::PermissionsExt;

    fn grant(source: &str, hosts: &[&str]) -> Grant {
        Grant {
            source: source.parse().unwrap(),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            paths: vec!["/a/**".parse().unwrap()],
            methods: vec!["GET".parse().unwrap()],
            header: Default::default(),
            format: Default::default(),
            query: Some("key".parse().unwrap()),
            env: None,
        }
    }

    fn name(text: &str) -> CredentialName {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_is_for_one_workspace_stands_above_config_toml_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let (here, there) = (Path::new("/w"), Path::new("/x"));
        record(&places, here, &name("a"), &grant("env://A", &["a.test"])).unwrap();
        record(
            &places,
            here,
            &name("a"),
            &grant("env://B", &["b.test:8443"]),
        )
        .unwrap();
        record(
            &places,
            here,
            &name("c"),
            &grant("exec:///bin/x y", &["*.c.test"]),
        )
        .unwrap();
        let text = "[credentials.a]\nsource = \"env://HOST\"\nhosts = [\"h.test\"]\n";
        let host = || schema::hostconfig::parse(text.as_bytes(), "config.toml").unwrap();
        let (mut ours, mut theirs) = (host(), host());
        add_to(&mut ours, &places, here).unwrap();
        add_to(&mut theirs, &places, there).unwrap();
        assert_eq!(
            ours.credentials["a"].value,
            grant("env://B", &["b.test:8443"])
        );
        assert!(is_ours(&places, &ours.credentials["a"].file));
        assert_eq!(
            ours.credentials["c"].value,
            grant("exec:///bin/x y", &["*.c.test"])
        );
        assert_eq!(theirs, host());
        assert!(!is_ours(&places, &theirs.credentials["a"].file));

        let path = path_of(&places, here);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(revoke(&places, here, &name("a")).unwrap());
        assert!(!revoke(&places, here, &name("a")).unwrap());
        assert!(!revoke(&places, there, &name("c")).unwrap());
        assert_eq!(all(&places).len(), 1);
    }

    #[test]
    fn a_secrets_grant_is_another_than_a_credentials_of_that_name() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let here = Path::new("/w");
        let secret = |source: &str| SecretGrant {
            source: source.parse().unwrap(),
        };
        record(&places, here, &name("a"), &grant("env://A", &["a.test"])).unwrap();
        record_secret(&places, here, &name("b"), &secret("env://B")).unwrap();
        let mut host = HostConfig::default();
        add_to(&mut host, &places, here).unwrap();
        let names = |host: &HostConfig| {
            let credentials: Vec<String> =
                host.credentials.keys().map(ToString::to_string).collect();
            let secrets: Vec<String> = host.secrets.keys().map(ToString::to_string).collect();
            (credentials.join(" "), secrets.join(" "))
        };
        assert_eq!(names(&host), ("a".to_owned(), "b".to_owned()));
        record_secret(&places, here, &name("a"), &secret("stdin")).unwrap();
        assert!(revoke(&places, here, &name("a")).unwrap());
        let mut host = HostConfig::default();
        add_to(&mut host, &places, here).unwrap();
        assert_eq!(names(&host), (String::new(), "b".to_owned()));
        assert_eq!(all(&places).len(), 1);

        for i in 1..MAX_SECRETS {
            record_secret(&places, here, &name(&format!("s{i}")), &secret("stdin")).unwrap();
        }
        let one_more = record_secret(&places, here, &name("more"), &secret("stdin"));
        assert_eq!(one_more.unwrap_err().diagnostics[0].code, "too-many");
        record_secret(&places, here, &name("b"), &secret("env://C")).unwrap();
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_grants_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let here = Path::new("/w");
        record(&places, here, &name("a"), &grant("env://A", &["a.test"])).unwrap();
        let path = path_of(&places, here);
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            good.replace("a.test", "not a host"),
            good.replace("env://A", "ghp_value"),
            good.replace("\"/w\"", "\"/x\""),
            good.replace("[\"a.test\"]", "[]"),
            "{".to_owned(),
            format!("{good}{}", " ".repeat(MAX_GRANTS as usize)),
        ] {
            fs::write(&path, &bad).unwrap();
            assert!(of(&places, here).is_err(), "{}", &bad[..bad.len().min(99)]);
            let again = record(&places, here, &name("b"), &grant("env://B", &["b.test"]));
            assert!(again.is_err(), "it was written over");
        }
        let filled = format!("{good}{}", " ".repeat(MAX_GRANTS as usize - good.len()));
        fs::write(&path, filled).unwrap();
        assert_eq!(of(&places, here).unwrap().credentials.len(), 1);
    }

    #[test]
    fn grants_are_bounded_and_those_made_at_once_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let here = Path::new("/w");
        std::thread::scope(|scope| {
            for i in 0..MAX_CREDENTIALS {
                let places = &places;
                scope.spawn(move || {
                    let grant = grant("env://A", &["a.test"]);
                    record(places, here, &name(&format!("n{i}")), &grant).unwrap();
                });
            }
        });
        assert_eq!(
            of(&places, here).unwrap().credentials.len(),
            MAX_CREDENTIALS
        );
        let one_more = record(&places, here, &name("more"), &grant("env://A", &["a.test"]));
        assert_eq!(one_more.unwrap_err().diagnostics[0].code, "too-many");
        // One that is there may be changed.
        record(&places, here, &name("n1"), &grant("env://B", &["a.test"])).unwrap();
    }
}
