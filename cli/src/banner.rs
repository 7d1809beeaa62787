//! The few lines that `run` begins with: what runs, as whom, what it may reach, and which layer sees to it.

use engine::plan::Planned;
use engine::request::CreateRequest;
use policy::{Action, EffectivePolicy, FileRight};
use schema::net::Protocol;

use crate::credentials;
use crate::loaded::Loaded;
use crate::record::Record;
use crate::report;
use crate::start::Ready;

/// Destinations that are written out; the rest are counted.
const MAX_SHOWN: usize = 12;

/// Prints the banner.
pub fn print(loaded: &Loaded, record: &Record, ready: &Ready) {
    let request = &ready.request;
    let name = match &record.name {
        Some(name) => format!("{} ({name})", record.session),
        None => record.session.to_string(),
    };
    report::banner("session", name);
    report::banner("image", image(record, request));
    report::banner("user", format!("{} ({})", request.user, ready.identity.by));
    for policy in &loaded.organisations {
        report::banner(
            "policy",
            format!(
                "{}, serial {}, until {} ({})",
                policy.organisation.value, policy.serial.value, policy.not_after.value, policy.file
            ),
        );
    }
    report::banner("network", reach(&loaded.policy));
    if let Some(asked) = asked(&loaded.policy) {
        report::banner("asked first", asked);
    }
    for credential in &loaded.policy.credentials {
        report::banner("credentials", credentials::shown(credential));
    }
    for line in secrets(&loaded.policy) {
        report::banner("secrets", line);
    }
    for line in files(&loaded.policy) {
        report::banner("files", line);
    }
    for line in programs(&loaded.policy) {
        report::banner("programs", line);
    }
    if let Some(line) = inspection(&loaded.policy) {
        report::banner("inspection", line);
    }
    let hooks = &ready.opened.hooks;
    let lsm = hooks.iter().filter(|hook| hook.lsm).count();
    let starts = hooks.iter().any(|hook| hook.starts);
    let gate = hooks.iter().filter(|hook| !hook.lsm && !hook.starts);
    let gate: Vec<&str> = gate.map(|hook| hook.name.as_str()).collect();
    let policy = &loaded.policy;
    let unruled = policy.files.is_empty() && policy.programs.is_empty();
    let files = match (unruled, lsm, starts) {
        (true, _, _) => String::new(),
        (false, 0, false) => "mounts, ".to_owned(),
        (false, 0, true) => "mounts and a tracepoint at each start, ".to_owned(),
        (false, n, _) => format!("mounts and BPF LSM ({n} hooks), "),
    };
    report::banner(
        "held by",
        format!("kernel ({}), {files}gateway", gate.join(" ")),
    );
    if loaded.policy.files.is_about_later() && lsm == 0 {
        let words = "patterns hold for what is there now, and not for what comes later";
        report::banner("note", words);
    }
    for line in opaque(&loaded.policy) {
        report::banner("note", line);
    }
    for remark in &ready.remarks {
        report::banner("note", remark);
    }
}

fn image(record: &Record, request: &CreateRequest) -> String {
    let digest = request.image.digest.hex();
    let short = digest.get(..12).unwrap_or_default();
    if request.image.is_local() {
        format!("{} (only this engine has it: id {short})", record.image)
    } else {
        format!("{} @ sha256:{short}", record.image)
    }
}

/// What is allowed, in a line.
pub fn reach(policy: &EffectivePolicy) -> String {
    let mut places: Vec<String> = Vec::new();
    for layer in policy.network.layers() {
        for domain in &layer.allowed {
            places.push(match domain.port {
                Some(port) => format!("{}:{port}", domain.host),
                None => domain.host.to_string(),
            });
        }
        for rule in layer.rules.iter().filter(|r| r.action == Action::Allow) {
            let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
            places.push(format!("{}:{}", rule.host, ports.join(",")));
        }
        for network in &layer.networks {
            places.push(format!("{}:{}", network.cidr, network.port));
        }
    }
    if places.is_empty() {
        return "nothing".to_owned();
    }
    shown(places, " ")
}

/// What a person is asked about, in a line.
fn asked(policy: &EffectivePolicy) -> Option<String> {
    let mut places: Vec<String> = Vec::new();
    for layer in policy.network.layers() {
        for rule in layer.rules.iter().filter(|r| r.action == Action::Ask) {
            let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
            let requests = policy::text::requests(&rule.requests);
            places.push(format!("{}:{}{requests}", rule.host, ports.join(",")));
        }
        if layer.ask_unlisted.is_some() {
            places.push("whatever is not listed".to_owned());
        }
    }
    (!places.is_empty()).then(|| format!("{} (agentcontainer approvals)", shown(places, ", ")))
}

/// In order, written out up to a bound.
fn shown(mut places: Vec<String>, between: &str) -> String {
    places.sort();
    places.dedup();
    match places.len() {
        n if n > MAX_SHOWN => format!(
            "{} and {} more",
            places[..MAX_SHOWN].join(between),
            n - MAX_SHOWN
        ),
        _ => places.join(between),
    }
}

/// What is done to files, a line for each list.
pub fn files(policy: &EffectivePolicy) -> Vec<String> {
    let files = &policy.files;
    let mut lines = Vec::new();
    for (right, rules) in [
        (FileRight::ReadOnly, &files.read_only),
        (FileRight::Writable, &files.writable),
        (FileRight::Denied, &files.denied),
    ] {
        let paths: Vec<String> = rules.iter().map(|rule| rule.path.to_string()).collect();
        if !paths.is_empty() {
            lines.push(format!("{}: {}", right.word(), shown(paths, " ")));
        }
    }
    lines
}

/// Which programs are started, a line for each list.
pub fn programs(policy: &EffectivePolicy) -> Vec<String> {
    let programs = &policy.programs;
    let names = |rules: &[policy::ProgramRule]| {
        shown(
            rules.iter().map(|rule| rule.name.to_string()).collect(),
            " ",
        )
    };
    let mut lines = Vec::new();
    if let Some(allowed) = &programs.allowed {
        lines.push(format!("no other than: {}", names(allowed)));
    }
    if programs.is_whole() {
        let words = "none from mounts that can be written and have nothing listed (noexec)";
        lines.push(words.to_owned());
    }
    if !programs.denied.is_empty() {
        lines.push(format!("denied: {}", names(&programs.denied)));
    }
    if programs.require_approval.is_some() {
        lines.push("a person is asked about others (agentcontainer approvals)".to_owned());
    }
    lines
}

fn secrets(policy: &EffectivePolicy) -> Vec<String> {
    let secrets = policy.secrets.all.iter();
    secrets.map(credentials::shown_file).collect()
}

/// The levels that are not as by default.
fn inspection(policy: &EffectivePolicy) -> Option<String> {
    let unusual = policy.inspection.unusual();
    let words: Vec<String> = unusual
        .map(|(inspector, level)| format!("{} {}", inspector.as_str(), level.as_str()))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// What is carried without being read, said so.
fn opaque(policy: &EffectivePolicy) -> Vec<String> {
    let unread = |protocol: Protocol| matches!(protocol, Protocol::Tls | Protocol::Tcp);
    let mut places: Vec<String> = Vec::new();
    for layer in policy.network.layers() {
        for domain in &layer.allowed {
            if let Some(port) = domain.port
                && unread(Protocol::default_for_port(port))
            {
                places.push(format!("{}:{port}", domain.host));
            }
        }
        for rule in layer.rules.iter().filter(|r| r.action != Action::Deny) {
            for &port in &rule.ports {
                if unread(rule.protocol.unwrap_or(Protocol::default_for_port(port))) {
                    places.push(format!("{}:{port}", rule.host));
                }
            }
        }
        for network in layer.networks.iter().filter(|n| unread(n.protocol)) {
            places.push(format!("{}:{}", network.cidr, network.port));
        }
    }
    let mut lines = Vec::new();
    if !places.is_empty() {
        lines.push(format!("carried unread: {}", shown(places, " ")));
    }
    if policy.gateway.upstream_proxy.is_some() {
        lines.push("an upstream proxy resolves names: rebinding is the proxy's to stop".to_owned());
    }
    lines
}

/// The same for `run --plan`, on stdout.
pub fn plan(loaded: &Loaded, record: &Record, planned: &Planned) -> String {
    let mut lines = vec![
        format!("image        {}", image(record, &planned.request)),
        format!(
            "user         {} ({})",
            planned.request.user, planned.identity.by
        ),
        format!("network      {}", reach(&loaded.policy)),
    ];
    lines.extend(asked(&loaded.policy).map(|line| format!("asked first  {line}")));
    let credentials = loaded.policy.credentials.iter().map(credentials::shown);
    lines.extend(credentials.map(|line| format!("credentials  {line}")));
    let secrets = secrets(&loaded.policy).into_iter();
    lines.extend(secrets.map(|line| format!("secrets      {line}")));
    let files = files(&loaded.policy).into_iter();
    lines.extend(files.map(|line| format!("files        {line}")));
    let programs = programs(&loaded.policy).into_iter();
    lines.extend(programs.map(|line| format!("programs     {line}")));
    lines.extend(inspection(&loaded.policy).map(|line| format!("inspection   {line}")));
    lines.extend(
        opaque(&loaded.policy)
            .into_iter()
            .map(|l| format!("note         {l}")),
    );
    lines.extend(planned.notes.iter().map(|l| format!("note         {l}")));
    lines
        .iter()
        .map(|l| report::escape(l))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(egress: &str) -> EffectivePolicy {
        let text = format!(
            r#"{{ "image": "x", "agent": {{ "capabilities": {{ "network": {{ "egress": {egress} }} }} }} }}"#
        );
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        policy::effective(&config, &schema::hostconfig::HostConfig::default()).unwrap()
    }

    #[test]
    fn the_banner_says_what_is_reachable_and_what_is_not_read() {
        let some = policy(
            r#"{ "allowedDomains": ["b.test", "db.test:5432"], "networks": ["10.1.0.0/16:5432"],
                 "rules": [{ "host": "a.test", "ports": [22], "protocol": "tcp" }, { "host": "no.test", "ports": [1], "action": "deny" }] }"#,
        );
        assert_eq!(
            reach(&some),
            "10.1.0.0/16:5432 a.test:22 b.test db.test:5432"
        );
        assert_eq!(
            opaque(&some),
            ["carried unread: 10.1.0.0/16:5432 a.test:22 db.test:5432"]
        );
        assert!(opaque(&policy(r#"{ "allowedDomains": ["b.test"] }"#)).is_empty());
        let asks = policy(
            r#"{ "unlisted": "ask", "rules": [{ "host": "a.test", "ports": [443], "methods": ["POST"], "action": "ask" }] }"#,
        );
        assert_eq!(reach(&asks), "nothing");
        assert_eq!(
            asked(&asks).unwrap(),
            "a.test:443 POST, whatever is not listed (agentcontainer approvals)"
        );
        assert_eq!(asked(&some), None);
        let none = policy("{}");
        assert_eq!(reach(&none), "nothing");
        assert!(opaque(&none).is_empty());
        let many: Vec<String> = (0..20).map(|n| format!("\"h{n}.test:22\"")).collect();
        let many = policy(&format!("{{ \"allowedDomains\": [{}] }}", many.join(",")));
        assert!(reach(&many).ends_with("and 8 more"));
        assert!(opaque(&many)[0].ends_with("and 8 more"));
    }
}
