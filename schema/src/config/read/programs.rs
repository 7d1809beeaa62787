//! `agent.capabilities.tools`.

use super::super::programs::{MAX_PROGRAMS, Programs};
use crate::diag::Spanned;
use crate::node::Node;
use crate::program::ProgramName;
use crate::read::{Object, Reader};

const PATH: &str = "agent.capabilities.tools";

pub(super) fn programs(reader: &mut Reader<'_>, node: &Node) -> Option<Programs> {
    let mut object = reader.object(node, PATH)?;
    let before = reader.count();
    let allowed = list(reader, &mut object, "allowedBinaries");
    if let Some(allowed) = &allowed
        && allowed.value.is_empty()
        && reader.count() == before
    {
        let message = format!(
            "`{PATH}.allowedBinaries` is empty: no program at all could be started; name those that may be, or leave it out"
        );
        reader.error(allowed.at, "invalid-value", message);
    }
    let denied = list(reader, &mut object, "deniedBinaries");
    let require_approval = object.take("requireApproval").and_then(|node| {
        let asked = reader.bool(node, &format!("{PATH}.requireApproval"))?;
        Some(Spanned::new(asked, node.at))
    });
    reader.close(object);
    Some(Programs {
        allowed_binaries: allowed,
        denied_binaries: denied.map(|denied| denied.value).unwrap_or_default(),
        require_approval,
    })
}

fn list(
    reader: &mut Reader<'_>,
    object: &mut Object<'_>,
    key: &'static str,
) -> Option<Spanned<Vec<Spanned<ProgramName>>>> {
    let path = object.path_of(key);
    let node = object.take(key)?;
    let mut out = Vec::new();
    for (i, node) in reader.array(node, &path, MAX_PROGRAMS).iter().enumerate() {
        out.extend(reader.parsed(node, &format!("{path}[{i}]"), "invalid-program", str::parse));
    }
    Some(Spanned::new(out, node.at))
}
