//! From the tree of `config.toml` to a [`HostConfig`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use super::{
    Engine, Files, GatewayConfig, Grant, HostConfig, MAX_APPROVAL_SECONDS, MAX_ENTRIES,
    MAX_SIGNERS, PolicySource, RegistryConfig, SecretGrant, Setting, Signers, SigstoreConfig,
};
use crate::config::read::{credentials as shared, texts};
use crate::config::secret::MAX_SECRETS;
use crate::credential::{CredentialError, CredentialName, MAX_CREDENTIALS};
use crate::diag::Diagnostic;
use crate::host::HostName;
use crate::image::{canonical_registry, is_registry};
use crate::inspection::{Inspector, Level};
use crate::node::{Node, Value};
use crate::organisation::identity;
use crate::provider::{self, Provider};
use crate::read::Reader;
use crate::request::{Method, PathGlob};
use crate::signer::MAX_IDENTITY_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    #[error("expected auto, docker, podman, unix:///PATH, ssh://HOST or tcp://HOST:PORT")]
    Engine,
    #[error("expected an IPv4 or IPv6 network whose host bits are zero, such as 10.1.0.0/16")]
    Network,
    #[error("expected an IPv4 or IPv6 address")]
    Address,
    #[error("expected the absolute path of a file")]
    Path,
    #[error("expected an https:// address, or http:// on this machine")]
    Repository,
}

pub(super) fn host_config(root: &Node, file: &str) -> Result<HostConfig, Vec<Diagnostic>> {
    let mut reader = Reader::new(file);
    let config = read(&mut reader, root);
    reader.finish(config)
}

fn setting<T>(reader: &Reader<'_>, node: &Node, value: T) -> Setting<T> {
    Setting {
        value,
        file: reader.file().to_owned(),
        at: node.at,
    }
}

fn parsed<T: FromStr>(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Setting<T>>
where
    T::Err: std::fmt::Display,
{
    let value = reader.parsed(node, path, "invalid-value", str::parse)?;
    Some(setting(reader, node, value.value))
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<HostConfig> {
    let mut object = reader.object(root, "")?;
    let engine = object
        .take("engine")
        .and_then(|node| parsed(reader, node, "engine"));
    let files = object.take("files").and_then(|node| {
        let files = reader.word(node, "files", &Files::WORDS)?;
        Some(setting(reader, node, files))
    });
    let policy = object.take("policy").and_then(|node| {
        let policy = policy(reader, node)?;
        Some(setting(reader, node, policy))
    });
    let gateway = object
        .take("gateway")
        .and_then(|node| gateway(reader, node));
    let credentials = object
        .take("credentials")
        .map(|node| credentials(reader, node));
    let secrets = object.take("secrets").map(|node| secrets(reader, node));
    let inspection = object
        .take("inspection")
        .map(|node| inspection(reader, node));
    let registries = object
        .take("registries")
        .map(|node| registries(reader, node));
    let sigstore = object.take("sigstore").and_then(|node| {
        let value = sigstore(reader, node)?;
        Some(setting(reader, node, value))
    });
    reader.close(object);
    Some(HostConfig {
        engine,
        files,
        policy: policy.into_iter().collect(),
        gateway: gateway.unwrap_or_default(),
        credentials: credentials.unwrap_or_default(),
        remote: None,
        secrets: secrets.unwrap_or_default(),
        inspection: inspection.unwrap_or_default(),
        registries: registries.unwrap_or_default(),
        sigstore,
    })
}

/// A repository's address alone would be believed from nothing, and a file beside it would be one more word for the same.
fn sigstore(reader: &mut Reader<'_>, node: &Node) -> Option<SigstoreConfig> {
    let mut object = reader.object(node, "sigstore")?;
    let before = reader.count();
    let tuf = object
        .take("tuf")
        .and_then(|node| reader.parsed(node, "sigstore.tuf", "invalid-value", repository));
    let root = object
        .take("root")
        .and_then(|node| reader.parsed(node, "sigstore.root", "invalid-path", path));
    let trusted_root = object
        .take("trusted_root")
        .and_then(|node| reader.parsed(node, "sigstore.trusted_root", "invalid-path", path));
    reader.close(object);
    match (tuf, root, trusted_root) {
        (Some(tuf), Some(root), None) => Some(SigstoreConfig::Repository {
            tuf: tuf.value,
            root: root.value,
        }),
        (None, None, Some(trusted_root)) => Some(SigstoreConfig::File {
            trusted_root: trusted_root.value,
        }),
        _ => {
            if reader.count() == before {
                reader.error(
                    node.at,
                    "missing-key",
                    "`sigstore` needs both `tuf`, a repository's address, and `root`, the file that it is verified from; or `trusted_root` alone"
                        .to_owned(),
                );
            }
            None
        }
    }
}

fn repository(text: &str) -> Result<String, SettingError> {
    let is_safe = crate::address::private_host(text).is_some();
    if is_safe && text.len() <= MAX_IDENTITY_BYTES {
        return Ok(text.to_owned());
    }
    Err(SettingError::Repository)
}

fn registries(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, Setting<RegistryConfig>> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, "registries", MAX_ENTRIES) {
        let path = format!("registries.{:?}", member.key);
        if !is_registry(&member.key) {
            reader.error(
                member.key_at,
                "invalid-value",
                format!("`{path}`: expected a host with an optional port, such as 127.0.0.1:5000"),
            );
            continue;
        }
        let Some(mut object) = reader.object(&member.node, &path) else {
            continue;
        };
        let plain_http = object
            .take("plain_http")
            .and_then(|node| reader.bool(node, &format!("{path}.plain_http")));
        reader.close(object);
        let config = RegistryConfig {
            plain_http: plain_http.unwrap_or_default(),
        };
        out.insert(
            canonical_registry(&member.key).into(),
            setting(reader, &member.node, config),
        );
    }
    out
}

/// A policy is believed when somebody who is named here signed it; an empty list would name nobody, and no list anybody.
fn policy(reader: &mut Reader<'_>, node: &Node) -> Option<PolicySource> {
    let mut object = reader.object(node, "policy")?;
    let before = reader.count();
    let source = reader
        .required(&mut object, "source")
        .and_then(|node| reader.parsed(node, "policy.source", "invalid-value", str::parse));
    let organisation = object
        .take("organisation")
        .map(|node| reader.parsed(node, "policy.organisation", "invalid-value", str::parse));
    let identities = object.take("identities").map(|node| {
        let elements = reader.array(node, "policy.identities", MAX_SIGNERS);
        let elements = elements.iter().enumerate();
        let read = |(i, node)| identity(reader, node, &format!("policy.identities[{i}]"));
        (node.at, elements.filter_map(read).collect::<Vec<_>>())
    });
    let keys = object.take("keys").map(|node| {
        let mut keys = Vec::new();
        for (i, node) in reader
            .array(node, "policy.keys", MAX_SIGNERS)
            .iter()
            .enumerate()
        {
            let key = reader.parsed(node, &format!("policy.keys[{i}]"), "invalid-path", path);
            keys.extend(key.map(|key| setting(reader, node, key.value)));
        }
        (node.at, keys)
    });
    reader.close(object);
    let signers = match (identities, keys) {
        (Some((_, identities)), None) if !identities.is_empty() => Signers::Identities(identities),
        (None, Some((_, keys))) if !keys.is_empty() => Signers::Keys(keys),
        (Some(_), Some((at, _))) => {
            let message =
                "`policy` has `identities` and `keys`: keep the one that the policy is signed by";
            reader.error(at, "conflicting-signers", message);
            return None;
        }
        (Some((at, _)), None) | (None, Some((at, _))) => {
            if reader.count() == before {
                let message =
                    "this list is empty: a policy that nobody in particular signed is not believed";
                reader.error(at, "invalid-value", message);
            }
            return None;
        }
        (None, None) => {
            let message = "`policy` names no signer: `identities` or `keys` has at least one";
            reader.error(node.at, "missing-key", message);
            return None;
        }
    };
    let organisation = match organisation {
        Some(found) => Some(found?.value),
        None => None,
    };
    Some(PolicySource {
        source: source?.value,
        signers,
        organisation,
    })
}

fn inspection(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<Inspector, Setting<Level>> {
    let mut out = BTreeMap::new();
    let Some(mut object) = reader.object(node, "inspection") else {
        return out;
    };
    for inspector in Inspector::ALL {
        let key = inspector.as_toml();
        if let Some(node) = object.take(key)
            && let Some(level) = reader.word(node, &object.path_of(key), &Level::WORDS)
        {
            out.insert(inspector, setting(reader, node, level));
        }
    }
    reader.close(object);
    out
}

fn gateway(reader: &mut Reader<'_>, node: &Node) -> Option<GatewayConfig> {
    let mut object = reader.object(node, "gateway")?;
    let resolver = object
        .take("resolver")
        .and_then(|node| parsed(reader, node, "gateway.resolver"));
    let hosts = object.take("hosts").map(|node| hosts(reader, node));
    let private_networks = object
        .take("private_networks")
        .map(|node| private_networks(reader, node));
    let upstream_proxy = object
        .take("upstream_proxy")
        .and_then(|node| parsed(reader, node, "gateway.upstream_proxy"));
    let ca_bundles = object
        .take("ca_bundles")
        .map(|node| ca_bundles(reader, node));
    let approval_seconds = object.take("approval_seconds").and_then(|node| {
        let seconds = 1..=u64::from(MAX_APPROVAL_SECONDS);
        let seconds = reader.integer(node, "gateway.approval_seconds", seconds)?;
        Some(setting(reader, node, u32::try_from(seconds).ok()?))
    });
    reader.close(object);
    Some(GatewayConfig {
        resolver,
        hosts: hosts.unwrap_or_default(),
        private_networks: private_networks.unwrap_or_default(),
        upstream_proxy,
        ca_bundles: ca_bundles.unwrap_or_default(),
        approval_seconds,
    })
}

fn hosts(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<HostName, Setting<Vec<IpAddr>>> {
    let mut out: BTreeMap<HostName, Setting<Vec<IpAddr>>> = BTreeMap::new();
    for member in reader.map(node, "gateway.hosts", MAX_ENTRIES) {
        let path = format!("gateway.hosts.{:?}", member.key);
        let name = match HostName::parse(&member.key) {
            Ok(name) if name.label_count() < 2 => {
                let message = format!("`{path}` has a single label, which is never resolved");
                reader.error(member.key_at, "single-label-host", message);
                continue;
            }
            Ok(name) => name,
            Err(error) => {
                reader.error(member.key_at, error.code(), format!("`{path}`: {error}"));
                continue;
            }
        };
        let addresses = match &member.node.value {
            Value::Array(_) => {
                let mut out = Vec::new();
                for (i, node) in reader
                    .array(&member.node, &path, MAX_ENTRIES)
                    .iter()
                    .enumerate()
                {
                    out.extend(address(reader, node, &format!("{path}[{i}]")));
                }
                out
            }
            _ => address(reader, &member.node, &path).into_iter().collect(),
        };
        if matches!(&member.node.value, Value::Array(elements) if elements.is_empty()) {
            reader.error(
                member.node.at,
                "invalid-value",
                format!("`{path}` is empty"),
            );
        }
        let value = setting(reader, &member.node, addresses);
        if out.insert(name.clone(), value).is_some() {
            reader.error(
                member.key_at,
                "duplicate-key",
                format!("`{path}` is another spelling of {name}, which is already there"),
            );
        }
    }
    out
}

fn address(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<IpAddr> {
    let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| SettingError::Address);
    reader
        .parsed(node, path, "invalid-value", parse)
        .map(|address| address.value)
}

fn private_networks(reader: &mut Reader<'_>, node: &Node) -> Vec<Setting<IpNet>> {
    let mut out = Vec::new();
    for (i, node) in reader
        .array(node, "gateway.private_networks", MAX_ENTRIES)
        .iter()
        .enumerate()
    {
        let network = reader.parsed(
            node,
            &format!("gateway.private_networks[{i}]"),
            "invalid-network",
            network,
        );
        out.extend(network.map(|network| setting(reader, node, network.value)));
    }
    out
}

fn ca_bundles(reader: &mut Reader<'_>, node: &Node) -> Vec<Setting<PathBuf>> {
    const KEY: &str = "gateway.ca_bundles";
    let mut out: Vec<Setting<PathBuf>> = Vec::new();
    for (i, node) in reader.array(node, KEY, MAX_ENTRIES).iter().enumerate() {
        let bundle = reader.parsed(node, &format!("{KEY}[{i}]"), "invalid-path", path);
        let Some(bundle) = bundle else { continue };
        if !out.iter().any(|other| other.value == bundle.value) {
            out.push(setting(reader, node, bundle.value));
        }
    }
    out
}

fn path(text: &str) -> Result<PathBuf, SettingError> {
    if text.len() > 1 && text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(SettingError::Path)
    }
}

/// A network, or a lone address.
fn network(text: &str) -> Result<IpNet, SettingError> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| SettingError::Network)?,
    };
    if network.addr() == network.network() {
        Ok(network)
    } else {
        Err(SettingError::Network)
    }
}

fn credentials(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<CredentialName, Setting<Grant>> {
    const PATH: &str = "credentials";
    let mut out = BTreeMap::new();
    for member in reader.map(node, PATH, MAX_CREDENTIALS) {
        let name = shared::name(reader, member, PATH);
        let Some(name) = name else { continue };
        let provider = provider::named(name.as_str());
        if let Some(grant) = grant(reader, &member.node, &format!("{PATH}.{name}"), provider) {
            out.insert(name, setting(reader, &member.node, grant));
        }
    }
    out
}

fn secrets(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<CredentialName, Setting<SecretGrant>> {
    const PATH: &str = "secrets";
    let mut out = BTreeMap::new();
    for member in reader.map(node, PATH, MAX_SECRETS) {
        let Some(name) = shared::name(reader, member, PATH) else {
            continue;
        };
        let path = format!("{PATH}.{name}");
        let Some(mut object) = reader.object(&member.node, &path) else {
            continue;
        };
        let source = reader
            .required(&mut object, "source")
            .and_then(|node| unsaid(reader, node, &format!("{path}.source")));
        reader.close(object);
        if let Some(source) = source {
            out.insert(name, setting(reader, &member.node, SecretGrant { source }));
        }
    }
    out
}

/// What a provider is known for stands where the table does not say otherwise.
fn grant(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    provider: Option<&Provider>,
) -> Option<Grant> {
    let mut object = reader.object(node, path)?;
    let source = reader
        .required(&mut object, "source")
        .and_then(|node| unsaid(reader, node, &format!("{path}.source")));
    let hosts = match provider {
        Some(_) => object.take("hosts"),
        None => reader.required(&mut object, "hosts"),
    };
    let hosts = match (hosts, provider) {
        (Some(node), _) => Some(shared::hosts(reader, node, &format!("{path}.hosts")))
            .map(|hosts| hosts.into_iter().map(|host| host.value).collect()),
        (None, provider) => provider.map(Provider::domains),
    };
    let paths = object.take("paths").map_or_else(Vec::new, |node| {
        texts::<PathGlob>(reader, node, &format!("{path}.paths"))
    });
    let methods = object.take("methods").map_or_else(Vec::new, |node| {
        texts::<Method>(reader, node, &format!("{path}.methods"))
    });
    let header = object
        .take("header")
        .map(|node| unsaid(reader, node, &format!("{path}.header")));
    let format = object
        .take("format")
        .map(|node| unsaid(reader, node, &format!("{path}.format")));
    let query = object
        .take("query")
        .map(|node| unsaid(reader, node, &format!("{path}.query")));
    let env = object
        .take("env")
        .and_then(|node| reader.parsed(node, &format!("{path}.env"), "invalid-value", str::parse));
    reader.close(object);
    Some(Grant {
        source: source?,
        hosts: hosts?,
        paths,
        methods,
        header: header
            .unwrap_or_else(|| Some(provider.map_or_else(Default::default, Provider::field)))?,
        format: format
            .unwrap_or_else(|| Some(provider.map_or_else(Default::default, Provider::form)))?,
        query: match query {
            Some(said) => Some(said?),
            None => provider.and_then(Provider::parameter),
        },
        env: env.map(|env| env.value),
    })
}

/// A string that has to parse and is not repeated where it does not: it may be the value, in the wrong place.
fn unsaid<T: FromStr<Err = CredentialError>>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
) -> Option<T> {
    match reader.string(node, path)?.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            reader.error(node.at, error.code(), format!("`{path}`: {error}"));
            None
        }
    }
}

// === impl Engine ===

impl FromStr for Engine {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(SettingError::Engine);
        }
        let after = |scheme: &str| text.strip_prefix(scheme).filter(|rest| !rest.is_empty());
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "podman" => Ok(Self::Podman),
            _ => {
                if let Some(path) =
                    after("unix://").filter(|path| path.starts_with('/') && path.len() > 1)
                {
                    Ok(Self::Unix(path.into()))
                } else if after("ssh://").is_some_and(|rest| !rest.starts_with('-')) {
                    Ok(Self::Ssh(text.to_owned()))
                } else if after("tcp://").is_some() {
                    Ok(Self::Tcp(text.to_owned()))
                } else {
                    Err(SettingError::Engine)
                }
            }
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Docker => f.write_str("docker"),
            Self::Podman => f.write_str("podman"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Ssh(uri) | Self::Tcp(uri) => f.write_str(uri),
        }
    }
}
