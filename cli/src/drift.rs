//! What is locked now and was not before, as people see it and policies judge it: `drift` shows it, `lock` before it writes, and
//! `run` under a policy with a threshold compares what is locked with what this workspace was last let run here.

use std::path::{Path, PathBuf};

use policy::organisation::Requirements;
use registry::client::{Client, Repository};
use registry::drift::{Aspect, Change, Difference, Facts, worst};
use registry::error::RegistryError;
use registry::verify::Means;
use schema::config::discover;
use schema::diag::Diagnostic;
use schema::digest::Digest;
use schema::lockfile::{Lockfile, Pin, Platform};
use schema::organisation::Grade;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};
use std::io::IsTerminal;

use crate::loaded::Loaded;
use crate::organisation;
use crate::places::{make_private, write_private};
use crate::report::{self, Failure, escape};
use crate::trust;

/// The most differences of one pin, and lines of one difference, that are shown; `--json` has all.
const SHOWN: usize = 40;
const SHOWN_LINES: usize = 20;
/// The most references that are remembered of a workspace, the latest of them.
const MAX_LET_THROUGH: usize = 2048;
/// The largest file of them, in bytes.
const MAX_BYTES: usize = 16 << 20;
/// The longest line that is shown, in characters.
const SHOWN_WIDTH: usize = 160;

/// What a policy says of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Ask,
    Refuse,
}

/// One pin that has moved.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifted {
    pub name: String,
    pub reference: String,
    pub from: Digest,
    pub to: Digest,
    pub verdict: Verdict,
    /// The most that any difference matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grade: Option<Grade>,
    pub differences: Vec<Difference>,
    /// Why nobody can tell what was there before; it may have been anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Everything that `now` has by another digest than `before` knows it by.
pub async fn between(
    loaded: &Loaded,
    client: &Client,
    before: &(dyn Before + Sync),
    now: &Lockfile,
) -> Result<Vec<Drifted>, Failure> {
    let roots = organisation::roots(loaded, &[], !client.is_offline()).await?;
    let means = Means {
        roots: &roots,
        bundles: &[],
        now: jiff::Timestamp::now(),
    };
    let platform = Platform::here();
    let mut out = Vec::new();
    for (name, new) in now.pins() {
        let Some(old) = before.of(&name, new).filter(|old| old.digest != new.digest) else {
            continue;
        };
        let mut rules = organisation::requirement(&loaded.requirements, &new.reference)?.rules;
        // What a policy says is compared by `policy diff`; who signed it is asked where it is believed.
        if name == "policy" {
            rules.clear();
        }
        let about = |e: RegistryError| {
            Failure::from(e).about(format!("{name} ({})", new.reference.as_str()))
        };
        // One after the other: each may be large.
        let is = facts(client, new, &platform, &rules, &means).await;
        let is = is.map_err(about)?;
        let was = facts(client, old, &platform, &rules, &means).await;
        let (differences, unknown) = match (was, is) {
            (Err(error), _) if error.is_unasked() => return Err(about(error)),
            (Err(error), _) => (Vec::new(), Some(error.to_string())),
            (Ok(Some(was)), Some(is)) => match was.compare(&is) {
                // The digest is another, so that something is.
                same if same.is_empty() => {
                    let why = "in nothing that is looked at does it differ".to_owned();
                    (same, Some(why))
                }
                differences => (differences, None),
            },
            _ => (
                Vec::new(),
                Some("an image of only one engine is looked into by nobody".to_owned()),
            ),
        };
        let grade = unknown
            .as_ref()
            .map_or_else(|| worst(&differences), |_| Some(Grade::High));
        out.push(Drifted {
            name: name.into_owned(),
            reference: new.reference.as_str().to_owned(),
            from: old.digest,
            to: new.digest,
            verdict: verdict(&loaded.requirements, grade),
            grade,
            differences,
            unknown,
        });
    }
    Ok(out)
}

async fn facts(
    client: &Client,
    pin: &Pin,
    platform: &Platform,
    rules: &[registry::verify::Rule],
    means: &Means<'_>,
) -> Result<Option<Facts>, RegistryError> {
    if pin.local {
        return Ok(None);
    }
    client.facts(pin, platform, rules, means).await.map(Some)
}

/// The strictest that any policy says of that grade.
fn verdict(of: &Requirements, grade: Option<Grade>) -> Verdict {
    let reaches = |least: Option<Grade>| grade.is_some_and(|g| least.is_some_and(|l| g >= l));
    if reaches(of.drift_refuse.as_ref().map(|said| said.value)) {
        Verdict::Refuse
    } else if reaches(of.drift_ask.as_ref().map(|said| said.value)) {
        Verdict::Ask
    } else {
        Verdict::Allow
    }
}

/// Shows what has moved and has it settled: nothing is written or run that a policy refuses, or that it wants asked about and nobody
/// answered for.
pub fn settle(of: &Requirements, drifted: &[Drifted], yes: bool) -> Result<(), Failure> {
    if drifted.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = drifted.iter().flat_map(lines).collect();
    let worst = drifted.iter().map(|one| one.verdict).max();
    let names = |verdict: Verdict| {
        let all = drifted.iter().filter(|one| one.verdict == verdict);
        let all: Vec<_> = all.map(|one| one.name.as_str()).collect();
        all.join(", ")
    };
    let origin = |said: Option<String>| said.unwrap_or_default();
    match worst {
        Some(Verdict::Refuse) => {
            shown.iter().for_each(report::note);
            let said = origin(of.drift_refuse.as_ref().map(|s| s.origin.to_string()));
            Err(Failure::new(
                "drift-refused",
                format!(
                    "{} drifted further than {said} allows",
                    names(Verdict::Refuse)
                ),
            )
            .help("stay with what was locked, or have the policy's owners look at the new one"))
        }
        Some(Verdict::Ask) if !yes => {
            let said = origin(of.drift_ask.as_ref().map(|s| s.origin.to_string()));
            let refused = |why: &str| {
                Failure::new(
                    "drift-not-approved",
                    format!(
                        "{} drifted, {said} wants a person asked, and {why}",
                        names(Verdict::Ask)
                    ),
                )
                .help("`agentcontainer drift` shows it; --yes approves it if you have read that")
            };
            if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
                shown.iter().for_each(report::note);
                return Err(refused("nobody is here to ask"));
            }
            if trust::ask(&shown) {
                Ok(())
            } else {
                Err(refused("nobody approved it"))
            }
        }
        _ => {
            shown.iter().for_each(report::note);
            Ok(())
        }
    }
}

/// What something is compared with.
pub trait Before {
    fn of(&self, name: &str, now: &Pin) -> Option<&Pin>;
}

/// What was locked under the same name and reference; another reference is a change of the config, which is reviewed as one.
impl Before for Lockfile {
    fn of(&self, name: &str, now: &Pin) -> Option<&Pin> {
        let mut pins = self.pins();
        let (_, pin) = pins.find(|(of, pin)| *of == name && pin.reference == now.reference)?;
        Some(pin)
    }
}

/// What a workspace was let lock or run here, the last of each reference, the latest at the end. Another name for it is the same, and
/// what is not named for a while is not forgotten.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LetThrough {
    pins: Vec<Pin>,
}

/// Of the same reference, else of the same repository: another tag is no way around a threshold.
impl Before for LetThrough {
    fn of(&self, _: &str, now: &Pin) -> Option<&Pin> {
        let latest = || self.pins.iter().rev();
        let repository = Repository::of(&now.reference);
        latest()
            .find(|pin| pin.reference == now.reference)
            .or_else(|| latest().find(|pin| Repository::of(&pin.reference) == repository))
    }
}

impl LetThrough {
    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let Some(bytes) = discover::read_file(path, MAX_BYTES).map_err(Diagnostic::from)? else {
            return Ok(None);
        };
        let damaged = |_| {
            let message = format!(
                "{} is damaged: what was let through here is not known",
                path.display()
            );
            Failure::new("drift-state", message).help("remove it if you know what is locked here")
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    fn add(&mut self, lock: &Lockfile) {
        for (_, new) in lock.pins() {
            self.pins.retain(|pin| pin.reference != new.reference);
            self.pins.push(new.clone());
        }
        let beyond = self.pins.len().saturating_sub(MAX_LET_THROUGH);
        self.pins.drain(..beyond);
    }
}

/// Compares what is locked with what was locked before. Where a policy has a threshold, what this workspace was last let run on this host
/// counts as well, since a lockfile is written by others too, and is remembered; the first time there is nothing to compare with.
pub async fn hold(
    loaded: &Loaded,
    client: &Client,
    before: Option<&Lockfile>,
    now: &Lockfile,
    yes: bool,
) -> Result<(), Failure> {
    let of = &loaded.requirements;
    if of.drift_ask.is_none() && of.drift_refuse.is_none() {
        if let Some(before) = before {
            settle(of, &between(loaded, client, before, now).await?, yes)?;
        }
        return Ok(());
    }
    let path = seen(loaded);
    let mut seen = match (LetThrough::read(&path)?, before) {
        (Some(seen), _) => seen,
        (None, Some(before)) => {
            let mut seen = LetThrough::default();
            seen.add(before);
            seen
        }
        (None, None) => LetThrough::default(),
    };
    settle(of, &between(loaded, client, &seen, now).await?, yes)?;
    seen.add(now);
    if let Some(dir) = path.parent() {
        make_private(dir)?;
    }
    let bytes = serde_json::to_vec(&seen).unwrap_or_default();
    write_private(&path, &bytes)
}

fn seen(loaded: &Loaded) -> PathBuf {
    let mut key = loaded.workspace.as_os_str().as_encoded_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(
        Path::new(&loaded.config.file)
            .as_os_str()
            .as_encoded_bytes(),
    );
    let name = format!("{}.json", Digest::of(&key).hex());
    loaded.places.seen().join(name)
}

/// One pin for people, each line whole and escaped.
pub fn lines(one: &Drifted) -> Vec<String> {
    let graded = match (one.grade, one.verdict) {
        (None, _) => "no difference that can be told".to_owned(),
        (Some(grade), Verdict::Allow) => word(&grade),
        (Some(grade), Verdict::Ask) => format!("{}, to be asked about", word(&grade)),
        (Some(grade), Verdict::Refuse) => format!("{}, refused", word(&grade)),
    };
    let mut out = vec![format!(
        "{} {}: {} -> {} ({graded})",
        escape(&one.name),
        escape(&one.reference),
        short(&one.from),
        short(&one.to)
    )];
    if let Some(why) = &one.unknown {
        out.push(format!("  what it was cannot be told: {}", escape(why)));
    }
    for difference in one.differences.iter().take(SHOWN) {
        show(difference, &mut out);
    }
    if let Some(more @ 1..) = one.differences.len().checked_sub(SHOWN) {
        out.push(format!("  and {more} more; --json has all"));
    }
    out
}

fn show(difference: &Difference, out: &mut Vec<String>) {
    let (sign, before, after) = match difference.change {
        Change::Added => ("+", "", difference.after.as_deref().unwrap_or_default()),
        Change::Changed => (
            "~",
            difference.before.as_deref().unwrap_or_default(),
            difference.after.as_deref().unwrap_or_default(),
        ),
        Change::Removed => ("-", difference.before.as_deref().unwrap_or_default(), ""),
    };
    let head = format!(
        "  {sign} {:<6} {} {}",
        word(&difference.grade),
        word(&difference.aspect),
        escape(&difference.name)
    );
    let one_line = |text: &str| !text.contains('\n') && text.chars().count() <= SHOWN_WIDTH / 2;
    if one_line(before) && one_line(after) {
        out.push(match difference.change {
            _ if before.is_empty() && after.is_empty() => head,
            Change::Added => format!("{head}: {}", escape(after)),
            Change::Removed => format!("{head}: {}", escape(before)),
            Change::Changed => format!("{head}: {} -> {}", escape(before), escape(after)),
        });
        return;
    }
    let diff = TextDiff::configure()
        .timeout(std::time::Duration::from_millis(200))
        .diff_lines(before, after);
    let changed = diff.iter_all_changes().filter_map(|line| {
        let sign = match line.tag() {
            ChangeTag::Insert => '+',
            ChangeTag::Delete => '-',
            ChangeTag::Equal => return None,
        };
        let text: String = line.value().trim_end().chars().take(SHOWN_WIDTH).collect();
        Some(format!("      {sign} {}", escape(&text)))
    });
    let mut changed: Vec<String> = changed.collect();
    out.push(head);
    if difference.aspect == Aspect::Content && changed.len() > SHOWN_LINES {
        out.push(format!("      {} lines are others", changed.len()));
        return;
    }
    if let Some(more @ 1..) = changed.len().checked_sub(SHOWN_LINES) {
        changed.truncate(SHOWN_LINES);
        changed.push(format!("      and {more} more lines; --json has all"));
    }
    out.append(&mut changed);
}

/// The name that `--json` has for it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn short(digest: &Digest) -> String {
    digest
        .to_string()
        .chars()
        .take("sha256:".len() + 12)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn drifted(verdict: Verdict, differences: Vec<Difference>) -> Drifted {
        Drifted {
            name: "image".to_owned(),
            reference: "registry.test/a:1".to_owned(),
            from: Digest::of(b"a"),
            to: Digest::of(b"b"),
            verdict,
            grade: worst(&differences),
            differences,
            unknown: None,
        }
    }

    fn script(before: &str, after: &str) -> Difference {
        Difference {
            aspect: Aspect::Script,
            name: "install.sh".to_owned(),
            change: Change::Changed,
            grade: Grade::High,
            before: Some(before.to_owned()),
            after: Some(after.to_owned()),
        }
    }

    #[test]
    fn a_difference_is_shown_by_its_lines_and_nothing_in_it_reaches_the_terminal_as_it_is() {
        let one = drifted(Verdict::Refuse, vec![script("a\nb\n", "a\n\x1b[2Jc\n")]);
        let shown = lines(&one);
        assert!(shown[0].ends_with("(high, refused)"), "{}", shown[0]);
        assert_eq!(shown[1], "  ~ high   script install.sh");
        assert_eq!(shown[2], "      - b");
        assert!(
            shown[3].starts_with("      + ") && !shown[3].contains('\x1b'),
            "{}",
            shown[3]
        );
        let long = "x\n".repeat(500);
        assert!(lines(&drifted(Verdict::Allow, vec![script("", &long)])).len() < 30);
        let many = vec![script("a", "b"); 500];
        assert!(lines(&drifted(Verdict::Allow, many)).len() < 50);
    }

    #[test]
    fn what_was_let_through_is_known_by_its_reference_then_by_its_repository() {
        let pin = |reference: &str, digest: &[u8]| Pin {
            reference: schema::image::ImageRef::parse(reference).unwrap(),
            local: false,
            digest: Digest::of(digest),
            media_type: String::new(),
            platforms: Default::default(),
            version: None,
            depends_on: Vec::new(),
            resolved: jiff::Timestamp::UNIX_EPOCH,
            verified: None,
        };
        let seen = LetThrough {
            pins: vec![
                pin("r.test/a:1", b"1"),
                pin("r.test/a:2", b"2"),
                pin("r.test/b:1", b"3"),
            ],
        };
        let of = |reference: &str| {
            let now = pin(reference, b"now");
            seen.of("whatever it is called", &now).map(|pin| pin.digest)
        };
        assert_eq!(of("r.test/a:1"), Some(Digest::of(b"1")));
        assert_eq!(of("r.test/a:3"), Some(Digest::of(b"2")));
        assert_eq!(of("r.test/c:1"), None);
    }

    #[test]
    fn what_a_policy_refuses_or_wants_asked_goes_no_further() {
        let of = Requirements::default();
        let all = |verdict| [drifted(verdict, vec![script("a", "b")])];
        settle(&of, &[], false).unwrap();
        settle(&of, &all(Verdict::Allow), false).unwrap();
        settle(&of, &all(Verdict::Ask), true).unwrap();
        let code = |result: Result<(), Failure>| result.unwrap_err().diagnostics[0].code;
        assert_eq!(
            code(settle(&of, &all(Verdict::Refuse), true)),
            "drift-refused"
        );
        assert_eq!(
            code(settle(&of, &all(Verdict::Ask), false)),
            "drift-not-approved"
        );
    }
}
