//! What an agent, and its person, reads when something was not carried: which host, which rule or that there is none,
//! which file to change, which command to run. Pure functions from facts to text, HTML or JSON; everything that somebody
//! else chose is escaped. Used by `http::serve`.

use serde_json::json;

use crate::events::bounded;
use crate::plan;
use crate::state::{Active, Shown, Waiting};

pub const BLOCKED_HEADER: &str = "x-agentcontainer-blocked";
/// Rules that the internal page lists.
const LISTED: usize = 500;

/// The three forms a page comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Html,
    Json,
}

/// A finished page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub code: Option<&'static str>,
    pub form: Form,
    pub body: String,
}

/// The facts of a refusal.
#[derive(Clone, Copy, Debug)]
pub struct Blocked<'a> {
    pub status: u16,
    pub code: &'static str,
    pub host: &'a str,
    pub port: u16,
    /// The rule that decided, if one did.
    pub rule: Option<&'a audit::Rule>,
    /// One sentence, without host and rule.
    pub why: &'a str,
}

impl Form {
    /// The best of an Accept header's media ranges; text where nothing is said or nothing fits.
    pub fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',').take(32) {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                "application/json" | "application/*" => Self::Json,
                json if json.starts_with("application/") && json.ends_with("+json") => Self::Json,
                "text/html" | "application/xhtml+xml" => Self::Html,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(Some(1.0), |q| q.parse::<f32>().ok())
                .filter(|q| (0.0..=1.0).contains(q))
                .unwrap_or(0.0);
            if quality > best.0 {
                best = (quality, form);
            }
        }
        best.1
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// The page of a refusal.
pub fn blocked(facts: Blocked<'_>, form: Form) -> Page {
    let host = bounded(facts.host, 256);
    let port = facts.port;
    let why = bounded(facts.why, 256);
    let rule = facts.rule.map_or_else(
        || format!("no rule names {host}:{port}"),
        |rule| bounded(&format!("{} ({})", rule.name, rule.origin), 512),
    );
    let change = match (facts.code, facts.rule) {
        ("denied-by-rule", Some(rule)) => {
            bounded(&format!("the rule at {} denies it", rule.origin), 512)
        }
        ("beyond-ceiling", _) => {
            "nothing in the workspace: an organisation's policy is above it".to_owned()
        }
        ("not-asked", _) => {
            "an entry that allows it, in agent.capabilities.network.egress: nobody is asked here".to_owned()
        }
        ("not-listed" | "port-not-listed", _) => {
            let entry = if matches!(port, 80 | 443) && facts.code == "not-listed" {
                host.clone()
            } else {
                format!("{host}:{port}")
            };
            format!(
                "add \"{entry}\" to agent.capabilities.network.egress.allowedDomains; it takes effect when a person has approved it"
            )
        }
        ("request-not-listed", _) => format!(
            "add the method and path to a rule of {host}:{port} in agent.capabilities.network.egress.rules; it takes effect when a person has approved it"
        ),
        ("approval-denied", _) => {
            "a person said no; what may be sent without asking is a rule's to say".to_owned()
        }
        ("approval-timeout", _) => {
            "nothing: your person answers with the command below; then send it again".to_owned()
        }
        ("approval-limit", _) => {
            "nothing: your person answers what waits with the command below; then send it again"
                .to_owned()
        }
        ("approval-withdrawn", _) => "nothing: send it again".to_owned(),
        ("request-denied", _) => "a rule denies it: a denial wins over everything that allows".to_owned(),
        ("credential-elsewhere", _) => {
            "agent.credentials names where a credential may go, within what the host's config.toml grants".to_owned()
        }
        (code, _) if code.starts_with("inspection-") => {
            "agent.inspection says what is done about what an inspector finds, within the host's config.toml; a key that a server needs is for agent.credentials".to_owned()
        }
        ("credential-revoked", _) => {
            "nothing in policy: a person took it away with `agentcontainer credential revoke`".to_owned()
        }
        ("credential-expired" | "credential-unavailable", _) => {
            "nothing in policy: a person hands it anew with `agentcontainer credential rotate`".to_owned()
        }
        ("upstream-certificate", _) => {
            "nothing in policy: a certificate that the host should trust is named in its config.toml, gateway.ca_bundles".to_owned()
        }
        _ => "nothing in policy: what was sent is at fault, or the world behind it".to_owned(),
    };
    let command = match facts.code {
        "approval-timeout" | "approval-limit" => "agentcontainer approvals --follow".to_owned(),
        _ => format!("agentcontainer policy explain {host}:{port}"),
    };
    let body = match form {
        Form::Json => {
            let mut body = json!({
                "blocked": true,
                "code": facts.code,
                "host": host,
                "port": port,
                "rule": facts.rule.map(|rule| json!({ "name": rule.name, "origin": rule.origin })),
                "message": why,
                "file": "agentcontainer.json",
                "change": change,
                "command": command,
                "allowed": format!("http://{}/", plan::INTERNAL_NAME),
            })
            .to_string();
            body.push('\n');
            body
        }
        Form::Text => format!(
            "agentcontainer: {host}:{port} was not reached ({code}): {why}\n\
             rule:     {rule}\n\
             file:     agentcontainer.json: {change}\n\
             command:  {command}\n\
             allowed:  http://{internal}/\n",
            code = facts.code,
            internal = plan::INTERNAL_NAME,
        ),
        Form::Html => format!(
            "<!doctype html>\n<title>agentcontainer: {code}</title>\n\
             <h1>{host}:{port} was not reached</h1>\n<p>{why} (<code>{code}</code>)</p>\n\
             <dl>\n<dt>rule</dt><dd>{rule}</dd>\n<dt>file</dt><dd>agentcontainer.json: {change}</dd>\n\
             <dt>command</dt><dd><code>{command}</code></dd>\n\
             <dt>allowed</dt><dd><a href=\"http://{internal}/\">http://{internal}/</a></dd>\n</dl>\n",
            code = facts.code,
            host = html(&host),
            why = html(&why),
            rule = html(&rule),
            change = html(&change),
            command = html(&command),
            internal = plan::INTERNAL_NAME,
        ),
    };
    Page {
        status: facts.status,
        code: Some(facts.code),
        form,
        body,
    }
}

/// `http://agentcontainer.internal/`: what is allowed, what a person is asked about, rules about files and programs, what waits, what was
/// denied last, how to ask.
pub fn internal(active: &Active, denials: &[Shown], waiting: &[Waiting], form: Form) -> Page {
    let mut allowed = Vec::new();
    let mut asked = Vec::new();
    let mut denied = Vec::new();
    for layer in active.policy.network.layers() {
        for rule in &layer.allowed {
            allowed.push((policy::text::allowed_domain(rule), rule.origin.to_string()));
        }
        for rule in &layer.rules {
            let entry = (policy::text::rule(rule), rule.origin.to_string());
            match rule.action {
                policy::Action::Allow => allowed.push(entry),
                policy::Action::Ask => asked.push(entry),
                policy::Action::Deny => denied.push(entry),
            }
        }
        for rule in &layer.networks {
            allowed.push((policy::text::network(rule), rule.origin.to_string()));
        }
        if let Some(origin) = &layer.ask_unlisted {
            asked.push((policy::text::UNLISTED.to_owned(), origin.to_string()));
        }
        for rule in &layer.denied {
            denied.push((policy::text::denied_domain(rule), rule.origin.to_string()));
        }
    }
    let mut files: Vec<_> = active
        .policy
        .files
        .all()
        .map(|(right, rule)| (policy::text::file(right, rule), rule.origin.to_string()))
        .collect();
    let programs = &active.policy.programs;
    let asked_of_programs = programs
        .require_approval
        .iter()
        .map(|origin| (policy::text::PROGRAMS_ASKED.to_owned(), origin.to_string()));
    let mut programs: Vec<_> = programs
        .all()
        .map(|(right, rule)| (policy::text::program(right, rule), rule.origin.to_string()))
        .chain(asked_of_programs)
        .collect();
    let mut left_out = 0;
    for list in [
        &mut allowed,
        &mut asked,
        &mut denied,
        &mut files,
        &mut programs,
    ] {
        left_out += list.len().saturating_sub(LISTED);
        list.truncate(LISTED);
    }
    let layers = active.policy.network.layers().len();
    let ask = "name the host in agentcontainer.json under agent.capabilities.network.egress.allowedDomains and ask your person to approve it; `agentcontainer policy explain HOST:PORT` says which rule decides";

    let entries = |list: &[(String, String)]| -> Vec<serde_json::Value> {
        list.iter()
            .map(|(name, origin)| json!({ "rule": name, "origin": origin }))
            .collect()
    };
    let body = match form {
        Form::Json => {
            let mut body = json!({
                "session": active.session,
                "generation": active.generation,
                "layers": layers,
                "allowed": entries(&allowed),
                "asked": entries(&asked),
                "waiting": waiting,
                "denied": entries(&denied),
                "files": entries(&files),
                "programs": entries(&programs),
                "leftOut": left_out,
                "lastDenials": denials,
                "howToAsk": ask,
            })
            .to_string();
            body.push('\n');
            body
        }
        Form::Text | Form::Html => {
            let mut text = format!(
                "agentcontainer session {}, policy generation {}\n",
                bounded(&active.session, 64),
                active.generation
            );
            if layers > 1 {
                text.push_str("A connection has to be allowed by each of several parties: what one names is not yet allowed.\n");
            }
            for (title, list) in [
                ("allowed", &allowed),
                ("allowed once a person says so", &asked),
                ("denied", &denied),
                ("files, for as long as this session runs", &files),
                ("programs, for as long as this session runs", &programs),
            ] {
                if list.is_empty() && !matches!(title, "allowed" | "denied") {
                    continue;
                }
                text.push_str(&format!("\n{title}:\n"));
                if list.is_empty() {
                    text.push_str("  nothing\n");
                }
                for (name, origin) in list {
                    text.push_str(&bounded(&format!("  {name}  ({origin})"), 1024));
                    text.push('\n');
                }
            }
            if left_out > 0 {
                text.push_str(&format!("  and {left_out} more\n"));
            }
            if !waiting.is_empty() {
                text.push_str("\nwaits for a person (agentcontainer approvals):\n");
            }
            for one in waiting {
                let left = one.seconds_left();
                let line = format!("  {} {} ({left} s left)", one.question, one.what);
                text.push_str(&bounded(&line, 512));
                text.push('\n');
            }
            text.push_str("\nlast denials:\n");
            if denials.is_empty() {
                text.push_str("  none\n");
            }
            for denial in denials {
                let port = denial.port.map_or(String::new(), |port| format!(":{port}"));
                let asked = denial.question.as_ref();
                let asked =
                    asked.map_or(String::new(), |id| format!(", a person is asked as {id}"));
                let line = format!(
                    "  {}{port} {}{asked} ({} s ago)",
                    denial.host,
                    denial.reason,
                    denial.at.elapsed().as_secs()
                );
                text.push_str(&bounded(&line, 512));
                text.push('\n');
            }
            text.push_str(&format!("\nhow to ask: {ask}\n"));
            if form == Form::Html {
                format!(
                    "<!doctype html>\n<title>agentcontainer</title>\n<pre>{}</pre>\n",
                    html(&text)
                )
            } else {
                text
            }
        }
    };
    Page {
        status: 200,
        code: None,
        form,
        body,
    }
}

/// Text as HTML content or attribute value.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Page {
    /// As a whole response that ends the connection, for requests that no HTTP library may see.
    pub fn raw(&self) -> Vec<u8> {
        let reason = http_reason(self.status);
        let blocked = self.code.map_or(String::new(), |code| {
            format!("{BLOCKED_HEADER}: {code}\r\n")
        });
        format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\n{blocked}cache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{}",
            self.status,
            self.form.content_type(),
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

fn http_reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Refused")
}

#[cfg(test)]
mod tests;
