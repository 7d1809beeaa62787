//! `cargo xtask proto`: the control channel's Rust code from its .proto file, checked in so that nobody needs protoc to
//! build.

use std::path::Path;

pub fn run() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    tonic_prost_build::configure()
        .out_dir(root.join("api/src/generated"))
        .compile_protos(
            &[root.join("api/proto/agentcontainer.proto")],
            &[root.join("api/proto")],
        )?;
    Ok(())
}
