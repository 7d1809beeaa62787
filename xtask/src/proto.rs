//! `cargo xtask proto`: the control channel's Rust code from its .proto file, checked in so that nobody needs protoc to
//! build. `lint` asks whether it is current.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::paths;

const GENERATED: &str = "api/src/generated";

pub fn run() -> Result<()> {
    generate(&paths::root().join(GENERATED))
}

/// Whether what is checked in is what would be generated.
pub fn check() -> Result<()> {
    let fresh = paths::target().join("proto-check");
    fs::create_dir_all(&fresh)?;
    generate(&fresh)?;
    for entry in fs::read_dir(&fresh)? {
        let entry = entry?;
        let kept =
            fs::read(paths::root().join(GENERATED).join(entry.file_name())).unwrap_or_default();
        ensure!(
            kept == fs::read(entry.path())?,
            "{GENERATED} is not what api/proto says: cargo xtask proto"
        );
    }
    Ok(())
}

fn generate(into: &Path) -> Result<()> {
    let proto = paths::root().join("api/proto");
    tonic_prost_build::configure()
        .out_dir(into)
        // Its own is in api/src/lib.rs, without the value.
        .skip_debug(["agentcontainer.v1.Secret", "agentcontainer.v1.SecretFile"])
        .compile_protos(&[proto.join("agentcontainer.proto")], &[proto])?;
    Ok(())
}
