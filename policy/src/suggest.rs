//! `policy suggest`: from what a session was refused, the smallest entries that would have let it pass, and for the rest why
//! there is none. Pure. Decided anew by the policy that is there now, so that a denial by a rule and what was allowed
//! meanwhile are seen; names are taken as they were asked for and never widened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schema::host::HostName;
use schema::net::{Protocol, Transport};
use schema::request::{MAX_IN_RULE, Method, PathGlob, ProgramPath, Requests};
use serde::Serialize;
use serde_json::{Value, json};

use crate::address_class::classify;
use crate::compiled::Compiled;
use crate::decision::{Decision, DenyReason};
use crate::effective::Origin;
use crate::merge::RESERVED_HOSTS;
use crate::requests::RequestDenial;

/// Different denials that are kept; the rest are counted.
pub const MAX_DENIALS: usize = 1000;

/// Names under which clouds serve an instance's credentials: no entry opens them.
const METADATA_HOSTS: [&str; 5] = [
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.tencentyun.com",
];

/// One refused connection or request, as the record has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// A name or an address.
    pub host: String,
    pub port: Option<u16>,
    pub protocol: Option<String>,
    /// The stable code.
    pub reason: String,
    /// Method, and path without its query, of a request.
    pub request: Option<(String, String)>,
}

/// Denials, each with who was refused and how often.
#[derive(Clone, Debug, Default)]
pub struct Denials {
    seen: BTreeMap<Denied, Programs>,
    beyond: u64,
}

/// How often, by program.
pub type Programs = BTreeMap<String, u64>;

/// Where an entry goes, below `egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum List {
    AllowedDomains,
    Rules,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    pub list: List,
    /// As it is written in the config.
    pub entry: Value,
    pub programs: Programs,
}

/// What no entry would or should open, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Without {
    pub what: String,
    pub code: String,
    pub why: String,
    pub programs: Programs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suggestions {
    /// Those of one program beside each other.
    pub suggestions: Vec<Suggestion>,
    pub without: Vec<Without>,
    /// What policy allows by now, and so needs nothing.
    pub allowed_meanwhile: u64,
    /// Denials beyond the bound.
    pub beyond: u64,
}

/// Requests that one rule could be about: host, port, protocol where it has to be said, and the bounds of the rule beside it.
type Place = (HostName, u16, Option<Protocol>, Requests);

// === impl Denials ===

impl Denials {
    pub fn add(&mut self, denied: Denied, program: &str) {
        if !self.seen.contains_key(&denied) && self.seen.len() >= MAX_DENIALS {
            self.beyond += 1;
            return;
        }
        let programs = self.seen.entry(denied).or_default();
        // Programs of one denial are bounded too: an agent names as many as it likes.
        let program = if programs.contains_key(program) || programs.len() < 16 {
            program
        } else {
            "others"
        };
        *programs.entry(program.to_owned()).or_default() += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// What would have let them pass, by the policy that is there now.
    pub fn suggest(&self, policy: &Compiled) -> Suggestions {
        let mut out = Suggestions {
            beyond: self.beyond,
            ..Suggestions::default()
        };
        let mut domains: BTreeMap<String, Programs> = BTreeMap::new();
        let mut requests: BTreeMap<Place, BTreeMap<PathGlob, (BTreeSet<Method>, Programs)>> =
            BTreeMap::new();
        for (denied, programs) in &self.seen {
            let mut without: BTreeMap<String, Programs> = BTreeMap::new();
            for (program, count) in programs {
                let programs = &Programs::from([(program.clone(), *count)]);
                match denied.answer(policy, program) {
                    Answer::Domain(entry) => add(domains.entry(entry).or_default(), programs),
                    Answer::Request(place, method, path) => {
                        let (methods, by) =
                            requests.entry(place).or_default().entry(path).or_default();
                        methods.insert(method);
                        add(by, programs);
                    }
                    Answer::Allowed => out.allowed_meanwhile += count,
                    Answer::Without(why) => add(without.entry(why).or_default(), programs),
                }
            }
            let what = |(why, programs)| Without {
                what: denied.words(),
                code: denied.reason.clone(),
                why,
                programs,
            };
            out.without.extend(without.into_iter().map(what));
        }
        let domain = |(entry, programs)| Suggestion {
            list: List::AllowedDomains,
            entry: Value::String(entry),
            programs,
        };
        out.suggestions.extend(domains.into_iter().map(domain));
        for (place, paths) in requests {
            // One rule for the paths that the same methods were asked for at: any other grouping would allow more.
            let mut by_methods: BTreeMap<BTreeSet<Method>, Vec<(PathGlob, Programs)>> =
                BTreeMap::new();
            for (path, (methods, programs)) in paths {
                by_methods
                    .entry(methods)
                    .or_default()
                    .push((path, programs));
            }
            for (methods, paths) in by_methods {
                let methods: Vec<Method> = methods.into_iter().collect();
                for methods in methods.chunks(MAX_IN_RULE) {
                    for paths in paths.chunks(MAX_IN_RULE) {
                        out.suggestions.push(rule(&place, methods, paths));
                    }
                }
            }
        }
        let order = |s: &Suggestion| (s.list, s.programs.keys().cloned().collect::<Vec<_>>());
        out.suggestions.sort_by_key(order);
        out
    }
}

fn add(to: &mut Programs, from: &Programs) {
    for (program, count) in from {
        *to.entry(program.clone()).or_default() += count;
    }
}

fn rule(place: &Place, methods: &[Method], paths: &[(PathGlob, Programs)]) -> Suggestion {
    let (host, port, protocol, bounds) = place;
    let mut entry = json!({ "host": host.as_str(), "ports": [port] });
    if let Some(protocol) = protocol {
        entry["protocol"] = json!(protocol.as_str());
    }
    entry["methods"] = methods.iter().map(Method::as_str).collect();
    entry["paths"] = paths.iter().map(|(path, _)| path.as_str()).collect();
    if !bounds.programs.is_empty() {
        entry["programs"] = bounds.programs.iter().map(ProgramPath::as_str).collect();
    }
    if let Some(limit) = bounds.max_body_bytes {
        entry["maxBodyBytes"] = json!(limit);
    }
    if let Some(rate) = bounds.rate_limit {
        entry["rateLimit"] = json!({ "perSecond": rate.per_second, "burst": rate.burst });
    }
    let mut programs = Programs::new();
    paths.iter().for_each(|(_, by)| add(&mut programs, by));
    Suggestion {
        list: List::Rules,
        entry,
        programs,
    }
}

/// `approve --always` is the way to an entry there: it asks a person first.
fn asked(rule: &str, origin: &Origin) -> Answer {
    Answer::Without(format!(
        "a person is asked by {rule} at {origin}: `agentcontainer approvals`"
    ))
}

/// What is to be done about one denial.
enum Answer {
    Domain(String),
    Request(Place, Method, PathGlob),
    Allowed,
    Without(String),
}

// === impl Denied ===

impl Denied {
    fn words(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        match &self.request {
            Some((method, path)) => format!("{method} {}{port}{path}", self.host),
            None => format!("{}{port}", self.host),
        }
    }

    fn answer(&self, policy: &Compiled, program: &str) -> Answer {
        let without = |why: &str| Answer::Without(why.to_owned());
        if let Ok(address) = self.host.parse::<IpAddr>() {
            let class = classify(address);
            return Answer::Without(if class.never_allowed() {
                format!("an address that is {class}: no entry opens it")
            } else if class.is_public() {
                "a literal address: allow the name that it has".to_owned()
            } else {
                format!("an address that is {class}: never suggested")
            });
        }
        let (Ok(name), Some(port @ 1..)) = (HostName::parse(&self.host), self.port) else {
            return without("no entry is about it");
        };
        let below = |base: &&str| {
            HostName::parse(base).is_ok_and(|base| name == base || name.is_below(&base))
        };
        if name.label_count() < 2 {
            return without("names of a single label are never resolved");
        }
        if RESERVED_HOSTS.iter().any(below) {
            return without("agentcontainer answers this name itself");
        }
        if METADATA_HOSTS.iter().any(below) {
            return without("a cloud's metadata service: never suggested");
        }
        if self.protocol.as_deref() == Some("udp") {
            return without("udp is not relayed");
        }
        match self.reason.as_str() {
            "not-listed" | "port-not-listed" | "denied-by-rule" | "protocol-conflict"
            | "beyond-ceiling" | "not-asked" => self.connection(policy, &name, port),
            "request-not-listed" | "request-denied" => self.request(policy, &name, port, program),
            reason if reason.starts_with("approval-") && self.request.is_some() => {
                self.request(policy, &name, port, program)
            }
            reason if reason.starts_with("approval-") => self.connection(policy, &name, port),
            "address-refused" => without(
                "it leads to an address that is not public: a person who wants that names it in the host's config.toml",
            ),
            code if code.starts_with("inspection-") => without(
                "an inspector found something in what was sent: look at that before `agent.inspection`",
            ),
            _ => without("no entry of the config would change this"),
        }
    }

    fn connection(&self, policy: &Compiled, name: &HostName, port: u16) -> Answer {
        let denial = match policy.decide(name, port, Transport::Tcp) {
            Decision::Allow(_) => return Answer::Allowed,
            Decision::Ask(grant) => return asked(grant.rule.name, grant.rule.origin),
            Decision::Deny(denial) => denial,
        };
        match (denial.reason, denial.rule) {
            (DenyReason::DeniedByRule, Some(rule)) => Answer::Without(format!(
                "denied by {} at {}: a denial wins over everything that allows",
                rule.name, rule.origin
            )),
            (DenyReason::BeyondCeiling, Some(rule)) => Answer::Without(format!(
                "beyond {} at {}: no entry of the workspace opens it",
                rule.name, rule.origin
            )),
            (DenyReason::NotAsked, Some(rule)) => Answer::Without(format!(
                "a person would be asked, and {} at {} says that nobody is",
                rule.name, rule.origin
            )),
            (DenyReason::NotListed | DenyReason::PortNotListed, _) => Answer::Domain(match port {
                443 | 80 => name.to_string(),
                _ => format!("{name}:{port}"),
            }),
            _ => Answer::Without("rules ask for protocols that exclude one another".to_owned()),
        }
    }

    fn request(&self, policy: &Compiled, name: &HostName, port: u16, program: &str) -> Answer {
        let (Decision::Allow(grant) | Decision::Ask(grant)) =
            policy.decide(name, port, Transport::Tcp)
        else {
            // Not even the connection is allowed by now.
            return self.connection(policy, name, port);
        };
        let Some((method, path)) = &self.request else {
            return Answer::Without("the record does not say which request".to_owned());
        };
        let rules = policy.requests(name, port).unwrap_or_default();
        // Where rules are about programs, one for this program alone.
        let program = program.parse::<ProgramPath>().ok();
        let programs = match (rules.rules_programs(), &program) {
            (false, _) => Vec::new(),
            (true, Some(program)) => vec![program.clone()],
            (true, None) => {
                return Answer::Without(
                    "rules are about programs there, and which one it was is not known".to_owned(),
                );
            }
        };
        let known = program.as_ref().map(ProgramPath::as_str);
        let beside = match rules.decide(method, path, known) {
            Ok(permit) => match permit.ask {
                Some(rule) => return asked(&rule.name, &rule.origin),
                None => return Answer::Allowed,
            },
            Err(RequestDenial::Denied(rule)) => {
                return Answer::Without(format!(
                    "denied by {} at {}: a denial wins over everything that allows",
                    rule.name, rule.origin
                ));
            }
            Err(RequestDenial::NotCanonical) => {
                return Answer::Without("its path has another spelling than rules have".to_owned());
            }
            Err(RequestDenial::NotListed(rule)) => rule,
        };
        if path.contains('*') {
            return Answer::Without(
                "its path holds `*`, which in a rule stands for more than that path".to_owned(),
            );
        }
        let (Ok(method), Ok(path)) = (method.parse::<Method>(), path.parse::<PathGlob>()) else {
            return Answer::Without("no rule can be about this method or path".to_owned());
        };
        let said = grant.protocol != Protocol::default_for_port(port);
        let bounds = Requests {
            programs,
            max_body_bytes: beside.requests.max_body_bytes,
            rate_limit: beside.requests.rate_limit,
            ..Requests::default()
        };
        let place = (name.clone(), port, said.then_some(grant.protocol), bounds);
        Answer::Request(place, method, path)
    }
}

#[cfg(test)]
mod tests;
