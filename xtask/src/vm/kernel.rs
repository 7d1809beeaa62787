//! Debian's kernels: the newest build of a line that the package manager knows, unpacked beside the cache of images. Nothing is
//! installed. Called by `vm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, sh};

/// A long-term line of kernels.
#[derive(Clone, Copy, Debug)]
pub enum Line {
    V6_1,
    V6_12,
}

/// An unpacked kernel.
pub struct Kernel {
    /// As `uname -r` says it.
    pub version: String,
    pub image: PathBuf,
    /// The directory that holds `VERSION/kernel/…`, as /lib/modules does.
    pub modules: PathBuf,
}

impl Line {
    fn prefix(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-6.1.",
            Self::V6_12 => "linux-image-6.12.",
        }
    }

    /// The newest build; where it cannot be fetched, the newest that was fetched before.
    pub fn fetch(self) -> Result<Kernel> {
        let known = sh::output(&mut sh::command("apt-cache", ["pkgnames", self.prefix()]))?;
        let newest = newest(self.prefix(), known.lines());
        let wanted = newest
            .context("the package manager knows no such kernel")
            .and_then(fetch);
        match (wanted, self.kept()?) {
            (Ok(kernel), _) => Ok(kernel),
            (Err(error), Some(kept)) => {
                println!("{error:#}; taking {} from the cache", kept.display());
                Kernel::at(&kept)
            }
            (Err(error), None) => Err(error.context(format!("no {self:?} kernel"))),
        }
    }

    fn kept(self) -> Result<Option<PathBuf>> {
        let Ok(entries) = fs::read_dir(cache()) else {
            return Ok(None);
        };
        let names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        Ok(newest(self.prefix(), names.iter().map(String::as_str)).map(|name| cache().join(name)))
    }
}

fn cache() -> PathBuf {
    paths::cache().join("kernels")
}

/// The plain flavour's package of the highest version: `PREFIX…-amd64` or the same without a signature. The cloud flavour has no 9p.
fn newest<'a>(prefix: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let candidates = names.filter_map(|name| {
        let version = name.strip_prefix(prefix)?;
        let version = version.strip_suffix("-unsigned").unwrap_or(version);
        let version = version.strip_suffix("-amd64")?;
        // `0-56`, `117+deb12`, `94`; a word such as `cloud` or `rt` makes it another flavour.
        let numbers = version.split(['.', '-', '+']).map(|part| {
            let part = part.strip_prefix("deb").unwrap_or(part);
            part.parse::<u32>().ok()
        });
        Some((numbers.collect::<Option<Vec<_>>>()?, name))
    });
    candidates.max().map(|(_, name)| name)
}

/// Downloads and unpacks beside, then renames: what stands in the cache is whole.
fn fetch(package: &str) -> Result<Kernel> {
    let dir = cache().join(package);
    if !dir.is_dir() {
        let part = cache().join(format!(".{package}.{}", std::process::id()));
        fs::create_dir_all(part.join("root"))?;
        println!("fetching {package} (once)");
        let unpacked = unpack(package, &part);
        let placed = unpacked.and_then(|()| Ok(fs::rename(part.join("root"), &dir)?));
        fs::remove_dir_all(&part)?;
        placed.with_context(|| format!("cannot fetch {package}"))?;
    }
    Kernel::at(&dir)
}

fn unpack(package: &str, part: &Path) -> Result<()> {
    sh::run(
        sh::command(
            "apt-get",
            ["-qq", "-o", "APT::Sandbox::User=", "download", package],
        )
        .current_dir(part),
    )?;
    let deb = fs::read_dir(part)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get left no package")?;
    let root = part.join("root");
    sh::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&root))?;
    let version = version(&root)?;
    // What installing the package would have done: modprobe in the guest reads it.
    sh::run(
        Command::new("busybox")
            .args(["depmod", "-b"])
            .arg(&root)
            .arg(version),
    )
}

fn version(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let mut versions =
        fs::read_dir(&modules).with_context(|| format!("no modules in {}", modules.display()))?;
    match (versions.next(), versions.next()) {
        (Some(only), None) => Ok(only?.file_name().to_string_lossy().into_owned()),
        _ => bail!("{} does not hold one kernel's modules", modules.display()),
    }
}

// === impl Kernel ===

impl Kernel {
    fn at(root: &Path) -> Result<Self> {
        let version = version(root)?;
        let image = root.join("boot").join(format!("vmlinuz-{version}"));
        ensure!(image.is_file(), "{} is not there", image.display());
        Ok(Self {
            image,
            modules: root.join("lib/modules"),
            version,
        })
    }

    /// A module's file, whichever way this kernel compresses it; none where it is built in or does not exist.
    pub fn module(&self, path: &str) -> Option<PathBuf> {
        let kernel = self.modules.join(&self.version).join("kernel");
        ["", ".xz"]
            .iter()
            .map(|end| kernel.join(format!("{path}.ko{end}")))
            .find(|file| file.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_of_the_line_is_chosen() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.1.0-50-amd64-unsigned",
            "linux-image-6.1.0-99-cloud-amd64",
            "linux-image-6.1.0-99-rt-amd64",
            "linux-image-6.12.117+deb12-amd64-unsigned",
        ];
        assert_eq!(
            newest("linux-image-6.1.", names.into_iter()),
            Some("linux-image-6.1.0-50-amd64-unsigned")
        );
        assert_eq!(
            newest("linux-image-6.12.", names.into_iter()),
            Some(names[6])
        );
        assert_eq!(newest("linux-image-6.6.", names.into_iter()), None);
    }
}
