//! Files and programs under documents: denials and trees that are read-only join the workspace's own, what it may have writable and
//! start is bounded. Names in a document (`**/.env`) are names below the workspace's folder, so that folder has to be the workspace.

use std::collections::BTreeSet;

use schema::config::Config;
use schema::config::mount::Source;
use schema::diag::{Diagnostic, Position, Spanned};
use schema::organisation::{Organisation, values};

use super::{Found, few, origin, place};
use crate::files::{FileRule, Files};
use crate::programs::{ProgramRule, Programs};
use crate::trees::{covers, folder, may_be_within};

/// What a config asks of files and programs, against one document.
pub fn asked(config: &Config, document: &Organisation, found: &mut Found) {
    writable(config, document, found);
    folder_is_workspace(config, document, found);
    let Some(ceiling) = &document.ceilings.tools.allowed_binaries else {
        return;
    };
    let asked = config.agent.programs().allowed_binaries.iter();
    for name in asked.flat_map(|list| list.iter()) {
        if ceiling.iter().any(|own| own.value.covers(&name.value)) {
            continue;
        }
        let words = few(ceiling.iter().map(|own| own.value.to_string()));
        found.beyond(
            &place(&origin(&config.file, name.at)),
            &format!("`allowedBinaries` \"{}\"", name.value),
            document,
            "ceilings.tools.allowedBinaries",
            ceiling.at,
            &words,
        );
    }
}

/// Where the policy names what may be writable, nothing else may be; where it only names what is read-only, nothing in that may be.
fn writable(config: &Config, document: &Organisation, found: &mut Found) {
    let ceilings = &document.ceilings.filesystem;
    let folder = folder(config);
    let read_only = ceilings.read_only_paths.iter().flat_map(|list| list.iter());
    for path in &config.agent.filesystem().writable_paths {
        let at = place(&origin(&config.file, path.at));
        let what = format!("`writablePaths` \"{}\"", path.value);
        match &ceilings.writable_paths {
            Some(list) => {
                let is = |wide: &Spanned<values::PathPattern>| {
                    covers(wide.pattern(), &path.value, folder.as_deref())
                };
                if !list.iter().any(is) {
                    let key = "ceilings.filesystem.writablePaths";
                    let words = few(list.iter().map(|own| own.value.to_string()));
                    found.beyond(&at, &what, document, key, list.at, &words);
                }
            }
            None => {
                let may_be = |tree: &&Spanned<values::PathPattern>| {
                    may_be_within(&path.value, tree.pattern(), folder.as_deref())
                };
                if let Some(tree) = read_only.clone().find(may_be) {
                    let what = format!("{what}, in what is read-only by \"{}\",", tree.value);
                    let key = "ceilings.filesystem.readOnlyPaths";
                    found.beyond(&at, &what, document, key, tree.at, "nothing writable in it");
                }
            }
        }
    }
}

/// Names are looked for below the folder that programs start in: where that is not the workspace, or the workspace is mounted a second
/// time, they would not be held.
fn folder_is_workspace(config: &Config, document: &Organisation, found: &mut Found) {
    let read_only = document.ceilings.filesystem.read_only_paths.iter();
    let trees = read_only
        .flat_map(|list| list.iter())
        .chain(&document.denials.paths);
    let Some(named) = { trees }.find(|tree| !tree.pattern().is_from_root()) else {
        return;
    };
    let by = origin(&document.file, named.at);
    let mut refuse = |at: Position, what: String| {
        let message = format!(
            "{what}: the policy of {} has rules about names in the workspace, \"{}\" at {by}, which are held below its folder",
            document.organisation.value, named.value
        );
        let diagnostic = Diagnostic::new("organisation-denies", message)
            .help("take it out, so that the workspace is mounted once, at its folder");
        found.push(&place(&origin(&config.file, at)), diagnostic);
    };
    for mount in &config.mounts {
        if let Source::Workspace { .. } = mount.source {
            refuse(
                mount.at,
                format!("mount {} shows the workspace again", mount.value),
            );
        }
    }
    if let (Some(mount), Some(folder)) = (&config.workspace_mount, &config.workspace_folder)
        && mount.target.as_str() != folder.as_str()
    {
        refuse(
            mount.at,
            format!(
                "`workspaceMount` puts the workspace at {}, and `workspaceFolder` is {}",
                mount.target.as_str(),
                folder.as_str()
            ),
        );
    }
}

/// What the policies say of files, besides what the workspace does.
pub fn files(own: Files, documents: &[Organisation]) -> Files {
    let mut out = own;
    let (mut read_only, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for document in documents {
        let rule = |path: &Spanned<values::PathPattern>| FileRule {
            path: path.pattern().clone(),
            origin: origin(&document.file, path.at),
            organisation: Some(document.organisation.to_string()),
        };
        let trees = document.ceilings.filesystem.read_only_paths.iter();
        read_only.extend(trees.flat_map(|list| list.iter()).map(rule));
        denied.extend(document.denials.paths.iter().map(rule));
    }
    out.read_only.extend(read_only);
    out.denied.extend(denied);
    out
}

/// What they say of programs: where the workspace lists none, what every ceiling allows.
pub fn programs(own: Programs, documents: &[Organisation], found: &mut Found) -> Programs {
    let mut out = own;
    let rule =
        |document: &Organisation, name: &Spanned<schema::program::ProgramName>| ProgramRule {
            name: name.value.clone(),
            origin: origin(&document.file, name.at),
            organisation: Some(document.organisation.to_string()),
        };
    let denied: BTreeSet<ProgramRule> = documents
        .iter()
        .flat_map(|document| {
            let denied = document.denials.binaries.iter();
            denied.map(move |name| rule(document, name))
        })
        .collect();
    out.denied.extend(denied);
    let ceilings: Vec<_> = documents
        .iter()
        .filter_map(|document| {
            let list = document.ceilings.tools.allowed_binaries.as_ref()?;
            Some((document, list))
        })
        .collect();
    let Some((first, list)) = ceilings.first() else {
        return out;
    };
    if out.require_approval.is_some() {
        let whole = |(document, list): &(&Organisation, &Spanned<Vec<_>>)| {
            let names = list.value.iter();
            names.map(|name| rule(document, name)).collect()
        };
        out.ceilings = ceilings.iter().map(whole).collect();
    }
    if out.allowed.is_some() {
        return out;
    }
    let everywhere = |name: &schema::program::ProgramName| {
        ceilings
            .iter()
            .all(|(_, list)| list.iter().any(|own| own.value.covers(name)))
    };
    let allowed: BTreeSet<ProgramRule> = ceilings
        .iter()
        .flat_map(|(document, list)| {
            let within = list.iter().filter(|name| everywhere(&name.value));
            within.map(|name| rule(document, name))
        })
        .collect();
    if allowed.is_empty() {
        let at = ceilings
            .iter()
            .map(|(document, list)| origin(&document.file, list.at))
            .min()
            .unwrap_or_else(|| origin(&first.file, list.at));
        let message = "`ceilings.tools.allowedBinaries` leaves no program that could be started";
        found.push(&place(&at), Diagnostic::new("beyond-ceiling", message));
    }
    out.allowed = Some(allowed.into_iter().collect());
    out
}
