//! The enforcer's image as a docker-archive, made from the three binaries and nothing else: sorted, without times, so that
//! the same binaries give the same bytes and the image id is known before any engine has seen it. Pure; also compiled into
//! the CLI's build script, which embeds the result, so it depends on nothing of this workspace.

use sha2::{Digest, Sha256};

/// The name the image is loaded under; it is run by id.
pub const REPOSITORY: &str = "agentcontainer-enforcer";
pub const ENFORCER: &str = "agentcontainer/agentcontainer-enforcer";
pub const GATEWAY: &str = "agentcontainer/agentcontainer-gateway";
pub const INIT: &str = "agentcontainer/bin/agentcontainer-init";

/// The three static binaries.
#[derive(Clone, Copy, Debug)]
pub struct Binaries<'a> {
    pub enforcer: &'a [u8],
    pub gateway: &'a [u8],
    pub init: &'a [u8],
}

/// The archive and what it will be called by an engine that keeps images by their configuration's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    pub bytes: Vec<u8>,
    /// 64 hexadecimal digits: the digest of the image's configuration.
    pub id: String,
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Builds the archive. `architecture` is Go's name of the machine (amd64, arm64).
pub fn build(
    binaries: Binaries<'_>,
    version: &str,
    architecture: &str,
) -> std::io::Result<Archive> {
    let mut layer = tar::Builder::new(Vec::new());
    directory(&mut layer, "agentcontainer/")?;
    file(&mut layer, ENFORCER, binaries.enforcer, 0o755)?;
    file(&mut layer, GATEWAY, binaries.gateway, 0o755)?;
    directory(&mut layer, "agentcontainer/bin/")?;
    file(&mut layer, INIT, binaries.init, 0o755)?;
    // Mount points: the root is read-only.
    directory(&mut layer, "run/")?;
    directory(&mut layer, "run/agentcontainer/")?;
    directory(&mut layer, "tmp/")?;
    directory(&mut layer, "var/")?;
    directory(&mut layer, "var/lib/")?;
    directory(&mut layer, "var/lib/agentcontainer/")?;
    let layer = layer.into_inner()?;
    let diff_id = hex(&layer);

    let config = serde_json::json!({
        "architecture": architecture,
        "config": {
            "Entrypoint": [format!("/{ENFORCER}"), "serve"],
            "Labels": { "dev.agentcontainer.version": version },
        },
        "created": "1970-01-01T00:00:00Z",
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "agentcontainer" }],
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    })
    .to_string();
    let id = hex(config.as_bytes());
    let manifest = serde_json::json!([{
        "Config": format!("{id}.json"),
        "RepoTags": [format!("{REPOSITORY}:{}", &id[..12])],
        "Layers": [format!("{diff_id}/layer.tar")],
    }])
    .to_string();

    let mut archive = tar::Builder::new(Vec::new());
    file(
        &mut archive,
        &format!("{id}.json"),
        config.as_bytes(),
        0o644,
    )?;
    directory(&mut archive, &format!("{diff_id}/"))?;
    file(&mut archive, &format!("{diff_id}/layer.tar"), &layer, 0o644)?;
    file(&mut archive, "manifest.json", manifest.as_bytes(), 0o644)?;
    Ok(Archive {
        bytes: archive.into_inner()?,
        id,
    })
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn directory(to: &mut tar::Builder<Vec<u8>>, path: &str) -> std::io::Result<()> {
    to.append_data(
        &mut header(tar::EntryType::Directory, 0, 0o755),
        path,
        std::io::empty(),
    )
}

fn file(
    to: &mut tar::Builder<Vec<u8>>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    to.append_data(
        &mut header(tar::EntryType::Regular, bytes.len() as u64, mode),
        path,
        bytes,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BINARIES: Binaries<'_> = Binaries {
        enforcer: b"enforcer",
        gateway: b"gateway",
        init: b"init",
    };

    #[test]
    fn the_same_binaries_give_the_same_image_and_others_another() {
        let once = build(BINARIES, "0.1.0", "amd64").unwrap();
        assert_eq!(once, build(BINARIES, "0.1.0", "amd64").unwrap());
        for other in [
            Binaries {
                init: b"other",
                ..BINARIES
            },
            Binaries {
                gateway: b"",
                ..BINARIES
            },
        ] {
            assert_ne!(once.id, build(other, "0.1.0", "amd64").unwrap().id);
        }
        assert_ne!(once.id, build(BINARIES, "0.1.1", "amd64").unwrap().id);
        assert_ne!(once.id, build(BINARIES, "0.1.0", "arm64").unwrap().id);
    }

    #[test]
    fn the_archive_says_what_it_holds() {
        let built = build(BINARIES, "0.1.0", "amd64").unwrap();
        let mut archive = tar::Archive::new(&built.bytes[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            if path.ends_with(".json") && path != "manifest.json" {
                let mut config = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut config).unwrap();
                assert_eq!(hex(&config), built.id);
                assert_eq!(path, format!("{}.json", built.id));
            }
            names.push(path);
        }
        assert_eq!(names.len(), 4);
        assert_eq!(names[3], "manifest.json");
    }
}
