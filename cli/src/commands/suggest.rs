//! `agentcontainer policy suggest`: the entries that would have let pass what a session was refused, by program, and with
//! `--write` put into the config. That changes what nobody approved yet: the next `run` asks.

use std::path::{Path, PathBuf};

use audit::{Event, Kind, Verdict};
use policy::suggest::{Denials, Denied, List, Programs, Suggestions};
use schema::config::discover::Flavour;
use schema::jsonc::MAX_FILE_BYTES;
use serde_json::json;

use super::{audit as record_of, json as set_json};
use crate::loaded::Loaded;
use crate::patch::{self, Target};
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{channel, events, record};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: id, name or a unique beginning of either; the last one of this directory when left out
    name: Option<String>,
    /// Add the entries to the config and show what changed; the next `run` asks for approval
    #[arg(long)]
    write: bool,
    /// The config to use, instead of the one the session was started with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = set_json(args.json);
    let places = Places::from_env()?;
    let session = record_of::session(&places, args.name.as_deref())?;
    let wanted = config(args, &places, &session)?;
    let loaded = Loaded::read(wanted.as_deref())?;
    let denials = denials(&places, &session).await?;
    let said = denials.suggest(&loaded.policy.compile());
    let written = if args.write && !said.suggestions.is_empty() {
        Some(write(wanted.as_deref(), &loaded, &said)?)
    } else {
        None
    };
    let file = &loaded.config.file;
    let place = patch::place(Flavour::of(file)).join(".");
    if as_json {
        let mut value = json!({ "session": session, "file": file, "place": place });
        let all = serde_json::to_value(&said).unwrap_or_default();
        if let (Some(value), serde_json::Value::Object(all)) = (value.as_object_mut(), all) {
            value.extend(all);
        }
        value["written"] = json!(written.is_some());
        value["difference"] = json!(written);
        report::out_json(&value);
        return Ok(0);
    }
    match written {
        Some(lines) => {
            report::out(escape(&format!("changed {file}:")));
            lines.iter().for_each(|line| report::out(escape(line)));
            report::out("the next `agentcontainer run` asks for approval of what is new");
        }
        None if said.suggestions.is_empty() => report::out("nothing to add"),
        None => {
            report::out(escape(&format!("// for `{place}` in {file}")));
            report::out(snippet(&said));
        }
    }
    rest(&said);
    Ok(0)
}

/// The config that the session was started with, unless another is asked for.
fn config(args: &Args, places: &Places, session: &str) -> Result<Option<PathBuf>, Failure> {
    if args.config.is_some() {
        return Ok(args.config.clone());
    }
    let Some(record) = record::Record::load(&places.session(session)) else {
        return Ok(None);
    };
    if record.workspace != crate::loaded::workspace()? {
        return Err(Failure::new(
            "other-workspace",
            format!(
                "the session {} is one of {}",
                record.shown(),
                record.workspace.display()
            ),
        )
        .help("ask in that directory, or name the config with --config"));
    }
    Ok(Some(record.workspace.join(&record.config)))
}

async fn denials(places: &Places, session: &str) -> Result<Denials, Failure> {
    let mut enforcer = record_of::enforcer(places).await?;
    let mut stream = events::open(&mut enforcer, session, 0, false).await?;
    let mut denials = Denials::default();
    while let Some(line) = stream
        .message()
        .await
        .map_err(|status| channel::refused("go on with the events", &status))?
    {
        if let Some(event) = events::parse(&line)
            && let Some(denied) = denied(&event)
        {
            let program = match &event.process {
                None => "an unknown program".to_owned(),
                Some(process) => match &process.program {
                    Some(program) => program.clone(),
                    // The name that it gave itself.
                    None => format!("{} (gone)", process.comm),
                },
            };
            denials.add(denied, &program);
        }
    }
    Ok(denials)
}

/// A refused connection or request; what the page said of a connection that had been refused already is none of its own.
fn denied(event: &Event) -> Option<Denied> {
    if event.verdict != Verdict::Deny || event.reason == "self-test" {
        return None;
    }
    let request = match event.kind {
        Kind::Connect | Kind::Send => None,
        Kind::Request
            if !matches!(
                event.reason.as_str(),
                "not-listed"
                    | "port-not-listed"
                    | "denied-by-rule"
                    | "protocol-conflict"
                    | "beyond-ceiling"
                    | "not-asked"
            ) =>
        {
            event.method.clone().zip(event.url.as_deref().map(path))
        }
        _ => return None,
    };
    Some(Denied {
        host: event.host.clone().or_else(|| event.address.clone())?,
        port: event.port,
        protocol: event.protocol.clone(),
        reason: event.reason.clone(),
        request,
    })
}

/// The path alone of a URL on record.
fn path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or("/").to_owned()
}

fn times(programs: &Programs) -> String {
    let many = |count: u64| match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    };
    let all: Vec<String> = programs
        .iter()
        .map(|(program, count)| format!("{program} {}", many(*count)))
        .collect();
    escape(&all.join(", "))
}

/// The entries as they could stand in the file, each with who asked for it and how often.
fn snippet(said: &Suggestions) -> String {
    let mut out = String::from("{\n");
    for list in [List::AllowedDomains, List::Rules] {
        let of_list = || said.suggestions.iter().filter(|one| one.list == list);
        if of_list().next().is_none() {
            continue;
        }
        out += &format!("  \"{}\": [\n", patch::list(list));
        for one in of_list() {
            // A program's name is a stranger's: escaped, it stays within its line and its comment.
            out += &format!("    // {}\n    {},\n", times(&one.programs), one.entry);
        }
        out += "  ],\n";
    }
    out + "}"
}

/// What is not suggested, and what was left out.
fn rest(said: &Suggestions) {
    if !said.without.is_empty() {
        report::out("no entry for:");
    }
    for one in &said.without {
        report::out(format!(
            "  {} {}: {} ({})",
            escape(&one.what),
            escape(&one.code),
            escape(&one.why),
            times(&one.programs)
        ));
    }
    if said.allowed_meanwhile > 0 {
        let count = said.allowed_meanwhile;
        report::out(format!("{count} of the denials would be allowed by now"));
    }
    if said.beyond > 0 {
        report::out(format!("{} denials more were not looked at", said.beyond));
    }
}

/// Puts the entries into the config and gives what changed. What comes out must say what was there and the entries, no more.
fn write(
    wanted: Option<&Path>,
    loaded: &Loaded,
    said: &Suggestions,
) -> Result<Vec<String>, Failure> {
    let file = &loaded.config.file;
    let path = match wanted {
        // As it was named: what was read is what a link leads to.
        Some(path) => absolute(path)?,
        None => loaded.workspace.join(file),
    };
    let cannot = |why: &str| {
        Failure::new("config-patch", format!("{file} cannot be changed: {why}"))
            .help("add the entries by hand")
    };
    let target = Target::open(&path, MAX_FILE_BYTES)?;
    let text = patch::add(&target.text, Flavour::of(file), &said.suggestions)
        .ok_or_else(|| cannot("the place of the entries holds something else"))?;
    let policy_of = |text: &str| {
        let config = schema::config::parse(text.as_bytes(), file)?;
        loaded.held(&config)
    };
    let (before, after) = (policy_of(&target.text)?, policy_of(&text)?);
    if before.to_json() != loaded.policy.to_json() {
        return Err(cannot("it was changed meanwhile"));
    }
    let changes = policy::difference::difference(&before, &after);
    let added = changes.iter().filter(|change| change.what == "added");
    if changes.len() != said.suggestions.len() || added.count() != changes.len() {
        return Err(cannot("more than the entries would change"));
    }
    let lines = patch::difference(&target.text, &text);
    target.replace(&text)?;
    Ok(lines)
}

pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::new("config-file", format!("{} is no file", path.display())))?;
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    directory
        .canonicalize()
        .map(|dir| dir.join(name))
        .map_err(|e| Failure::io("find", path, &e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use policy::suggest::Suggestion;

    #[test]
    fn a_path_is_taken_out_of_what_is_on_record() {
        for (url, wanted) in [
            ("https://a.b/c/d?x=***", "/c/d"),
            ("https://a.b:8443/c#d", "/c"),
            ("https://a.b", "/"),
            ("/c?d", "/c"),
        ] {
            assert_eq!(path(url), wanted);
        }
    }

    #[test]
    fn the_page_of_a_refused_connection_is_no_second_denial() {
        let mut event = Event::new(Kind::Request, Verdict::Deny, "not-listed");
        event.host = Some("a.b".into());
        assert_eq!(denied(&event), None);
        event.kind = Kind::Connect;
        assert!(denied(&event).is_some());
        event.reason = "self-test".into();
        assert_eq!(denied(&event), None);
    }

    #[test]
    fn a_programs_name_cannot_leave_its_comment() {
        let said = Suggestions {
            suggestions: vec![Suggestion {
                list: List::AllowedDomains,
                entry: json!("a.example.com"),
                programs: [("/x\n\"evil.test\",\u{2028}".to_owned(), 2)].into(),
            }],
            ..Suggestions::default()
        };
        let text = snippet(&said);
        let options = jsonc_parser::ParseOptions::default();
        let value: serde_json::Value = jsonc_parser::parse_to_serde_value(&text, &options).unwrap();
        assert_eq!(value, json!({ "allowedDomains": ["a.example.com"] }));
    }
}
