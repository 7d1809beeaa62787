//! Capability review: what a workspace asks for is shown and approved before anything is done on its behalf, network access
//! included. Approvals lie outside the workspace, by content hash, and the path a config was found at is part of them: a
//! config that appears ahead of an approved one is an error, not a question.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use policy::Review;
use schema::config::discover::ORDER;
use schema::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::grants;
use crate::loaded::Loaded;
use crate::places::{Places, make_private, write_private};
use crate::record::now;
use crate::report::{self, Failure, escape};

/// The largest file of approvals that is read, in bytes.
const MAX_APPROVALS: u64 = 16 << 20;

/// What a person approved for one workspace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    pub workspace: PathBuf,
    pub approvals: Vec<Approval>,
}

/// One config, as it was when it was approved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub hash: Digest,
    /// Seconds since 1970.
    pub at: u64,
    pub review: Review,
}

/// What a review comes to, before anybody is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Approved,
    /// Nothing was approved for this config: everything is asked.
    First,
    /// More than was approved: the difference.
    More(policy::review::Difference),
    /// It lies ahead of the approved config of this name.
    Ahead(String),
}

fn path_of(places: &Places, workspace: &Path) -> PathBuf {
    let digest = Digest::of(workspace.as_os_str().as_encoded_bytes());
    places.trust().join(format!("{}.json", digest.hex()))
}

impl Approvals {
    /// Those of a workspace. A file that cannot be understood approves nothing and is an error.
    pub fn load(places: &Places, workspace: &Path) -> Result<Self, Failure> {
        let path = path_of(places, workspace);
        match Self::read(&path)? {
            Some(approvals) if approvals.workspace == workspace => Ok(approvals),
            Some(_) => Err(damaged(&path)),
            None => Ok(Self {
                workspace: workspace.to_owned(),
                approvals: Vec::new(),
            }),
        }
    }

    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        match fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_APPROVALS => return Err(damaged(path)),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("read", path, &e)),
        }
        let bytes = fs::read(path).map_err(|e| Failure::io("read", path, &e))?;
        let approvals: Self = serde_json::from_slice(&bytes).map_err(|_| damaged(path))?;
        // An approval holds for the content it names, whatever was done to the file.
        if approvals
            .approvals
            .iter()
            .any(|a| a.review.hash() != a.hash)
        {
            return Err(damaged(path));
        }
        Ok(Some(approvals))
    }

    fn save(&self, places: &Places) -> Result<(), Failure> {
        make_private(&places.trust())?;
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        write_private(&path_of(places, &self.workspace), &bytes)
    }

    /// Judges a config against what was approved. `exists` says whether a path in the workspace is there.
    pub fn judge(&self, review: &Review, exists: &dyn Fn(&str) -> bool) -> Verdict {
        if let Some(approved) = self.of(review) {
            let difference = review.since(&approved.review);
            return if difference.asks_for_more() {
                Verdict::More(difference)
            } else {
                Verdict::Approved
            };
        }
        let rank = |path: &str| ORDER.iter().position(|p| *p == path);
        if let Some(found) = rank(&review.path) {
            let passed_over = self
                .approvals
                .iter()
                .map(|a| a.review.path.as_str())
                .find(|path| rank(path).is_some_and(|r| r > found) && exists(path));
            if let Some(path) = passed_over {
                return Verdict::Ahead(path.to_owned());
            }
        }
        Verdict::First
    }

    /// The approval of this config with this agent; a first one with an agent is asked for what the agent adds to it.
    fn of(&self, review: &Review) -> Option<&Approval> {
        let with = |agent: &Option<String>| {
            let same = |a: &&Approval| a.review.path == review.path && a.review.agent == *agent;
            self.approvals.iter().find(same)
        };
        with(&review.agent).or_else(|| with(&None))
    }

    /// Approves another in the place of one that is approved still. Whether it is.
    fn renew(&mut self, before: &Review, now: Review, exists: &dyn Fn(&str) -> bool) -> bool {
        let is_approved = self.judge(before, exists) == Verdict::Approved;
        if is_approved {
            self.approve(now);
        }
        is_approved
    }

    /// Notes an approval, in place of an earlier one of the same config.
    fn approve(&mut self, review: Review) {
        self.approvals
            .retain(|a| a.review.path != review.path || a.review.agent != review.agent);
        self.approvals.push(Approval {
            hash: review.hash(),
            at: now(),
            review,
        });
    }
}

fn damaged(path: &Path) -> Failure {
    Failure::new(
        "approvals",
        format!(
            "{} is not a file of approvals as it was written",
            path.display()
        ),
    )
    .help("look at it, then `agentcontainer trust revoke` and approve anew")
}

/// Lets a workspace through that was approved, asks about one that was not.
pub fn require(loaded: &Loaded, yes: bool) -> Result<(), Failure> {
    let mut approvals = Approvals::load(&loaded.places, &loaded.workspace)?;
    let review = loaded.review();
    let exists = |path: &str| engine::control::is_there(&loaded.workspace, path);
    let verdict = approvals.judge(&review, &exists);
    let shown = match &verdict {
        Verdict::Approved => return Ok(()),
        Verdict::Ahead(approved) => {
            return Err(Failure::new(
                "config-ahead",
                format!("{} appeared ahead of {approved}, which was approved", review.path),
            )
            .about(loaded.workspace.display().to_string())
            .help("remove it if nobody you trust put it there; otherwise `agentcontainer trust revoke` and approve it anew"));
        }
        Verdict::First => render_first(&loaded.workspace, &review),
        Verdict::More(difference) => render_more(&loaded.workspace, &review, difference),
    };
    let granted = grants::shown(loaded).into_iter();
    let shown: Vec<String> = shown
        .into_iter()
        .chain(granted.map(|line| format!("  {}", escape(&line))))
        .collect();
    if !yes {
        if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
            let asked = shown.join("; ");
            return Err(
                Failure::new("not-approved", format!("nobody approved this: {asked}")).help(
                    "run it on a terminal to be asked, or pass --yes if you have read the config",
                ),
            );
        }
        if !ask(&shown) {
            return Err(Failure::new(
                "not-approved",
                "not approved; nothing was started",
            ));
        }
    }
    approvals.approve(review);
    approvals.save(&loaded.places)
}

/// Has what was approved be no more than what is asked now.
pub fn approve(loaded: &Loaded) -> Result<(), Failure> {
    let mut approvals = Approvals::load(&loaded.places, &loaded.workspace)?;
    approvals.approve(loaded.review());
    approvals.save(&loaded.places)
}

/// Approves what was reviewed as it is now that its agent is installed: with these packages and no others.
///
/// # Errors
/// Where it is not approved any more: somebody took that back meanwhile.
pub fn approve_installed(reviewed: &Loaded, installed: &Loaded) -> Result<(), Failure> {
    let mut approvals = Approvals::load(&reviewed.places, &reviewed.workspace)?;
    let exists = |path: &str| engine::control::is_there(&reviewed.workspace, path);
    if !approvals.renew(&reviewed.review(), installed.review(), &exists) {
        return Err(Failure::new(
            "not-approved",
            "what was approved was taken back while the agent was being installed; nothing was started",
        )
        .help("run it again to be asked anew"));
    }
    approvals.save(&reviewed.places)
}

/// The lines of a first review. Every one is a whole line, escaped where it was made.
fn render_first(workspace: &Path, review: &Review) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in {} asks for",
        escape(&review.path),
        escape(&workspace.display().to_string())
    )];
    lines.extend(review.lines.iter().map(|line| format!("  {}", line.text)));
    lines
}

fn render_more(
    workspace: &Path,
    review: &Review,
    difference: &policy::review::Difference,
) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in {} asks for more than was approved",
        escape(&review.path),
        escape(&workspace.display().to_string())
    )];
    lines.extend(
        difference
            .to_string()
            .lines()
            .map(|line| format!("  {line}")),
    );
    lines
}

/// Asks on the terminal; anything but yes is no.
pub fn ask(lines: &[String]) -> bool {
    for line in lines {
        report::note(line);
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "Allow this? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// Every workspace with approvals.
pub fn all(places: &Places) -> Vec<Approvals> {
    let Ok(entries) = fs::read_dir(places.trust()) else {
        return Vec::new();
    };
    let mut all: Vec<Approvals> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
        .filter_map(|entry| Approvals::read(&entry.path()).ok().flatten())
        .collect();
    all.sort_by(|a, b| a.workspace.cmp(&b.workspace));
    all
}

/// Takes every approval of a workspace back; false when there was none.
pub fn revoke(places: &Places, workspace: &Path) -> Result<bool, Failure> {
    let path = path_of(places, workspace);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Failure::io("remove", &path, &e)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn review(path: &str, domains: &str) -> Review {
        let text = format!(
            r#"{{ "image": "x", "agent": {{ "capabilities": {{ "network": {{ "egress": {{ "allowedDomains": [{domains}] }} }} }} }} }}"#
        );
        let text = if path.ends_with("devcontainer.json") {
            text.replace(
                r#""agent": {"#,
                r#""customizations": { "agentcontainer": {"#,
            ) + "}"
        } else {
            text
        };
        Review::of(&schema::config::parse(text.as_bytes(), path).unwrap())
    }

    fn approved(reviews: &[Review]) -> Approvals {
        let mut approvals = Approvals::default();
        for review in reviews {
            approvals.approve(review.clone());
        }
        approvals
    }

    #[test]
    fn what_was_approved_passes_and_more_is_asked_as_a_difference() {
        let base = review("agentcontainer.json", r#""a.test""#);
        let approvals = approved(std::slice::from_ref(&base));
        assert_eq!(approvals.judge(&base, &|_| true), Verdict::Approved);
        let less = review("agentcontainer.json", "");
        assert_eq!(approvals.judge(&less, &|_| true), Verdict::Approved);
        let more = review("agentcontainer.json", r#""a.test", "b.test""#);
        let Verdict::More(difference) = approvals.judge(&more, &|_| true) else {
            panic!("more was not asked");
        };
        let shown = render_more(Path::new("/w"), &more, &difference);
        assert_eq!(
            shown[0],
            "agentcontainer.json in /w asks for more than was approved"
        );
        assert!(shown.iter().any(|l| l == "  + reach b.test:443 (https)"));
        assert!(!shown.iter().any(|l| l.contains("a.test")));
    }

    #[test]
    fn what_is_not_approved_any_more_is_not_approved_by_what_came_of_it() {
        let (before, now) = (
            review("agentcontainer.json", r#""a.test""#),
            review("agentcontainer.json", r#""a.test", "b.test""#),
        );
        let mut approvals = approved(std::slice::from_ref(&before));
        assert!(approvals.renew(&before, now.clone(), &|_| true));
        assert_eq!(approvals.judge(&now, &|_| true), Verdict::Approved);
        let mut revoked = Approvals::default();
        assert!(!revoked.renew(&before, now.clone(), &|_| true));
        assert_eq!(revoked.judge(&now, &|_| true), Verdict::First);
    }

    #[test]
    fn a_config_ahead_of_the_approved_one_is_an_error_and_one_behind_is_asked() {
        let ahead = review(".devcontainer/agentcontainer.json", "");
        let own = review("agentcontainer.json", "");
        let approvals = approved(std::slice::from_ref(&own));
        assert_eq!(
            approvals.judge(&ahead, &|_| true),
            Verdict::Ahead("agentcontainer.json".into())
        );
        // The approved one was taken away: the question is a new one.
        assert_eq!(approvals.judge(&ahead, &|_| false), Verdict::First);
        assert_eq!(approved(&[ahead]).judge(&own, &|_| true), Verdict::First);
        assert_eq!(
            approvals.judge(&review("other.json", ""), &|_| true),
            Verdict::First
        );
    }

    #[test]
    fn an_approval_is_kept_by_hash_and_a_changed_file_approves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            home: None,
            state: dir.path().join("agentcontainer"),
            config: dir.path().join("c"),
            cache: dir.path().join("k"),
        };
        let workspace = Path::new("/w");
        let mut approvals = Approvals::load(&places, workspace).unwrap();
        approvals.approve(review("agentcontainer.json", r#""a.test""#));
        approvals.save(&places).unwrap();
        assert_eq!(
            Approvals::load(&places, workspace).unwrap().approvals.len(),
            1
        );
        assert!(
            Approvals::load(&places, Path::new("/x"))
                .unwrap()
                .approvals
                .is_empty()
        );
        let path = path_of(&places, workspace);
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("a.test", "evil.test");
        fs::write(&path, text).unwrap();
        assert!(Approvals::load(&places, workspace).is_err());
        assert!(all(&places).is_empty());
        assert!(revoke(&places, workspace).unwrap());
        assert!(!revoke(&places, workspace).unwrap());
    }

    #[test]
    fn what_a_config_says_cannot_steer_the_review() {
        let text = "{ \"image\": \"x\", \"postCreateCommand\": \"a\\u001b[2J\\nreach all\" }";
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        for line in render_first(Path::new("/w\u{1b}"), &Review::of(&config)) {
            assert!(!line.contains(char::is_control), "{line}");
        }
    }
}
