//! git's configuration format (git-config(1), "Syntax") as far as a merge needs it: sections, keys, values. Reading is
//! lenient (a line that is not understood is no entry), writing is not: only names and values of a closed spelling are ever
//! written back, so that nothing read here can come out as something else there.

/// The most entries that are read.
pub const MAX_ENTRIES: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Lower case.
    pub section: String,
    pub subsection: Option<String>,
    /// Lower case.
    pub key: String,
    pub value: String,
}

#[derive(Clone, Debug, Default)]
pub struct Config {
    pub entries: Vec<Entry>,
    /// There are more than are read.
    pub cut_off: bool,
}

/// What a merge would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// The new text, when there is anything to bring back.
    pub text: Option<String>,
    pub applied: Vec<String>,
    pub left_out: Vec<String>,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.", self.section)?;
        if let Some(subsection) = &self.subsection {
            write!(f, "{subsection}.")?;
        }
        write!(f, "{} = {}", self.key, self.value)
    }
}

impl Config {
    pub fn values<'a>(
        &'a self,
        section: &'a str,
        subsection: Option<&'a str>,
        key: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .filter(move |e| {
                e.section == section && e.subsection.as_deref() == subsection && e.key == key
            })
            .map(|e| e.value.as_str())
    }

    pub fn get(&self, section: &str, subsection: Option<&str>, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|e| e.section == section && e.subsection.as_deref() == subsection && e.key == key)
            .map(|e| e.value.as_str())
    }

    /// The paths of `include` and `includeIf`.
    pub fn included(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|e| matches!(e.section.as_str(), "include" | "includeif") && e.key == "path")
            .map(|e| e.value.as_str())
    }

    fn has_remote(&self, name: &str) -> bool {
        self.entries
            .iter()
            .any(|e| e.section == "remote" && e.subsection.as_deref() == Some(name))
    }
}

/// Reads a configuration.
pub fn parse(text: &str) -> Config {
    let mut config = Config::default();
    let mut section = (String::new(), None);
    // git passes over a mark of the byte order as well.
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    while let Some(line) = lines.next() {
        if config.entries.len() >= MAX_ENTRIES {
            config.cut_off = true;
            break;
        }
        let mut rest = line.trim_start();
        // One behind the other on a line, as git takes them.
        while rest.starts_with('[') {
            let Some((header, after)) = header(rest) else {
                break;
            };
            section = header;
            rest = after.trim_start();
        }
        if rest.is_empty() || rest.starts_with(['#', ';']) {
            continue;
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .unwrap_or(rest.len());
        let key = rest[..end].to_ascii_lowercase();
        if key.is_empty() {
            continue;
        }
        let after = rest[end..].trim_start();
        let value = match after.strip_prefix('=') {
            Some(value) => value_of(value, &mut lines),
            // A key alone is true.
            None => "true".to_owned(),
        };
        config.entries.push(Entry {
            section: section.0.clone(),
            subsection: section.1.clone(),
            key,
            value,
        });
    }
    config
}

type Section = (String, Option<String>);

/// `[section]`, `[section "sub"]`, `[section.sub]`, and what follows on the line.
fn header(line: &str) -> Option<(Section, &str)> {
    let rest = line.strip_prefix('[')?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.')))?;
    let name = rest[..end].to_ascii_lowercase();
    let rest = rest[end..].trim_start();
    if let Some(after) = rest.strip_prefix(']') {
        let section = match name.split_once('.') {
            Some((section, sub)) => (section.to_owned(), Some(sub.to_owned())),
            None => (name, None),
        };
        return Some((section, after));
    }
    let mut chars = rest.strip_prefix('"')?.char_indices();
    let mut sub = String::new();
    let body = &rest[1..];
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => sub.push(chars.next()?.1),
            '"' => {
                let after = body[at + 1..].trim_start().strip_prefix(']')?;
                return Some(((name, Some(sub)), after));
            }
            c => sub.push(c),
        }
    }
    None
}

/// A value with quotes, escapes, comments and continued lines resolved.
fn value_of(first: &str, lines: &mut std::str::Lines<'_>) -> String {
    let mut value = String::new();
    let mut quoted = false;
    let mut kept = 0;
    let mut line = first.trim_start();
    loop {
        let mut continued = false;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    None => continued = true,
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('b') => value.push('\u{8}'),
                    Some(c) => value.push(c),
                },
                '"' => quoted = !quoted,
                '#' | ';' if !quoted => break,
                c => {
                    value.push(c);
                    if quoted || !c.is_whitespace() {
                        kept = value.len();
                    }
                    continue;
                }
            }
            kept = kept.max(value.trim_end().len());
        }
        if !continued {
            break;
        }
        let Some(next) = lines.next() else { break };
        line = next;
    }
    value.truncate(kept);
    value
}

/// Brings the harmless part of what `session` has and `base` has not into `current`.
pub fn merge(base: &str, session: &str, current: &str) -> Merge {
    let (base, session, now) = (parse(base), parse(session), parse(current));
    let mut merge = Merge::default();
    let mut added: Vec<Entry> = Vec::new();
    for entry in &session.entries {
        if base.entries.contains(entry) || now.entries.contains(entry) || added.contains(entry) {
            continue;
        }
        if harmless(entry, &session, &now) {
            added.push(entry.clone());
        } else {
            merge.left_out.push(entry.to_string());
        }
    }
    if added.is_empty() {
        return merge;
    }
    let mut text = current.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut open: Option<(&str, Option<&str>)> = None;
    for entry in &added {
        let section = (entry.section.as_str(), entry.subsection.as_deref());
        if open != Some(section) {
            text.push_str(&format!(
                "[{} \"{}\"]\n",
                section.0,
                section.1.unwrap_or_default()
            ));
            open = Some(section);
        }
        text.push_str(&format!("\t{} = {}\n", entry.key, entry.value));
        merge.applied.push(entry.to_string());
    }
    merge.text = Some(text);
    merge
}

/// Tracking of a branch that had none, and a remote that was not there. An existing remote's address is never changed: the
/// next push from the host would follow it.
fn harmless(entry: &Entry, session: &Config, now: &Config) -> bool {
    let Some(name) = entry.subsection.as_deref().filter(|n| is_name(n)) else {
        return false;
    };
    let absent = now.get(&entry.section, Some(name), &entry.key).is_none();
    match (entry.section.as_str(), entry.key.as_str()) {
        ("branch", "remote") => {
            absent
                && is_name(&entry.value)
                && (now.has_remote(&entry.value) || new_remote(&entry.value, session, now))
        }
        ("branch", "merge") => {
            absent && entry.value.strip_prefix("refs/heads/").is_some_and(is_name)
        }
        ("branch", "rebase") => {
            absent && matches!(entry.value.as_str(), "true" | "false" | "merges")
        }
        ("remote", "url") => new_remote(name, session, now),
        ("remote", "fetch") => {
            new_remote(name, session, now)
                && entry.value == format!("+refs/heads/*:refs/remotes/{name}/*")
        }
        _ => false,
    }
}

/// Whether a key makes git neither run anything nor read from, or send to, somewhere unexpected: what `git clone` and `git
/// init` write, and who somebody is.
pub fn is_inert(entry: &Entry) -> bool {
    let value = entry.value.as_str();
    let plain_text = value.len() <= 1000 && !value.contains(char::is_control);
    let word = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
    let refspec = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+:*/._-^".contains(&b));
    match (
        entry.section.as_str(),
        entry.subsection.as_deref(),
        entry.key.as_str(),
    ) {
        (
            "core",
            None,
            "repositoryformatversion"
            | "filemode"
            | "bare"
            | "logallrefupdates"
            | "ignorecase"
            | "precomposeunicode"
            | "symlinks"
            | "autocrlf"
            | "eol"
            | "sparsecheckout"
            | "sparsecheckoutcone",
        )
        | ("extensions", None, "objectformat" | "refstorage" | "partialclone" | "worktreeconfig")
        | ("pull", None, "rebase" | "ff")
        | ("push", None, "default" | "autosetupremote")
        | ("gc", None, "auto")
        | ("remote", Some(_), "promisor" | "partialclonefilter" | "tagopt" | "prune")
        | ("submodule", Some(_), "active" | "update") => {
            word || (entry.key == "partialclonefilter" && plain_text && !value.starts_with('-'))
        }
        ("user", None, "name" | "email") => plain_text,
        ("branch", Some(_), "remote" | "merge" | "rebase" | "vscode-merge-base") => {
            word && !value.starts_with('-')
        }
        ("remote", Some(_), "fetch") => refspec,
        ("remote" | "submodule", Some(_), "url") => {
            is_plain_url(value) || is_plain_http(value) || is_plain_path(value)
        }
        _ => false,
    }
}

fn is_plain_http(url: &str) -> bool {
    url.strip_prefix("http://")
        .is_some_and(|rest| is_plain_url(&format!("https://{rest}")))
}

/// A repository beside this one, or somewhere in the file system.
fn is_plain_path(url: &str) -> bool {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.len() <= 1000
        && path.starts_with(['/', '.'])
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'+'))
}

/// A configuration written anew with those entries that may stay, and the names of the others. Where there are more than are
/// read, the rest is one of the others.
pub fn keep(text: &str, may_stay: impl Fn(&Entry) -> bool) -> (String, Vec<String>) {
    let parsed = parse(text);
    let (mut kept, mut dropped) = (String::new(), Vec::new());
    if parsed.entries.len() >= MAX_ENTRIES {
        dropped.push("more keys than are read".to_owned());
    }
    // What this reads as no entry, git may read as one.
    let unread = text.lines().any(|line| !is_understood(line));
    if unread {
        dropped.push("lines that are not understood".to_owned());
    }
    let mut open: Option<(&str, Option<&str>)> = None;
    for entry in &parsed.entries {
        if !may_stay(entry) {
            dropped.push(entry.to_string());
            continue;
        }
        let section = (entry.section.as_str(), entry.subsection.as_deref());
        if open != Some(section) {
            kept.push_str(&match section.1 {
                Some(sub) => format!("[{} \"{}\"]\n", section.0, quoted(sub)),
                None => format!("[{}]\n", section.0),
            });
            open = Some(section);
        }
        kept.push_str(&format!("\t{} = \"{}\"\n", entry.key, quoted(&entry.value)));
    }
    (kept, dropped)
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A line of the plain kind that git itself writes: a header, a comment, or a key at its start with a value that ends on the line.
fn is_understood(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return true;
    }
    if line.starts_with('[') {
        return header(line).is_some_and(|((name, _), rest)| !name.is_empty() && rest.is_empty());
    }
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .unwrap_or(line.len());
    let rest = line[end..].trim_start();
    end > 0 && (rest.is_empty() || rest.starts_with('=')) && !line.ends_with('\\')
}

/// A remote of the session's that is not in the repository, with exactly one address, of a kind that only names a place.
fn new_remote(name: &str, session: &Config, now: &Config) -> bool {
    let mut urls = session.values("remote", Some(name), "url");
    let only = urls.next().filter(|url| is_plain_url(url));
    is_name(name) && only.is_some() && urls.next().is_none() && !now.has_remote(name)
}

/// Branch and remote names that need no quoting anywhere.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with(['-', '.']))
        && !name.contains("..")
}

/// `https://host/path`, `ssh://[user@]host/path`, `user@host:path`: no helper (`ext::`), no option, no quoting.
fn is_plain_url(url: &str) -> bool {
    let spelt = url.len() <= 1000
        && url.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'~' | b'+' | b'%'
                )
        })
        && !url.contains("::");
    if !spelt {
        return false;
    }
    let host_and_path = |rest: &str| {
        rest.split_once('/').is_some_and(|(authority, path)| {
            let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
            !authority.starts_with('-')
                && !path.is_empty()
                && !path.starts_with('-')
                && !host.is_empty()
                && !host.starts_with('-')
        })
    };
    if let Some(rest) = url.strip_prefix("https://") {
        // A user and password in an address would be written where everybody reads it.
        return !rest.contains('@') && host_and_path(rest);
    }
    if let Some(rest) = url.strip_prefix("ssh://") {
        return host_and_path(rest);
    }
    if url.contains("://") {
        return false;
    }
    url.split_once(':').is_some_and(|(authority, path)| {
        authority.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty()
                && !user.starts_with('-')
                && !host.is_empty()
                && !host.starts_with('-')
                && !host.contains(['@', '/'])
        }) && !path.is_empty()
            && !path.starts_with('-')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(section: &str, sub: Option<&str>, key: &str, value: &str) -> Entry {
        Entry {
            section: section.into(),
            subsection: sub.map(Into::into),
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn the_syntax_of_git_is_read() {
        let text = "; note\n[core]\n\tbare = false # why\n\tfsmonitor\n[remote \"or\\\"ig\"] url = \"a b\"; c\n\tfetch=x\\\n  y\n[Branch.Main]\nRemote = origin\nbroken line\n[bad\nkey = v";
        assert_eq!(
            parse(text).entries[..6],
            [
                entry("core", None, "bare", "false"),
                entry("core", None, "fsmonitor", "true"),
                entry("remote", Some("or\"ig"), "url", "a b"),
                entry("remote", Some("or\"ig"), "fetch", "x  y"),
                entry("branch", Some("main"), "remote", "origin"),
                entry("branch", Some("main"), "broken", "true"),
            ]
        );
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let lines = |n: usize| format!("[a]\n{}", "k = v\n".repeat(n));
        assert_eq!(parse(&lines(MAX_ENTRIES)).entries.len(), MAX_ENTRIES);
        assert_eq!(parse(&lines(MAX_ENTRIES + 1)).entries.len(), MAX_ENTRIES);
    }

    const BASE: &str = "[remote \"origin\"]\n\turl = https://git.test/a.git\n";

    fn merged(added: &str) -> Merge {
        merge(BASE, &format!("{BASE}{added}"), BASE)
    }

    #[test]
    fn a_new_remote_and_tracking_come_back() {
        let merge = merged(
            "[remote \"fork\"]\n\turl = git@git.test:me/a.git\n\tfetch = +refs/heads/*:refs/remotes/fork/*\n[branch \"feat/x\"]\n\tremote = fork\n\tmerge = refs/heads/feat/x\n\trebase = true\n",
        );
        assert_eq!(merge.applied.len(), 5);
        assert!(merge.left_out.is_empty());
        let text = merge.text.unwrap();
        assert!(text.starts_with(BASE));
        assert_eq!(
            parse(&text).get("branch", Some("feat/x"), "remote"),
            Some("fork")
        );
    }

    #[test]
    fn what_git_would_run_or_follow_does_not_come_back() {
        for added in [
            "[core]\n\tfsmonitor = ./x\n",
            "[core]\n\thooksPath = .x\n",
            "[core]\n\tsshCommand = x\n",
            "[alias]\n\ts = !x\n",
            "[filter \"x\"]\n\tclean = x\n",
            "[include]\n\tpath = x\n",
            "[url \"https://evil.test/\"]\n\tinsteadOf = https://git.test/\n",
            "[credential]\n\thelper = !x\n",
            "[remote \"origin\"]\n\turl = https://evil.test/a.git\n",
            "[remote \"origin\"]\n\tpushurl = https://evil.test/a.git\n",
            "[remote \"f\"]\n\turl = ext::sh -c x\n",
            "[remote \"f\"]\n\turl = ext::x\n",
            "[remote \"f\"]\n\turl = -oProxyCommand=x\n",
            "[remote \"f\"]\n\turl = ssh://-oProxyCommand=x/y\n",
            "[remote \"f\"]\n\turl = git@-oProxyCommand:y\n",
            "[remote \"f\"]\n\turl = file:///etc\n",
            "[remote \"f\"]\n\turl = /etc\n",
            "[remote \"f\"]\n\turl = https://u:p@git.test/a\n",
            "[remote \"f\"]\n\turl = https://git.test/a\n\turl = ext::x\n",
            "[remote \"f\"]\n\tuploadpack = x\n",
            "[remote \"f\"]\n\tproxy = x\n",
            "[remote \"f\\\"]\\n[core]\"]\n\turl = https://git.test/a\n",
            "[branch \"b\"]\n\tremote = https://evil.test/\n",
            "[branch \"b\"]\n\tremote = nowhere\n",
            "[branch \"b\"]\n\tmerge = refs/tags/x\n",
            "[branch \"b\"]\n\trebase = interactive\n",
            "[branch \"b\"]\n\tpushRemote = origin\n",
            "[branch \"-b\"]\n\tmerge = refs/heads/b\n",
            "[branch \"a b\"]\n\tmerge = refs/heads/b\n",
        ] {
            let merge = merged(added);
            assert_eq!(merge.text, None, "{added}");
            assert!(!merge.left_out.is_empty(), "{added}");
        }
    }

    #[test]
    fn what_the_host_changed_meanwhile_wins() {
        let session = format!("{BASE}[branch \"b\"]\n\tremote = origin\n\tmerge = refs/heads/b\n");
        let current =
            format!("{BASE}[branch \"b\"]\n\tremote = origin\n\tmerge = refs/heads/other\n");
        let merge = merge(BASE, &session, &current);
        assert_eq!(merge.text, None);
        assert_eq!(merge.left_out, ["branch.b.merge = refs/heads/b"]);
    }
}
