//! The host's `config.toml`: the word of whoever owns the machine, which no workspace can change. The CLI loads it,
//! `/etc` first and the user's above it; policy takes the gateway's settings from it with their origins.

mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::config::agent::Domain;
use crate::config::discover;
use crate::config::secret::MAX_SECRETS;
use crate::config::units::VariableName;
use crate::credential::{
    CredentialName, Format, HeaderName, MAX_CREDENTIALS, MAX_HOSTS, ParameterName, Source,
};
use crate::diag::{Diagnostic, Position};
use crate::gateway::{HttpProxy, Resolver};
use crate::host::HostName;
use crate::image::OciSource;
use crate::inspection::{Inspector, Level};
use crate::organisation::values::OrganisationName;
use crate::remote::Remote;
use crate::request::{MAX_IN_RULE, Method, PathGlob};
use crate::signer::{Identity, MAX_IDENTITY_BYTES};
use crate::toml_tree::{self, MAX_FILE_BYTES};

/// Most identities, or keys, in `[policy]`.
pub const MAX_SIGNERS: usize = 64;

/// Most entries in each list and table.
pub const MAX_ENTRIES: usize = 1024;

/// The longest that a person may be given to answer, in seconds.
pub const MAX_APPROVAL_SECONDS: u32 = 3600;

/// The file below the user's.
pub const SYSTEM_FILE: &str = "/etc/agentcontainer/config.toml";

/// A value and the file and position it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    pub file: String,
    pub at: Position,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostConfig {
    /// The container engine; found by itself when absent.
    pub engine: Option<Setting<Engine>>,
    /// What to do where no layer of this host carries a rule about files fully: stop the start (`strict`, when absent), or go on with
    /// what mounts can carry (`mounts`). `strict` in either file wins, and below a user's file one that names a policy is `strict`
    /// unless it says `mounts` itself.
    #[schemars(default, schema_with = "files")]
    pub files: Option<Setting<Files>>,
    /// The organisation's policy that is the ceiling for every workspace on this host. Where the user's file and the system's both
    /// name one, both hold: a user adds ceilings to the system's and takes none away.
    #[schemars(default, schema_with = "policy")]
    pub policy: Vec<Setting<PolicySource>>,
    /// How the gateway resolves and dials.
    #[schemars(default)]
    pub gateway: GatewayConfig,
    /// Grants by name, for every workspace that asks for one.
    #[schemars(default, extend("maxProperties" = MAX_CREDENTIALS))]
    pub credentials: BTreeMap<CredentialName, Setting<Grant>>,
    /// The remote of the workspace that this is read for: not of any file.
    #[schemars(skip)]
    pub remote: Option<Remote>,
    /// Grants of files inside by name, for every workspace that asks for one.
    #[schemars(default, extend("maxProperties" = MAX_SECRETS))]
    pub secrets: BTreeMap<CredentialName, Setting<SecretGrant>>,
    /// The least that is done about what inspectors find; a workspace may ask for more.
    #[schemars(default, schema_with = "inspection")]
    pub inspection: BTreeMap<Inspector, Setting<Level>>,
    /// Registries by name, as image references have it: a host, with a port where one is written.
    #[schemars(default, schema_with = "registries")]
    pub registries: BTreeMap<String, Setting<RegistryConfig>>,
    /// Where Sigstore's certificates and logs are refreshed from, in place of its public repository.
    pub sigstore: Option<Setting<SigstoreConfig>>,
}

/// Where roots come from.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged, deny_unknown_fields)]
pub enum SigstoreConfig {
    /// A repository of trusted roots (TUF), and what it is verified from.
    Repository {
        /// `https://`, or `http://` on this machine.
        #[schemars(schema_with = "tuf")]
        tuf: String,
        /// A file: the `root.json` that the repository began with, or a later one.
        #[schemars(schema_with = "root")]
        root: PathBuf,
    },
    /// A file that is never refreshed: the `trusted_root.json` of an instance without such a repository.
    File {
        #[schemars(schema_with = "root")]
        trusted_root: PathBuf,
    },
}

/// How one registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Without TLS. Anybody on the way can then say what a tag names; what is asked for by digest stays what it is.
    #[schemars(default)]
    pub plain_http: bool,
}

/// What becomes of a rule about files that nothing here carries fully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing starts.
    Strict,
    /// Mounts carry what they can: what is there when a session starts.
    Mounts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Auto,
    Docker,
    Podman,
    /// `unix:///run/docker.sock`
    Unix(PathBuf),
    /// `ssh://user@host`, as written.
    Ssh(String),
    /// `tcp://host:port`, with TLS; as written.
    Tcp(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GatewayConfig {
    /// `system`, or an address with a port.
    #[schemars(default, schema_with = "text")]
    pub resolver: Option<Setting<Resolver>>,
    /// Answers that win over the resolver: one address or several.
    #[schemars(default, schema_with = "hosts")]
    pub hosts: BTreeMap<HostName, Setting<Vec<IpAddr>>>,
    /// Networks that are otherwise refused after resolution.
    #[schemars(default, schema_with = "networks")]
    pub private_networks: Vec<Setting<IpNet>>,
    /// `http://HOST:PORT`
    #[schemars(default, schema_with = "text")]
    pub upstream_proxy: Option<Setting<HttpProxy>>,
    /// Files of certificates that upstreams are verified with, besides the system's own.
    #[schemars(default, schema_with = "ca_bundles")]
    pub ca_bundles: Vec<Setting<PathBuf>>,
    /// How long a person has to answer what an `ask` holds, in seconds; 120 when absent. Then it is denied.
    #[schemars(default, schema_with = "approval_seconds")]
    pub approval_seconds: Option<Setting<u32>>,
}

/// Where an organisation's policy is fetched from, and who has to have signed it: identities or keys, one of which verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    /// `oci://REGISTRY/REPOSITORY:TAG`, or `@sha256:…`.
    pub source: OciSource,
    pub signers: Signers,
    /// Whose it is; without it the first that is believed settles that.
    pub organisation: Option<OrganisationName>,
}

/// At least one, of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signers {
    Identities(Vec<Identity>),
    /// Files of PEM, each with its place.
    Keys(Vec<Setting<PathBuf>>),
}

/// Where a credential's value comes from, who may see it, and in which field.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Grant {
    /// `env://VARIABLE`, `file:///PATH`, `exec:///PATH ARGUMENT…`, which no shell reads, `stdin`, `keyring://SERVICE/ACCOUNT`,
    /// `op://VAULT/ITEM/FIELD`, `vault://HOST/MOUNT/PATH#FIELD`, `github-device://HOST/CLIENT_ID`.
    pub source: Source,
    /// `name`, `*.name`, either with `:port`; without one 443. May be left out for a credential named after a known provider
    /// (anthropic, claude, openai, gemini, github), whose hosts, header and format are then meant.
    #[schemars(default, length(min = 1, max = MAX_HOSTS))]
    pub hosts: Vec<Domain>,
    /// Globs of the paths that may see it, at each of the hosts: `/repos/acme/**`. Without any, every path; but for `github`, which
    /// is then for the repository that the workspace's remote `origin` names, at GitHub's own hosts.
    #[schemars(default, length(min = 1, max = MAX_IN_RULE))]
    pub paths: Vec<PathGlob>,
    /// The methods of the requests that may see it: `["GET", "HEAD"]`. Without any, every method.
    #[schemars(default, length(min = 1, max = MAX_IN_RULE))]
    pub methods: Vec<Method>,
    /// `Authorization` when absent.
    #[schemars(default)]
    pub header: HeaderName,
    /// The field's value; `{}` is the credential's. `Bearer {}` when absent.
    #[schemars(default)]
    pub format: Format,
    /// The parameter of a URL's query that its placeholder may be the value of as well.
    #[schemars(default)]
    pub query: Option<ParameterName>,
    /// The variable that holds its placeholder inside, where the workspace names none.
    #[schemars(default)]
    pub env: Option<VariableName>,
}

/// Where the value of a secret comes from, which is then inside as a file.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SecretGrant {
    /// As of a credential.
    pub source: Source,
}

/// Reads one file's bytes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(bytes: &[u8], file: &str) -> Result<HostConfig, Vec<Diagnostic>> {
    read::host_config(&toml_tree::parse(bytes, file)?, file)
}

/// The files in order of strength: the user's, then the system's. An empty or relative `XDG_CONFIG_HOME` counts as
/// unset, as the XDG base directory specification has it.
pub fn paths(env: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let absolute = |name: &str| {
        env(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home =
        absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let user = home.map(|home| home.join("agentcontainer/config.toml"));
    user.into_iter()
        .chain([PathBuf::from(SYSTEM_FILE)])
        .collect()
}

/// Reads the files, strongest first; those that do not exist say nothing.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn load(paths: &[PathBuf]) -> Result<HostConfig, Vec<Diagnostic>> {
    let (mut config, mut found) = (HostConfig::default(), Vec::new());
    for path in paths {
        match load_one(path) {
            Ok(Some(below)) => config = config.above(below),
            Ok(None) => {}
            Err(errors) => found.extend(errors),
        }
    }
    if found.is_empty() {
        Ok(config)
    } else {
        Err(found)
    }
}

fn load_one(path: &Path) -> Result<Option<HostConfig>, Vec<Diagnostic>> {
    match discover::read_file(path, MAX_FILE_BYTES) {
        Ok(Some(bytes)) => parse(&bytes, &path.to_string_lossy()).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(vec![error.into()]),
    }
}

/// One list behind the other, each value once.
fn united<T: PartialEq>(mut above: Vec<Setting<T>>, below: Vec<Setting<T>>) -> Vec<Setting<T>> {
    for setting in below {
        if !above.iter().any(|own| own.value == setting.value) {
            above.push(setting);
        }
    }
    above
}

// === impl Files ===

impl Files {
    pub const WORDS: [(&'static str, Self); 2] =
        [("strict", Self::Strict), ("mounts", Self::Mounts)];

    fn stricter(
        above: Option<Setting<Self>>,
        below: Option<Setting<Self>>,
    ) -> Option<Setting<Self>> {
        match (above, below) {
            (_, Some(below)) if below.value == Self::Strict => Some(below),
            (above, below) => above.or(below),
        }
    }

    /// Above a file that names a policy: what that file says of it holds, said or not, and more may be asked for alone.
    fn no_looser(
        above: Option<Setting<Self>>,
        below: Option<Setting<Self>>,
    ) -> Option<Setting<Self>> {
        let strict = above.filter(|above| above.value == Self::Strict);
        Self::stricter(strict, below)
    }
}

// === impl HostConfig ===

impl HostConfig {
    /// This file's values where it has any, the one below's where not; lists and tables unite.
    pub fn above(self, below: Self) -> Self {
        let below_has_policy = !below.policy.is_empty();
        let mut hosts = below.gateway.hosts;
        hosts.extend(self.gateway.hosts);
        let mut credentials = below.credentials;
        credentials.extend(self.credentials);
        let mut secrets = below.secrets;
        secrets.extend(self.secrets);
        let mut inspection = below.inspection;
        inspection.extend(self.inspection);
        let mut registries = below.registries;
        registries.extend(self.registries);
        let private_networks = united(
            self.gateway.private_networks,
            below.gateway.private_networks,
        );
        let ca_bundles = united(self.gateway.ca_bundles, below.gateway.ca_bundles);
        Self {
            engine: self.engine.or(below.engine),
            // A user who said `mounts` where the system says nothing would have its policy's rules about files held by half.
            files: if below_has_policy {
                Files::no_looser(self.files, below.files)
            } else {
                Files::stricter(self.files, below.files)
            },
            policy: united(self.policy, below.policy),
            gateway: GatewayConfig {
                resolver: self.gateway.resolver.or(below.gateway.resolver),
                hosts,
                private_networks,
                upstream_proxy: self.gateway.upstream_proxy.or(below.gateway.upstream_proxy),
                ca_bundles,
                approval_seconds: self
                    .gateway
                    .approval_seconds
                    .or(below.gateway.approval_seconds),
            },
            credentials,
            remote: self.remote.or(below.remote),
            secrets,
            inspection,
            registries,
            // A user who named other roots could sign as anybody whom the system's policy believes.
            sigstore: if below_has_policy {
                below.sigstore
            } else {
                self.sigstore.or(below.sigstore)
            },
        }
    }

    pub fn engine(&self) -> &Engine {
        self.engine
            .as_ref()
            .map_or(&Engine::Auto, |engine| &engine.value)
    }
}

// === JSON Schema ===

impl<T: JsonSchema> JsonSchema for Setting<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

crate::config::units::inline_schema!(Engine, "Engine", {
    "type": "string",
    "pattern": "^(auto|docker|podman|unix:///.+|ssh://.+|tcp://.+)$"
});

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string" })
}

fn policy(generator: &mut SchemaGenerator) -> Schema {
    let text =
        || json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_IDENTITY_BYTES });
    json_schema!({
        "type": "object",
        "properties": {
            "organisation": generator.subschema_for::<OrganisationName>(),
            "source": { "type": "string", "pattern": "^oci://[^/@]+/[^@]+(:[^/@]+|@sha256:[0-9a-f]{64})$" },
            "identities": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SIGNERS,
                "items": {
                    "type": "object",
                    "properties": { "issuer": text(), "subject": text() },
                    "required": ["issuer", "subject"],
                    "additionalProperties": false
                }
            },
            "keys": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SIGNERS,
                "items": { "type": "string", "pattern": "^/." }
            }
        },
        "required": ["source"],
        "oneOf": [{ "required": ["identities"] }, { "required": ["keys"] }],
        "additionalProperties": false
    })
}

fn hosts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "additionalProperties": {
            "anyOf": [
                { "type": "string" },
                { "type": "array", "minItems": 1, "maxItems": MAX_ENTRIES, "items": { "type": "string" } }
            ]
        }
    })
}

fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": MAX_ENTRIES, "items": { "type": "string" } })
}

fn inspection(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = Level::WORDS.iter().map(|(word, _)| *word).collect();
    let level = |inspector: Inspector| {
        let level = serde_json::json!({ "type": "string", "enum": words });
        (inspector.as_toml().to_owned(), level)
    };
    let levels: serde_json::Map<_, _> = Inspector::ALL.into_iter().map(level).collect();
    json_schema!({ "type": "object", "additionalProperties": false, "properties": levels })
}

fn registries(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<RegistryConfig>();
    json_schema!({ "type": "object", "maxProperties": MAX_ENTRIES, "additionalProperties": one })
}

fn tuf(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^https?://.", "maxLength": MAX_IDENTITY_BYTES })
}

fn root(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^/." })
}

fn files(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = Files::WORDS.iter().map(|(word, _)| *word).collect();
    json_schema!({ "type": "string", "enum": words })
}

fn approval_seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_APPROVAL_SECONDS })
}

fn ca_bundles(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": MAX_ENTRIES, "items": { "type": "string", "pattern": "^/." } })
}

#[cfg(test)]
mod tests;
