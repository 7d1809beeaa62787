//! One line of `logs --network` for each response, refused request and connection. The words are a stranger's in part and are
//! escaped here, each by itself, before any colour is put around them.

use anstyle::{AnsiColor, Style};
use audit::{Event, Kind, Verdict};
use jiff::tz::TimeZone;

use crate::report::escape;

/// One line, in the parts that have a colour of their own.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    time: String,
    tone: Tone,
    /// `DENY`, or nothing.
    verdict: &'static str,
    what: String,
    /// A status or a stable code.
    outcome: String,
    rest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Good,
    Doubtful,
    Bad,
}

/// The styles of a line. What prints leaves them out where nobody sees them.
#[derive(Debug)]
pub struct Colours {
    dim: Style,
    good: Style,
    doubtful: Style,
    bad: Style,
}

impl Default for Colours {
    fn default() -> Self {
        Self {
            dim: Style::new().dimmed(),
            good: AnsiColor::Green.on_default(),
            doubtful: AnsiColor::Yellow.on_default(),
            bad: AnsiColor::Red.on_default().bold(),
        }
    }
}

// === impl Line ===

impl Line {
    /// The event's line in the person's own time zone; `None` for what is no news of the network's.
    pub fn of(event: &Event) -> Option<Self> {
        Self::at(event, &TimeZone::system())
    }

    fn at(event: &Event, zone: &TimeZone) -> Option<Self> {
        let tried = matches!(
            event.kind,
            Kind::Connect | Kind::Send | Kind::Dns | Kind::Request | Kind::Response
        );
        let refused = event.verdict != Verdict::Allow;
        let mut line = match event.kind {
            Kind::Loss => Self::new(
                Tone::Doubtful,
                format!("{} events", event.lost.unwrap_or_default()),
                "lost",
            ),
            Kind::Approval => Self::approval(event),
            // Init's own attempts, which have to be refused before anything starts.
            _ if !tried || event.reason == "self-test" => return None,
            Kind::Response => Self::response(event),
            _ if refused => Self::refused(event),
            // Allowed, and it came to nothing; one that is carried has a response.
            Kind::Request => Self::unanswered(event)?,
            _ => Self::connection(event)?,
        };
        line.time = time(&event.time, zone);
        Some(line)
    }

    fn new(tone: Tone, what: String, outcome: impl ToString) -> Self {
        Self {
            time: String::new(),
            tone,
            verdict: "",
            what,
            outcome: outcome.to_string(),
            rest: String::new(),
        }
    }

    fn response(event: &Event) -> Self {
        let status = event.status.unwrap_or_default();
        let broken = event.reason != "complete" && event.reason != "websocket";
        let tone = match status {
            _ if broken => Tone::Bad,
            ..400 => Tone::Good,
            400..500 => Tone::Doubtful,
            _ => Tone::Bad,
        };
        let mut line = Self::new(tone, request(event), status);
        if event.reason != "complete" {
            line.rest += &format!(" {}", escape(&event.reason));
        }
        if let Some(credential) = &event.credential {
            line.rest += &format!(" with {}", escape(credential));
        }
        line.rest += &took(event);
        line
    }

    fn unanswered(event: &Event) -> Option<Self> {
        let status = event.status?;
        let mut line = Self::new(Tone::Bad, request(event), status);
        line.rest = format!(" {}", escape(&event.reason));
        Some(line)
    }

    fn refused(event: &Event) -> Self {
        let what = match event.kind {
            Kind::Request => request(event),
            Kind::Dns => format!("dns {}", place(event)),
            _ => connection(event),
        };
        let (tone, verdict) = match event.verdict {
            Verdict::Ask => (Tone::Doubtful, "ASK "),
            Verdict::Flag => (Tone::Doubtful, "FLAG "),
            _ => (Tone::Bad, "DENY "),
        };
        let mut line = Self::new(tone, what, escape(&event.reason));
        line.verdict = verdict;
        if let Some(process) = &event.process {
            let name = process.program.as_deref().unwrap_or(&process.comm);
            line.rest += &format!(" by {}", escape(name));
        }
        if let (true, Some(detail)) = (event.reason.starts_with("inspection-"), &event.detail) {
            line.rest += &escape(&format!(": {detail}"));
        }
        if let Some(rule) = &event.rule {
            line.rest += &escape(&format!(" ({} at {})", rule.name, rule.origin));
        }
        line.rest += &took(event);
        line
    }

    /// What waits for a person, and what came of it.
    fn approval(event: &Event) -> Self {
        let what = match &event.method {
            Some(_) => request(event),
            None => connection(event),
        };
        let (tone, verdict) = match event.verdict {
            Verdict::Allow => (Tone::Good, "YES "),
            Verdict::Deny => (Tone::Bad, "NO "),
            _ => (Tone::Doubtful, "ASK "),
        };
        let question = event.approval.as_deref().unwrap_or("-");
        let mut line = Self::new(tone, what, escape(&format!("{} {question}", event.reason)));
        line.verdict = verdict;
        if event.verdict == Verdict::Ask {
            if let Some(process) = &event.process {
                let name = process.program.as_deref().unwrap_or(&process.comm);
                line.rest += &format!(" by {}", escape(name));
            }
            if let Some(rule) = &event.rule {
                line.rest += &escape(&format!(" ({} at {})", rule.name, rule.origin));
            }
        } else if let Some(by) = event.by {
            line.rest += &format!(" by user {by}");
        }
        line.rest += &took(event);
        line
    }

    /// The end of a connection, or why there was none. Where requests are read they are the news.
    fn connection(event: &Event) -> Option<Self> {
        let read = matches!(event.protocol.as_deref(), Some("http" | "https"));
        match (event.bytes_out, event.bytes_in) {
            (Some(sent), Some(received)) if !read || event.reason == "revoked" => {
                let tone = if event.reason == "closed" {
                    Tone::Good
                } else {
                    Tone::Doubtful
                };
                let mut line = Self::new(tone, connection(event), escape(&event.reason));
                line.rest = format!(
                    " {} out, {} in{}",
                    bytes(sent),
                    bytes(received),
                    took(event)
                );
                Some(line)
            }
            (Some(_), Some(_)) => None,
            // Its beginning.
            _ if event.reason == "allowed" => None,
            _ => Some(Self::new(
                Tone::Bad,
                connection(event),
                escape(&event.reason),
            )),
        }
    }

    /// With its colours, for a stream that takes them out where they have no place.
    pub fn paint(&self, colours: &Colours) -> String {
        let dim = colours.dim;
        let tone = match self.tone {
            Tone::Good => colours.good,
            Tone::Doubtful => colours.doubtful,
            Tone::Bad => colours.bad,
        };
        let verdict = match self.verdict {
            "" => String::new(),
            word => format!("{tone}{}{tone:#} ", word.trim_end()),
        };
        format!(
            "{dim}[{}]{dim:#} {verdict}{} {tone}{}{tone:#}{}",
            self.time, self.what, self.outcome, self.rest
        )
    }
}

/// `GET https://api.example.com/user`.
fn request(event: &Event) -> String {
    let method = event.method.as_deref().unwrap_or("-");
    match &event.url {
        Some(url) if url.contains("://") => escape(&format!("{method} {url}")),
        _ => {
            let scheme = event.protocol.as_deref().unwrap_or("http");
            let path = event.url.as_deref().filter(|url| url.starts_with('/'));
            let path = path.unwrap_or_default();
            escape(&format!("{method} {scheme}://{}{path}", place(event)))
        }
    }
}

fn connection(event: &Event) -> String {
    let protocol = event.protocol.as_deref().unwrap_or("tcp");
    escape(&format!("{protocol} {}", place(event)))
}

fn place(event: &Event) -> String {
    let place = event.host.as_deref().or(event.address.as_deref());
    let place = place.unwrap_or("-");
    match event.port {
        Some(port) if place.contains(':') => format!("[{place}]:{port}"),
        Some(port) => format!("{place}:{port}"),
        None => place.to_owned(),
    }
}

/// The time of day where the person is, to the millisecond.
fn time(text: &str, zone: &TimeZone) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(
        |_| escape(text),
        |time| {
            let time = time.to_zoned(zone.clone());
            time.strftime("%H:%M:%S.%3f").to_string()
        },
    )
}

/// ` (89ms)`, ` (2.1s)`.
fn took(event: &Event) -> String {
    let all = event.duration_ms.map(time_of);
    let held = event.held_ms.map(|ms| format!("held {}", time_of(ms)));
    let words: Vec<String> = all.into_iter().chain(held).collect();
    match words.as_slice() {
        [] => String::new(),
        words => format!(" ({})", words.join(", ")),
    }
}

fn time_of(ms: u64) -> String {
    match ms {
        ..1000 => format!("{ms}ms"),
        ms => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
    }
}

/// `12.3 KiB`; what is cut off is cut off, not rounded.
fn bytes(count: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| count >> shift > 0) else {
        return format!("{count} B");
    };
    let tenths = ((count & ((1 << shift) - 1)) * 10) >> shift;
    match tenths {
        0 => format!("{} {unit}", count >> shift),
        _ => format!("{}.{tenths} {unit}", count >> shift),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(kind: Kind, verdict: Verdict, reason: &str) -> Event {
        let mut event = Event::new(kind, verdict, reason);
        event.time = "2030-01-02T08:23:44.512999999Z".into();
        event.host = Some("api.example.com".into());
        event.port = Some(443);
        event.protocol = Some("https".into());
        event
    }

    fn about(mut event: Event) -> Event {
        event.method = Some("GET".into());
        event.url = Some("https://api.example.com/user".into());
        event
    }

    fn shown(event: &Event) -> Option<String> {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let line = Line::at(event, &zone)?.paint(&Colours::default());
        Some(anstream::adapter::strip_str(&line).to_string())
    }

    #[test]
    fn a_response_is_one_line_in_local_time() {
        let mut response = about(event(Kind::Response, Verdict::Allow, "complete"));
        response.status = Some(200);
        response.duration_ms = Some(89);
        assert_eq!(
            shown(&response).unwrap(),
            "[10:23:44.512] GET https://api.example.com/user 200 (89ms)"
        );
        response.reason = "broken-off".into();
        response.credential = Some("github".into());
        assert_eq!(
            shown(&response).unwrap(),
            "[10:23:44.512] GET https://api.example.com/user 200 broken-off with github (89ms)"
        );
    }

    #[test]
    fn a_refusal_names_its_code_program_and_rule() {
        let mut refused = about(event(Kind::Request, Verdict::Deny, "request-not-listed"));
        refused.rule = Some(audit::Rule {
            name: "rules \"api.example.com\" ports 443 POST".into(),
            origin: "agentcontainer.json:4:3".into(),
        });
        refused.process = Some(audit::Process {
            program: Some("/usr/bin/curl".into()),
            ..audit::Process::default()
        });
        assert_eq!(
            shown(&refused).unwrap(),
            "[10:23:44.512] DENY GET https://api.example.com/user request-not-listed by /usr/bin/curl (rules \"api.example.com\" ports 443 POST at agentcontainer.json:4:3)"
        );
        refused.kind = Kind::Connect;
        refused.protocol = None;
        refused.reason = "self-test".into();
        assert_eq!(shown(&refused), None);
    }

    #[test]
    fn an_opaque_connection_is_told_by_its_end_and_a_read_one_by_its_requests() {
        let mut closed = event(Kind::Connect, Verdict::Allow, "closed");
        closed.protocol = Some("tcp".into());
        closed.host = Some("db.internal".into());
        closed.port = Some(5432);
        assert_eq!(
            shown(&event(Kind::Connect, Verdict::Allow, "allowed")),
            None
        );
        closed.bytes_out = Some(12_600);
        closed.bytes_in = Some(4096);
        closed.duration_ms = Some(2150);
        assert_eq!(
            shown(&closed).unwrap(),
            "[10:23:44.512] tcp db.internal:5432 closed 12.3 KiB out, 4 KiB in (2.1s)"
        );
        closed.protocol = Some("https".into());
        assert_eq!(shown(&closed), None);
        let failed = event(Kind::Connect, Verdict::Allow, "connect-failed");
        assert!(shown(&failed).unwrap().ends_with("443 connect-failed"));
    }

    #[test]
    fn what_strangers_chose_is_escaped_and_what_was_lost_is_said() {
        let mut response = about(event(Kind::Response, Verdict::Allow, "complete"));
        response.url = Some("https://api.example.com/\u{1b}[2J\u{202e}\n".into());
        let line = Line::of(&response).unwrap().paint(&Colours::default());
        assert!(line.contains("/\\u{1b}[2J\\u{202e}\\u{a}"), "{line}");
        let mut denied = event(Kind::Connect, Verdict::Deny, "not-listed");
        denied.process = Some(audit::Process {
            program: Some("/a\u{1b}[2Jb".into()),
            ..audit::Process::default()
        });
        let line = Line::of(&denied).unwrap().paint(&Colours::default());
        assert!(line.ends_with(" by /a\\u{1b}[2Jb"), "{line}");
        let mut loss = Event::new(Kind::Loss, Verdict::Flag, "events-lost");
        loss.lost = Some(7);
        assert!(shown(&loss).unwrap().ends_with(" 7 events lost"));
    }

    #[test]
    fn sizes_have_one_unit_and_at_most_one_digit_behind_the_point() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
