//! A session's events as they come from the enforcer: printed by `audit events`, shown as one line a denial by `run`.

use std::collections::BTreeMap;

use api::v1;
use audit::{Event, Kind, Verdict};

use crate::channel::{self, Enforcer};
use crate::report::Failure;

/// Different denials that one session shows; the rest are counted.
const MAX_SHOWN: usize = 50;

/// Opens the stream of a session's events.
pub async fn open(
    enforcer: &mut Enforcer,
    session: &str,
    from_seq: u64,
    follow: bool,
) -> Result<tonic::Streaming<v1::EventLine>, Failure> {
    let request = v1::EventsRequest {
        session: session.to_owned(),
        from_seq,
        follow,
    };
    enforcer
        .events(request)
        .await
        .map(tonic::Response::into_inner)
        .map_err(|status| channel::refused("show the session's events", &status))
}

pub fn parse(line: &v1::EventLine) -> Option<Event> {
    serde_json::from_slice(&line.json).ok()
}

/// Where it went: `host:port`, or the address where there was no name.
fn target(event: &Event) -> String {
    let place = event.host.as_deref().or(event.address.as_deref());
    match (place, event.port) {
        (Some(place), Some(port)) => format!("{place}:{port}"),
        (Some(place), None) => place.to_owned(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => {
            let file = event.binary.as_deref().or(event.file.as_deref());
            file.unwrap_or("-").to_owned()
        }
    }
}

fn program(event: &Event) -> Option<String> {
    let process = event.process.as_ref()?;
    let name = process.program.as_deref().unwrap_or(&process.comm);
    Some(match process.pid {
        Some(pid) => format!("{name}[{pid}]"),
        None => name.to_owned(),
    })
}

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// One line for people.
pub fn line(event: &Event) -> String {
    let mut text = format!(
        "{} {} {} {}",
        event.time.get(..19).unwrap_or(&event.time),
        word(event.verdict),
        word(event.kind),
        target(event),
    );
    if let Some(program) = program(event) {
        text += &format!(" by {program}");
    }
    text += &format!(" ({}", event.reason);
    if let Some(rule) = &event.rule {
        text += &format!(", {} at {}", rule.name, rule.origin);
    }
    text.push(')');
    if let Some(question) = &event.approval {
        text += &format!(" question {question}");
    }
    if let Some(by) = event.by {
        text += &format!(" answered by user {by}");
    }
    if let Some(held) = event.held_ms {
        text += &format!(" held {held} ms");
    }
    if let (Some(sent), Some(received)) = (event.bytes_out, event.bytes_in) {
        text += &format!(" {sent} bytes out, {received} in");
    }
    if let Some(detail) = &event.detail {
        text += &format!(": {detail}");
    }
    text
}

/// The line of a denial, or `None` for any other event.
pub fn denial(event: &Event) -> Option<String> {
    if let Some(question) = event.approval.as_ref().filter(|_| is_start(event)) {
        let mut text = target(event);
        if let Some(process) = &event.process {
            text += &format!(
                " by {}",
                process.program.as_deref().unwrap_or(&process.comm)
            );
        }
        return Some(format!(
            "{text}: {}; `agentcontainer approve {question}` lets it be started when it is tried again",
            event.reason
        ));
    }
    // Init's own attempts, which have to be refused before anything starts, are on record and no news.
    if event.verdict != Verdict::Deny
        || event.reason == "self-test"
        || !matches!(
            event.kind,
            Kind::Connect | Kind::Send | Kind::Request | Kind::Dns
        )
    {
        return None;
    }
    let mut text = target(event);
    if let Some(process) = &event.process {
        let name = process.program.as_deref().unwrap_or(&process.comm);
        text += &format!(" by {name}");
    }
    match (&event.rule, &event.host) {
        (Some(rule), _) => text += &format!(": {} at {}", rule.name, rule.origin),
        (None, Some(host)) => {
            let port = event.port.map(|p| format!(":{p}")).unwrap_or_default();
            text += &format!(
                ": {}; `agentcontainer policy explain {host}{port}` says what would allow it",
                event.reason
            );
        }
        (None, None) => {
            text += &format!(
                ": {}; only names and `networks` of the config are reachable",
                event.reason
            );
        }
    }
    Some(text)
}

/// What a person is told of a session's begin beside the banner: the workspace's files stay whose they are.
pub fn remark(event: &Event) -> Option<&str> {
    (event.reason == "workspace-not-mapped")
        .then_some(event.detail.as_deref())
        .flatten()
}

/// Whether it is a program that was not started.
fn is_start(event: &Event) -> bool {
    event.verdict == Verdict::Deny && event.kind == Kind::Exec && event.reason == "not-listed"
}

/// Denials of one session, each shown once.
#[derive(Debug, Default)]
pub struct Denials {
    seen: BTreeMap<String, u64>,
    beyond: u64,
    /// What waits until the terminal is ours again.
    pub remarks: Vec<String>,
}

impl Denials {
    /// The line to show for this event, if it is a denial that was not shown yet.
    pub fn hear(&mut self, event: &Event) -> Option<String> {
        let line = denial(event)?;
        if let Some(count) = self.seen.get_mut(&line) {
            *count += 1;
            return None;
        }
        if self.seen.len() >= MAX_SHOWN {
            self.beyond += 1;
            return None;
        }
        self.seen.insert(line.clone(), 1);
        Some(line)
    }

    /// Every denial with how often it was repeated, for a session whose terminal was not ours to write to.
    pub fn summary(&self) -> Vec<String> {
        let times = |count: u64| {
            if count > 1 {
                format!(" ({count} times)")
            } else {
                String::new()
            }
        };
        self.seen
            .iter()
            .map(|(line, count)| format!("{line}{}", times(*count)))
            .chain((self.beyond > 0).then(|| {
                format!(
                    "… and {} more; see `agentcontainer audit events`",
                    self.beyond
                )
            }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use audit::Process;

    fn denied(host: &str) -> Event {
        let mut event = Event::new(Kind::Connect, Verdict::Deny, "not-listed");
        event.host = Some(host.into());
        event.port = Some(443);
        event.process = Some(Process {
            pid: Some(7),
            host_pid: 9,
            uid: 1000,
            program: Some("/usr/bin/curl".into()),
            comm: "curl".into(),
        });
        event
    }

    #[test]
    fn a_denial_names_place_program_reason_and_what_to_do() {
        assert_eq!(
            denial(&denied("evil.test")).unwrap(),
            "evil.test:443 by /usr/bin/curl: not-listed; `agentcontainer policy explain evil.test:443` says what would allow it"
        );
        let mut allowed = denied("x.test");
        allowed.verdict = Verdict::Allow;
        assert_eq!(denial(&allowed), None);
        let mut own = denied("x.test");
        own.reason = "self-test".into();
        assert_eq!(denial(&own), None);
        let mut raw = Event::new(Kind::Connect, Verdict::Deny, "address");
        raw.address = Some("192.0.2.1".into());
        raw.port = Some(443);
        assert!(denial(&raw).unwrap().starts_with("192.0.2.1:443: address;"));
    }

    #[test]
    fn a_program_that_a_person_is_asked_about_is_said_with_its_question() {
        let mut event = Event::new(Kind::Exec, Verdict::Deny, "not-listed");
        event.binary = Some("/usr/bin/id".into());
        assert_eq!(denial(&event), None);
        event.approval = Some("k7d3f".into());
        assert_eq!(
            denial(&event).unwrap(),
            "/usr/bin/id: not-listed; `agentcontainer approve k7d3f` lets it be started when it is tried again"
        );
        assert!(line(&event).contains(" deny exec /usr/bin/id (not-listed) question k7d3f"));
        event.reason = "approval-not-held".into();
        assert_eq!(denial(&event), None);
    }

    #[test]
    fn a_denial_is_shown_once_and_their_number_is_bounded() {
        let mut denials = Denials::default();
        assert!(denials.hear(&denied("a.test")).is_some());
        assert!(denials.hear(&denied("a.test")).is_none());
        for n in 1..MAX_SHOWN {
            assert!(denials.hear(&denied(&format!("a{n}.test"))).is_some());
        }
        assert!(denials.hear(&denied("beyond.test")).is_none());
        let summary = denials.summary();
        assert_eq!(summary.len(), MAX_SHOWN + 1);
        assert!(summary[0].ends_with("(2 times)"));
    }

    #[test]
    fn an_event_is_one_line_with_its_rule() {
        let mut event = denied("evil.test");
        event.time = "2030-01-02T03:04:05.000000000Z".into();
        event.rule = Some(audit::Rule {
            name: "deniedDomains \"evil.test\"".into(),
            origin: "agentcontainer.json:4:3".into(),
        });
        assert_eq!(
            line(&event),
            "2030-01-02T03:04:05 deny connect evil.test:443 by /usr/bin/curl[7] (not-listed, deniedDomains \"evil.test\" at agentcontainer.json:4:3)"
        );
    }
}
