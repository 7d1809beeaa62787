//! Services whose keys are known: where such a key goes and in which field, as data. A grant in config.toml or a profile says only
//! what is different. Everything else is a credential of a service nobody here knows, and says all of it.

use crate::config::agent::Domain;
use crate::credential::{Format, HeaderName, ParameterName};

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
        beginnings: &["sk-ant-api03-"],
    },
    // A subscription's token, from `claude setup-token`.
    Provider {
        name: "claude",
        hosts: &["api.anthropic.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
        beginnings: &["sk-ant-oat01-"],
    },
    Provider {
        name: "openai",
        hosts: &["api.openai.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
        beginnings: &["sk-proj-", "sk-svcacct-", "sk-"],
    },
    Provider {
        name: "gemini",
        hosts: &["generativelanguage.googleapis.com"],
        header: "x-goog-api-key",
        format: "{}",
        query: Some("key"),
        beginnings: &["AIza"],
    },
    Provider {
        name: "github",
        hosts: &["api.github.com", "github.com"],
        header: "authorization",
        format: "Bearer {}",
        query: None,
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
