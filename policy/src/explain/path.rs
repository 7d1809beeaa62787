//! `policy explain /PATH`: what the rules about files and programs make of a path of the container, by what is written alone. Where links
//! lead, and which directories programs are looked for in, is the container's.

use std::fmt;

use schema::config::Config;
use schema::config::filesystem::PathPattern;
use serde::Serialize;

use crate::effective::EffectivePolicy;
use crate::files::FileRight;
use crate::programs::ProgramRight;
use crate::text;
use crate::trees::{covers, folder};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathExplanation {
    pub path: String,
    /// `denied`, `read-only`, `writable`, or `as it is`: as the image and the workspace have it.
    pub file: &'static str,
    /// `denied`, `not listed`, `allowed`: as a program.
    pub program: &'static str,
    /// Every rule that is about it, and where it was written; what decides comes first.
    pub rules: Vec<(String, String)>,
}

/// What becomes of a path without a pattern in it.
pub fn explain_path(
    policy: &EffectivePolicy,
    config: &Config,
    path: &PathPattern,
) -> PathExplanation {
    let folder = folder(config);
    let mut files: Vec<_> = policy
        .files
        .all()
        .filter(|(_, rule)| covers(&rule.path, path, folder.as_deref()))
        .collect();
    let length = |path: &PathPattern| {
        let (fixed, rest) = path.split();
        let above = match path.is_from_root() {
            true => 0,
            false => folder.as_ref().map_or(0, Vec::len),
        };
        above + fixed.len() + rest.len()
    };
    // A denial over everything, a longer path over a shorter one, and what is read-only over what is writable at the same.
    files.sort_by_key(|(right, rule)| {
        (
            *right != FileRight::Denied,
            std::cmp::Reverse(length(&rule.path)),
            *right,
        )
    });
    let file = files.first().map_or("as it is", |(right, _)| right.word());
    let name = path
        .to_string()
        .parse::<schema::program::ProgramName>()
        .ok();
    let programs: Vec<_> = policy
        .programs
        .all()
        .filter(|(_, rule)| name.as_ref().is_some_and(|name| rule.name.covers(name)))
        .collect();
    let is = |right| programs.iter().any(|(own, _)| *own == right);
    let unlisted = policy.programs.allowed.is_some() && !is(ProgramRight::Allowed);
    let program = match (is(ProgramRight::Denied), unlisted) {
        (true, _) => "denied",
        (false, true) => "not listed",
        (false, false) => "allowed",
    };
    let files = files.into_iter();
    let files = files.map(|(right, rule)| (text::file(right, rule), rule.origin.to_string()));
    let programs = programs.into_iter().rev();
    let programs =
        programs.map(|(right, rule)| (text::program(right, rule), rule.origin.to_string()));
    PathExplanation {
        path: path.to_string(),
        file,
        program,
        rules: files.chain(programs).collect(),
    }
}

// === impl PathExplanation ===

impl PathExplanation {
    /// Whether it is neither denied nor kept from being started.
    pub fn is_open(&self) -> bool {
        self.file != FileRight::Denied.word() && self.program == "allowed"
    }
}

impl fmt::Display for PathExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; as a program {}",
            schema::diag::escape(&self.path),
            self.file,
            self.program
        )?;
        self.rules
            .iter()
            .try_for_each(|(rule, origin)| write!(f, "\n  {rule} at {origin}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_denial_wins_then_the_longer_path_and_every_rule_is_named() {
        let text = r#"{ "image": "debian", "agent": { "capabilities": {
            "filesystem": { "readOnlyPaths": [".", "/opt"], "writablePaths": ["build", "/opt"], "deniedPaths": ["build/key"] },
            "tools": { "deniedBinaries": ["curl", "/opt/x"] } } } }"#;
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        let host = schema::hostconfig::parse(b"", "config.toml").unwrap();
        let policy = crate::effective(&config, &host).unwrap();
        let explained = |path: &str| explain_path(&policy, &config, &path.parse().unwrap());
        for (path, file, program) in [
            ("src/x", "read-only", "allowed"),
            ("build/x", "writable", "allowed"),
            ("build/key/a", "denied", "allowed"),
            ("/opt/y", "read-only", "allowed"),
            ("/opt/x", "read-only", "denied"),
            ("/usr/bin/curl", "as it is", "denied"),
            ("/usr/bin/curl2", "as it is", "allowed"),
            ("/srv", "as it is", "allowed"),
        ] {
            let said = explained(path);
            assert_eq!((said.file, said.program), (file, program), "{path}");
        }
        let said = explained("build/key").to_string();
        assert_eq!(
            said,
            "build/key: denied; as a program allowed\n  deniedPaths \"build/key\" (mounts, and BPF LSM where it is there) at agentcontainer.json:2:113\n  writablePaths \"build\" (mounts, and BPF LSM where it is there) at agentcontainer.json:2:79\n  readOnlyPaths \".\" (mounts, and BPF LSM where it is there) at agentcontainer.json:2:47"
        );
    }

    #[test]
    fn what_is_not_listed_is_said_so() {
        let text = r#"{ "image": "debian", "agent": { "capabilities": { "tools": { "allowedBinaries": ["git"] } } } }"#;
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        let host = schema::hostconfig::parse(b"", "config.toml").unwrap();
        let policy = crate::effective(&config, &host).unwrap();
        for (path, program) in [("/usr/bin/git", "allowed"), ("/usr/bin/npm", "not listed")] {
            let said = explain_path(&policy, &config, &path.parse().unwrap());
            assert_eq!(
                (said.program, said.is_open()),
                (program, program == "allowed")
            );
        }
    }
}
