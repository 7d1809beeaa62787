//! The closed table of keys that are known and not carried out as written: which object they stand in, which value
//! leaves nothing undone (and is accepted), and the words that refuse any other. Reader and JSON Schema both work from
//! it, so a key is honoured by a field of [`super::Config`], refused here, or unknown; there is no fourth way.

use std::fmt;

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A later version may carry it out.
    NotEnforced,
    /// It would unmake the sandbox.
    Unsafe,
}

/// The values of a refused key that ask for nothing and are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Nothing,
    EmptyArray,
    EmptyObject,
    Bool(bool),
    Words(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The object that the key stands in.
    pub parent: Parent,
    pub name: &'static str,
    pub why: Why,
    pub accepted: Accepted,
    /// After "`key`: ".
    pub words: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Root,
    HostRequirements,
    Network,
    Rule,
}

const BUILD: &str = "images are not built by this version, because build steps run with a route out; build the image and name it in `image`";
const COMPOSE: &str = "compose is not carried out by this version; name one `image`";
const PORTS: &str = "ports are not forwarded by this version";

pub const REFUSED: &[Key] = &[
    // Would unmake the sandbox.
    unsafe_key(
        "privileged",
        Accepted::Bool(false),
        "a privileged container is not confined",
    ),
    unsafe_key(
        "capAdd",
        Accepted::EmptyArray,
        "the container has no capabilities, and none can be added",
    ),
    unsafe_key(
        "securityOpt",
        Accepted::EmptyArray,
        "seccomp, AppArmor and no-new-privileges are set by agentcontainer",
    ),
    unsafe_key(
        "runArgs",
        Accepted::EmptyArray,
        "arguments to the engine are not passed on; use `containerEnv`, `containerUser`, `mounts` and `agent.capabilities.resources`",
    ),
    unsafe_key(
        "initializeCommand",
        Accepted::EmptyObject,
        "it would run on the host, outside of the container; use `onCreateCommand`, or run it yourself",
    ),
    // Not carried out.
    key(Parent::Root, "build", Accepted::Nothing, BUILD),
    key(Parent::Root, "dockerFile", Accepted::Nothing, BUILD),
    key(Parent::Root, "context", Accepted::Nothing, BUILD),
    key(
        Parent::Root,
        "dockerComposeFile",
        Accepted::Nothing,
        COMPOSE,
    ),
    key(Parent::Root, "service", Accepted::Nothing, COMPOSE),
    key(Parent::Root, "runServices", Accepted::EmptyArray, COMPOSE),
    key(Parent::Root, "forwardPorts", Accepted::EmptyArray, PORTS),
    key(Parent::Root, "appPort", Accepted::EmptyArray, PORTS),
    key(
        Parent::Root,
        "portsAttributes",
        Accepted::EmptyObject,
        PORTS,
    ),
    key(
        Parent::Root,
        "otherPortsAttributes",
        Accepted::EmptyObject,
        PORTS,
    ),
    key(
        Parent::Root,
        "secrets",
        Accepted::EmptyObject,
        "what it recommends is not asked for; name it in `agent.secrets`, which makes a file of it",
    ),
    key(
        Parent::Root,
        "additionalProperties",
        Accepted::EmptyObject,
        "it has no meaning in a file",
    ),
    key(
        Parent::Root,
        "init",
        Accepted::Bool(true),
        "agentcontainer's own init is process 1 of every container; leave the key out, or write true",
    ),
    key(
        Parent::Root,
        "userEnvProbe",
        Accepted::Words(&["none"]),
        "shells are not asked for their environment by this version; write \"none\"",
    ),
    key(
        Parent::Root,
        "shutdownAction",
        Accepted::Words(&["stopContainer"]),
        "a session ends with its container; start it with `agentcontainer run -d` to leave it running",
    ),
    key(
        Parent::Root,
        "waitFor",
        Accepted::Words(&[
            "onCreateCommand",
            "updateContentCommand",
            "postCreateCommand",
            "postStartCommand",
        ]),
        "every lifecycle command ends before the program is started, whatever is waited for",
    ),
    key(
        Parent::HostRequirements,
        "storage",
        Accepted::Nothing,
        "disk space is not checked by this version",
    ),
    key(
        Parent::HostRequirements,
        "gpu",
        Accepted::Bool(false),
        "no devices are given to the container",
    ),
    // The `agent` object.
    key(Parent::Network, "ingress", Accepted::EmptyObject, PORTS),
    key(
        Parent::Rule,
        "credential",
        Accepted::Nothing,
        "credentials are not bound to rules by this version; `agent.credentials` says which hosts one goes to",
    ),
];

const fn key(parent: Parent, name: &'static str, accepted: Accepted, words: &'static str) -> Key {
    Key {
        parent,
        name,
        why: Why::NotEnforced,
        accepted,
        words,
    }
}

const fn unsafe_key(name: &'static str, accepted: Accepted, words: &'static str) -> Key {
    Key {
        parent: Parent::Root,
        name,
        why: Why::Unsafe,
        accepted,
        words,
    }
}

/// The table's entries for one object.
pub fn refused_in(parent: Parent) -> impl Iterator<Item = &'static Key> {
    REFUSED.iter().filter(move |key| key.parent == parent)
}

// === impl Why ===

impl Why {
    /// Code of the diagnostic.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotEnforced => "not-enforced",
            Self::Unsafe => "refused-key",
        }
    }
}

// === impl Key ===

/// The diagnostic's words.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::NotEnforced => write!(f, "not enforced by this version: {}", self.words),
            Why::Unsafe => write!(f, "refused: {}", self.words),
        }
    }
}
