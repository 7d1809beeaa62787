//! Paths of rules against each other: whether one tree lies in another. A path without a slash in front is below the workspace's folder,
//! of which less is known before there is a container; where something is not clear it is taken not to hold.

use schema::config::Config;
use schema::config::filesystem::PathPattern;
use schema::request::segments_match;

/// Stands for a segment that is known when there is a container: no text of a path has it.
const UNKNOWN: &str = "\u{1}";

/// The workspace's folder as segments, as far as it is known without a container.
pub fn folder(config: &Config) -> Option<Vec<&str>> {
    match &config.workspace_folder {
        None => Some(vec!["workspaces", UNKNOWN]),
        Some(folder) if folder.as_str().contains("${") => None,
        Some(folder) => Some(
            folder
                .as_str()
                .split('/')
                .filter(|s| !s.is_empty())
                .collect(),
        ),
    }
}

/// From the root where that is known, else below the folder; and whether it is from the root.
fn segments<'a>(path: &'a PathPattern, folder: Option<&[&'a str]>) -> (Vec<&'a str>, bool) {
    let (fixed, rest) = path.split();
    let own = fixed.into_iter().chain(rest);
    match folder {
        _ if path.is_from_root() => (own.collect(), true),
        Some(folder) => (folder.iter().copied().chain(own).collect(), true),
        None => (own.collect(), false),
    }
}

/// Whether all of the tree that `narrow` names is in one that `wide` names. Where that is not clear, it is not.
pub fn covers(wide: &PathPattern, narrow: &PathPattern, folder: Option<&[&str]>) -> bool {
    if wide == narrow {
        return true;
    }
    // Two that begin at the folder are compared from there, wherever it is.
    let folder = match wide.is_from_root() || narrow.is_from_root() {
        true => folder,
        false => None,
    };
    let ((wide, from_root), (narrow, also)) = (segments(wide, folder), segments(narrow, folder));
    // What is known of a path before the first `**` is where its whole tree lies.
    let known = narrow.iter().take_while(|s| **s != "**").count();
    from_root == also && (0..=known).any(|n| segments_match(&wide, &narrow[..n]))
}

/// Whether something that `path` names could lie in a tree that `tree` names.
pub fn may_be_within(path: &PathPattern, tree: &PathPattern, folder: Option<&[&str]>) -> bool {
    let ((path, from_root), (tree, also)) = (segments(path, folder), segments(tree, folder));
    if from_root != also {
        return true;
    }
    for (n, segment) in tree.iter().enumerate() {
        match path.get(n) {
            _ if segment.contains('*') => return true,
            None => return false,
            Some(own) if own.contains('*') => return true,
            Some(own) if own == segment || *own == UNKNOWN || *segment == UNKNOWN => {}
            Some(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
