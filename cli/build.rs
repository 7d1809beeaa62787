//! Embeds the sidecar: with `AGENTCONTAINER_PARTS` naming a directory that holds the three static binaries, their image is
//! made here, once, with its id and digests as constants; without it nothing is embedded and the program says so when it is
//! asked to start an enforcer.

#[allow(dead_code)]
#[path = "../engine/src/sidecar/archive.rs"]
mod archive;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-env-changed=AGENTCONTAINER_PARTS");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../engine/src/sidecar/archive.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let text = match env::var_os("AGENTCONTAINER_PARTS").filter(|v| !v.is_empty()) {
        Some(parts) => embed(Path::new(&parts), &out)?,
        None => "pub const EMBEDDED: Option<super::Parts> = None;\n".to_owned(),
    };
    fs::write(out.join("embedded.rs"), text)
}

fn embed(parts: &Path, out: &Path) -> std::io::Result<String> {
    let read = |name: &str| {
        let path = parts.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read(&path)
            .map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    };
    let (enforcer, gateway, init) = (
        read("agentcontainer-enforcer")?,
        read("agentcontainer-gateway")?,
        read("agentcontainer-init")?,
    );
    let architecture = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => "amd64".to_owned(),
        Ok("aarch64") => "arm64".to_owned(),
        Ok(other) => other.to_owned(),
        Err(_) => "amd64".to_owned(),
    };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let binaries = archive::Binaries {
        enforcer: &enforcer,
        gateway: &gateway,
        init: &init,
    };
    let archive = archive::build(binaries, &version, &architecture)?;
    fs::write(out.join("sidecar.tar"), &archive.bytes)?;
    Ok(format!(
        "pub const EMBEDDED: Option<super::Parts> = Some(super::Parts {{\n    \
         archive: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/sidecar.tar\")),\n    \
         id: \"{}\",\n    enforcer: \"{}\",\n    gateway: \"{}\",\n    init: \"{}\",\n}});\n",
        archive.id,
        archive::hex(&enforcer),
        archive::hex(&gateway),
        archive::hex(&init),
    ))
}
