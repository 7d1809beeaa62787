//! From the tree to a [`Config`]: one function for each object of the file, which takes the keys it knows and reports
//! the rest. Nothing is dropped: a key is taken here, refused by the table in `keys`, or unknown.

pub(crate) mod credentials;
pub(crate) mod features;
mod files;
mod programs;
mod secrets;
mod supply;

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

use super::agent::{
    Action, Agent, Capabilities, Domain, Egress, Inspection, MAX_DOMAINS, MAX_NETWORKS, MAX_PIDS,
    MAX_PORTS_PER_RULE, Network, NetworkPort, Resources, Rule, Unlisted,
};
use super::discover::Flavour;
use super::keys::{Accepted, Parent, refused_in};
use super::lifecycle::{Command, Lifecycle, MAX_ARGUMENTS, MAX_PARALLEL};
use super::mount::{self, Fields, Mount};
use super::template::{Scope, Template};
use super::units::{MAX_CPUS, MIN_MEMORY_BYTES, MemorySize, UserName, VariableName};
use super::{Config, HostRequirements, MAX_MOUNTS, MAX_VARIABLES};
use crate::diag::{Diagnostic, Spanned};
use crate::host::HostPattern;
use crate::image::ImageRef;
use crate::inspection::{Inspector, Level};
use crate::net::Protocol;
use crate::node::{Member, Node, Value};
use crate::read::{Object, Reader};
use crate::request::{
    MAX_IN_RULE, MAX_RATE, Method, PathGlob, ProgramPath, RateLimit, RequestError,
};

/// Longest `name` in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Most tools under `customizations`.
const MAX_CUSTOMIZATIONS: usize = 256;
/// Largest `maxBodyBytes`: what a length on the wire can say.
const MAX_BODY_BYTES: u64 = 1 << 59;

pub(super) fn config(root: &Node, file: &str, flavour: Flavour) -> Result<Config, Vec<Diagnostic>> {
    let mut reader = Reader::new(file);
    let config = read(&mut reader, root, flavour);
    reader.finish(config)
}

fn read(reader: &mut Reader<'_>, root: &Node, flavour: Flavour) -> Option<Config> {
    let mut object = reader.object(root, "")?;
    let refused_image = ["build", "dockerFile", "dockerComposeFile"]
        .iter()
        .any(|key| object.has(key));
    refuse(reader, &mut object, Parent::Root);
    if let Some(node) = object.take("$schema") {
        reader.string(node, "$schema");
    }
    let name = object.take("name").and_then(|node| name(reader, node));
    let image = if refused_image {
        object.take("image")
    } else {
        reader.required(&mut object, "image")
    };
    let image = image.and_then(|node| image_ref(reader, node));
    let container_env = object
        .take("containerEnv")
        .map(|node| container_env(reader, node));
    let remote_env = object
        .take("remoteEnv")
        .map(|node| remote_env(reader, node));
    let container_user = object
        .take("containerUser")
        .and_then(|node| user(reader, node, "containerUser"));
    let remote_user = object
        .take("remoteUser")
        .and_then(|node| user(reader, node, "remoteUser"));
    let update_remote_user_uid = object
        .take("updateRemoteUserUID")
        .and_then(|node| reader.bool(node, "updateRemoteUserUID"));
    if let (Some(container), Some(remote)) = (&container_user, &remote_user)
        && container != remote
    {
        let message = "not enforced by this version: `remoteUser` and `containerUser` differ";
        let help = "the container and everything in it run as one user; keep one of the two keys";
        reader.push(
            remote.at,
            Diagnostic::new("not-enforced", message).help(help),
        );
    }
    let workspace_folder = object
        .take("workspaceFolder")
        .and_then(|node| workspace_folder(reader, node));
    let workspace_mount = object
        .take("workspaceMount")
        .and_then(|node| reader.parsed(node, "workspaceMount", "invalid-mount", Mount::workspace));
    if let (Some(mount), None) = (&workspace_mount, &workspace_folder) {
        reader.error(
            mount.at,
            "missing-key",
            "`workspaceMount` needs `workspaceFolder` beside it",
        );
    }
    let mounts = object
        .take("mounts")
        .map(|node| mounts(reader, node))
        .unwrap_or_default();
    let override_command = object
        .take("overrideCommand")
        .and_then(|node| reader.bool(node, "overrideCommand"));
    let mut stage = |key| {
        object
            .take(key)
            .and_then(|node| lifecycle(reader, node, key))
    };
    let on_create_command = stage("onCreateCommand");
    let update_content_command = stage("updateContentCommand");
    let post_create_command = stage("postCreateCommand");
    let post_start_command = stage("postStartCommand");
    let post_attach_command = stage("postAttachCommand");
    let host_requirements = object
        .take("hostRequirements")
        .and_then(|node| host_requirements(reader, node));
    let features = object
        .take("features")
        .map(|node| features::features(reader, node, "features"));
    let override_feature_install_order = object
        .take("overrideFeatureInstallOrder")
        .map(|node| features::ids(reader, node, "overrideFeatureInstallOrder"));
    let agent = agent_of(reader, &mut object, flavour);
    for (credential, env) in agent
        .credentials
        .iter()
        .filter_map(|(name, credential)| Some((name, credential.env.as_ref()?)))
    {
        let set = |there: bool, key: &'static str| there.then_some(key);
        let container = container_env
            .as_ref()
            .is_some_and(|e| e.contains_key(&env.value));
        let remote = remote_env
            .as_ref()
            .is_some_and(|e| e.contains_key(&env.value));
        if let Some(key) = set(container, "containerEnv").or(set(remote, "remoteEnv")) {
            let message = format!(
                "`agent.credentials.{credential}.env` is {}, which `{key}` sets as well",
                env.value
            );
            reader.error(env.at, "conflicting-variables", message);
        }
    }
    reader.close(object);
    Some(Config {
        file: reader.file().to_owned(),
        name,
        image: image?,
        container_env: container_env.unwrap_or_default(),
        remote_env: remote_env.unwrap_or_default(),
        container_user,
        remote_user,
        workspace_folder,
        workspace_mount,
        mounts,
        override_command,
        update_remote_user_uid,
        on_create_command,
        update_content_command,
        post_create_command,
        post_start_command,
        post_attach_command,
        host_requirements,
        features: features.into_iter().flatten().collect(),
        override_feature_install_order: override_feature_install_order.unwrap_or_default(),
        agent,
        profile: None,
    })
}

/// Takes the keys of the table out of an object; those that ask for something are errors, in the table's words.
fn refuse(reader: &mut Reader<'_>, object: &mut Object<'_>, parent: Parent) {
    for key in refused_in(parent) {
        let Some(member) = object.take_member(key.name) else {
            continue;
        };
        let accepted = match (key.accepted, &member.node.value) {
            (Accepted::EmptyArray, Value::Array(elements)) => elements.is_empty(),
            (Accepted::EmptyObject, Value::Object(members)) => members.is_empty(),
            (Accepted::Bool(wanted), Value::Bool(value)) => *value == wanted,
            (Accepted::Words(words), Value::String(text)) => words.contains(&text.as_str()),
            _ => false,
        };
        if !accepted {
            reader.error(
                member.key_at,
                key.why.code(),
                format!("`{}` is {key}", object.path_of(key.name)),
            );
        }
    }
}

fn agent_of(reader: &mut Reader<'_>, object: &mut Object<'_>, flavour: Flavour) -> Agent {
    let direct = object.take_member("agent");
    let customizations = object.take("customizations");
    let customized = customizations.and_then(|node| {
        reader
            .map(node, "customizations", MAX_CUSTOMIZATIONS)
            .iter()
            .find(|member| member.key == "agentcontainer")
    });
    let (own, other, help) = match flavour {
        Flavour::Agentcontainer => (
            direct,
            customized,
            "in agentcontainer.json this object is the key `agent`",
        ),
        Flavour::Devcontainer => (
            customized,
            direct,
            "in a devcontainer.json this object is `customizations.agentcontainer`",
        ),
    };
    if let Some(Member { key, key_at, .. }) = other {
        reader.push(
            *key_at,
            Diagnostic::new("misplaced-key", format!("`{key}` is not read here")).help(help),
        );
    }
    own.and_then(|member| agent(reader, &member.node))
        .unwrap_or_default()
}

fn name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.string(node, "name")?;
    if text.len() > MAX_NAME_BYTES {
        reader.error(
            node.at,
            "too-large",
            format!("`name` is longer than {MAX_NAME_BYTES} bytes"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn image_ref(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<ImageRef>> {
    let text = reader.string(node, "image")?;
    if text.contains("${") {
        let message = "variables are not substituted in `image`: what runs is what was reviewed";
        reader.error(node.at, "invalid-image", message);
        return None;
    }
    reader.parsed(node, "image", "invalid-image", ImageRef::parse)
}

fn user(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Spanned<UserName>> {
    reader.parsed(node, path, "invalid-value", str::parse)
}

fn variable(reader: &mut Reader<'_>, member: &Member, path: &str) -> Option<VariableName> {
    match member.key.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            reader.error(
                member.key_at,
                "invalid-value",
                format!("`{path}` has the name {:?}: {error}", member.key),
            );
            None
        }
    }
}

fn container_env(
    reader: &mut Reader<'_>,
    node: &Node,
) -> BTreeMap<VariableName, Spanned<Template>> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, "containerEnv", MAX_VARIABLES) {
        let path = format!("containerEnv.{}", member.key);
        let name = variable(reader, member, "containerEnv");
        let value = reader.parsed(&member.node, &path, "invalid-variable", |text| {
            Template::parse(text, Scope::ContainerEnv)
        });
        out.extend(name.zip(value));
    }
    out
}

fn remote_env(
    reader: &mut Reader<'_>,
    node: &Node,
) -> BTreeMap<VariableName, Spanned<Option<Template>>> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, "remoteEnv", MAX_VARIABLES) {
        let path = format!("remoteEnv.{}", member.key);
        let name = variable(reader, member, "remoteEnv");
        let value = match member.node.value {
            Value::Null => Some(Spanned::new(None, member.node.at)),
            _ => reader
                .parsed(&member.node, &path, "invalid-variable", |text| {
                    Template::parse(text, Scope::All)
                })
                .map(|template| Spanned::new(Some(template.value), template.at)),
        };
        out.extend(name.zip(value));
    }
    out
}

fn workspace_folder(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Template>> {
    let folder = reader.parsed(node, "workspaceFolder", "invalid-variable", |text| {
        Template::parse(text, Scope::Paths)
    })?;
    if let Err(error) = mount::check_workspace_folder(&folder) {
        reader.error(
            node.at,
            "invalid-value",
            format!("`workspaceFolder` is {:?}: {error}", folder.as_str()),
        );
    }
    Some(folder)
}

fn mounts(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<Mount>> {
    let mut out: Vec<Spanned<Mount>> = Vec::new();
    for (i, node) in reader.array(node, "mounts", MAX_MOUNTS).iter().enumerate() {
        let path = format!("mounts[{i}]");
        let fields = match &node.value {
            Value::Object(_) => mount_object(reader, node, &path),
            _ => reader.string(node, &path).map(Fields::parse),
        };
        let Some(fields) = fields else { continue };
        match fields.and_then(Mount::from_fields) {
            Ok(mount) if out.iter().any(|other| other.target == mount.target) => {
                let message = format!(
                    "`{path}` has the target of another mount, {}",
                    mount.target.as_str()
                );
                reader.error(node.at, "invalid-mount", message);
            }
            Ok(mount) => out.push(Spanned::new(mount, node.at)),
            Err(error) => reader.error(node.at, "invalid-mount", format!("`{path}`: {error}")),
        }
    }
    out
}

pub(crate) fn mount_object(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
) -> Option<Result<Fields, mount::MountError>> {
    let mut object = reader.object(node, path)?;
    let mut text = |key| {
        let path = object.path_of(key);
        object
            .take(key)
            .and_then(|node| reader.string(node, &path))
            .map(str::to_owned)
    };
    let fields = Fields {
        kind: text("type"),
        source: text("source"),
        target: text("target"),
        ..Fields::default()
    };
    reader.close(object);
    Some(Ok(fields))
}

/// An empty command, in any shape, is none.
pub(crate) fn lifecycle(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &'static str,
) -> Option<Spanned<Lifecycle>> {
    let lifecycle = match &node.value {
        Value::Object(_) => {
            let mut commands = BTreeMap::new();
            for member in reader.map(node, path, MAX_PARALLEL) {
                let command = command(reader, &member.node, &format!("{path}.{}", member.key));
                commands.extend(command.map(|command| (member.key.clone(), command)));
            }
            if commands.is_empty() {
                return None;
            }
            Lifecycle::Parallel(commands)
        }
        _ => Lifecycle::One(command(reader, node, path)?),
    };
    Some(Spanned::new(lifecycle, node.at))
}

fn command(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Command> {
    let template = |text: &str| Template::parse(text, Scope::Command);
    match &node.value {
        Value::Array(_) => {
            let mut arguments = Vec::new();
            for (i, node) in reader.array(node, path, MAX_ARGUMENTS).iter().enumerate() {
                arguments.push(
                    reader
                        .parsed(node, &format!("{path}[{i}]"), "invalid-variable", template)?
                        .value,
                );
            }
            (!arguments.is_empty()).then_some(Command::Exec(arguments))
        }
        _ => {
            let line = reader
                .parsed(node, path, "invalid-variable", template)?
                .value;
            (!line.as_str().is_empty()).then_some(Command::Shell(line))
        }
    }
}

fn host_requirements(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<HostRequirements>> {
    let mut object = reader.object(node, "hostRequirements")?;
    refuse(reader, &mut object, Parent::HostRequirements);
    let cpus = object
        .take("cpus")
        .and_then(|node| reader.integer(node, "hostRequirements.cpus", 1..=MAX_CPUS));
    let memory = object.take("memory").and_then(|node| {
        reader.parsed(
            node,
            "hostRequirements.memory",
            "invalid-value",
            str::parse::<MemorySize>,
        )
    });
    reader.close(object);
    let requirements = HostRequirements {
        cpus: cpus.and_then(|cpus| u32::try_from(cpus).ok()),
        memory: memory.map(|memory| memory.value),
    };
    (requirements != HostRequirements::default()).then(|| Spanned::new(requirements, node.at))
}

fn agent(reader: &mut Reader<'_>, node: &Node) -> Option<Agent> {
    let mut object = reader.object(node, "agent")?;
    let capabilities = object
        .take("capabilities")
        .and_then(|node| capabilities(reader, node));
    let credentials = object
        .take("credentials")
        .map(|node| credentials::credentials(reader, node));
    let secrets = object
        .take("secrets")
        .map(|node| secrets::secrets(reader, node, credentials.as_ref()));
    let inspection = object
        .take("inspection")
        .and_then(|node| inspection(reader, node, "agent.inspection"));
    let policy = object
        .take("policy")
        .and_then(|node| supply::policy(reader, node));
    let provenance = object
        .take("provenance")
        .and_then(|node| supply::provenance(reader, node));
    let tools = object
        .take("tools")
        .and_then(|node| features::tools(reader, node));
    reader.close(object);
    Some(Agent {
        capabilities: capabilities.unwrap_or_default(),
        credentials: credentials.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        inspection: inspection.unwrap_or_default(),
        policy: policy.unwrap_or_default(),
        provenance: provenance.unwrap_or_default(),
        tools: tools.unwrap_or_default(),
    })
}

pub(crate) fn inspection(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Inspection> {
    let mut object = reader.object(node, path)?;
    let mut level = |inspector: Inspector| {
        let key = inspector.as_str();
        let node = object.take(key)?;
        let level = reader.word(node, &object.path_of(key), &Level::WORDS)?;
        Some(Spanned::new(level, node.at))
    };
    let inspection = Inspection {
        secrets: level(Inspector::Secrets),
        entropy: level(Inspector::Entropy),
        content_type: level(Inspector::ContentType),
        base64: level(Inspector::Base64),
    };
    reader.close(object);
    Some(inspection)
}

fn capabilities(reader: &mut Reader<'_>, node: &Node) -> Option<Capabilities> {
    let mut object = reader.object(node, "agent.capabilities")?;
    let network = object
        .take("network")
        .and_then(|node| network(reader, node));
    let filesystem = object
        .take("filesystem")
        .and_then(|node| files::filesystem(reader, node));
    let tools = object
        .take("tools")
        .and_then(|node| programs::programs(reader, node));
    let resources = object
        .take("resources")
        .and_then(|node| resources(reader, node, "agent.capabilities.resources"));
    reader.close(object);
    Some(Capabilities {
        network: network.unwrap_or_default(),
        filesystem: filesystem.unwrap_or_default(),
        tools: tools.unwrap_or_default(),
        resources: resources.unwrap_or_default(),
    })
}

fn network(reader: &mut Reader<'_>, node: &Node) -> Option<Network> {
    let mut object = reader.object(node, "agent.capabilities.network")?;
    refuse(reader, &mut object, Parent::Network);
    let egress = object.take("egress").and_then(|node| egress(reader, node));
    reader.close(object);
    Some(Network {
        egress: egress.unwrap_or_default(),
    })
}

fn egress(reader: &mut Reader<'_>, node: &Node) -> Option<Egress> {
    let mut object = reader.object(node, "agent.capabilities.network.egress")?;
    let allowed_domains = object
        .take("allowedDomains")
        .map(|node| domains(reader, node, "allowedDomains"));
    let denied_domains = object
        .take("deniedDomains")
        .map(|node| domains(reader, node, "deniedDomains"));
    let rules = object.take("rules").map(|node| rules(reader, node));
    let networks = object.take("networks").map(|node| networks(reader, node));
    let unlisted = object.take("unlisted").and_then(|node| {
        let path = "agent.capabilities.network.egress.unlisted";
        let unlisted = reader.word(node, path, &Unlisted::WORDS)?;
        Some(Spanned::new(unlisted, node.at))
    });
    reader.close(object);
    Some(Egress {
        allowed_domains: allowed_domains.unwrap_or_default(),
        denied_domains: denied_domains.unwrap_or_default(),
        rules: rules.unwrap_or_default(),
        networks: networks.unwrap_or_default(),
        unlisted,
    })
}

fn domains(reader: &mut Reader<'_>, node: &Node, key: &str) -> Vec<Spanned<Domain>> {
    let mut out = Vec::new();
    for (i, node) in reader.array(node, key, MAX_DOMAINS).iter().enumerate() {
        out.extend(entry(
            reader,
            node,
            &format!("{key}[{i}]"),
            |error: super::agent::EntryError| error.code(),
        ));
    }
    out
}

fn networks(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<NetworkPort>> {
    let mut out = Vec::new();
    for (i, node) in reader
        .array(node, "networks", MAX_NETWORKS)
        .iter()
        .enumerate()
    {
        out.extend(entry(
            reader,
            node,
            &format!("networks[{i}]"),
            |error: super::agent::EntryError| error.code(),
        ));
    }
    out
}

/// A string that parses, with a code of the error's own.
fn entry<T: std::str::FromStr>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    code: impl FnOnce(T::Err) -> &'static str,
) -> Option<Spanned<T>>
where
    T::Err: std::fmt::Display + Copy,
{
    let text = reader.string(node, path)?;
    match text.parse() {
        Ok(value) => Some(Spanned::new(value, node.at)),
        Err(error) => {
            reader.error(
                node.at,
                code(error),
                format!("`{path}` is {text:?}: {error}"),
            );
            None
        }
    }
}

fn rules(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<Rule>> {
    let mut out = Vec::new();
    for (i, node) in reader.array(node, "rules", MAX_DOMAINS).iter().enumerate() {
        out.extend(
            rule(reader, node, &format!("rules[{i}]")).map(|rule| Spanned::new(rule, node.at)),
        );
    }
    out
}

fn rule(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Rule> {
    let mut object = reader.object(node, path)?;
    refuse(reader, &mut object, Parent::Rule);
    let host = reader.required(&mut object, "host").and_then(|node| {
        entry::<HostPattern>(
            reader,
            node,
            &format!("{path}.host"),
            crate::host::HostError::code,
        )
    });
    let ports = reader
        .required(&mut object, "ports")
        .and_then(|node| ports(reader, node, &format!("{path}.ports")));
    let protocol = object
        .take("protocol")
        .and_then(|node| protocol(reader, node, &format!("{path}.protocol")));
    let action = object
        .take("action")
        .map(|node| action(reader, node, &format!("{path}.action")));
    let methods = object.take("methods").map_or_else(Vec::new, |node| {
        texts::<Method>(reader, node, &format!("{path}.methods"))
    });
    let paths = object.take("paths").map_or_else(Vec::new, |node| {
        texts::<PathGlob>(reader, node, &format!("{path}.paths"))
    });
    let programs = object.take("programs").map_or_else(Vec::new, |node| {
        texts::<ProgramPath>(reader, node, &format!("{path}.programs"))
    });
    let max_body_bytes = object
        .take("maxBodyBytes")
        .and_then(|node| reader.integer(node, &format!("{path}.maxBodyBytes"), 0..=MAX_BODY_BYTES));
    let rate_limit = object
        .take("rateLimit")
        .and_then(|node| rate_limit(reader, node, &format!("{path}.rateLimit")));
    reader.close(object);
    Some(Rule {
        host: host?.value,
        ports: ports?,
        protocol,
        action: action.unwrap_or(Some(Action::Allow))?,
        methods,
        paths,
        programs,
        max_body_bytes,
        rate_limit,
    })
}

/// A list of methods, paths or programs, with at least one in it.
pub(crate) fn texts<T: FromStr<Err = RequestError>>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
) -> Vec<T> {
    let before = reader.count();
    let mut out = Vec::new();
    for (i, node) in reader.array(node, path, MAX_IN_RULE).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(text) = reader.string(node, &path) else {
            continue;
        };
        match text.parse() {
            Ok(value) => out.push(value),
            Err(error) => reader.error(node.at, "invalid-value", format!("`{path}`: {error}")),
        }
    }
    if out.is_empty() && reader.count() == before {
        let message = format!("`{path}` is empty: leave it out to be about all of them");
        reader.error(node.at, "invalid-value", message);
    }
    out
}

fn rate_limit(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<RateLimit> {
    let mut object = reader.object(node, path)?;
    let mut number = |key: &'static str| {
        let node = reader.required(&mut object, key)?;
        let number = reader.integer(node, &format!("{path}.{key}"), 1..=u64::from(MAX_RATE))?;
        u32::try_from(number).ok()
    };
    let (per_second, burst) = (number("perSecond"), number("burst"));
    reader.close(object);
    Some(RateLimit {
        per_second: per_second?,
        burst: burst?,
    })
}

fn ports(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Vec<u16>> {
    let before = reader.count();
    let elements = reader.array(node, path, MAX_PORTS_PER_RULE);
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    for (i, node) in elements.iter().enumerate() {
        let Some(port) = reader.port(node, &format!("{path}[{i}]")) else {
            continue;
        };
        if seen.insert(port) {
            out.push(port);
        }
    }
    if out.is_empty() && reader.count() == before {
        reader.error(
            node.at,
            "invalid-value",
            format!("`{path}` is empty; a rule is about at least one port"),
        );
    }
    (!out.is_empty()).then_some(out)
}

fn protocol(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Protocol> {
    let words: Vec<(&'static str, Protocol)> =
        Protocol::ALL.iter().map(|p| (p.as_str(), *p)).collect();
    match reader.word(node, path, &words)? {
        Protocol::Udp => {
            let message = format!("`{path}` is not enforced by this version: udp is not relayed");
            reader.error(node.at, "not-enforced", message);
            None
        }
        protocol => Some(protocol),
    }
}

fn action(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Action> {
    let words = [
        ("allow", Action::Allow),
        ("ask", Action::Ask),
        ("deny", Action::Deny),
    ];
    reader.word(node, path, &words)
}

pub(crate) fn resources(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Resources> {
    let mut object = reader.object(node, path)?;
    let memory = object.take("memory").and_then(|node| {
        let memory: Spanned<MemorySize> =
            reader.parsed(node, &format!("{path}.memory"), "invalid-value", str::parse)?;
        if memory.bytes() < MIN_MEMORY_BYTES {
            let message = format!(
                "`{path}.memory` is less than {MIN_MEMORY_BYTES} bytes, which engines refuse"
            );
            reader.error(node.at, "out-of-range", message);
        }
        Some(memory)
    });
    let cpus = object.take("cpus").and_then(|node| match &node.value {
        Value::Number(text) => match text.parse() {
            Ok(cpus) => Some(Spanned::new(cpus, node.at)),
            Err(error) => {
                reader.error(
                    node.at,
                    "out-of-range",
                    format!("`{path}.cpus` is {text}: {error}"),
                );
                None
            }
        },
        other => {
            let message = format!("`{path}.cpus` is {}, expected a number", other.kind());
            reader.error(node.at, "wrong-type", message);
            None
        }
    });
    let pids = object.take("pids").and_then(|node| {
        let pids = reader.integer(node, &format!("{path}.pids"), 1..=MAX_PIDS)?;
        Some(Spanned::new(u32::try_from(pids).ok()?, node.at))
    });
    reader.close(object);
    Some(Resources { memory, cpus, pids })
}
