//! `agent.policy` and `agent.provenance`: which policy a workspace puts above itself besides the host's, and what it requires of
//! what is fetched. Both can only ask for more than the host does.

use super::super::agent::{Escalation, MAX_SLSA_LEVEL, Policy, Provenance, Required};
use crate::diag::Spanned;
use crate::node::Node;
use crate::read::{Object, Reader};

pub(super) fn policy(reader: &mut Reader<'_>, node: &Node) -> Option<Policy> {
    let mut object = reader.object(node, "agent.policy")?;
    let source = object
        .take("source")
        .and_then(|node| reader.parsed(node, "agent.policy.source", "invalid-value", str::parse));
    let escalation = object.take("escalation").and_then(|node| {
        let escalation = reader.word(node, "agent.policy.escalation", &Escalation::WORDS)?;
        Some(Spanned::new(escalation, node.at))
    });
    reader.close(object);
    Some(Policy { source, escalation })
}

pub(super) fn provenance(reader: &mut Reader<'_>, node: &Node) -> Option<Provenance> {
    let mut object = reader.object(node, "agent.provenance")?;
    let require = object
        .take("require")
        .and_then(|node| required(reader, node));
    reader.close(object);
    Some(Provenance {
        require: require.unwrap_or_default(),
    })
}

fn required(reader: &mut Reader<'_>, node: &Node) -> Option<Required> {
    let mut object = reader.object(node, "agent.provenance.require")?;
    let flag = |reader: &mut Reader<'_>, object: &mut Object<'_>, key| {
        let node = object.take(key)?;
        let flag = reader.bool(node, &object.path_of(key))?;
        Some(Spanned::new(flag, node.at))
    };
    let signatures = flag(reader, &mut object, "signatures");
    let sbom = flag(reader, &mut object, "sbom");
    let slsa_level = object.take("slsaLevel").and_then(|node| {
        let path = "agent.provenance.require.slsaLevel";
        let level = reader.integer(node, path, 1..=MAX_SLSA_LEVEL)?;
        Some(Spanned::new(u8::try_from(level).ok()?, node.at))
    });
    reader.close(object);
    Some(Required {
        signatures,
        slsa_level,
        sbom,
    })
}
