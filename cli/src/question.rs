//! What a person is asked, in words: the place first and in its canonical spelling, then what is to be done there, by whom, and by
//! which rule. Everything in it is somebody else's choice and is escaped. Also the one way to the questions that are open.

use std::time::{SystemTime, UNIX_EPOCH};

use api::v1;
use serde_json::{Value, json};

use crate::channel::{self, Enforcer};
use crate::report::{Failure, escape};

/// Characters of a path and query that are shown; the rest is counted.
const MAX_TARGET: usize = 400;

/// Characters of a program's path that are shown.
const MAX_PROGRAM: usize = 128;

/// Opens the stream of what waits, and with `follow` of what comes and goes.
pub async fn open(
    enforcer: &mut Enforcer,
    session: &str,
    follow: bool,
) -> Result<tonic::Streaming<v1::Approval>, Failure> {
    let request = v1::ApprovalsRequest {
        session: session.to_owned(),
        follow,
    };
    enforcer
        .approvals(request)
        .await
        .map(tonic::Response::into_inner)
        .map_err(|status| channel::refused("show what waits", &status))
}

/// Everything that waits now, the oldest first.
pub async fn all(enforcer: &mut Enforcer, session: &str) -> Result<Vec<v1::Question>, Failure> {
    let mut stream = open(enforcer, session, false).await?;
    let mut questions = Vec::new();
    while let Some(approval) = stream
        .message()
        .await
        .map_err(|status| channel::refused("go on with what waits", &status))?
    {
        if let Some(v1::approval::Change::Open(question)) = approval.change {
            questions.push(question);
        }
    }
    Ok(questions)
}

/// Answers one question.
pub async fn answer(
    enforcer: &mut Enforcer,
    id: &str,
    allow: bool,
    session: bool,
) -> Result<v1::Question, Failure> {
    let request = v1::AnswerRequest {
        id: id.to_owned(),
        allow,
        session,
    };
    match enforcer.answer(request).await {
        Ok(reply) => Ok(reply.into_inner().question.unwrap_or_default()),
        Err(status) if status.code() == tonic::Code::NotFound => Err(gone(status.message())),
        Err(status) => Err(channel::refused("take the answer", &status)),
    }
}

/// There is nothing to answer: it never was, or is over.
pub fn gone(message: &str) -> Failure {
    Failure::new("no-question", message).help("`agentcontainer approvals` shows what waits")
}

/// Most of those whose child the asker is that are shown.
const MAX_PARENTS: usize = 4;
/// Characters of a command line that are shown.
const MAX_LINE: usize = 240;

/// `api.example.com:443 https POST /path`: where to first. Of a program the whole path.
pub fn what(question: &v1::Question) -> String {
    if !question.program.is_empty() {
        return escape(&format!("start {}", quoted(&question.program)));
    }
    let place = format!("{}:{} {}", question.host, question.port, question.protocol);
    if question.method.is_empty() {
        return escape(&format!("{place} connection, carried unread"));
    }
    let shown: String = question.target.chars().take(MAX_TARGET).collect();
    let more = question.target.len() - shown.len();
    let more = match more {
        0 => String::new(),
        more => format!(" … and {more} bytes more"),
    };
    // What belongs to the request is told from what is said about it: its own blanks are escaped on the wire.
    escape(&format!("{place} {} {shown}{more}", question.method))
}

/// `/usr/bin/curl (pid 12, user 1000)`.
pub fn who(question: &v1::Question) -> String {
    let Some(asker) = &question.asker else {
        return "a program that is not known".to_owned();
    };
    let name = match asker.program.as_str() {
        "" => format!("{} (gone)", one_word(&asker.comm)),
        program => one_word(program),
    };
    let pid = match asker.pid {
        0 => String::new(),
        pid => format!("pid {pid}, "),
    };
    escape(&format!("{name} ({pid}user {})", asker.uid))
}

/// A name that a stranger chose as one word without blanks, so that it does not look like a line of ours however the terminal breaks it.
fn one_word(name: &str) -> String {
    let shown: String = name.chars().take(MAX_PROGRAM).collect();
    let more = match name.len() - shown.len() {
        0 => String::new(),
        more => format!("… and {more} bytes more"),
    };
    format!("{}{more}", quoted(&shown))
}

/// The whole of it, in quotation marks where it is not plain.
fn quoted(shown: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@:=,~".contains(c);
    if !shown.is_empty() && shown.chars().all(plain) {
        return shown.to_owned();
    }
    let escaped = |c: char| match c {
        c if c.is_whitespace() => c.escape_unicode().to_string(),
        '"' | '\\' => format!("\\{c}"),
        c => c.to_string(),
    };
    let quoted: String = shown.chars().map(escaped).collect();
    format!("\"{quoted}\"")
}

/// What else is known of who wants a program started: its own command line, and whose child it is, each with its own.
pub fn more(question: &v1::Question) -> Vec<(&'static str, String)> {
    let mut more = Vec::new();
    if !question.line.is_empty() {
        more.push(("says it ran", command(&question.line)));
    }
    let shown = question.parents.iter().take(MAX_PARENTS);
    for (at, parent) in shown.enumerate() {
        let (program, line) = (one_word(&parent.program), command(&parent.line));
        let left = question.parents.len().saturating_sub(MAX_PARENTS);
        let rest = match (at + 1 == MAX_PARENTS, left) {
            (true, 1..) => format!(", and {left} above it"),
            _ => String::new(),
        };
        let text = format!(
            "{program} (pid {}), which says it ran {line}{rest}",
            parent.pid
        );
        more.push(("child of", escape(&text)));
    }
    more
}

/// A command line, each of its words as one.
fn command(line: &[String]) -> String {
    let words: Vec<String> = line.iter().map(|word| quoted(word)).collect();
    let whole = escape(&words.join(" "));
    let shown: String = whole.chars().take(MAX_LINE).collect();
    match whole.len() - shown.len() {
        0 => shown,
        more => format!("{shown}… and {more} bytes more"),
    }
}

pub fn rule(question: &v1::Question) -> String {
    escape(&format!("{} at {}", question.rule, question.origin))
}

/// Seconds until it is denied.
pub fn seconds_left(question: &v1::Question) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    question.expires_ms.saturating_sub(now).div_ceil(1000)
}

/// What an answer for the session covers.
pub fn scope(question: &v1::Question) -> String {
    if !question.program.is_empty() {
        let program = quoted(&question.program);
        return escape(&format!(
            "every start of {program}, as it is now: nobody inside changes it any more"
        ));
    }
    let path = question.target.split('?').next().unwrap_or_default();
    let place = format!("{}:{}", question.host, question.port);
    escape(&match question.method.as_str() {
        "" => format!("every connection to {place} by this rule"),
        method => {
            let shown: String = path.chars().take(MAX_TARGET).collect();
            let more = match path.len() - shown.len() {
                0 => String::new(),
                more => format!(" … and {more} bytes more"),
            };
            format!("every {method} {place}{shown}{more}, whatever its query and body")
        }
    })
}

/// In several lines.
pub fn shown(question: &v1::Question) -> String {
    let more = more(question).into_iter();
    let more: String = more
        .map(|(label, text)| format!("\n  {label}  {text}"))
        .collect();
    format!(
        "{id}  {left} s left  session {session} in {workspace}\n  what  {what}\n  who   {who}{more}\n  rule  {rule}",
        id = escape(&question.id),
        left = seconds_left(question),
        session = escape(&question.session),
        workspace = escape(&question.workspace),
        what = what(question),
        who = who(question),
        rule = rule(question),
    )
}

/// For machines.
pub fn json(question: &v1::Question) -> Value {
    let asker = question.asker.as_ref().map(|asker| {
        json!({
            "pid": (asker.pid != 0).then_some(asker.pid),
            "hostPid": asker.host_pid,
            "uid": asker.uid,
            "program": (!asker.program.is_empty()).then_some(&asker.program),
            "comm": asker.comm,
        })
    });
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let parent = |parent: &v1::Ancestor| json!({ "pid": parent.pid, "program": said(&parent.program), "line": parent.line });
    let parents: Vec<Value> = question.parents.iter().map(parent).collect();
    let is_start = !question.program.is_empty();
    json!({
        "id": question.id,
        "session": question.session,
        "workspace": question.workspace,
        "kind": question.kind,
        "host": said(&question.host),
        "port": (!is_start).then_some(question.port),
        "protocol": said(&question.protocol),
        "method": said(&question.method),
        "target": said(&question.target),
        "program": said(&question.program),
        "process": asker,
        "line": is_start.then_some(&question.line),
        "parents": is_start.then_some(parents),
        "rule": { "name": question.rule, "origin": question.origin },
        "generation": question.generation,
        "secondsLeft": seconds_left(question),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> v1::Question {
        v1::Question {
            id: "k7d3f".into(),
            session: "s1".into(),
            workspace: "/w".into(),
            rule: "rules \"a.b\" ports 443 ask".into(),
            origin: "agentcontainer.json:3:5".into(),
            host: "a.b".into(),
            port: 443,
            protocol: "https".into(),
            method: "POST".into(),
            target: "/pay?to=me".into(),
            asker: Some(v1::Asker {
                pid: 12,
                host_pid: 99,
                uid: 1000,
                program: "/usr/bin/curl".into(),
                comm: "curl".into(),
            }),
            ..v1::Question::default()
        }
    }

    #[test]
    fn the_place_comes_first_and_nothing_a_stranger_chose_steers_the_terminal() {
        let mut question = question();
        assert_eq!(what(&question), "a.b:443 https POST /pay?to=me");
        assert_eq!(who(&question), "/usr/bin/curl (pid 12, user 1000)");
        assert_eq!(
            scope(&question),
            "every POST a.b:443/pay, whatever its query and body"
        );
        question.target = "/\u{1b}[2J\u{202e}\n".into();
        question.workspace = "/\u{1b}c".into();
        if let Some(asker) = &mut question.asker {
            asker.program = "/bin/\u{1b}[A\rx".into();
        }
        let shown = shown(&question);
        assert_eq!(shown.lines().count(), 4, "{shown}");
        assert!(!shown.contains(['\u{1b}', '\r', '\u{202e}']), "{shown}");
        question.method = String::new();
        assert_eq!(what(&question), "a.b:443 https connection, carried unread");
    }

    #[test]
    fn a_program_is_shown_whole_with_whoever_wants_it_and_whose_child_that_is() {
        let parent = |pid, program: &str, line: &[&str]| v1::Ancestor {
            pid,
            program: program.into(),
            line: line.iter().map(|word| (*word).to_owned()).collect(),
        };
        let path = format!("/work/{}/my tool", "x".repeat(400));
        let mut question = v1::Question {
            kind: "exec".into(),
            host: String::new(),
            program: path.clone(),
            line: vec![
                "sh".into(),
                "-c".into(),
                "a \u{1b}[2J\nwhat  b".into(),
                String::new(),
            ],
            parents: vec![
                parent(7, "/usr/bin/node", &["node", "a\rb"]),
                parent(1, "/init", &["init", &"y".repeat(MAX_LINE)]),
            ],
            ..question()
        };
        assert_eq!(
            what(&question),
            format!("start \"{}\"", path.replace(' ', "\\u{20}"))
        );
        assert!(scope(&question).starts_with("every start of \"/work/xxx"));
        let shown = shown(&question);
        assert!(!shown.contains(['\u{1b}', '\r']), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 7, "{shown}");
        assert!(
            lines[3].starts_with("  says it ran  sh -c \"a\\u{20}"),
            "{shown}"
        );
        assert!(lines[3].ends_with(" \"\""), "{shown}");
        assert!(
            lines[4].starts_with("  child of  /usr/bin/node (pid 7), which says it ran node \"a"),
            "{shown}"
        );
        assert!(lines[5].ends_with("… and 5 bytes more"), "{shown}");
        assert_eq!(json(&question)["host"], Value::Null);
        assert_eq!(json(&question)["parents"][0]["pid"], 7);
        question.parents = vec![parent(7, "/p", &["p"]); MAX_PARENTS + 2];
        let more = more(&question);
        assert_eq!(more.len(), 1 + MAX_PARENTS);
        assert!(
            more[MAX_PARENTS]
                .1
                .ends_with("which says it ran p, and 2 above it"),
            "{more:?}"
        );
    }

    #[test]
    fn a_long_path_does_not_hide_the_place() {
        let mut question = question();
        question.target = "/".repeat(MAX_TARGET);
        assert!(!what(&question).contains("more"));
        question.target = "/".repeat(MAX_TARGET + 1);
        let what = what(&question);
        assert!(what.starts_with("a.b:443 https POST /"), "{what}");
        assert!(what.ends_with(" … and 1 bytes more"), "{what}");
        let scope = scope(&question);
        assert!(scope.contains("/ … and 1 bytes more, whatever"), "{scope}");
    }

    #[test]
    fn a_program_is_one_word_and_no_line_of_ours() {
        let mut question = question();
        let mut named = |program: String| {
            if let Some(asker) = &mut question.asker {
                asker.program = program;
            }
            who(&question)
        };
        let padded = format!("/tmp/x{}session  means every GET", " ".repeat(70));
        let shown = named(padded);
        assert!(
            !shown.contains("  ") && shown.starts_with("\"/tmp/x\\u{20}"),
            "{shown}"
        );
        let longest = "x".repeat(MAX_PROGRAM);
        assert!(named(longest.clone()).starts_with(&format!("{longest} (pid 12")));
        let longer = named(format!("{longest}y"));
        assert!(
            longer.starts_with(&format!("{longest}… and 1 bytes more (pid 12")),
            "{longer}"
        );
    }
}
