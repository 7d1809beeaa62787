//! Where things are: the tree, the build's output, and the cache outside the clone. Used by every task.

use std::path::{Path, PathBuf};

/// The root of the tree: the one that `cargo xtask` was called in, not the one that this was compiled in.
pub fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&manifest);
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory, `CARGO_TARGET_DIR` respected.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where `dist` puts the binary that people run.
pub fn binary() -> PathBuf {
    target().join("dist/agentcontainer")
}

/// Kept from one clone to the next: images, kernels.
pub fn cache() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
        }
    };
    base.join("agentcontainer")
}
