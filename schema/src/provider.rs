//! Services whose keys are known: where such a key goes and in which field, as data. A grant in config.toml or a profile says only
//! what is different. Everything else is a credential of a service nobody here knows, and says all of it.

use crate::config::agent::Domain;
use crate::credential::{Format, HeaderName, ParameterName};
use crate::host::{HostName, HostPattern};
use crate::remote::Remote;
use crate::request::PathGlob;

/// One service.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// What its credential is called in either file.
    pub name: &'static str,
    pub hosts: &'static [&'static str],
    pub header: &'static str,
    /// The whole field; `{}` is the key.
    pub format: &'static str,
    /// The query parameter that the key may be the value of as well.
    pub query: Option<&'static str>,
    /// By host, the paths of one repository, with `{}` for OWNER/NAME: what a grant that says no paths is held to.
    pub own: &'static [(&'static str, &'static [&'static str])],
    /// How its keys begin, where they have a shape: placeholders begin so as well.
    pub beginnings: &'static [&'static str],
}

pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "anthropic",
        hosts: &["api.anthropic.com"],
        header: "x-api-key",
        format: "{}",
        query: None,
        own: &[],
        beginnings: &["sk-ant-api03-"],
    },
    // A subscription's token, from `claude setup-token`.
    Provider {
        name: "claude",
        hosts: &["api.anthropic.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
        own: &[],
        beginnings: &["sk-ant-oat01-"],
    },
    Provider {
        name: "openai",
        hosts: &["api.openai.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
        own: &[],
        beginnings: &["sk-proj-", "sk-svcacct-", "sk-"],
    },
    Provider {
        name: "gemini",
        hosts: &["generativelanguage.googleapis.com"],
        header: "x-goog-api-key",
        format: "{}",
        query: Some("key"),
        own: &[],
        beginnings: &["AIza"],
    },
    Provider {
        name: "github",
        hosts: &["api.github.com", "github.com", "uploads.github.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
        own: &[
            ("api.github.com", &["/repos/{}/**"]),
            ("github.com", &["/{}/**", "/{}.git/**"]),
            ("uploads.github.com", &["/repos/{}/**"]),
        ],
        beginnings: &["github_pat_", "ghp_", "gho_", "ghu_", "ghs_"],
    },
];

/// The service whose credential has this name.
pub fn named(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

// === impl Provider ===

impl Provider {
    pub fn domains(&self) -> Vec<Domain> {
        let parsed = self.hosts.iter().map(|host| host.parse());
        parsed.filter_map(Result::ok).collect()
    }

    /// Whether its credential is for one repository at this host or at one of these, unless the person says otherwise.
    pub fn is_scoped(&self, host: &HostPattern) -> bool {
        let known = |name: &str| HostName::parse(name).is_ok_and(|name| host.matches(&name));
        self.own.iter().any(|(name, _)| known(name))
    }

    /// The paths of a repository at this host; none where it is another host's, or the host is no single one.
    pub fn paths_of(&self, host: &HostPattern, remote: &Remote) -> Vec<PathGlob> {
        let HostPattern::Exact(host) = host else {
            return Vec::new();
        };
        // The code host is the one that the remote is on.
        let is_here = self.own.iter().any(|(name, _)| *name == remote.host());
        let own = self
            .own
            .iter()
            .filter(|(name, _)| is_here && *name == host.as_str());
        own.flat_map(|(_, paths)| *paths)
            .filter_map(|path| path.replace("{}", &remote.to_string()).parse().ok())
            .collect()
    }

    pub fn field(&self) -> HeaderName {
        self.header.parse().unwrap_or_default()
    }

    pub fn parameter(&self) -> Option<ParameterName> {
        self.query.and_then(|name| name.parse().ok())
    }

    pub fn form(&self) -> Format {
        self.format.parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::CredentialName;

    #[test]
    fn a_repositorys_paths_are_its_own_at_each_host_and_none_at_another() {
        let Some(github) = named("github") else {
            panic!("it is known");
        };
        let pattern = |text: &str| text.parse::<Domain>().map(|domain| domain.host);
        let paths = |host: &str, address: &str| {
            let remote = Remote::parse(address).zip(pattern(host).ok());
            let paths = remote.map(|(remote, host)| github.paths_of(&host, &remote));
            let paths = paths.unwrap_or_default();
            paths
                .iter()
                .map(|path| path.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        let ours = "git@github.com:acme/widget.git";
        assert_eq!(paths("api.github.com", ours), ["/repos/acme/widget/**"]);
        let both = ["/acme/widget/**", "/acme/widget.git/**"];
        assert_eq!(paths("github.com", ours), both);
        for (host, address) in [
            ("gist.github.com", ours),
            ("*.github.com", ours),
            ("api.github.com", "https://git.test/acme/widget"),
        ] {
            assert!(paths(host, address).is_empty(), "{host} {address}");
        }
        for (host, scoped) in [
            ("api.github.com", true),
            ("*.github.com", true),
            ("git.test", false),
        ] {
            assert_eq!(
                pattern(host).is_ok_and(|host| github.is_scoped(&host)),
                scoped,
                "{host}"
            );
        }
    }

    #[test]
    fn every_provider_is_a_whole_grant_but_for_its_source() {
        for provider in PROVIDERS {
            assert!(provider.name.parse::<CredentialName>().is_ok());
            assert!(provider.header.parse::<HeaderName>().is_ok());
            assert!(provider.format.parse::<Format>().is_ok());
            assert_eq!(provider.parameter().is_some(), provider.query.is_some());
            assert!(!provider.hosts.is_empty() && !provider.beginnings.is_empty());
            for host in provider.hosts {
                assert!(host.parse::<Domain>().is_ok(), "{host}");
            }
            assert_eq!(named(provider.name), Some(provider));
        }
        assert_eq!(named("unknown"), None);
    }
}
