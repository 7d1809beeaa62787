//! `features`, `overrideFeatureInstallOrder` and `agent.tools`, and the options that both configs and features write.

use std::collections::BTreeMap;

use super::super::feature::{
    FeatureId, MAX_FEATURES, MAX_OPTION_BYTES, MAX_OPTION_NAME_BYTES, MAX_OPTIONS, OptionValue,
    Options,
};
use super::super::tools::{MAX_TOOLS, Tool, ToolKind, ToolName, Tools};
use crate::diag::Spanned;
use crate::node::{Node, Value};
use crate::read::Reader;

/// `{ ID: OPTIONS, … }`, in the order of the file.
pub(crate) fn features(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
) -> Vec<(FeatureId, Spanned<Options>)> {
    let mut out = Vec::new();
    for member in reader.map(node, path, MAX_FEATURES) {
        let id = match member.key.parse::<FeatureId>() {
            Ok(id) => Some(id),
            Err(error) => {
                let message = format!("`{path}` has {:?}: {error}", member.key);
                reader.error(member.key_at, "invalid-feature", message);
                None
            }
        };
        let options = options(reader, &member.node, &format!("{path}.{}", member.key));
        let options = options.map(|options| Spanned::new(options, member.key_at));
        out.extend(id.zip(options));
    }
    out
}

fn options(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Options> {
    match &node.value {
        Value::Bool(flag) => Some(Options::Defaults(*flag)),
        Value::String(_) => text(reader, node, path).map(Options::Version),
        Value::Object(_) => {
            let mut out = BTreeMap::new();
            for member in reader.map(node, path, MAX_OPTIONS) {
                let path = format!("{path}.{}", member.key);
                if member.key.len() > MAX_OPTION_NAME_BYTES {
                    let message =
                        format!("`{path}`: a name is longer than {MAX_OPTION_NAME_BYTES} bytes");
                    reader.error(member.key_at, "too-large", message);
                    continue;
                }
                let value = match &member.node.value {
                    Value::Bool(flag) => Some(OptionValue::Flag(*flag)),
                    _ => text(reader, &member.node, &path).map(OptionValue::Text),
                };
                out.extend(value.map(|value| (member.key.clone(), value)));
            }
            Some(Options::Named(out))
        }
        other => {
            let message = format!(
                "`{path}` is {}, expected an object of options, a string or true",
                other.kind()
            );
            reader.error(node.at, "wrong-type", message);
            None
        }
    }
}

fn text(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<String> {
    let text = reader.string(node, path)?;
    if text.len() > MAX_OPTION_BYTES {
        let message = format!("`{path}` is longer than {MAX_OPTION_BYTES} bytes");
        reader.error(node.at, "too-large", message);
        return None;
    }
    Some(text.to_owned())
}

/// A list of features, without options.
pub(crate) fn ids(reader: &mut Reader<'_>, node: &Node, path: &str) -> Vec<Spanned<FeatureId>> {
    let mut out = Vec::new();
    for (i, node) in reader.array(node, path, MAX_FEATURES).iter().enumerate() {
        let path = format!("{path}[{i}]");
        out.extend(reader.parsed(node, &path, "invalid-feature", str::parse));
    }
    out
}

pub(super) fn tools(reader: &mut Reader<'_>, node: &Node) -> Option<Tools> {
    let mut object = reader.object(node, "agent.tools")?;
    let mut of = |kind: ToolKind| {
        let path = format!("agent.tools.{}", kind.key());
        object
            .take(kind.key())
            .map(|node| named(reader, node, &path))
            .unwrap_or_default()
    };
    let (mcp, components, skills) = (
        of(ToolKind::Mcp),
        of(ToolKind::Component),
        of(ToolKind::Skill),
    );
    reader.close(object);
    Some(Tools {
        mcp,
        components,
        skills,
    })
}

fn named(reader: &mut Reader<'_>, node: &Node, path: &str) -> BTreeMap<ToolName, Spanned<Tool>> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, path, MAX_TOOLS) {
        let name = match member.key.parse::<ToolName>() {
            Ok(name) => Some(name),
            Err(error) => {
                let message = format!("`{path}` has the name {:?}: {error}", member.key);
                reader.error(member.key_at, "invalid-value", message);
                None
            }
        };
        let path = format!("{path}.{}", member.key);
        let source = match &member.node.value {
            Value::String(_) => reader.parsed(&member.node, &path, "invalid-value", str::parse),
            _ => reader.object(&member.node, &path).and_then(|mut object| {
                let node = reader.required(&mut object, "source");
                let path = format!("{path}.source");
                let source =
                    node.and_then(|n| reader.parsed(n, &path, "invalid-value", str::parse));
                reader.close(object);
                source
            }),
        };
        let tool = source.map(|source| {
            Spanned::new(
                Tool {
                    source: source.value,
                },
                member.node.at,
            )
        });
        out.extend(name.zip(tool));
    }
    out
}
