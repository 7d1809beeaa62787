//! What the CLI remembers of a session: one small file in the session's directory. It names sessions that have ended (for
//! `audit events`), tells this user's sessions from others' on the same engine, and says where to undo what was done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::containers::Container;
use schema::session::SessionId;
use serde::{Deserialize, Serialize};

use crate::places::{Places, make_private, write_private};
use crate::report::Failure;

const FILE: &str = "session.json";
/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub session: SessionId,
    #[serde(default)]
    pub name: Option<String>,
    pub workspace: PathBuf,
    /// The config's path as it was found.
    pub config: String,
    /// As written; the container has the digest.
    pub image: String,
    /// The sidecar that opened it.
    pub enforcer: String,
    /// Seconds since 1970.
    pub created: u64,
    #[serde(default)]
    pub ended: Option<u64>,
    /// The CLI that holds it; `None` once it was left running on its own.
    #[serde(default)]
    pub holder: Option<Process>,
    /// Its credentials, each with what its grant was known by as the session began; `None` in records of earlier versions.
    #[serde(default)]
    pub granted: Option<BTreeMap<String, String>>,
    /// The variables of this host that the policies it began under let come inside; `None` where none of them restricts any.
    #[serde(default)]
    pub host_variables: Option<BTreeSet<String>>,
    /// What a person has to know of what it left, said by the command that ended it.
    #[serde(default)]
    pub left: Vec<String>,
}

/// A process of this machine. An id alone is handed out again; with the moment it began it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks since boot (proc(5), stat, field 22).
    pub began: u64,
}

impl Process {
    pub fn this() -> Option<Self> {
        let pid = std::process::id();
        Some(Self {
            pid,
            began: began(pid)?,
        })
    }

    pub fn is_alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows its end are numbers, from field 3 on.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

impl Record {
    /// One of these variables of the host that the session's policies do not let come inside.
    pub fn beyond<'n>(&self, names: &'n BTreeSet<String>) -> Option<&'n str> {
        let allowed = self.host_variables.as_ref()?;
        let mut beyond = names.iter().filter(|name| !allowed.contains(*name));
        beyond.next().map(String::as_str)
    }

    pub fn save(&self, places: &Places) -> Result<(), Failure> {
        let dir = places.session(self.session.as_str());
        make_private(&dir)?;
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        write_private(&dir.join(FILE), &bytes)
    }

    pub fn dir(&self, places: &Places) -> PathBuf {
        places.session(self.session.as_str())
    }

    /// The name a person would use.
    pub fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(self.session.as_str())
    }

    /// Whether a person means it by that id or name.
    pub fn is(&self, wanted: &str) -> bool {
        self.session.as_str() == wanted || self.name.as_deref() == Some(wanted)
    }

    /// What is on disk now: another command may have written it.
    pub fn load(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path).ok()?.len() > MAX_RECORD {
            return None;
        }
        let record: Self = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        // A directory's name is the session's.
        (dir.file_name()?.to_str()? == record.session.as_str()).then_some(record)
    }
}

/// Every session that is remembered, newest first.
pub fn all(places: &Places) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(places.sessions()) else {
        return Vec::new();
    };
    let mut records: Vec<Record> = entries
        .flatten()
        .filter_map(|entry| Record::load(&entry.path()))
        .collect();
    records.sort_by(|a, b| (b.created, &b.session).cmp(&(a.created, &a.session)));
    records
}

/// A session of this user's: its record, and its container if there is one.
#[derive(Clone, Debug)]
pub struct Session {
    pub record: Record,
    pub container: Option<Container>,
}

impl Session {
    /// Whether something still needs it: its program, or the CLI that brings it up or takes it down.
    pub fn is_in_use(&self) -> bool {
        self.is_running() || self.record.holder.is_some_and(Process::is_alive)
    }

    pub fn is_running(&self) -> bool {
        self.container
            .as_ref()
            .is_some_and(|c| c.state == "running")
    }
}

/// Joins what is remembered with what the engine has; containers of other users are left out.
pub fn join(records: Vec<Record>, containers: &[Container]) -> Vec<Session> {
    records
        .into_iter()
        .map(|record| Session {
            container: containers
                .iter()
                .find(|c| c.session == record.session.as_str())
                .cloned(),
            record,
        })
        .collect()
}

/// Picks the one session that was meant. Without a name: the only one of this workspace that runs.
pub fn pick<'a>(
    sessions: &'a [Session],
    name: Option<&str>,
    workspace: &Path,
    fits: impl Fn(&Session) -> bool,
) -> Result<&'a Session, Failure> {
    let candidates: Vec<&Session> = sessions.iter().filter(|s| fits(s)).collect();
    let Some(name) = name else {
        let here: Vec<_> = candidates
            .iter()
            .filter(|s| s.record.workspace == workspace)
            .collect();
        return match here.as_slice() {
            [one] => Ok(one),
            [] => Err(Failure::new(
                "no-session",
                format!("no session of {} is there", workspace.display()),
            )
            .help("name one of those that `agentcontainer ps` lists")),
            several => Err(ambiguous(&several.iter().map(|s| **s).collect::<Vec<_>>())),
        };
    };
    let exact =
        |s: &&&Session| s.record.session.as_str() == name || s.record.name.as_deref() == Some(name);
    // Newest first, so that a name that was used again means the last one.
    if let Some(found) = candidates.iter().find(exact) {
        return Ok(found);
    }
    let prefixed: Vec<&Session> = candidates
        .iter()
        .filter(|s| {
            s.record.session.as_str().starts_with(name)
                || s.record
                    .name
                    .as_deref()
                    .is_some_and(|n| n.starts_with(name))
        })
        .copied()
        .collect();
    match prefixed.as_slice() {
        [one] if !name.is_empty() => Ok(one),
        [] => Err(
            Failure::new("no-session", format!("there is no session {name}"))
                .help("`agentcontainer ps` lists them"),
        ),
        several => Err(ambiguous(several)),
    }
}

fn ambiguous(sessions: &[&Session]) -> Failure {
    let names: Vec<&str> = sessions.iter().map(|s| s.record.shown()).collect();
    Failure::new(
        "ambiguous-session",
        format!("that can be any of {}", names.join(", ")),
    )
    .help("name one of them")
}

/// A friendly name that can stand in a command line and a label.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let good = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(
            Failure::new("session-name", format!("{name} cannot name a session")).help(
                "1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit",
            ),
        )
    }
}

/// `3 min ago`.
pub fn ago(then: u64) -> String {
    let seconds = now().saturating_sub(then);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn session(id: &str, name: Option<&str>, workspace: &str) -> Session {
        Session {
            record: Record {
                session: SessionId::parse(id).unwrap(),
                name: name.map(Into::into),
                workspace: workspace.into(),
                config: "agentcontainer.json".into(),
                image: "x".into(),
                enforcer: "e".into(),
                created: 1,
                ended: None,
                holder: None,
                granted: None,
                host_variables: None,
                left: Vec::new(),
            },
            container: None,
        }
    }

    fn picked(sessions: &[Session], name: Option<&str>) -> Result<String, &'static str> {
        pick(sessions, name, Path::new("/w"), |_| true)
            .map(|s| s.record.session.to_string())
            .map_err(|f| f.diagnostics[0].code)
    }

    #[test]
    fn a_session_is_meant_by_id_name_or_unique_prefix() {
        let all = [
            session("abc1", Some("web"), "/w"),
            session("abd2", Some("worker"), "/x"),
            session("web3", None, "/y"),
        ];
        assert_eq!(picked(&all, Some("abd2")).unwrap(), "abd2");
        assert_eq!(picked(&all, Some("web")).unwrap(), "abc1");
        assert_eq!(picked(&all, Some("wor")).unwrap(), "abd2");
        assert_eq!(picked(&all, Some("web3")).unwrap(), "web3");
        assert_eq!(picked(&all, Some("ab")), Err("ambiguous-session"));
        assert_eq!(picked(&all, Some("zz")), Err("no-session"));
        assert_eq!(picked(&all, Some("")), Err("ambiguous-session"));
        assert_eq!(picked(&all, None).unwrap(), "abc1");
        assert_eq!(picked(&all[1..], None), Err("no-session"));
    }

    #[test]
    fn a_record_reads_back_and_a_foreign_directory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            home: None,
            state: dir.path().join("agentcontainer"),
            config: dir.path().join("c"),
            cache: dir.path().join("k"),
        };
        let record = session("abc1", Some("web"), "/w").record;
        record.save(&places).unwrap();
        assert_eq!(all(&places), [record]);
        fs::rename(places.session("abc1"), places.session("abc2")).unwrap();
        assert!(all(&places).is_empty());
    }

    #[test]
    fn a_process_is_known_by_when_it_began() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        assert!(
            !Process {
                began: this.began + 1,
                ..this
            }
            .is_alive()
        );
    }

    #[test]
    fn names_are_of_a_closed_spelling() {
        for good in ["a", "web-1", "A.b_c", &"x".repeat(63)] {
            assert!(check_name(good).is_ok());
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
