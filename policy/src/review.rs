//! Capability review: what a config asks for, as canonical lines that a person reads and approves. The approval is
//! stored by content hash outside of the workspace; the path that the config was found at is part of it. Asking again
//! is for more than was approved: the difference says which changes are that.

use std::collections::BTreeSet;
use std::fmt;

use schema::config::Config;
use schema::config::agent::{Action, Domain, Escalation, Unlisted};
use schema::config::lifecycle::Lifecycle;
use schema::config::secret::DIRECTORY;
use schema::config::template::Template;
use schema::diag::{Spanned, escape};
use schema::digest::Digest;
use schema::inspection::{Inspector, Level};
use schema::net::Protocol;
use schema::profile::{Added, INSTRUCTIONS, PROGRAM, VOLUME};
use serde::{Deserialize, Serialize};

use crate::inspection::default_level;
use crate::text;

/// What a line does when it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Adding it asks for more, removing it for less.
    Opens,
    /// Removing it asks for more.
    Closes,
    /// Either is a change to look at.
    Alters,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub effect: Effect,
    pub text: String,
}

/// Everything a config asks for. Lines are sorted and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    pub path: String,
    /// The agent whose profile is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub lines: BTreeSet<Line>,
}

/// From what was approved to what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The config was found somewhere else: from, to.
    pub path: Option<(String, String)>,
    /// Lines that came or went, `+ text` and `- text`, and ask for more.
    pub more: Vec<String>,
    /// Lines that came or went and ask for no more.
    pub less: Vec<String>,
}

// === impl Review ===

impl Review {
    pub fn of(config: &Config) -> Self {
        let mut lines = Lines::default();
        lines.container(config);
        lines.environment(config);
        lines.commands(config);
        lines.egress(config);
        lines.files(config);
        lines.programs(config);
        lines.credentials(config);
        lines.secrets(config);
        lines.inspection(config);
        lines.supply(config);
        if let Some(added) = &config.profile {
            lines.profile(added);
        }
        Self {
            path: config.file.clone(),
            agent: config
                .profile
                .as_ref()
                .map(|added| added.profile.name.to_owned()),
            lines: lines.0,
        }
    }

    /// With what is asked for by something else than the config: lines that ask for more where they are new.
    pub fn with(mut self, asked: impl IntoIterator<Item = String>) -> Self {
        let mut lines = Lines(self.lines);
        for text in asked {
            lines.add(Effect::Opens, text);
        }
        self.lines = lines.0;
        self
    }

    /// What the config's profile adds, and the image where the profile brings that; what is installed is known with the image alone.
    pub fn of_profile(config: &Config) -> Vec<String> {
        let Some(added) = &config.profile else {
            return Vec::new();
        };
        let mut lines = Lines::default();
        lines.profile(added);
        let mut shown: Vec<String> = lines.0.into_iter().map(|line| line.text).collect();
        let from = added.origin();
        if config.file == from {
            shown.insert(
                0,
                escape(&format!("image {} ({from})", config.image.as_str())),
            );
        }
        if let (None, Some(package)) = (&added.install, &added.profile.package) {
            shown.push(escape(&format!(
                "where the image has no {}: install {} {} with its npm, from the registry that the project's .npmrc or the image names ({from})",
                added.profile.command.first().unwrap_or(&""),
                package.name,
                package.version
            )));
        }
        shown
    }

    /// Of path and lines: what an approval is stored by.
    pub fn hash(&self) -> Digest {
        // Length-prefixed by JSON's own quoting; strings and words only, so this has no way to fail.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// What is asked beyond, and short of, what was approved.
    pub fn since(&self, approved: &Self) -> Difference {
        let mut difference = Difference::default();
        if self.path != approved.path {
            difference.path = Some((approved.path.clone(), self.path.clone()));
        }
        for line in self.lines.difference(&approved.lines) {
            difference
                .list(line.effect != Effect::Closes)
                .push(format!("+ {}", line.text));
        }
        for line in approved.lines.difference(&self.lines) {
            difference
                .list(line.effect != Effect::Opens)
                .push(format!("- {}", line.text));
        }
        difference
    }
}

/// The lines as a person reads them.
impl fmt::Display for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escape(&self.path))?;
        self.lines
            .iter()
            .try_for_each(|line| write!(f, "\n  {}", line.text))
    }
}

// === impl Difference ===

impl Difference {
    /// Whether a person has to be asked.
    pub fn asks_for_more(&self) -> bool {
        self.path.is_some() || !self.more.is_empty()
    }

    fn list(&mut self, more: bool) -> &mut Vec<String> {
        if more { &mut self.more } else { &mut self.less }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((from, to)) = &self.path {
            writeln!(f, "found at {} instead of {}", escape(to), escape(from))?;
        }
        self.more
            .iter()
            .chain(&self.less)
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[derive(Debug, Default)]
struct Lines(BTreeSet<Line>);

// === impl Lines ===

impl Lines {
    fn add(&mut self, effect: Effect, text: impl AsRef<str>) {
        self.0.insert(Line {
            effect,
            text: escape(text.as_ref()),
        });
    }

    /// What is always there says what it is by default as well, so that dropping a limit is a line that came.
    fn container(&mut self, config: &Config) {
        self.add(Effect::Alters, format!("image {}", config.image.as_str()));
        self.add(
            Effect::Alters,
            match config.user() {
                Some(user) => format!("user {}", user.as_str()),
                None => "user as the image says".to_owned(),
            },
        );
        if config.override_command == Some(false) {
            self.add(Effect::Alters, "run the image's own command");
        }
        if !config.maps_owner() {
            self.add(
                Effect::Alters,
                "the workspace's files keep their owners inside",
            );
        }
        if let Some(folder) = &config.workspace_folder {
            self.add(
                Effect::Alters,
                format!("workspace folder {}", folder.as_str()),
            );
        }
        if let Some(mount) = &config.workspace_mount {
            self.add(Effect::Alters, format!("workspace mount {}", mount.value));
        }
        for mount in &config.mounts {
            self.add(Effect::Alters, format!("mount {}", mount.value));
        }
        let resources = config.agent.resources();
        let limit = |name: &str, value: Option<String>| match value {
            Some(value) => format!("limit {name} {value}"),
            None => format!("limit {name} none of its own"),
        };
        self.add(
            Effect::Alters,
            limit(
                "memory",
                resources
                    .memory
                    .as_ref()
                    .map(|memory| format!("{} bytes", memory.value)),
            ),
        );
        self.add(
            Effect::Alters,
            limit("cpus", resources.cpus.as_ref().map(|cpus| cpus.to_string())),
        );
        self.add(
            Effect::Alters,
            limit("pids", resources.pids.as_ref().map(|pids| pids.to_string())),
        );
    }

    fn environment(&mut self, config: &Config) {
        for (name, value) in &config.container_env {
            self.add(Effect::Opens, format!("set containerEnv {name}"));
            self.host_variables(&format!("containerEnv {name}"), value);
        }
        for (name, value) in &config.remote_env {
            match &value.value {
                None => self.add(Effect::Opens, format!("unset remoteEnv {name}")),
                Some(value) => {
                    self.add(Effect::Opens, format!("set remoteEnv {name}"));
                    self.host_variables(&format!("remoteEnv {name}"), value);
                }
            }
        }
    }

    fn host_variables(&mut self, place: &str, value: &Template) {
        for variable in value.local_env() {
            self.add(
                Effect::Opens,
                format!("read {variable} from this host's environment into {place}"),
            );
        }
    }

    fn commands(&mut self, config: &Config) {
        for (key, stage) in config.lifecycle() {
            for (name, command) in stage.commands() {
                let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
                self.add(
                    Effect::Alters,
                    format!("run {key}{name}: {}", command.shown()),
                );
            }
            for variable in Lifecycle::local_env(stage) {
                self.add(
                    Effect::Opens,
                    format!("read {variable} from this host's environment into {key}"),
                );
            }
        }
    }

    /// What is taken from a program is less; a hole in what is read-only is more.
    fn files(&mut self, config: &Config) {
        let filesystem = config.agent.filesystem();
        for path in &filesystem.read_only_paths {
            self.add(Effect::Closes, format!("read-only {}", path.value));
        }
        for path in &filesystem.denied_paths {
            self.add(Effect::Closes, format!("deny {}", path.value));
        }
        for path in &filesystem.writable_paths {
            self.add(
                Effect::Opens,
                format!("writable within what is read-only: {}", path.value),
            );
        }
    }

    /// Which programs alone may be started takes every other away, and each entry gives one back.
    fn programs(&mut self, config: &Config) {
        let programs = config.agent.programs();
        if let Some(allowed) = &programs.allowed_binaries {
            self.add(Effect::Closes, "start no program that is not listed");
            for name in allowed.iter() {
                self.add(Effect::Opens, format!("start {}", name.value));
            }
        }
        for name in &programs.denied_binaries {
            self.add(Effect::Closes, format!("never start {}", name.value));
        }
        if programs.require_approval.as_ref().is_some_and(|a| a.value) {
            self.add(
                Effect::Opens,
                "start, once a person allows it, a program that is not listed",
            );
        }
    }

    /// Without hosts of its own it goes wherever the host grants it to, which is more than any list of them.
    fn credentials(&mut self, config: &Config) {
        for (name, credential) in &config.agent.credentials {
            let how = match &credential.env {
                Some(env) => format!("as {}", env.value),
                None => "in every request".to_owned(),
            };
            let mut add = |place: String| {
                self.add(
                    Effect::Opens,
                    format!("credential {name} for {place}, {how}"),
                );
            };
            for host in &credential.hosts {
                add(format!("{}:{}", host.host, host.https_port()));
            }
            if credential.hosts.is_empty() {
                add("every host that it is granted for".to_owned());
            }
        }
    }

    /// What limits one is part of its line: whatever becomes of that is looked at.
    fn secrets(&mut self, config: &Config) {
        for (name, secret) in &config.agent.secrets {
            let from = match &secret.source {
                Some(source) => format!(" from {}", source.value),
                None => String::new(),
            };
            let ttl = secret.ttl.as_ref().map(|ttl| ttl.seconds());
            self.add(
                Effect::Opens,
                format!(
                    "secret {name}{from}, which the agent can read at {DIRECTORY}/{name}{}",
                    text::secret_limits(&secret.programs, ttl)
                ),
            );
        }
    }

    /// Each step below the default opens, each above it closes: a step either way is one line.
    fn inspection(&mut self, config: &Config) {
        for inspector in Inspector::ALL {
            let Some(level) = config.agent.inspection.of(inspector) else {
                continue;
            };
            let (name, usual) = (inspector.as_str(), default_level(inspector));
            let steps = [
                (
                    Level::Flag,
                    format!("no inspector {name}"),
                    format!("inspector {name} at least records"),
                ),
                (
                    Level::Block,
                    format!("carry what inspector {name} finds, which is otherwise refused"),
                    format!("inspector {name} refuses"),
                ),
            ];
            for (step, without, with) in steps {
                match (level.value >= step, usual >= step) {
                    (true, false) => self.add(Effect::Closes, with),
                    (false, true) => self.add(Effect::Opens, without),
                    _ => {}
                }
            }
        }
    }

    /// What a workspace puts above itself, and requires: taking any of it away asks for more, and another source is another word.
    fn supply(&mut self, config: &Config) {
        for (id, options) in &config.features {
            self.add(
                Effect::Alters,
                format!("install the feature {id}{}", options.value.shown()),
            );
        }
        for id in &config.override_feature_install_order {
            self.add(
                Effect::Alters,
                format!("install the feature {} before others", id.value),
            );
        }
        for (kind, name, tool) in config.agent.tools.all() {
            self.add(
                Effect::Alters,
                format!("use the {} {name} from {}", kind.words(), tool.source),
            );
        }
        let (policy, require) = (&config.agent.policy, &config.agent.provenance.require);
        if let Some(source) = &policy.source {
            self.add(
                Effect::Alters,
                format!("fetch the policy {} and be held to it", source.value),
            );
        }
        let asked = policy.escalation.as_ref().map(|mode| mode.value);
        if asked == Some(Escalation::Deny) {
            self.add(
                Effect::Closes,
                "nobody is asked: what only a person can allow is denied",
            );
        }
        let is_set = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|f| f.value);
        if is_set(&require.signatures) {
            self.add(Effect::Closes, "require signatures");
        }
        if is_set(&require.sbom) {
            self.add(Effect::Closes, "require an SBOM");
        }
        for level in 1..=require.slsa_level.as_ref().map_or(0, |level| level.value) {
            self.add(
                Effect::Closes,
                format!("require at least SLSA level {level}"),
            );
        }
    }

    /// Everything that `run AGENT` adds, each line with where it is from.
    fn profile(&mut self, added: &Added) {
        let from = added.origin();
        for domain in &added.domains {
            let port = domain.https_port();
            self.add(
                Effect::Opens,
                format!("reach {}:{port} (https; {from})", domain.host),
            );
        }
        if let Some(credential) = &added.credential {
            let (name, env) = (&credential.name, &credential.env);
            self.add(
                Effect::Opens,
                format!(
                    "credential {name} for every host that it is granted for, as {env} ({from})"
                ),
            );
            if let Some(offer) = &credential.offered {
                for host in &offer.hosts {
                    self.add(
                        Effect::Opens,
                        format!(
                            "grant the credential {name}, from {}, to {}:{} ({from})",
                            offer.source,
                            host.host,
                            host.https_port()
                        ),
                    );
                }
            }
        }
        for (name, value) in &added.env {
            self.add(Effect::Opens, format!("set {name}={value} ({from})"));
        }
        self.add(
            Effect::Opens,
            format!("keep a volume of this workspace's own at {VOLUME} ({from})"),
        );
        for (file, content) in added.profile.seeds {
            let content = content.split_whitespace().collect::<Vec<_>>().join(" ");
            self.add(
                Effect::Opens,
                format!("begin its state with {file}: {content} ({from})"),
            );
        }
        if let Some(file) = added.profile.instructions {
            let digest = Digest::of(INSTRUCTIONS.as_bytes());
            self.add(
                Effect::Opens,
                format!("tell it in {file} of its state what limits it ({digest}; {from})"),
            );
        }
        if let Some(install) = &added.install {
            let pinned = install.pin.as_ref().map(|pin| {
                let packages = pin.packages.len();
                format!(", of {packages} packages as pinned ({})", pin.digest())
            });
            self.add(
                Effect::Opens,
                format!(
                    "run {} {} installed from {}{} ({from})",
                    install.package,
                    install.version,
                    install.registry,
                    pinned.unwrap_or_default()
                ),
            );
            self.add(
                Effect::Opens,
                format!("add {PROGRAM}/node_modules/.bin to PATH, last ({from})"),
            );
        }
        if let Some(install) = added.install.as_ref().filter(|install| !install.done) {
            self.add(
                Effect::Opens,
                format!(
                    "install {} {} from {} with the image's npm, in a session of its own that reaches {}:{} alone ({from})",
                    install.package,
                    install.version,
                    install.registry,
                    install.host.host,
                    install.host.https_port()
                ),
            );
        }
    }

    fn egress(&mut self, config: &Config) {
        let egress = config.agent.egress();
        for domain in &egress.allowed_domains {
            for port in domain.port.map_or(vec![443, 80], |port| vec![port]) {
                self.add(
                    Effect::Opens,
                    format!(
                        "reach {}:{port} ({})",
                        domain.host,
                        Protocol::default_for_port(port)
                    ),
                );
            }
        }
        for Domain { host, port } in egress.denied_domains.iter().map(|domain| &domain.value) {
            let port = port.map_or("at any port".to_owned(), |port| format!("at port {port}"));
            self.add(Effect::Closes, format!("never reach {host} {port}"));
        }
        for rule in &egress.rules {
            for &port in &rule.ports {
                let protocol = rule.protocol.unwrap_or(Protocol::default_for_port(port));
                match rule.action {
                    // A rule takes its host and port away from allowedDomains: taking it back may open as well as close.
                    Action::Allow => self.add(
                        Effect::Alters,
                        format!(
                            "reach by rule {}:{port} ({protocol}){}",
                            rule.host,
                            text::requests(&rule.requests())
                        ),
                    ),
                    Action::Ask => self.add(
                        Effect::Alters,
                        format!(
                            "reach by rule, once a person allows it, {}:{port} ({protocol}){}",
                            rule.host,
                            text::requests(&rule.requests())
                        ),
                    ),
                    Action::Deny => self.add(
                        Effect::Closes,
                        format!(
                            "never reach {} at port {port} (rule){}",
                            rule.host,
                            text::requests(&rule.requests())
                        ),
                    ),
                }
            }
        }
        if let Some(unlisted) = &egress.unlisted
            && unlisted.value == Unlisted::Ask
        {
            self.add(
                Effect::Opens,
                "reach, once a person allows it, what is not listed (ports 443 and 80)",
            );
        }
        for network in &egress.networks {
            self.add(
                Effect::Opens,
                format!("reach address {} (tcp)", network.value),
            );
        }
    }
}

#[cfg(test)]
mod tests;
