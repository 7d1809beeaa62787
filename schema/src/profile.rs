//! Profiles of agents as data: what `run AGENT` adds to a workspace's config, or brings where there is none. A profile asks, as a
//! workspace does: the host decides, and a person reviews every line of it.

use std::collections::BTreeMap;

use crate::config::agent::Domain;
use crate::config::units::VariableName;
use crate::credential::{CredentialName, Source};
use crate::lockfile::AgentPin;

/// Where the volume with an agent's own state is inside; the user's own directory in it is [`STATE`].
pub const VOLUME: &str = "/var/lib/agentcontainer/agent";
/// The agent's own directory.
pub const STATE: &str = "/var/lib/agentcontainer/agent/state";
/// Where the volume with an installed agent is inside, read-only but for the session that installs it.
pub const PROGRAM_VOLUME: &str = "/var/lib/agentcontainer/program";
/// The directory that npm installs into.
pub const PROGRAM: &str = "/var/lib/agentcontainer/program/npm";

/// What every agent is told, in its own file of instructions.
pub const INSTRUCTIONS: &str = "\
This program runs in a container whose network is limited by agentcontainer. http://agentcontainer.internal/ says what may be reached,
what was refused and why, and how the person can allow more. A request that is refused is answered with status 403 and the header
x-agentcontainer-blocked, any other connection with \"Operation not permitted\"; trying again or another way round does not help. Keys in
the environment are placeholders: they work in requests to the service they belong to, and nowhere else.
";

/// What an agent is, where its parts lie, and what it needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As it is typed.
    pub name: &'static str,
    pub title: &'static str,
    /// The program as it is found in an image, with the arguments that come before the person's.
    pub command: &'static [&'static str],
    /// How it is installed where the image does not have it.
    pub package: Option<Package>,
    /// What it runs in where a workspace has no config.
    pub image: &'static str,
    /// `{state}` is [`STATE`]. Everything that can be set in the config wins over it.
    pub env: &'static [(&'static str, &'static str)],
    /// The first that the host grants, or has the variable of, is the one.
    pub credentials: &'static [Key],
    /// Beside its credential's.
    pub hosts: &'static [&'static str],
    /// The file of instructions, below [`STATE`].
    pub instructions: Option<&'static str>,
    /// Files that a new state begins with, below [`STATE`]: what keeps first questions from being asked. `{folder}` is the folder
    /// that the agent works in, `{key}` the end of what it has for its key in quotes, as it notes which keys it may use, and nothing without one.
    pub seeds: &'static [(&'static str, &'static str)],
}

/// A package of npm.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    /// Exact.
    pub version: &'static str,
    /// Run by node in the package's folder: what its install script does. Scripts of packages are off.
    pub finish: Option<&'static str>,
}

/// A credential that an agent can work with, by its provider's name.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// Where the agent looks for it, and where the person may have it.
    pub env: &'static str,
}

/// A profile as it is added to one config.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    pub profile: &'static Profile,
    /// What it has to reach.
    pub domains: Vec<Domain>,
    pub credential: Option<AddedCredential>,
    pub env: BTreeMap<VariableName, String>,
    /// What is installed, and where from; `None` where the image has it.
    pub install: Option<Install>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AddedCredential {
    pub name: CredentialName,
    pub env: VariableName,
    /// Where it comes from, if no grant of the host's says so: approving this is granting it.
    pub offered: Option<Offer>,
}

/// A grant that a review offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub source: Source,
    pub hosts: Vec<Domain>,
}

/// What npm installs, in a session of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub package: String,
    pub version: String,
    /// As npm names it: `https://…/`.
    pub registry: String,
    pub host: Domain,
    /// Where it was installed before: each package and the digest of its bytes.
    pub pin: Option<AgentPin>,
    /// An earlier session did.
    pub done: bool,
}

const QUIET: (&str, &str) = ("DO_NOT_TRACK", "1");

/// At its prompt at once: the container is what the person trusts the folder's files to, and the key is the one they granted.
const CLAUDE: &str = r#"{
"hasCompletedOnboarding": true,
"projects": {"{folder}": {"hasTrustDialogAccepted": true}},
"customApiKeyResponses": {"approved": [{key}]}
}
"#;

/// How many characters of a key Claude Code notes.
const END_OF_KEY: usize = 20;

/// By a key alone, without a login; the container is the sandbox, and Codex's own cannot be made in it.
const CODEX: &str = r#"check_for_update_on_startup = false
model_provider = "openai-key"
sandbox_mode = "danger-full-access"

[analytics]
enabled = false

[feedback]
enabled = false

[features]
plugins = false

[model_providers.openai-key]
name = "OpenAI"
base_url = "https://api.openai.com/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"#;

const GEMINI: &str = r#"{
  "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
  "privacy": { "usageStatisticsEnabled": false },
  "telemetry": { "enabled": false },
  "security": { "auth": { "selectedType": "gemini-api-key" }, "folderTrust": { "enabled": false } }
}
"#;

pub const PROFILES: &[Profile] = &[
    Profile {
        name: "claude",
        title: "Claude Code",
        command: &["claude"],
        package: Some(Package {
            name: "@anthropic-ai/claude-code",
            version: "2.1.330",
            finish: Some("install.cjs"),
        }),
        image: "node:22",
        env: &[
            ("CLAUDE_CONFIG_DIR", "{state}"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            QUIET,
        ],
        credentials: &[
            Key {
                name: "anthropic",
                env: "ANTHROPIC_API_KEY",
            },
            Key {
                name: "claude",
                env: "CLAUDE_CODE_OAUTH_TOKEN",
            },
        ],
        hosts: &[],
        instructions: Some("CLAUDE.md"),
        seeds: &[(".claude.json", CLAUDE)],
    },
    Profile {
        name: "codex",
        title: "Codex",
        command: &["codex"],
        package: Some(Package {
            name: "@openai/codex",
            version: "0.169.0",
            finish: None,
        }),
        image: "node:22",
        env: &[("CODEX_HOME", "{state}"), QUIET],
        credentials: &[Key {
            name: "openai",
            env: "OPENAI_API_KEY",
        }],
        hosts: &[],
        instructions: Some("AGENTS.md"),
        seeds: &[("config.toml", CODEX)],
    },
    Profile {
        name: "gemini",
        title: "Gemini CLI",
        command: &["gemini"],
        package: Some(Package {
            name: "@google/gemini-cli",
            version: "0.61.0",
            finish: None,
        }),
        image: "node:22",
        env: &[
            ("GEMINI_CLI_HOME", "{state}"),
            ("GEMINI_CLI_NO_RELAUNCH", "true"),
            ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            QUIET,
        ],
        credentials: &[Key {
            name: "gemini",
            env: "GEMINI_API_KEY",
        }],
        hosts: &[],
        instructions: Some(".gemini/GEMINI.md"),
        seeds: &[(".gemini/settings.json", GEMINI)],
    },
    Profile {
        name: "opencode",
        title: "OpenCode",
        command: &["opencode"],
        package: Some(Package {
            name: "opencode-ai",
            version: "1.18.33",
            finish: Some("postinstall.mjs"),
        }),
        image: "node:22",
        env: &[
            ("XDG_CONFIG_HOME", "{state}/config"),
            ("XDG_DATA_HOME", "{state}/data"),
            ("XDG_CACHE_HOME", "{state}/cache"),
            ("XDG_STATE_HOME", "{state}/state"),
            ("OPENCODE_DISABLE_AUTOUPDATE", "true"),
            ("OPENCODE_DISABLE_MODELS_FETCH", "true"),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "true"),
            ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "true"),
            ("OPENCODE_DISABLE_SHARE", "true"),
            // It would write into the project's .opencode, which is read-only inside.
            ("OPENCODE_DISABLE_PROJECT_CONFIG", "true"),
            QUIET,
        ],
        credentials: &[
            Key {
                name: "anthropic",
                env: "ANTHROPIC_API_KEY",
            },
            Key {
                name: "openai",
                env: "OPENAI_API_KEY",
            },
            Key {
                name: "gemini",
                env: "GOOGLE_GENERATIVE_AI_API_KEY",
            },
        ],
        hosts: &[],
        instructions: Some("config/opencode/AGENTS.md"),
        seeds: &[],
    },
    Profile {
        name: "shell",
        title: "a shell",
        command: &["/bin/sh"],
        package: None,
        image: "node:22",
        env: &[],
        credentials: &[],
        hosts: &[],
        instructions: None,
        seeds: &[],
    },
];

/// The profile of that name.
///
/// # Errors
/// Words that name the known ones, and the nearest.
pub fn named(name: &str) -> Result<&'static Profile, String> {
    if let Some(profile) = PROFILES.iter().find(|profile| profile.name == name) {
        return Ok(profile);
    }
    let known: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
    let list = known.join(", ");
    Err(match crate::read::nearest(name, &known) {
        Some(near) => format!("there is no agent {name:?}; did you mean {near}? Known are {list}"),
        None => format!("there is no agent {name:?}; known are {list}"),
    })
}

// === impl Profile ===

impl Profile {
    /// Its variables, with what stands for its directory put in.
    pub fn variables(&self) -> BTreeMap<VariableName, String> {
        let set = |(name, value): &(&str, &str)| {
            Some((name.parse().ok()?, value.replace("{state}", STATE)))
        };
        self.env.iter().filter_map(set).collect()
    }

    /// What a new state begins with, for an agent that works in `folder` and finds `inside` in its variables.
    pub fn beginnings(
        &self,
        folder: &str,
        inside: &BTreeMap<String, String>,
    ) -> Vec<(&'static str, String)> {
        let keys = self.credentials.iter();
        let key = keys.filter_map(|key| inside.get(key.env)).next();
        let key = key.map_or("", String::as_str);
        let end = key.char_indices().rev().take(END_OF_KEY).last();
        let end = end.map_or("", |(at, _)| &key[at..]);
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let end = if end.is_empty() {
            String::new()
        } else {
            quoted(end)
        };
        let written = |text: &str| {
            let quoted = quoted(text);
            quoted[1..quoted.len() - 1].to_owned()
        };
        let filled = |(file, content): &(&'static str, &str)| {
            let content = content.replace("{key}", &end);
            (*file, content.replace("{folder}", &written(folder)))
        };
        self.seeds.iter().map(filled).collect()
    }
}

// === impl Added ===

impl Added {
    /// How origins and approvals name it.
    pub fn origin(&self) -> String {
        format!("profile {}", self.profile.name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::ImageRef;
    use crate::provider;

    #[test]
    fn a_state_begins_with_its_folder_and_the_end_of_its_key() {
        let claude = named("claude").unwrap();
        let variable =
            |key: &str| BTreeMap::from([("ANTHROPIC_API_KEY".to_owned(), key.to_owned())]);
        let begun = |folder: &str, key: &str| {
            let files = claude.beginnings(folder, &variable(key));
            let [(".claude.json", content)] = files.as_slice() else {
                panic!("{files:?}");
            };
            serde_json::from_str::<serde_json::Value>(content).unwrap()
        };
        let folder = "/workspaces/a \"b\" {key}";
        let value = begun(folder, "sk-ant-api03-0123456789abcdefghijKLMNOP");
        assert_eq!(value["projects"][folder]["hasTrustDialogAccepted"], true);
        let approved = &value["customApiKeyResponses"]["approved"];
        assert_eq!(*approved, serde_json::json!(["6789abcdefghijKLMNOP"]));
        assert_eq!(
            begun("/w", "short")["customApiKeyResponses"]["approved"][0],
            "short"
        );
        let none = claude.beginnings("/w", &BTreeMap::new());
        assert!(none[0].1.contains(r#""approved": []"#), "{none:?}");
    }

    #[test]
    fn every_profile_is_whole() {
        for profile in PROFILES {
            assert_eq!(named(profile.name), Ok(profile));
            assert_eq!(
                profile.variables().len(),
                profile.env.len(),
                "{}",
                profile.name
            );
            assert!(ImageRef::parse(profile.image).is_ok());
            for host in profile.hosts {
                assert!(host.parse::<Domain>().is_ok(), "{host}");
            }
            for key in profile.credentials {
                assert!(provider::named(key.name).is_some(), "{}", key.name);
                assert!(key.env.parse::<VariableName>().is_ok());
            }
            let below = |path: &&str| !path.starts_with('/') && !path.contains("..");
            assert!(profile.instructions.iter().all(below));
            assert!(profile.seeds.iter().all(|(path, _)| below(path)));
            if let Some(package) = &profile.package {
                let exact = package
                    .version
                    .split('.')
                    .all(|part| part.parse::<u32>().is_ok());
                assert!(exact, "{}", package.version);
            }
        }
    }

    #[test]
    fn an_unknown_agent_is_told_the_nearest_and_all() {
        let error = named("cluade").unwrap_err();
        assert!(error.contains("did you mean claude?"), "{error}");
        assert!(named("x\u{1b}").unwrap_err().contains("shell"));
    }
}
