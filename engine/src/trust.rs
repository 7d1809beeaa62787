//! The session's certificate, where programs inside look for what they trust: files in the session's directory with the
//! image's own certificates and the session's, mounted read-only over the image's bundles and at one place of ours. They
//! are there, empty, before the container is made, and are completed once the session is open and before anything runs.

pub mod hashed;
pub mod keystore;
pub mod pem;
pub mod places;
pub mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use keystore::PASSWORD;

use crate::EngineError;
use crate::git::Doing;
use crate::request::Mount;

/// Where the directory is inside.
pub const TARGET: &str = "/run/agentcontainer/trust";
/// In the session's directory.
pub const DIRECTORY: &str = "trust";
/// Everything that is trusted.
pub const BUNDLE: &str = "bundle.pem";
/// The session's certificate alone.
pub const CA: &str = "ca.pem";
/// What [`BUNDLE`] has, for JVMs.
pub const KEYSTORE: &str = "cacerts.p12";

/// The largest bundle that is read of an image, in bytes; of a longer one, what is whole before that.
pub const MAX_BUNDLE: usize = 4 * 1024 * 1024;
/// Certificates taken of one image.
pub const MAX_CERTIFICATES: usize = 4096;

/// What an image trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InImage {
    /// Files with certificates: the path that programs know, and where it leads.
    pub bundles: BTreeMap<String, String>,
    /// The same for stores of JVMs.
    pub keystores: BTreeMap<String, String>,
    /// Directories of hashed names, where their links end.
    pub directories: BTreeSet<String>,
    /// All of the bundles' certificates, each once.
    pub pem: String,
}

/// How the container is told.
#[derive(Debug, Default)]
pub struct Told {
    pub mounts: Vec<Mount>,
    pub notes: Vec<String>,
}

/// Makes the files, empty, and says where they go: `others` are the request's other mounts, which ours keep away from.
pub fn prepare(
    session_dir: &Path,
    image: &InImage,
    others: &[Mount],
    doing: Doing,
) -> Result<Told, EngineError> {
    let dir = session_dir.join(DIRECTORY);
    if doing == Doing::Write {
        make(&dir)?;
    }
    let source = |path: &Path| path.to_string_lossy().into_owned();
    let mut told = Told::default();
    told.mounts.push(Mount::Trust {
        source: source(&dir),
        target: TARGET.to_owned(),
    });
    let owned = |path: &String, file| (path.clone(), file);
    let bundles = image.bundles.values().map(|path| owned(path, BUNDLE));
    let keystores = image.keystores.values().map(|path| owned(path, KEYSTORE));
    // A file that the image need not have: the engine makes one in the container's own layer to mount over.
    let hashed = image.directories.iter();
    let hashed = hashed.map(|path| (format!("{path}/{}", hashed::file()), CA));
    let mut seen = BTreeSet::new();
    for (path, file) in bundles.chain(keystores).chain(hashed) {
        if !seen.insert(path.clone()) {
            continue;
        }
        let mount = Mount::Trust {
            source: source(&dir.join(file)),
            target: path.clone(),
        };
        if mount.is_apart(others) {
            told.mounts.push(mount);
        } else {
            told.notes.push(format!(
                "{path} inside is left as another mount has it: the session's certificate is in {TARGET}/{BUNDLE}"
            ));
        }
    }
    Ok(told)
}

/// Adds the variables to what the person set.
pub fn variables(
    env: &mut BTreeMap<String, Option<String>>,
    image: &BTreeMap<String, String>,
    in_image: &InImage,
    mounts: &[Mount],
) -> Vec<String> {
    let is_mounted = |path: &str| {
        let target = |mount: &Mount| matches!(mount, Mount::Trust { target, .. } if target == path);
        mounts.iter().any(target)
    };
    variables::add(env, image, |path| {
        let lies_at = in_image.bundles.get(path).map_or(path, String::as_str);
        is_mounted(lies_at) || [BUNDLE, CA].iter().any(|f| path == format!("{TARGET}/{f}"))
    })
}

/// Whoever the agent is inside, it can read them, whatever our umask is.
fn make(dir: &Path) -> Result<(), EngineError> {
    fs::create_dir(dir).map_err(EngineError::io("create", dir))?;
    let open_up = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(EngineError::io("open up", path))
    };
    open_up(dir, 0o755)?;
    for file in [BUNDLE, CA, KEYSTORE] {
        let path = dir.join(file);
        fs::File::create_new(&path).map_err(EngineError::io("create", &path))?;
        open_up(&path, 0o644)?;
    }
    Ok(())
}

/// Writes the files whole, in place: the container's mounts hold them as they are.
pub fn complete(session_dir: &Path, image: &InImage, ca: &[u8]) -> Result<(), EngineError> {
    let of_image = pem::read(image.pem.as_bytes()).certificates;
    write(&session_dir.join(DIRECTORY), &of_image, ca)
}

/// Puts another certificate of the session's in place of the one that is there: each gateway has its own. False when it is
/// there already.
pub fn renew(session_dir: &Path, ca: &[u8]) -> Result<bool, EngineError> {
    let dir = session_dir.join(DIRECTORY);
    let read = |file: &str| {
        let path = dir.join(file);
        let text = fs::read(&path).map_err(EngineError::io("read", &path))?;
        Ok::<_, EngineError>(pem::read(&text).certificates)
    };
    let (before, mut of_image) = (read(CA)?, read(BUNDLE)?);
    if before.iter().any(|own| own == ca) {
        return Ok(false);
    }
    of_image.retain(|der| !before.contains(der));
    write(&dir, &of_image, ca)?;
    Ok(true)
}

fn write(dir: &Path, of_image: &[Vec<u8>], ca: &[u8]) -> Result<(), EngineError> {
    if ca.len() > pem::MAX_CERTIFICATE || !pem::is_whole(ca) {
        return Err(EngineError::SessionCertificate);
    }
    let mut own = String::new();
    pem::write(&mut own, ca);
    let mut bundle = String::new();
    for der in of_image {
        pem::write(&mut bundle, der);
    }
    bundle += &own;
    let named = of_image.iter().enumerate();
    let named = named.map(|(i, der)| (format!("image-{i:04}"), der.as_slice()));
    let keystore = keystore::write(named.chain([("agentcontainer-session".to_owned(), ca)]));
    for (file, content) in [
        (BUNDLE, bundle.as_bytes()),
        (CA, own.as_bytes()),
        (KEYSTORE, &keystore),
    ] {
        let path = dir.join(file);
        // Not emptied first: whoever reads meanwhile finds the image's certificates, which stay where they are.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.set_len(content.len() as u64)
            })
            .map_err(EngineError::io("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What has the form of a certificate; nothing here looks further.
    fn der(content: u8) -> Vec<u8> {
        vec![0x30, 3, 2, 1, content]
    }

    fn image() -> InImage {
        let mut image = InImage {
            bundles: [
                (
                    "/etc/ssl/certs/ca-certificates.crt",
                    "/etc/ssl/certs/ca-certificates.crt",
                ),
                ("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
                ("/opt/ca.pem", "/data/ca.pem"),
            ]
            .map(|(path, lies_at)| (path.to_owned(), lies_at.to_owned()))
            .into(),
            keystores: [(
                "/etc/ssl/certs/java/cacerts".to_owned(),
                "/etc/java/cacerts".to_owned(),
            )]
            .into(),
            directories: ["/etc/ssl/certs".to_owned()].into(),
            pem: String::new(),
        };
        pem::write(&mut image.pem, &der(1));
        pem::write(&mut image.pem, &der(2));
        image
    }

    fn volume(target: &str) -> Mount {
        Mount::Volume {
            name: "v1".to_owned(),
            target: target.to_owned(),
            read_only: false,
        }
    }

    #[test]
    fn every_file_the_image_trusts_by_is_mounted_over_once_where_its_links_end() {
        let dir = tempfile::tempdir().unwrap();
        let told = prepare(dir.path(), &image(), &[volume("/cache")], Doing::Write).unwrap();
        let of = |mount: &Mount| match mount {
            Mount::Trust { source, target } => {
                let source = Path::new(source).strip_prefix(dir.path()).unwrap();
                (source.to_str().unwrap().to_owned(), target.clone())
            }
            other => panic!("{other:?}"),
        };
        let mounts: Vec<_> = told.mounts.iter().map(of).collect();
        let expected = [
            ("trust", TARGET),
            ("trust/bundle.pem", "/etc/ssl/certs/ca-certificates.crt"),
            ("trust/bundle.pem", "/data/ca.pem"),
            ("trust/cacerts.p12", "/etc/java/cacerts"),
            ("trust/ca.pem", "/etc/ssl/certs/06a0de29.0"),
        ]
        .map(|(source, target)| (source.to_owned(), target.to_owned()));
        assert_eq!(mounts, expected);
        assert!(told.notes.is_empty());
    }

    #[test]
    fn what_another_mount_covers_is_left_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let others = [
            volume("/data"),
            volume("/etc/ssl/certs/ca-certificates.crt"),
        ];
        let told = prepare(dir.path(), &image(), &others, Doing::Look).unwrap();
        assert_eq!(told.mounts.len(), 3);
        assert_eq!(told.notes.len(), 2, "{:?}", told.notes);
        assert!(
            !dir.path().join(DIRECTORY).exists(),
            "a plan writes nothing"
        );
        let mut env = BTreeMap::new();
        let set = BTreeMap::from([("SSL_CERT_FILE".to_owned(), "/opt/ca.pem".to_owned())]);
        variables(&mut env, &set, &image(), &told.mounts);
        assert!(
            env.contains_key("SSL_CERT_FILE"),
            "the image's own leads elsewhere"
        );
    }

    #[test]
    fn an_images_variable_stays_where_it_leads_to_what_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let told = prepare(dir.path(), &image(), &[], Doing::Look).unwrap();
        for (kept, path) in [
            (true, "/opt/ca.pem"),
            (true, "/etc/ssl/cert.pem"),
            (true, "/data/ca.pem"),
            (false, "/x"),
        ] {
            let mut env = BTreeMap::new();
            let set = BTreeMap::from([("SSL_CERT_FILE".to_owned(), path.to_owned())]);
            variables(&mut env, &set, &image(), &told.mounts);
            assert_eq!(env.contains_key("SSL_CERT_FILE"), !kept, "{path}");
        }
        let ours = format!("{TARGET}/{BUNDLE}");
        let mut env = BTreeMap::from([("PIP_CERT".to_owned(), Some(ours))]);
        assert!(variables(&mut env, &BTreeMap::new(), &image(), &told.mounts).is_empty());
    }

    #[test]
    fn the_files_are_there_before_and_are_completed_in_place() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), &image(), &[], Doing::Write).unwrap();
        let trust = dir.path().join(DIRECTORY);
        let stat = |file: &str| {
            let meta = fs::metadata(trust.join(file)).unwrap();
            (meta.ino(), meta.mode() & 0o777, meta.len())
        };
        assert_eq!(fs::metadata(&trust).unwrap().mode() & 0o777, 0o755);
        let before = [BUNDLE, CA, KEYSTORE].map(stat);
        assert!(
            before
                .iter()
                .all(|(_, mode, len)| (*mode, *len) == (0o644, 0))
        );

        complete(dir.path(), &image(), &der(9)).unwrap();
        let after = [BUNDLE, CA, KEYSTORE].map(stat);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((before.0, before.1), (after.0, after.1));
        }
        let read = |file: &str| pem::read(&fs::read(trust.join(file)).unwrap()).certificates;
        assert_eq!(read(BUNDLE), [der(1), der(2), der(9)]);
        assert_eq!(read(CA), [der(9)]);
        assert!(pem::is_whole(&fs::read(trust.join(KEYSTORE)).unwrap()));

        // That of another gateway takes its place, once.
        assert!(renew(dir.path(), &der(7)).unwrap());
        assert_eq!(read(BUNDLE), [der(1), der(2), der(7)]);
        assert_eq!(read(CA), [der(7)]);
        assert!(!renew(dir.path(), &der(7)).unwrap());
        assert!(renew(dir.path(), b"junk").is_err());
        assert_eq!(read(CA), [der(7)]);

        // Another one, shorter, leaves nothing of the one before.
        complete(dir.path(), &InImage::default(), &der(8)).unwrap();
        assert_eq!(read(BUNDLE), [der(8)]);
    }

    #[test]
    fn without_a_certificate_of_the_session_or_a_place_for_it_nothing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        assert!(complete(dir.path(), &image(), &der(9)).is_err());
        prepare(dir.path(), &image(), &[], Doing::Write).unwrap();
        for bad in [&[][..], b"junk", &der(1)[..4]] {
            assert!(matches!(
                complete(dir.path(), &image(), bad),
                Err(EngineError::SessionCertificate)
            ));
        }
        assert!(prepare(dir.path(), &image(), &[], Doing::Write).is_err());
    }
}
