//! `policy explain HOST[:PORT]`, and the words of a denial: which rule, from which file and line, what the wire must
//! say, or what to add. One value for people (`Display`) and machines (`Serialize`).

pub mod path;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use schema::host::{HostError, HostName};
use schema::net::{Protocol, Transport};
use serde::Serialize;
use thiserror::Error;

use crate::address_class::{Class, classify};
use crate::compiled::Compiled;
use crate::credential::Credential;
use crate::decision::{Decision, DenyReason};
use crate::text;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub place: Destination,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Name(HostName),
    Address(Ipv4Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    #[error("expected HOST or HOST:PORT, with a port from 1 to 65535")]
    Port,
    #[error("IPv6 addresses are never reached by address")]
    Ipv6,
    #[error(transparent)]
    Host(#[from] HostError),
}

/// One answer for each port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub target: String,
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub port: u16,
    pub transport: Transport,
    /// `allow`, `ask` or `deny`.
    pub verdict: &'static str,
    /// Stable code of a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `file:line:column` of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Credentials that the gateway puts on the wire there, in the words of their entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
    /// What the wire must say, or what to do.
    pub words: String,
}

/// Explains what `policy` says; `file` is where a missing rule would go.
pub fn explain(policy: &Compiled, target: &Target, file: &str) -> Explanation {
    let ports = match (target.port, &target.place) {
        (Some(port), _) => vec![(port, Transport::Tcp)],
        (None, Destination::Name(name)) => policy.ports(name),
        (None, Destination::Address(address)) => {
            let holds = policy
                .networks()
                .iter()
                .filter(|rule| rule.cidr.contains(*address));
            let mut ports: Vec<_> = holds
                .map(|rule| (rule.port, rule.protocol.transport()))
                .collect();
            ports.dedup();
            ports
        }
    };
    let ports = if ports.is_empty() {
        vec![(443, Transport::Tcp)]
    } else {
        ports
    };
    let answer = |(port, transport)| {
        let decision = match &target.place {
            Destination::Name(name) => policy.decide(name, port, transport),
            Destination::Address(address) => policy.decide_address(*address, port, transport),
        };
        Answer::new(&target.place, port, transport, &decision, file)
    };
    Explanation {
        target: target.place.to_string(),
        answers: ports.into_iter().map(answer).collect(),
    }
}

// === impl Target ===

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text
            .trim_start_matches('[')
            .split([']', '%'])
            .next()
            .is_some_and(|t| t.parse::<std::net::Ipv6Addr>().is_ok())
        {
            return Err(TargetError::Ipv6);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let plain = port.bytes().all(|b| b.is_ascii_digit());
                let port = port
                    .parse()
                    .ok()
                    .filter(|port: &u16| plain && *port != 0)
                    .ok_or(TargetError::Port)?;
                (host, Some(port))
            }
            None => (text, None),
        };
        let place = match host.parse::<Ipv4Addr>() {
            Ok(address) => Destination::Address(address),
            Err(_) => Destination::Name(HostName::parse(host)?),
        };
        Ok(Self { place, port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn new(
        place: &Destination,
        port: u16,
        transport: Transport,
        decision: &Decision<'_>,
        file: &str,
    ) -> Self {
        let (rule, verdict) = match decision {
            Decision::Allow(grant) => (Some(grant.rule), "allow"),
            Decision::Ask(grant) => (Some(grant.rule), "ask"),
            Decision::Deny(denial) => (denial.rule, "deny"),
        };
        let words = match (decision, place) {
            (Decision::Allow(grant), Destination::Name(name)) => text::wire(grant.protocol, name),
            (Decision::Ask(grant), Destination::Name(name)) => format!(
                "{}\n  {}",
                text::asked(grant.protocol),
                text::wire(grant.protocol, name)
            ),
            (Decision::Allow(_) | Decision::Ask(_), Destination::Address(_)) => {
                text::WIRE_OPAQUE.to_owned()
            }
            (Decision::Deny(denial), Destination::Name(name)) => {
                text::remedy(denial.reason, name, port, file)
            }
            (Decision::Deny(_), Destination::Address(address)) => match classify((*address).into())
            {
                class if class.never_allowed() || class == Class::Loopback => {
                    format!("{address} is {class} and can never be allowed")
                }
                _ => text::remedy_address(*address, port, file),
            },
        };
        Self {
            port,
            transport,
            verdict,
            reason: match decision {
                Decision::Allow(_) | Decision::Ask(_) => None,
                Decision::Deny(denial) => Some(DenyReason::code(denial.reason)),
            },
            protocol: match decision {
                Decision::Allow(grant) | Decision::Ask(grant) => Some(grant.protocol.as_str()),
                Decision::Deny(_) => None,
            },
            rule: rule.map(|rule| rule.name.to_owned()),
            origin: rule.map(|rule| rule.origin.to_string()),
            credentials: Vec::new(),
            words,
        }
    }
}

// === impl Explanation ===

impl Explanation {
    /// The same with what a policy's credentials add to it.
    pub fn with_credentials(mut self, credentials: &[Credential]) -> Self {
        let Ok(name) = HostName::parse(&self.target) else {
            return self;
        };
        for answer in &mut self.answers {
            if answer.protocol == Some(Protocol::Https.as_str()) {
                let fit = credentials.iter().filter(|c| c.fits(&name, answer.port));
                answer.credentials = fit.map(text::credential).collect();
            }
        }
        self
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, answer) in self.answers.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let Answer {
                port, transport, ..
            } = answer;
            match (answer.protocol, answer.reason) {
                (Some(protocol), _) => {
                    let how = match answer.verdict {
                        "ask" => "is asked about",
                        _ => "is allowed",
                    };
                    write!(f, "{}:{port}/{transport} {how} as {protocol}", self.target)?;
                }
                (None, reason) => write!(
                    f,
                    "{}:{port}/{transport} is denied [{}]",
                    self.target,
                    reason.unwrap_or("deny")
                )?,
            }
            if let (Some(rule), Some(origin)) = (&answer.rule, &answer.origin) {
                write!(f, "\n  by {rule} at {origin}")?;
            }
            write!(f, "\n  {}", answer.words)?;
            for credential in &answer.credentials {
                write!(f, "\n  {credential}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
