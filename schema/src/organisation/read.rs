//! From the tree of a document to an [`Organisation`]: one function for each object, which takes the keys it knows and reports
//! the rest. A list holds each entry once.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;

use super::{
    BannedPackage, Ceilings, CredentialCeiling, Denials, Drift, EngineKind, FilesystemCeilings,
    Grade, List, MAX_BANNED, MAX_ENTRIES, MAX_REASON_BYTES, MAX_SERIAL, MAX_SIGNERS, MountKind,
    NetworkCeilings, Organisation, Requirements, SignatureRule, ToolCeilings, VERSION,
};
use crate::config::agent::{Domain, Escalation, MAX_DOMAINS, Unlisted};
use crate::config::read as shared;
use crate::credential::CredentialName;
use crate::diag::{Diagnostic, Spanned};
use crate::net::Protocol;
use crate::node::Node;
use crate::read::{Object, Reader};
use crate::signer::Identity;

pub(super) fn organisation(root: &Node, file: &str) -> Result<Organisation, Vec<Diagnostic>> {
    let mut reader = Reader::new(file);
    let organisation = read(&mut reader, root);
    reader.finish(organisation)
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Organisation> {
    let mut object = reader.object(root, "")?;
    if let Some(node) = object.take("$schema") {
        reader.string(node, "$schema");
    }
    let version = reader.required(&mut object, "version").and_then(|node| {
        let version = reader.integer(node, "version", 1..=u64::from(u32::MAX))?;
        if version != VERSION {
            let message = format!(
                "the document has version {version}, this program reads {VERSION}; a later agentcontainer may read it"
            );
            reader.error(node.at, "policy-version", message);
        }
        Some(version)
    });
    let organisation = reader
        .required(&mut object, "organisation")
        .and_then(|node| text(reader, node, "organisation"));
    let serial = reader.required(&mut object, "serial").and_then(|node| {
        let serial = reader.integer(node, "serial", 1..=MAX_SERIAL)?;
        Some(Spanned::new(serial, node.at))
    });
    let not_before = object
        .take("notBefore")
        .and_then(|node| text(reader, node, "notBefore"));
    let not_after: Option<Spanned<super::Time>> = reader
        .required(&mut object, "notAfter")
        .and_then(|node| text(reader, node, "notAfter"));
    if let (Some(from), Some(until)) = (&not_before, &not_after)
        && from.value >= until.value
    {
        reader.error(
            until.at,
            "invalid-value",
            "`notAfter` is not after `notBefore`: it would hold at no time",
        );
    }
    let ceilings = object
        .take("ceilings")
        .and_then(|node| ceilings(reader, node));
    let requirements = object
        .take("requirements")
        .and_then(|node| requirements(reader, node));
    let denials = object
        .take("denials")
        .and_then(|node| denials(reader, node));
    reader.close(object);
    Some(Organisation {
        file: reader.file().to_owned(),
        version: version?,
        organisation: organisation?,
        serial: serial?,
        not_before,
        not_after: not_after?,
        ceilings: ceilings.unwrap_or_default(),
        requirements: requirements.unwrap_or_default(),
        denials: denials.unwrap_or_default(),
    })
}

fn text<T: FromStr>(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Spanned<T>>
where
    T::Err: Display,
{
    reader.parsed(node, path, "invalid-value", str::parse)
}

/// A list whose entries `read` makes, each of them once.
fn each<T: Eq + Hash + Clone>(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    limit: usize,
    mut read: impl FnMut(&mut Reader<'_>, &Node, &str) -> Option<T>,
) -> List<T> {
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    for (i, node) in reader.array(node, path, limit).iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(value) = read(reader, node, &path) else {
            continue;
        };
        if !seen.insert(value.clone()) {
            reader.error(
                node.at,
                "duplicate-entry",
                format!("`{path}` stands in this list already"),
            );
        }
        out.push(Spanned::new(value, node.at));
    }
    Spanned::new(out, node.at)
}

/// A list of texts under a key, where there is one.
fn texts<T: FromStr + Eq + Hash + Clone>(
    reader: &mut Reader<'_>,
    object: &mut Object<'_>,
    key: &'static str,
    limit: usize,
) -> Option<List<T>>
where
    T::Err: Display,
{
    let node = object.take(key)?;
    let read = |reader: &mut Reader<'_>, node: &Node, path: &str| {
        text(reader, node, path).map(|text: Spanned<T>| text.value)
    };
    Some(each(reader, node, &object.path_of(key), limit, read))
}

/// A list of words under a key, where there is one.
fn words<T: Copy + Eq + Hash>(
    reader: &mut Reader<'_>,
    object: &mut Object<'_>,
    key: &'static str,
    words: &[(&'static str, T)],
) -> Option<List<T>> {
    let node = object.take(key)?;
    let read = |reader: &mut Reader<'_>, node: &Node, path: &str| reader.word(node, path, words);
    Some(each(reader, node, &object.path_of(key), MAX_ENTRIES, read))
}

/// One word under a key, where there is one.
fn word<T: Copy>(
    reader: &mut Reader<'_>,
    object: &mut Object<'_>,
    key: &'static str,
    words: &[(&'static str, T)],
) -> Option<Spanned<T>> {
    let node = object.take(key)?;
    let word = reader.word(node, &object.path_of(key), words)?;
    Some(Spanned::new(word, node.at))
}

fn ceilings(reader: &mut Reader<'_>, node: &Node) -> Option<Ceilings> {
    const PATH: &str = "ceilings";
    let mut object = reader.object(node, PATH)?;
    let network = object
        .take("network")
        .and_then(|node| network(reader, node));
    let filesystem = object.take("filesystem").and_then(|node| {
        let mut object = reader.object(node, "ceilings.filesystem")?;
        let filesystem = FilesystemCeilings {
            read_only_paths: texts(reader, &mut object, "readOnlyPaths", MAX_ENTRIES),
            writable_paths: texts(reader, &mut object, "writablePaths", MAX_ENTRIES),
        };
        reader.close(object);
        Some(filesystem)
    });
    let tools = object.take("tools").and_then(|node| {
        let mut object = reader.object(node, "ceilings.tools")?;
        let tools = ToolCeilings {
            allowed_binaries: texts(reader, &mut object, "allowedBinaries", MAX_ENTRIES),
        };
        reader.close(object);
        Some(tools)
    });
    let credentials = object
        .take("credentials")
        .map(|node| Spanned::new(credentials(reader, node), node.at));
    let resources = object
        .take("resources")
        .and_then(|node| shared::resources(reader, node, "ceilings.resources"));
    let inspection = object
        .take("inspection")
        .and_then(|node| shared::inspection(reader, node, "ceilings.inspection"));
    let ceilings = Ceilings {
        network: network.unwrap_or_default(),
        filesystem: filesystem.unwrap_or_default(),
        tools: tools.unwrap_or_default(),
        capabilities: texts(reader, &mut object, "capabilities", MAX_ENTRIES),
        credentials,
        secret_sources: texts(reader, &mut object, "secretSources", MAX_ENTRIES),
        host_variables: texts(reader, &mut object, "hostVariables", MAX_ENTRIES),
        mounts: words(reader, &mut object, "mounts", &MountKind::WORDS),
        engines: words(reader, &mut object, "engines", &EngineKind::WORDS),
        images: texts(reader, &mut object, "images", MAX_ENTRIES),
        features: texts(reader, &mut object, "features", MAX_ENTRIES),
        resources: resources.unwrap_or_default(),
        inspection: inspection.unwrap_or_default(),
        escalation: word(reader, &mut object, "escalation", &Escalation::WORDS),
    };
    reader.close(object);
    Some(ceilings)
}

fn network(reader: &mut Reader<'_>, node: &Node) -> Option<NetworkCeilings> {
    let mut object = reader.object(node, "ceilings.network")?;
    let protocols: Vec<(&'static str, Protocol)> =
        Protocol::ALL.iter().map(|p| (p.as_str(), *p)).collect();
    let ports = object.take("ports").map(|node| {
        let port = |reader: &mut Reader<'_>, node: &Node, path: &str| reader.port(node, path);
        each(reader, node, "ceilings.network.ports", MAX_ENTRIES, port)
    });
    let network = NetworkCeilings {
        allowed_domains: texts(reader, &mut object, "allowedDomains", MAX_DOMAINS),
        ports,
        protocols: words(reader, &mut object, "protocols", &protocols),
        networks: texts(reader, &mut object, "networks", MAX_ENTRIES),
        unlisted: word(reader, &mut object, "unlisted", &Unlisted::WORDS),
    };
    reader.close(object);
    Some(network)
}

fn credentials(
    reader: &mut Reader<'_>,
    node: &Node,
) -> BTreeMap<CredentialName, Spanned<CredentialCeiling>> {
    const PATH: &str = "ceilings.credentials";
    let mut out = BTreeMap::new();
    for member in reader.map(node, PATH, MAX_ENTRIES) {
        let Some(name) = shared::credentials::name(reader, member, PATH) else {
            continue;
        };
        let Some(mut object) = reader.object(&member.node, &format!("{PATH}.{name}")) else {
            continue;
        };
        let ceiling = CredentialCeiling {
            hosts: texts::<Domain>(reader, &mut object, "hosts", MAX_ENTRIES),
            sources: texts(reader, &mut object, "sources", MAX_ENTRIES),
        };
        reader.close(object);
        out.insert(name, Spanned::new(ceiling, member.key_at));
    }
    out
}

fn requirements(reader: &mut Reader<'_>, node: &Node) -> Option<Requirements> {
    let mut object = reader.object(node, "requirements")?;
    let signatures = object.take("signatures").map(|node| {
        let path = "requirements.signatures";
        let rules = reader.array(node, path, MAX_SIGNERS).iter().enumerate();
        rules
            .filter_map(|(i, node)| {
                let rule = signature_rule(reader, node, &format!("{path}[{i}]"))?;
                Some(Spanned::new(rule, node.at))
            })
            .collect()
    });
    let slsa_level = object.take("slsaLevel").and_then(|node| {
        let level = reader.integer(node, "requirements.slsaLevel", 1..=4)?;
        Some(Spanned::new(u8::try_from(level).ok()?, node.at))
    });
    let sbom = object.take("sbom").and_then(|node| {
        let sbom = reader.bool(node, "requirements.sbom")?;
        Some(Spanned::new(sbom, node.at))
    });
    let banned = object
        .take("bannedPackages")
        .map(|node| banned_packages(reader, node));
    let lock_age = object
        .take("lockAge")
        .and_then(|node| text(reader, node, "requirements.lockAge"));
    let drift = object.take("drift").and_then(|node| {
        let mut object = reader.object(node, "requirements.drift")?;
        let drift = Drift {
            ask: word(reader, &mut object, "ask", &Grade::WORDS),
            refuse: word(reader, &mut object, "refuse", &Grade::WORDS),
        };
        reader.close(object);
        Some(drift)
    });
    let requirements = Requirements {
        signatures: signatures.unwrap_or_default(),
        slsa_level,
        sbom,
        banned_packages: banned.unwrap_or_default(),
        registries: texts(reader, &mut object, "registries", MAX_ENTRIES),
        lock_age,
        drift: drift.unwrap_or_default(),
    };
    reader.close(object);
    Some(requirements)
}

fn signature_rule(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<SignatureRule> {
    let mut object = reader.object(node, path)?;
    let before = reader.count();
    let missing = !object.has("references");
    let references = texts(reader, &mut object, "references", MAX_ENTRIES);
    if missing
        || (references.as_ref().is_some_and(|list| list.is_empty()) && reader.count() == before)
    {
        let message = format!("`{path}.references` names nothing: a rule is about at least one");
        reader.error(node.at, "missing-key", message);
    }
    let identities = object.take("identities").map(|node| {
        each(
            reader,
            node,
            &format!("{path}.identities"),
            MAX_SIGNERS,
            identity,
        )
        .value
    });
    let keys: Option<List<crate::signer::PublicKey>> =
        texts(reader, &mut object, "keys", MAX_SIGNERS);
    let log = object.take("log").and_then(|node| {
        let log = reader.bool(node, &format!("{path}.log"))?;
        Some(Spanned::new(log, node.at))
    });
    reader.close(object);
    let identities = identities.unwrap_or_default();
    let keys = keys.map(|keys| keys.value).unwrap_or_default();
    if identities.is_empty() && keys.is_empty() && reader.count() == before {
        let message = format!(
            "`{path}` names no signer: `identities` or `keys` has at least one, because any signer is none"
        );
        reader.error(node.at, "missing-key", message);
    }
    Some(SignatureRule {
        references: references?,
        identities,
        keys,
        log,
    })
}

/// `{ issuer, subject }`, in either format.
pub(crate) fn identity(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Identity> {
    let mut object = reader.object(node, path)?;
    let issuer = reader
        .required(&mut object, "issuer")
        .and_then(|node| text(reader, node, &format!("{path}.issuer")));
    let subject = reader
        .required(&mut object, "subject")
        .and_then(|node| text(reader, node, &format!("{path}.subject")));
    reader.close(object);
    Some(Identity {
        issuer: issuer?.value,
        subject: subject?.value,
    })
}

fn banned_packages(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<BannedPackage>> {
    const PATH: &str = "requirements.bannedPackages";
    let mut out: Vec<Spanned<BannedPackage>> = Vec::new();
    let mut seen = HashSet::new();
    for (i, node) in reader.array(node, PATH, MAX_BANNED).iter().enumerate() {
        let path = format!("{PATH}[{i}]");
        let Some(banned) = banned_package(reader, node, &path) else {
            continue;
        };
        let key = (
            banned.kind.clone(),
            banned.name.clone(),
            banned.versions.clone(),
        );
        if !seen.insert(key) {
            let message = format!("`{path}` stands in this list already");
            reader.error(node.at, "duplicate-entry", message);
        }
        out.push(Spanned::new(banned, node.at));
    }
    out
}

fn banned_package(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<BannedPackage> {
    let mut object = reader.object(node, path)?;
    let kind = reader
        .required(&mut object, "type")
        .and_then(|node| text(reader, node, &format!("{path}.type")));
    let name = reader
        .required(&mut object, "name")
        .and_then(|node| text(reader, node, &format!("{path}.name")));
    let versions = reader
        .required(&mut object, "versions")
        .and_then(|node| text(reader, node, &format!("{path}.versions")));
    let reason = object.take("reason").and_then(|node| {
        let path = format!("{path}.reason");
        let reason = reader.string(node, &path)?;
        if reason.len() > MAX_REASON_BYTES {
            let message = format!("`{path}` is longer than {MAX_REASON_BYTES} bytes");
            reader.error(node.at, "too-large", message);
        }
        Some(reason.to_owned())
    });
    reader.close(object);
    Some(BannedPackage {
        kind: kind?.value,
        name: name?.value,
        versions: versions?.value,
        reason,
    })
}

fn denials(reader: &mut Reader<'_>, node: &Node) -> Option<Denials> {
    let mut object = reader.object(node, "denials")?;
    let object_ref = &mut object;
    fn list<T: FromStr + Eq + Hash + Clone>(
        reader: &mut Reader<'_>,
        object: &mut Object<'_>,
        key: &'static str,
        limit: usize,
    ) -> Vec<Spanned<T>>
    where
        T::Err: Display,
    {
        texts(reader, object, key, limit).map_or_else(Vec::new, |list: List<T>| list.value)
    }
    let denials = Denials {
        domains: list(reader, object_ref, "domains", MAX_DOMAINS),
        networks: list(reader, object_ref, "networks", MAX_ENTRIES),
        paths: list(reader, object_ref, "paths", MAX_ENTRIES),
        binaries: list(reader, object_ref, "binaries", MAX_ENTRIES),
        credentials: list(reader, object_ref, "credentials", MAX_ENTRIES),
        secret_sources: list(reader, object_ref, "secretSources", MAX_ENTRIES),
        images: list(reader, object_ref, "images", MAX_ENTRIES),
    };
    reader.close(object);
    Some(denials)
}
