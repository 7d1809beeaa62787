//! `agent.capabilities.filesystem`.

use super::super::filesystem::{Filesystem, MAX_PATHS, PathPattern, PathPatternError};
use crate::diag::Spanned;
use crate::node::Node;
use crate::read::{Object, Reader};

const PATH: &str = "agent.capabilities.filesystem";

pub(super) fn filesystem(reader: &mut Reader<'_>, node: &Node) -> Option<Filesystem> {
    let mut object = reader.object(node, PATH)?;
    let filesystem = Filesystem {
        read_only_paths: paths(reader, &mut object, "readOnlyPaths", str::parse),
        writable_paths: paths(reader, &mut object, "writablePaths", below_root),
        denied_paths: paths(reader, &mut object, "deniedPaths", below_root),
    };
    reader.close(object);
    Some(filesystem)
}

fn paths(
    reader: &mut Reader<'_>,
    object: &mut Object<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<PathPattern, PathPatternError>,
) -> Vec<Spanned<PathPattern>> {
    let path = object.path_of(key);
    let mut out: Vec<Spanned<PathPattern>> = Vec::new();
    let Some(node) = object.take(key) else {
        return out;
    };
    for (i, node) in reader.array(node, &path, MAX_PATHS).iter().enumerate() {
        out.extend(reader.parsed(node, &format!("{path}[{i}]"), "invalid-path", parse));
    }
    out
}

fn below_root(text: &str) -> Result<PathPattern, PathPatternError> {
    match text.parse::<PathPattern>()? {
        path if path.is_root() => Err(PathPatternError::Root),
        path => Ok(path),
    }
}
