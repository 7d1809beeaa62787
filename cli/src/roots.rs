//! What upstreams are verified with: the host's own roots, and the bundles that its config names. Read on the host for each
//! session and sent to the gateway, which reads no file; nothing of the container's is ever among them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::trust::pem;
use policy::{Action, EffectivePolicy};
use schema::diag::Diagnostic;
use schema::hostconfig::{HostConfig, Setting};
use schema::net::Protocol;

use crate::report::Failure;

/// The largest bundle that is read, in bytes.
pub const MAX_BUNDLE: u64 = 4 * 1024 * 1024;
/// Certificates of all bundles together, and their bytes.
pub const MAX_ROOTS: usize = 4096;
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where distributions keep them: Debian, Ubuntu, Alpine; Fedora, RHEL; SUSE; others.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];

#[derive(Debug, thiserror::Error)]
enum RootsError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("has more than {MAX_BUNDLE} bytes")]
    TooLarge,
    #[error("has no certificate (PEM, BEGIN CERTIFICATE)")]
    Empty,
    #[error("has {0} blocks that begin like a certificate and are none")]
    Broken(usize),
}

/// DER, each once.
///
/// # Errors
/// A bundle of the config's that cannot be used, more than the bounds, or none at all where the policy needs some.
pub fn read(host: &HostConfig, policy: &EffectivePolicy) -> Result<Vec<Vec<u8>>, Failure> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    gather(
        chosen.map(PathBuf::from).as_deref(),
        &system,
        &host.gateway.ca_bundles,
        reads_https(policy),
    )
}

/// The same where some are needed, whatever a policy says: for services that this host asks itself.
pub fn of_host(host: &HostConfig) -> Result<Vec<Vec<u8>>, Failure> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let chosen = chosen.map(PathBuf::from);
    gather(chosen.as_deref(), &system, &host.gateway.ca_bundles, true)
}

/// The same where there may be none: a host that asks registries without TLS alone needs no roots.
pub fn if_any(host: &HostConfig) -> Result<Vec<Vec<u8>>, Failure> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let chosen = chosen.map(PathBuf::from);
    gather(chosen.as_deref(), &system, &host.gateway.ca_bundles, false)
}

fn gather(
    chosen: Option<&Path>,
    system: &[PathBuf],
    bundles: &[Setting<PathBuf>],
    needed: bool,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut roots = pem::Collected::at_most(MAX_ROOTS);
    let mut fits = true;
    match chosen {
        // The person's word on which roots these are: no others in their place.
        Some(path) => match bundle(path) {
            Ok(read) => fits &= add(&mut roots, read),
            Err(error) if needed => {
                return Err(Failure::new(
                    "ca-bundle",
                    format!("SSL_CERT_FILE names {}, which {error}", path.display()),
                )
                .help("correct it, or leave it unset for the system's own roots"));
            }
            Err(_) => {}
        },
        None => {
            // What is broken in the system's own file is not ours to say.
            let found = system.iter().find_map(|path| usable(path).ok());
            fits &= add(&mut roots, found.unwrap_or_default());
        }
    }
    for setting in bundles {
        let read = bundle(&setting.value).map_err(|error| {
            Diagnostic::new("ca-bundle", format!("{} {error}", setting.value.display()))
                .at(&setting.file, setting.at)
        })?;
        fits &= add(&mut roots, read);
    }
    if roots.is_empty() && needed {
        return Err(Failure::new(
            "no-roots",
            "this machine has no root certificates to verify https servers with",
        )
        .help(
            "install ca-certificates (Debian, Ubuntu: apt-get install ca-certificates), or name a file in `ca_bundles` of config.toml",
        ));
    }
    let roots = roots.into_certificates();
    if !fits || roots.iter().map(Vec::len).sum::<usize>() > MAX_BYTES {
        return Err(Failure::new(
            "too-many-roots",
            format!(
                "the root certificates are more than {MAX_ROOTS} or more than {MAX_BYTES} bytes"
            ),
        )
        .help("name fewer in `ca_bundles` of config.toml"));
    }
    Ok(roots)
}

fn add(roots: &mut pem::Collected, more: Vec<Vec<u8>>) -> bool {
    more.into_iter().all(|der| roots.add(der))
}

/// All of a file that a person names.
fn bundle(path: &Path) -> Result<Vec<Vec<u8>>, RootsError> {
    let read = content(path)?;
    match read {
        pem::Read { broken: 1.., .. } => Err(RootsError::Broken(read.broken)),
        _ if read.certificates.is_empty() => Err(RootsError::Empty),
        _ => Ok(read.certificates),
    }
}

/// What can be used of a file that the system brings along.
fn usable(path: &Path) -> Result<Vec<Vec<u8>>, RootsError> {
    let read = content(path)?;
    if read.certificates.is_empty() {
        return Err(RootsError::Empty);
    }
    Ok(read.certificates)
}

fn content(path: &Path) -> Result<pem::Read, RootsError> {
    // A pipe would keep us waiting.
    let file: File = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(RootsError::NotAFile);
    }
    let mut text = Vec::new();
    file.take(MAX_BUNDLE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BUNDLE {
        return Err(RootsError::TooLarge);
    }
    Ok(pem::read(&text))
}

/// Whether anything is allowed that the gateway verifies a server for.
pub fn reads_https(policy: &EffectivePolicy) -> bool {
    policy.network.layers().iter().any(|layer| {
        let listed = layer.allowed.iter();
        let mut rules = layer.rules.iter().filter(|r| r.action != Action::Deny);
        layer.ask_unlisted.is_some()
            || listed.into_iter().any(|d| d.port.is_none_or(|p| p == 443))
            || rules.any(|r| {
                r.protocol
                    .map_or(r.ports.contains(&443), |p| p == Protocol::Https)
            })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use schema::diag::Position;

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }
    }

    /// What has the form of a certificate, of `n` bytes beyond its head of four.
    fn der(n: usize, mark: u16) -> Vec<u8> {
        let mut der = vec![0x30, 0x82, (n >> 8) as u8, n as u8];
        der.extend(mark.to_be_bytes());
        der.resize(n + 4, 0);
        der
    }

    fn text(certificates: &[Vec<u8>]) -> String {
        let mut text = String::new();
        for der in certificates {
            pem::write(&mut text, der);
        }
        text
    }

    fn setting(path: &Path) -> Setting<PathBuf> {
        Setting {
            value: path.to_owned(),
            file: "config.toml".into(),
            at: Position { line: 3, column: 7 },
        }
    }

    fn code(result: Result<Vec<Vec<u8>>, Failure>) -> &'static str {
        result.unwrap_err().diagnostics[0].code
    }

    #[test]
    fn the_first_system_file_and_every_bundle_are_read_and_each_certificate_is_there_once() {
        let at = Bench::new();
        let (one, two, three) = (der(300, 1), der(300, 2), der(300, 3));
        let empty = at.put("empty", "# none yet\n");
        let system = at.put(
            "system",
            &(text(std::slice::from_ref(&one)) + "-----BEGIN CERTIFICATE-----\n"),
        );
        let other = at.put("other", &text(std::slice::from_ref(&three)));
        let own = at.put("own", &text(&[two.clone(), one.clone()]));
        let paths = [at.0.path().join("gone"), empty, system, other.clone()];
        let read = gather(None, &paths, &[setting(&own)], true).unwrap();
        assert_eq!(read, [one.clone(), two.clone()]);
        // A file that the person chose stands for the system's.
        let read = gather(Some(&other), &paths, &[setting(&own)], true).unwrap();
        assert_eq!(read, [three, two, one]);
    }

    #[test]
    fn a_bundle_that_cannot_be_used_is_an_error_at_its_place() {
        let at = Bench::new();
        let good = text(&[der(300, 1)]);
        let fifo = at.0.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [
            at.0.path().join("gone"),
            at.0.path().to_owned(),
            fifo,
            at.put("empty", ""),
            at.put("der", "\u{30}\u{3}"),
            at.put(
                "broken",
                &format!("{good}-----BEGIN CERTIFICATE-----\nMAIJ\n-----END CERTIFICATE-----\n"),
            ),
        ] {
            for needed in [false, true] {
                let failure = gather(None, &[], &[setting(&path)], needed).unwrap_err();
                let said = failure.diagnostics[0].to_string();
                assert!(said.starts_with("config.toml:3:7: "), "{said}");
                assert!(said.contains(path.to_str().unwrap()), "{said}");
            }
            let chosen = |needed| gather(Some(&path), &[], &[], needed);
            assert_eq!(code(chosen(true)), "ca-bundle");
            assert!(chosen(false).unwrap().is_empty());
        }
    }

    #[test]
    fn no_roots_at_all_is_an_error_only_where_something_is_verified() {
        assert_eq!(code(gather(None, &[], &[], true)), "no-roots");
        assert!(gather(None, &[], &[], false).unwrap().is_empty());
        let policy = |egress: &str| {
            let text = format!(
                r#"{{ "image": "x", "agent": {{ "capabilities": {{ "network": {{ "egress": {egress} }} }} }} }}"#
            );
            let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
            policy::effective(&config, &HostConfig::default()).unwrap()
        };
        for (egress, expected) in [
            ("{}", false),
            (r#"{ "allowedDomains": ["a.test"] }"#, true),
            (r#"{ "allowedDomains": ["a.test:443"] }"#, true),
            (
                r#"{ "allowedDomains": ["a.test:80", "b.test:5432"] }"#,
                false,
            ),
            (
                r#"{ "rules": [{ "host": "a.test", "ports": [443] }] }"#,
                true,
            ),
            (
                r#"{ "rules": [{ "host": "a.test", "ports": [443], "protocol": "tls" }] }"#,
                false,
            ),
            (
                r#"{ "rules": [{ "host": "a.test", "ports": [8443], "protocol": "https" }] }"#,
                true,
            ),
            (
                r#"{ "rules": [{ "host": "a.test", "ports": [443], "action": "deny" }] }"#,
                false,
            ),
        ] {
            assert_eq!(reads_https(&policy(egress)), expected, "{egress}");
        }
    }

    #[test]
    fn bounds_hold_at_n_and_break_at_n_plus_one() {
        let at = Bench::new();
        let number = |n: usize| {
            let all: Vec<_> = (0..n).map(|i| der(260, i as u16)).collect();
            let path = at.put("number", &text(&all));
            gather(None, &[], &[setting(&path)], true)
        };
        assert_eq!(number(MAX_ROOTS).unwrap().len(), MAX_ROOTS);
        assert_eq!(code(number(MAX_ROOTS + 1)), "too-many-roots");

        let size = |n: u64| {
            let mut content = text(&[der(300, 1)]);
            content.extend(std::iter::repeat_n('\n', n as usize - content.len()));
            gather(None, &[], &[setting(&at.put("size", &content))], true)
        };
        assert!(size(MAX_BUNDLE).is_ok());
        assert_eq!(code(size(MAX_BUNDLE + 1)), "ca-bundle");

        // In two files: base64 makes one of them too large.
        let bytes = |more: usize| {
            let all: Vec<_> = (0..128).map(|i| der(32 * 1024 - 4, i)).collect();
            let last = der(32 * 1024 - 4 + more, 1000);
            let half = at.put("a", &text(&all[..64]));
            let rest = at.put("b", &(text(&all[64..127]) + &text(&[last])));
            gather(None, &[], &[setting(&half), setting(&rest)], true)
        };
        assert_eq!(
            bytes(0).unwrap().iter().map(Vec::len).sum::<usize>(),
            MAX_BYTES
        );
        assert_eq!(code(bytes(1)), "too-many-roots");
    }
}
