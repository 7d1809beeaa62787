//! The hosts that a project's own files name: lockfiles, registry settings, git remotes. Each format is read for the keys
//! that are followed when packages are fetched, and for nothing else (a lockfile is full of home pages). User names and
//! passwords in addresses are never taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use schema::host::HostName;

/// The largest file that is read, in bytes; a larger one is read up to there.
pub const MAX_FILE: u64 = 32 << 20;
/// The most hosts that are taken over.
pub const MAX_HOSTS: usize = 200;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// `host:port`, and the files that name it.
    pub hosts: BTreeMap<String, BTreeSet<String>>,
    pub notes: Vec<String>,
}

/// How a file says where it fetches from.
enum Format {
    /// The first address after each of these words.
    After(&'static [&'static str]),
    /// go.mod: modules are named by where they are.
    GoModules,
    GitRemotes,
}

const FILES: &[(&str, Format)] = &[
    ("package-lock.json", Format::After(&["\"resolved\""])),
    ("npm-shrinkwrap.json", Format::After(&["\"resolved\""])),
    ("yarn.lock", Format::After(&["resolved ", "resolution:"])),
    ("pnpm-lock.yaml", Format::After(&["tarball:"])),
    (".npmrc", Format::After(&["registry"])),
    (".yarnrc", Format::After(&["registry"])),
    (".yarnrc.yml", Format::After(&["npmRegistryServer"])),
    ("pip.conf", Format::After(&["index-url", "find-links"])),
    (
        "requirements.txt",
        Format::After(&[
            "--index-url",
            "-i ",
            "--extra-index-url",
            "--find-links",
            "-f ",
            " @ ",
            "-e ",
        ]),
    ),
    (
        "requirements-dev.txt",
        Format::After(&[
            "--index-url",
            "-i ",
            "--extra-index-url",
            "--find-links",
            "-f ",
            " @ ",
            "-e ",
        ]),
    ),
    ("uv.lock", Format::After(&["registry =", "url =", "git ="])),
    (
        "uv.toml",
        Format::After(&["index-url", "url =", "default-index"]),
    ),
    ("poetry.lock", Format::After(&["url ="])),
    ("Pipfile.lock", Format::After(&["\"url\""])),
    (
        "Cargo.toml",
        Format::After(&["git =", "registry-index", "index ="]),
    ),
    ("Cargo.lock", Format::After(&["source ="])),
    (
        ".cargo/config.toml",
        Format::After(&["registry =", "index =", "replace-with"]),
    ),
    (".cargo/config", Format::After(&["registry =", "index ="])),
    ("Gemfile.lock", Format::After(&["remote:"])),
    ("composer.lock", Format::After(&["\"url\""])),
    ("go.mod", Format::GoModules),
    (".git/config", Format::GitRemotes),
];

/// Reads the files of a workspace.
pub fn derive(workspace: &Path) -> Derived {
    let mut derived = Derived::default();
    for (name, format) in FILES {
        let Some(text) = read(&workspace.join(name)) else {
            continue;
        };
        derived.read(name, format, &text);
    }
    // Where Go fetches from is the environment's to say.
    if derived_from(&derived, "go.mod")
        && let Ok(proxy) = std::env::var("GOPROXY")
    {
        for url in proxy.split([',', '|']) {
            derived.add("GOPROXY", url);
        }
    }
    derived
}

fn derived_from(derived: &Derived, file: &str) -> bool {
    derived.hosts.values().any(|files| files.contains(file))
}

fn read(path: &Path) -> Option<String> {
    let meta = path.symlink_metadata().ok()?;
    if !meta.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

impl Derived {
    fn read(&mut self, file: &str, format: &Format, text: &str) {
        match format {
            Format::After(words) => {
                for line in text.lines() {
                    if line.trim_start().starts_with(['#', ';']) {
                        continue;
                    }
                    for word in *words {
                        for (at, _) in line.match_indices(word) {
                            let rest = &line[at + word.len()..];
                            self.add(
                                file,
                                rest.trim_start_matches([' ', '\t', '"', '\'', '=', ':', '{']),
                            );
                        }
                    }
                }
                if file == "Cargo.lock" && text.contains("source = \"registry+") {
                    self.notes.push(
                        "Cargo.lock names its registry's index, not where crates are downloaded from; `agentcontainer audit events` shows what was refused"
                            .to_owned(),
                    );
                }
            }
            Format::GoModules => {
                for line in text.lines() {
                    let line = line.trim().trim_start_matches("require ").trim_start();
                    let module = line.split_whitespace().next().unwrap_or_default();
                    let version = line.split_whitespace().nth(1).unwrap_or_default();
                    let host = module.split('/').next().unwrap_or_default();
                    if version.starts_with('v') && host.contains('.') {
                        self.insert(file, host, 443);
                    }
                }
            }
            Format::GitRemotes => {
                let config = engine::git::config::parse(text);
                let urls = config.entries.iter().filter(|e| {
                    e.section == "remote" && matches!(e.key.as_str(), "url" | "pushurl")
                });
                for entry in urls {
                    self.remote(file, &entry.value);
                }
            }
        }
    }

    /// An address at the beginning of `text`, if there is one.
    fn add(&mut self, file: &str, text: &str) {
        let end = text
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '>' | '}' | ']' | '#' | ';')
            })
            .unwrap_or(text.len());
        let url = &text[..end];
        let Some((scheme, rest)) = url.split_once("://") else {
            return;
        };
        // git+https, sparse+https, registry+https.
        let scheme = scheme.rsplit('+').next().unwrap_or(scheme);
        let port = match scheme {
            "https" => 443,
            "http" => 80,
            "ssh" => 22,
            "git" => 9418,
            _ => return,
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        match host.rsplit_once(':') {
            Some((host, given)) => match given.parse() {
                Ok(given) => self.insert(file, host, given),
                Err(_) => self.insert(file, host, port),
            },
            None => self.insert(file, host, port),
        }
    }

    /// A git remote: an address, or `user@host:path`.
    fn remote(&mut self, file: &str, url: &str) {
        if url.contains("://") {
            self.add(file, url);
        } else if let Some((authority, _)) = url.split_once(':')
            && !authority.contains('/')
        {
            let host = authority.rsplit('@').next().unwrap_or_default();
            self.insert(file, host, 22);
        }
    }

    fn insert(&mut self, file: &str, host: &str, port: u16) {
        if port == 0 {
            return;
        }
        let Ok(name) = HostName::parse(host) else {
            let note = format!("{file} names {host}, which is no host name that a rule can have");
            if !self.notes.contains(&note) && self.notes.len() < MAX_HOSTS {
                self.notes.push(note);
            }
            return;
        };
        let entry = format!("{name}:{port}");
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&entry) {
            let note = format!("more than {MAX_HOSTS} hosts are named; the rest is left out");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
            return;
        }
        self.hosts.entry(entry).or_default().insert(file.to_owned());
    }
}
