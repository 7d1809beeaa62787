//! What rules say about the requests of one connection: taken out of the policy when the connection is admitted, asked for
//! each request. Every layer has to allow; within one a denial wins, then a rule that asks a person, and what no rule is
//! about is denied.

use std::sync::Arc;

use schema::request::{RateLimit, Requests, is_canonical};

use crate::effective::{Action, Origin};

/// One rule that is about a connection's host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRule {
    pub name: String,
    pub origin: Origin,
    pub action: Action,
    pub requests: Arc<Requests>,
}

/// The rules of every layer that says anything about requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRules {
    pub(crate) layers: Vec<Vec<RequestRule>>,
    /// Nobody is asked: what a person would be asked about is denied.
    pub(crate) unasked: bool,
}

/// A request that may be carried, and within what bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// The smallest of those that apply, in bytes.
    pub max_body_bytes: Option<u64>,
    /// Rules that bound how often, by where they stand.
    pub rates: Vec<(Origin, RateLimit)>,
    /// The first of the rules that want a person asked.
    pub ask: Option<RequestRule>,
}

/// Why a request is not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestDenial<'a> {
    /// The path is not in its one canonical spelling, and a rule is about paths or asks.
    NotCanonical,
    /// A rule denies it.
    Denied(&'a RequestRule),
    /// No rule allows it; the one that is named allows others.
    NotListed(&'a RequestRule),
}

impl RequestRules {
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether the method decides, or a person who is shown it, so that a field that overrides it could change what is meant.
    pub fn rules_methods(&self) -> bool {
        self.all()
            .any(|rule| rule.action == Action::Ask || !rule.requests.methods.is_empty())
    }

    /// Whether it has to be known which program asks.
    pub fn rules_programs(&self) -> bool {
        self.all().any(|rule| !rule.requests.programs.is_empty())
    }

    /// Whether the path decides, or a person who is shown it.
    pub fn rules_paths(&self) -> bool {
        self.all()
            .any(|rule| rule.action == Action::Ask || !rule.requests.paths.is_empty())
    }

    fn all(&self) -> impl Iterator<Item = &RequestRule> {
        self.layers.iter().flatten()
    }

    /// Whether a request may be carried; `path` is as it stands on the wire, without its query. `program`: who asks, if it is
    /// known; where it is not, no rule that names programs allows anything, and one that denies or asks denies.
    pub fn decide(
        &self,
        method: &str,
        path: &str,
        program: Option<&str>,
    ) -> Result<Permit, RequestDenial<'_>> {
        // `OPTIONS *` is about no path.
        if self.rules_paths() && !is_canonical(path) {
            return Err(RequestDenial::NotCanonical);
        }
        let mut permit = Permit::default();
        for layer in &self.layers {
            let matches = |rule: &&RequestRule| rule.requests.matches(method, path);
            let about = |rule: &&RequestRule| matches(rule) && rule.requests.fits(program);
            let denies = |rule: &&RequestRule| rule.action == Action::Deny;
            let may_be = |rule: &&RequestRule| {
                let named = program.is_none() && !rule.requests.programs.is_empty();
                named && rule.action != Action::Allow && matches(rule)
            };
            let mut denials = layer.iter();
            if let Some(rule) = denials.find(|rule| may_be(rule) || denies(rule) && about(rule)) {
                return Err(RequestDenial::Denied(rule));
            }
            let allowing = || layer.iter().filter(|rule| !denies(rule));
            if let Some(rule) = allowing().next()
                && !allowing().any(|rule| about(&rule))
            {
                return Err(RequestDenial::NotListed(rule));
            }
            // Every rule that is about it bounds it. Where there are denials alone, it was allowed otherwise.
            for rule in allowing().filter(about) {
                if rule.action == Action::Ask && self.unasked {
                    return Err(RequestDenial::Denied(rule));
                }
                if rule.action == Action::Ask && permit.ask.is_none() {
                    permit.ask = Some(rule.clone());
                }
                if let Some(limit) = rule.requests.max_body_bytes {
                    let least = permit.max_body_bytes.map_or(limit, |m| m.min(limit));
                    permit.max_body_bytes = Some(least);
                }
                if let Some(rate) = rule.requests.rate_limit {
                    permit.rates.push((rule.origin.clone(), rate));
                }
            }
        }
        Ok(permit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{EffectivePolicy, Layer, Network, Rule};
    use schema::net::Protocol;

    fn rule(line: u32, host: &str, action: Action, methods: &[&str], paths: &[&str]) -> Rule {
        Rule {
            host: host.parse().unwrap(),
            ports: vec![443],
            protocol: None,
            action,
            requests: Requests {
                methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
                paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
                ..Requests::default()
            },
            origin: Origin {
                file: "f".into(),
                line,
                column: 1,
            },
        }
    }

    fn rules(layers: &[Vec<Rule>]) -> Option<RequestRules> {
        let layers = layers.iter().map(|rules| Layer {
            rules: rules.clone(),
            ..Layer::default()
        });
        let network = Network::new(layers).unwrap();
        let policy = EffectivePolicy::new(network, crate::Gateway::default()).unwrap();
        let name = schema::host::HostName::parse("a.example.com").unwrap();
        let compiled = policy.compile();
        assert!(
            !compiled
                .decide(&name, 443, Protocol::Https.transport())
                .is_deny()
        );
        compiled.requests(&name, 443)
    }

    #[test]
    fn rules_that_say_nothing_of_requests_cost_nothing() {
        let plain = rule(1, "a.example.com", Action::Allow, &[], &[]);
        assert_eq!(rules(&[vec![plain]]), None);
    }

    #[test]
    fn every_layer_has_to_allow_and_a_denial_wins() {
        let allow =
            |line, methods, paths| rule(line, "a.example.com", Action::Allow, methods, paths);
        let one = vec![
            allow(1, &["GET"], &["/a/**"]),
            rule(2, "*.example.com", Action::Deny, &[], &["/a/secret"]),
        ];
        let other = vec![allow(3, &[], &["/a/*"])];
        let both = rules(&[one, other]).unwrap();
        let decide = |method: &str, path: &str| match both.decide(method, path, None) {
            Ok(_) => 0,
            Err(RequestDenial::Denied(rule)) => rule.origin.line,
            Err(RequestDenial::NotListed(rule)) => rule.origin.line * 10,
            Err(RequestDenial::NotCanonical) => 1000,
        };
        assert_eq!(decide("GET", "/a/b"), 0);
        assert_eq!(decide("GET", "/a/secret"), 2);
        assert_eq!(decide("GET", "/a/b/c"), 30, "the other layer says no");
        assert_eq!(decide("POST", "/a/b"), 10);
        assert_eq!(decide("GET", "/a/../b"), 1000);
        assert!(both.rules_methods());
    }

    #[test]
    fn a_denial_wins_over_who_asks_and_who_asks_over_who_allows() {
        let one = vec![
            rule(1, "a.example.com", Action::Allow, &["GET", "POST"], &[]),
            rule(2, "*.example.com", Action::Ask, &["POST"], &[]),
            rule(3, "a.example.com", Action::Deny, &[], &["/secret"]),
        ];
        let other = vec![rule(4, "a.example.com", Action::Ask, &[], &["/other"])];
        let decide = |rules: &RequestRules, method: &str, path: &str| match rules
            .decide(method, path, None)
        {
            Ok(permit) => permit.ask.map_or(0, |rule| rule.origin.line),
            Err(_) => 1000,
        };
        let rules_one = rules(std::slice::from_ref(&one)).unwrap();
        assert_eq!(decide(&rules_one, "GET", "/a"), 0);
        assert_eq!(decide(&rules_one, "POST", "/a"), 2);
        assert_eq!(decide(&rules_one, "POST", "/secret"), 1000);
        assert_eq!(decide(&rules_one, "PUT", "/a"), 1000);
        let both = rules(&[one, other]).unwrap();
        assert_eq!(decide(&both, "GET", "/other"), 4, "the other layer asks");
        assert_eq!(decide(&both, "GET", "/a"), 1000, "and allows nothing else");
    }

    #[test]
    fn a_rule_that_asks_about_everything_is_about_each_request() {
        let ask = rule(1, "a.example.com", Action::Ask, &[], &[]);
        let network = Network::new([Layer {
            rules: vec![ask],
            ..Layer::default()
        }])
        .unwrap();
        let policy = EffectivePolicy::new(network, crate::Gateway::default()).unwrap();
        let name = schema::host::HostName::parse("a.example.com").unwrap();
        let permit = |port| {
            let rules = policy.compile().requests(&name, port)?;
            rules.decide("GET", "/", None).ok()?.ask
        };
        assert_eq!(permit(443).unwrap().origin.line, 1);
        assert!(permit(80).is_none());
    }

    #[test]
    fn what_nothing_lists_is_asked_about_where_that_is_wanted_at_443_and_80() {
        let layer = Layer {
            rules: vec![
                rule(1, "a.example.com", Action::Allow, &[], &[]),
                rule(2, "c.example.com", Action::Deny, &[], &[]),
            ],
            ask_unlisted: Some(Origin {
                file: "f".into(),
                line: 9,
                column: 1,
            }),
            ..Layer::default()
        };
        let network = Network::new([layer]).unwrap();
        let policy = EffectivePolicy::new(network, crate::Gateway::default()).unwrap();
        let compiled = policy.compile();
        let verdict = |host: &str, port| {
            let name = schema::host::HostName::parse(host).unwrap();
            let decision = compiled.decide(&name, port, Protocol::Tcp.transport());
            let asks = compiled.requests(&name, port);
            let asks = asks.and_then(|rules| rules.decide("GET", "/", None).ok()?.ask);
            let asks = asks.is_some();
            match decision {
                crate::Decision::Allow(_) => ("allow", asks),
                crate::Decision::Ask(_) => ("ask", asks),
                crate::Decision::Deny(_) => ("deny", asks),
            }
        };
        assert_eq!(verdict("b.example.com", 443), ("ask", true));
        assert_eq!(verdict("b.example.com", 80), ("ask", true));
        assert_eq!(verdict("b.example.com", 22).0, "deny");
        assert_eq!(verdict("a.example.com", 443), ("allow", false));
        assert_eq!(verdict("a.example.com", 80), ("ask", true));
        assert_eq!(verdict("c.example.com", 443).0, "deny");
        let name = schema::host::HostName::parse("b.example.com").unwrap();
        assert_eq!(compiled.ports(&name), [], "it is still not listed");
    }

    #[test]
    fn the_smallest_bound_of_all_layers_holds() {
        let with = |line, limit| {
            let mut rule = rule(line, "a.example.com", Action::Allow, &[], &[]);
            rule.requests.max_body_bytes = limit;
            rule
        };
        let both = rules(&[vec![with(1, Some(10))], vec![with(2, Some(7))]]).unwrap();
        assert_eq!(
            both.decide("GET", "/", None).unwrap().max_body_bytes,
            Some(7)
        );
    }

    #[test]
    fn every_rule_that_is_about_a_request_bounds_it() {
        let mut bounded = rule(2, "a.example.com", Action::Allow, &["POST"], &[]);
        bounded.requests.max_body_bytes = Some(10);
        let both = rules(&[vec![
            rule(1, "a.example.com", Action::Allow, &["GET", "POST"], &[]),
            bounded,
        ]])
        .unwrap();
        assert_eq!(
            both.decide("POST", "/", None).unwrap().max_body_bytes,
            Some(10)
        );
        assert_eq!(both.decide("GET", "/", None).unwrap().max_body_bytes, None);
    }

    #[test]
    fn what_is_not_read_is_not_carried_where_rules_are_about_requests() {
        let mut unread = rule(1, "a.example.com", Action::Allow, &[], &[]);
        unread.protocol = Some(Protocol::Tls);
        let network = Network::new([Layer {
            rules: vec![
                unread,
                rule(2, "*.example.com", Action::Deny, &[], &["/admin/**"]),
            ],
            ..Layer::default()
        }])
        .unwrap();
        let policy = EffectivePolicy::new(network, crate::Gateway::default()).unwrap();
        let name = schema::host::HostName::parse("a.example.com").unwrap();
        let transport = Protocol::Https.transport();
        assert!(!policy.compile().decide(&name, 443, transport).is_allow());
    }

    #[test]
    fn a_rule_about_requests_needs_a_wire_that_is_read() {
        let mut bad = rule(1, "a.example.com", Action::Allow, &["GET"], &[]);
        bad.protocol = Some(Protocol::Tls);
        let network = Network::new([Layer {
            rules: vec![bad],
            ..Layer::default()
        }])
        .unwrap();
        assert!(matches!(
            EffectivePolicy::new(network, crate::Gateway::default()),
            Err(crate::PolicyError::NotHttp(_))
        ));
    }

    #[test]
    fn a_rule_about_programs_is_about_what_they_ask_and_about_nobody_who_is_not_known() {
        let by = |line, action, methods: &[&str], programs: &[&str]| {
            let mut rule = rule(line, "a.example.com", action, methods, &[]);
            rule.requests.programs = programs.iter().map(|p| p.parse().unwrap()).collect();
            rule
        };
        let (curl, python) = ("/usr/bin/curl", "/usr/bin/python3.11");
        let decide =
            |rules: &RequestRules, method, program| match rules.decide(method, "/", program) {
                Ok(permit) => permit.ask.map_or(0, |rule| rule.origin.line),
                Err(RequestDenial::Denied(rule)) => 100 + rule.origin.line,
                Err(RequestDenial::NotListed(rule)) => 200 + rule.origin.line,
                Err(RequestDenial::NotCanonical) => 1000,
            };
        let allowed = rules(&[vec![by(1, Action::Allow, &[], &[curl])]]).unwrap();
        assert!(allowed.rules_programs());
        for (program, verdict) in [
            (Some(curl), 0),
            (Some(python), 201),
            (Some("/tmp/usr/bin/curl"), 201),
            (None, 201),
        ] {
            assert_eq!(decide(&allowed, "GET", program), verdict, "{program:?}");
        }
        // Beside what allows everybody: one who is not known may be the one that is denied, or asked about.
        let beside = rules(&[vec![
            by(1, Action::Allow, &[], &[]),
            by(2, Action::Deny, &["DELETE"], &[python]),
            by(3, Action::Ask, &["POST"], &[python]),
        ]])
        .unwrap();
        for (method, program, verdict) in [
            ("DELETE", Some(curl), 0),
            ("DELETE", Some(python), 102),
            ("DELETE", None, 102),
            ("POST", Some(curl), 0),
            ("POST", Some(python), 3),
            ("POST", None, 103),
            ("GET", None, 0),
        ] {
            assert_eq!(
                decide(&beside, method, program),
                verdict,
                "{method} {program:?}"
            );
        }
        // Every layer has its say.
        let both = rules(&[
            vec![by(1, Action::Allow, &[], &[curl, python])],
            vec![by(4, Action::Allow, &[], &[python])],
        ])
        .unwrap();
        assert_eq!(decide(&both, "GET", Some(curl)), 204);
        assert_eq!(decide(&both, "GET", Some(python)), 0);
    }
}
