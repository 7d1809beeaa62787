//! Entries put into a workspace's config where they belong, everything else in it left as it is, comments too; what changed, as a
//! person reads it; and the file replaced whole, with no link followed on the way to it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Component, Path};

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstArray, CstInputValue, CstObject, CstRootNode};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use policy::suggest::{List, Suggestion};
use schema::config::discover::Flavour;

use crate::report::Failure;

/// Unchanged lines shown around a change.
const AROUND: usize = 2;

/// The names of the lists, and what leads to them, in a config of this kind.
pub fn place(flavour: Flavour) -> Vec<&'static str> {
    capabilities(flavour, &["network", "egress"])
}

fn capabilities(flavour: Flavour, below: &[&'static str]) -> Vec<&'static str> {
    let agent: &[&str] = match flavour {
        Flavour::Agentcontainer => &["agent"],
        Flavour::Devcontainer => &["customizations", "agentcontainer"],
    };
    [agent, &["capabilities"], below].concat()
}

pub fn list(list: List) -> &'static str {
    match list {
        List::AllowedDomains => "allowedDomains",
        List::Rules => "rules",
    }
}

/// The text with these entries; `None` where something else stands in their place.
pub fn add(text: &str, flavour: Flavour, entries: &[Suggestion]) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    let mut object: CstObject = root.object_value()?;
    for key in place(flavour) {
        object = object.object_value_or_create(key)?;
    }
    for entry in entries {
        let array: CstArray = object.array_value_or_create(list(entry.list))?;
        if array.elements().is_empty() {
            array.ensure_multiline();
        }
        array.append(input(&entry.entry));
    }
    Some(root.to_string())
}

/// The text with one more program that may be started; `None` where there is no list of them.
pub fn list_program(text: &str, flavour: Flavour, program: &str) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    let mut object: CstObject = root.object_value()?;
    for key in capabilities(flavour, &["tools"]) {
        object = object.object_value(key)?;
    }
    let array: CstArray = object.array_value("allowedBinaries")?;
    array.append(CstInputValue::String(program.to_owned()));
    Some(root.to_string())
}

/// The text with the action of one of its rules, by its place in the list, being to allow; `None` where there is none.
pub fn allow(text: &str, flavour: Flavour, rule: usize) -> Option<String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    let mut object: CstObject = root.object_value()?;
    for key in place(flavour) {
        object = object.object_value(key)?;
    }
    let rules: CstArray = object.array_value(list(List::Rules))?;
    let rule = rules.elements().get(rule)?.as_object()?;
    let action = rule.get("action")?;
    action.set_value(CstInputValue::String("allow".to_owned()));
    Some(root.to_string())
}

/// A value as the parser's tree takes it.
pub fn input(value: &serde_json::Value) -> CstInputValue {
    match value {
        serde_json::Value::Null => CstInputValue::Null,
        serde_json::Value::Bool(b) => CstInputValue::Bool(*b),
        serde_json::Value::Number(n) => CstInputValue::Number(n.to_string()),
        serde_json::Value::String(s) => CstInputValue::String(s.clone()),
        serde_json::Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        serde_json::Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(k, v)| (k.clone(), input(v))).collect())
        }
    }
}

/// Lines that went and came, `-` and `+`, with a few around them and `…` for what is between.
pub fn difference(old: &str, new: &str) -> Vec<String> {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let mut lines: Vec<(char, &str)> = Vec::new();
    let (mut a, mut b) = (0, 0);
    while a < old.len() || b < new.len() {
        let (gone, came) = nearest(&old[a..], &new[b..]);
        lines.extend(old[a..a + gone].iter().map(|line| ('-', *line)));
        lines.extend(new[b..b + came].iter().map(|line| ('+', *line)));
        (a, b) = (a + gone, b + came);
        if let Some(line) = old.get(a) {
            lines.push((' ', line));
            (a, b) = (a + 1, b + 1);
        }
    }
    let near = |at: usize| {
        let (from, to) = (
            at.saturating_sub(AROUND),
            (at + AROUND + 1).min(lines.len()),
        );
        lines[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = Vec::new();
    let mut left_out = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            out.push(format!("{mark} {line}"));
        } else if !left_out {
            out.push("…".to_owned());
        }
        left_out = !near(at);
    }
    out
}

/// How many lines of each go until both say the same again, as few as may be.
fn nearest(old: &[&str], new: &[&str]) -> (usize, usize) {
    for distance in 0..=old.len() + new.len() {
        // What came is likelier than what went.
        for gone in 0..=distance.min(old.len()) {
            let came = distance - gone;
            if came > new.len() {
                continue;
            }
            match (old.get(gone), new.get(came)) {
                (None, None) => return (gone, came),
                (Some(x), Some(y)) if x == y => return (gone, came),
                _ => {}
            }
        }
    }
    (old.len(), new.len())
}

/// A file that is to be replaced: its directory held open, so that nobody can put another in its place.
#[derive(Debug)]
pub struct Target {
    directory: OwnedFd,
    name: std::ffi::OsString,
    file: File,
    path: std::path::PathBuf,
    pub text: String,
}

impl Target {
    /// Opens and reads it; a link anywhere on an absolute path is refused.
    pub fn open(path: &Path, limit: usize) -> Result<Self, Failure> {
        let failed = |errno: nix::errno::Errno| match errno {
            nix::errno::Errno::ELOOP | nix::errno::Errno::ENOTDIR => Failure::new(
                "config-link",
                format!("{} is, or lies behind, a symbolic link", path.display()),
            )
            .help("add the entries by hand to the file that it leads to"),
            errno => Failure::io("open", path, &errno.into()),
        };
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut directory =
            nix::fcntl::open("/", flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut names: Vec<&OsStr> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        let name = names.pop().unwrap_or_default().to_owned();
        for part in names {
            directory = openat(&directory, part, flags | OFlag::O_DIRECTORY, Mode::empty())
                .map_err(failed)?;
        }
        let file = openat(
            &directory,
            name.as_os_str(),
            flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            Mode::empty(),
        )
        .map(File::from)
        .map_err(failed)?;
        let io = |error| Failure::io("read", path, &error);
        let meta = file.metadata().map_err(io)?;
        let mut text = String::new();
        (&file)
            .take(limit as u64 + 1)
            .read_to_string(&mut text)
            .map_err(io)?;
        if !meta.is_file() || text.len() > limit {
            return Err(Failure::new(
                "config-file",
                format!("{} is not a file that can be changed", path.display()),
            ));
        }
        Ok(Self {
            directory,
            name,
            file,
            path: path.to_owned(),
            text,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces it, whole or not at all, with its owner and mode kept. One that somebody changed meanwhile stays.
    pub fn replace(self, text: &str) -> Result<(), Failure> {
        let again = Self::open(&self.path, self.text.len())?;
        let same = |meta: &std::fs::Metadata| (meta.dev(), meta.ino());
        let io = |error: std::io::Error| Failure::io("write", &self.path, &error);
        let meta = self.file.metadata().map_err(io)?;
        if same(&again.file.metadata().map_err(io)?) != same(&meta) || again.text != self.text {
            return Err(Failure::new(
                "config-changed",
                format!("{} was changed meanwhile", self.path.display()),
            ));
        }
        let temporary = format!(".{}.{}", self.name.display(), std::process::id());
        let temporary = OsStr::new(&temporary);
        let create = || -> std::io::Result<()> {
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(
                &self.directory,
                temporary,
                flags,
                Mode::S_IRUSR | Mode::S_IWUSR,
            )?);
            let written = (|| {
                file.write_all(text.as_bytes())?;
                let made = file.metadata()?;
                if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
                    fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
                }
                file.set_permissions(std::fs::Permissions::from_mode(meta.mode() & 0o777))?;
                file.sync_all()?;
                renameat(
                    &self.directory,
                    temporary,
                    &self.directory,
                    self.name.as_os_str(),
                )?;
                nix::unistd::fsync(&self.directory)?;
                Ok(())
            })();
            if written.is_err() {
                let _ = unlinkat(&self.directory, temporary, UnlinkatFlags::NoRemoveDir);
            }
            written
        };
        create().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn entry(list: List, entry: serde_json::Value) -> Suggestion {
        Suggestion {
            list,
            entry,
            programs: Default::default(),
        }
    }

    fn some() -> [Suggestion; 2] {
        [
            entry(List::AllowedDomains, json!("new.example.com")),
            entry(List::Rules, json!({ "host": "a.b", "ports": [443] })),
        ]
    }

    const TEXT: &str = "// Ours.\n{\n  \"image\": \"x\", // pinned\n  \"agent\": {\n    \"capabilities\": { \"network\": { \"egress\": {\n      \"allowedDomains\": [\n        \"a.example.com\", // the API\n      ],\n    } } },\n  },\n}\n";

    #[test]
    fn entries_are_added_and_everything_else_stays() {
        let text = add(TEXT, Flavour::Agentcontainer, &some()).unwrap();
        for kept in ["// Ours.", "\"image\": \"x\", // pinned", "// the API"] {
            assert!(text.contains(kept), "{text}");
        }
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        let egress = config.agent.egress();
        assert_eq!(egress.allowed_domains.len(), 2);
        assert_eq!(egress.rules.len(), 1);
        let lines = difference(TEXT, &text);
        let gone: Vec<_> = lines.iter().filter(|line| line.starts_with('-')).collect();
        assert!(gone.len() <= 1, "{lines:?}");
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with("+ ") && l.contains("new.example.com"))
        );
        assert!(!lines.iter().any(|line| line.contains("Ours")), "{lines:?}");
    }

    #[test]
    fn a_program_joins_the_list_and_everything_else_stays() {
        let tools = "{ // Ours.\n  \"agent\": { \"capabilities\": { \"tools\": {\n    \"allowedBinaries\": [\"git\"], // few\n    \"requireApproval\": true } } } }";
        let after = list_program(tools, Flavour::Agentcontainer, "/opt/my tool").unwrap();
        assert_eq!(
            after,
            tools.replace("[\"git\"]", "[\"git\", \"/opt/my tool\"]")
        );
        assert_eq!(list_program(TEXT, Flavour::Agentcontainer, "/x"), None);
        assert_eq!(list_program(tools, Flavour::Devcontainer, "/x"), None);
    }

    #[test]
    fn a_rule_that_asks_comes_to_allow_and_everything_else_stays() {
        let text = TEXT.replace(
            "      ],\n",
            "      ],\n      \"rules\": [\n        { \"host\": \"a.b\", \"ports\": [1] },\n        // Money.\n        { \"host\": \"c.d\", \"ports\": [443], \"action\": \"ask\" /* always? */ },\n      ],\n",
        );
        let after = allow(&text, Flavour::Agentcontainer, 1).unwrap();
        assert_eq!(after, text.replace("\"ask\"", "\"allow\""));
        assert_eq!(allow(&text, Flavour::Agentcontainer, 0), None);
        assert_eq!(allow(&text, Flavour::Agentcontainer, 2), None);
    }

    #[test]
    fn what_leads_to_the_lists_is_made_where_it_is_not_there() {
        for flavour in [Flavour::Agentcontainer, Flavour::Devcontainer] {
            let text = add("{ \"image\": \"x\" }", flavour, &some()).unwrap();
            let name = match flavour {
                Flavour::Agentcontainer => "agentcontainer.json",
                Flavour::Devcontainer => "devcontainer.json",
            };
            let config = schema::config::parse(text.as_bytes(), name).unwrap();
            assert_eq!(config.agent.egress().rules.len(), 1, "{text}");
        }
        assert_eq!(
            add("{ \"agent\": 1 }", Flavour::Agentcontainer, &some()),
            None
        );
    }

    #[test]
    fn a_difference_gives_both_texts() {
        for (old, new) in [
            ("", "a\nb"),
            ("a\nb", ""),
            ("a\nb\nc\nd", "a\nx\nc\ny\nd"),
            ("a", "a"),
        ] {
            let lines = difference(old, new);
            let side = |mark: char| -> Vec<&str> {
                let of = |l: &&String| l.starts_with(mark) || l.starts_with(' ');
                lines.iter().filter(of).map(|l| &l[2..]).collect()
            };
            if old != new {
                assert_eq!(side('-'), old.lines().collect::<Vec<_>>());
                assert_eq!(side('+'), new.lines().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let path = dir.join("agentcontainer.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        Target::open(&path, 3).unwrap().replace("newer").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert!(
            Target::open(&path, 4).is_err(),
            "one byte more than the bound"
        );
        let held = Target::open(&path, 9).unwrap();
        std::fs::write(&path, "other").unwrap();
        assert_eq!(
            held.replace("lost").unwrap_err().diagnostics[0].code,
            "config-changed"
        );
        std::os::unix::fs::symlink(&path, dir.join("link")).unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("way")).unwrap();
        for link in ["link", "way/agentcontainer.json"] {
            let refused = Target::open(&dir.join(link), 9).unwrap_err();
            assert_eq!(refused.diagnostics[0].code, "config-link", "{link}");
        }
    }
}
