//! Rules about files and programs of one document, read straight.

use schema::config::Config;
use schema::diag::{Position, Spanned};
use schema::organisation::Organisation;

use crate::organisation::{Held, origin};

/// Every denial is there with where it was written; what is writable and started is within the lists, read straight.
#[track_caller]
pub fn files_and_programs_within(config: &Config, held: &Held, document: &Organisation, seed: u64) {
    let (ceilings, denials) = (&document.ceilings, &document.denials);
    let (files, programs) = (&held.policy.files, &held.policy.programs);
    let at = |at: Position| origin(&document.file, at);
    for path in &denials.paths {
        let is =
            |rule: &crate::FileRule| rule.path == *path.pattern() && rule.origin == at(path.at);
        assert!(files.denied.iter().any(is), "seed {seed}");
    }
    for path in ceilings
        .filesystem
        .read_only_paths
        .iter()
        .flat_map(|l| l.iter())
    {
        let is =
            |rule: &crate::FileRule| rule.path == *path.pattern() && rule.origin == at(path.at);
        assert!(files.read_only.iter().any(is), "seed {seed}");
    }
    for name in &denials.binaries {
        let is = |rule: &crate::ProgramRule| rule.name == name.value && rule.origin == at(name.at);
        assert!(programs.denied.iter().any(is), "seed {seed}");
    }
    if let Some(list) = &ceilings.filesystem.writable_paths {
        for rule in &files.writable {
            let within = list.iter().any(|tree| {
                let (own, tree) = (rule.path.to_string(), tree.to_string());
                own == tree || own.starts_with(&format!("{tree}/"))
            });
            assert!(within, "seed {seed}: {}", rule.path);
        }
    }
    if let Some(list) = &ceilings.tools.allowed_binaries {
        for rule in programs.allowed.as_ref().unwrap() {
            let name = rule.name.as_str();
            let within = |own: &&str| *own == name || (*own == "git" && name == "/usr/bin/git");
            let mut names = list.iter().map(|own| own.as_str());
            assert!(names.any(|own| within(&own)), "seed {seed}: {name}");
        }
    }
    // What the workspace says itself stays.
    let own = config.agent.filesystem();
    let kept = |path: &Spanned<_>| files.denied.iter().any(|rule| rule.path == path.value);
    assert!(own.denied_paths.iter().all(kept), "seed {seed}");
    let own = config.agent.programs();
    let kept = |name: &Spanned<_>| programs.denied.iter().any(|rule| rule.name == name.value);
    assert!(own.denied_binaries.iter().all(kept), "seed {seed}");
}
