//! The end of a session, the same whoever calls for it (`run` itself, `stop`, `rm`, `gc`): container, then what the enforcer
//! holds, then `.git`, then our own files. Each step is tried even if the one before it failed.

use std::path::{Path, PathBuf};

use api::v1;
use engine::Engine;
use engine::{control, git};

use crate::channel::{self, Enforcer};
use crate::loaded::Loaded;
use crate::places::Places;
use crate::record::{self, Record};
use crate::report::{self, Failure};

/// So many control files below the workspace's root are named at the end.
const SHOWN_CONTROLS: usize = 5;
/// The most of what a session left that its record keeps, in bytes: a sixth of the largest record, since JSON may take six for one.
const MAX_LEFT: usize = 8 * 1024;

/// Ends a session: nothing of it runs or is held afterwards. Without an engine there never was a container. What could not be done is said; the first failure is returned.
pub async fn end(
    engine: Option<&Engine>,
    enforcer: Option<&mut Enforcer>,
    places: &Places,
    record: &mut Record,
    reason: &str,
) -> Result<(), Failure> {
    let dir = record.dir(places);
    // `stop` and the `run` that it stops both come here: one after the other, and the workspace is finished once.
    let one = std::fs::File::open(&dir).and_then(|file| file.lock().map(|()| file));
    let _one = match one {
        Ok(file) => file,
        // Removed by another.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::io("lock", &dir, &e)),
    };
    let over = Record::load(&dir).filter(|on_disk| on_disk.ended.is_some());
    let container = format!("agentcontainer-{}", record.session);
    let mut result = match engine {
        Some(engine) => engine.remove(&container).await.map_err(Failure::from),
        None => Ok(()),
    };
    if let Some(enforcer) = enforcer {
        let closed = close(enforcer, record.session.as_str(), reason).await;
        result = result.and(closed);
    }
    if let Some(over) = over {
        if record.ended.is_none() {
            // Another command ended it a moment ago and said what it left; who asked for it here has to know too.
            over.left.iter().for_each(report::warning);
            *record = over;
        }
        return result;
    }
    // While a container may still write there, its copy of `.git/config` is not read.
    if result.is_ok() {
        result = finish_workspace(engine, places, record).await;
    }
    if result.is_ok() {
        record.ended = Some(record::now());
        record.holder = None;
        result = record.save(places);
    }
    result
}

/// Closes the session in the enforcer; one that it does not have is closed already.
pub async fn close(enforcer: &mut Enforcer, session: &str, reason: &str) -> Result<(), Failure> {
    let request = v1::CloseSessionRequest {
        session: session.to_owned(),
        reason: reason.to_owned(),
    };
    match enforcer.close_session(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(status) => Err(channel::refused("close the session", &status)),
    }
}

async fn finish_workspace(
    engine: Option<&Engine>,
    places: &Places,
    record: &mut Record,
) -> Result<(), Failure> {
    let dir = record.dir(places);
    // Whoever begins one meanwhile takes the places anew.
    let _hold = control::Hold::take(&dir)?;
    // Nobody can say without an engine who else is at work there; it stays begun, for `gc`.
    if engine.is_none() && git::is_begun(&record.workspace, &dir)? {
        return Err(Failure::new(
            "not-looked-through",
            format!(
                "the engine does not answer, so what the session left in {} was not looked through",
                record.workspace.display()
            ),
        )
        .help("`agentcontainer gc` does that once the engine answers; leave git there alone until then"));
    }
    let others = others(engine, places, record).await?;
    let merged = git::finish(&record.workspace, &dir, others)?;
    if !others.workspace {
        control::release(&record.workspace)?;
    }
    for entry in &merged.applied {
        report::note(format!("git: kept from the session: {entry}"));
    }
    let left = warnings(&merged);
    left.iter().for_each(report::warning);
    record.left = bounded(left);
    discard(&dir);
    Ok(())
}

/// Who else is in the same workspace, or in another working tree of its repository.
async fn others(
    engine: Option<&Engine>,
    places: &Places,
    record: &Record,
) -> Result<git::Others, Failure> {
    // Nobody can say without an engine; what holds a place for another stays.
    let Some(engine) = engine else {
        return Ok(git::Others {
            workspace: true,
            repository: true,
        });
    };
    let repository = git::repository(&record.workspace, &record.dir(places));
    let mut others = git::Others::NOBODY;
    for (workspace, dir) in neighbours(engine, places, record).await? {
        others.workspace |= workspace == record.workspace;
        others.repository |= git::repository(&workspace, &dir) == repository;
    }
    Ok(others)
}

/// Other sessions that have not ended: each with its workspace and its directory.
async fn neighbours(
    engine: &Engine,
    places: &Places,
    record: &Record,
) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let begun = record::all(places).into_iter().filter(|other| {
        other.ended.is_none() && other.holder.is_some_and(record::Process::is_alive)
    });
    let begun = begun.map(|other| (other.session.to_string(), other.workspace));
    let there = engine.sessions().await?.into_iter();
    let there = there.map(|container| (container.session, PathBuf::from(container.workspace)));
    Ok(begun
        .chain(there)
        .filter(|(session, _)| session != record.session.as_str())
        .map(|(session, workspace)| (workspace, places.session(&session)))
        .collect())
}

/// What of a repository outside is mounted by its path must not be something else by then: no session may be at work around it.
pub async fn check_neighbours(
    engine: &Engine,
    loaded: &Loaded,
    record: &Record,
) -> Result<(), Failure> {
    let Some(outside) = loaded.repository.outside() else {
        return Ok(());
    };
    let others = neighbours(engine, &loaded.places, record).await?;
    match others
        .iter()
        .find(|(workspace, dir)| !git::leaves_alone(workspace, dir, outside))
    {
        None => Ok(()),
        Some((workspace, _)) => Err(Failure::new(
            "repository-in-use",
            format!(
                "a session in {} could put something else in the place of {} while this one starts",
                workspace.display(),
                outside.common.display()
            ),
        )
        .help("end that session first; begun after this one, it is in nobody's way")),
    }
}

/// What a person has to know of what a session left.
fn warnings(merged: &git::Merged) -> Vec<String> {
    let git = merged
        .left_out
        .iter()
        .map(|entry| format!("git: not kept from the session: {entry}"));
    let elsewhere = merged
        .elsewhere
        .said
        .iter()
        .map(|line| format!("git: {line}"));
    let controls = &merged.elsewhere.controls;
    let shown = controls.iter().take(SHOWN_CONTROLS).map(|path| {
        format!(
            "{path} is not as it was before the session; look at it before a program on this machine obeys it"
        )
    });
    let more = controls.len().saturating_sub(SHOWN_CONTROLS);
    let more = (more > 0).then(|| format!("and {more} more of that kind"));
    let cut_off = merged.elsewhere.cut_off.then(|| {
        "there are more files in the workspace than are looked through for repositories".to_owned()
    });
    git.chain(elsewhere)
        .chain(shown)
        .chain(more)
        .chain(cut_off)
        .collect()
}

/// As many of the lines as a record holds.
fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let mut size = 0;
    let mut fits = |line: &String| {
        size += line.len();
        size <= MAX_LEFT
    };
    let kept = lines.iter().position(|line| !fits(line));
    if let Some(kept) = kept {
        let more = lines.len() - kept;
        lines.truncate(kept);
        lines.push(format!(
            "and {more} more, which the command that ended the session said"
        ));
    }
    lines
}

/// Our files of a session, but for its record.
fn discard(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name() == "session.json" {
            continue;
        }
        let path = entry.path();
        let _ = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_record_keeps_of_what_was_left_is_bounded_and_says_so() {
        let few = vec!["a".repeat(MAX_LEFT)];
        assert_eq!(bounded(few.clone()), few);
        let many = bounded(vec!["b".repeat(MAX_LEFT / 2); 5]);
        assert_eq!(many.len(), 3);
        assert!(many[2].starts_with("and 3 more"), "{}", many[2]);
    }

    #[tokio::test]
    async fn what_another_command_said_as_it_ended_a_session_is_known_here_too() {
        let dir = tempfile::tempdir().unwrap();
        let (places, mut record) = begun(dir.path());
        let ours = record.clone();
        record.left = vec!["core.fsmonitor".to_owned()];
        record.ended = Some(2);
        record.save(&places).unwrap();
        let mut here = ours;
        end(None, None, &places, &mut here, "stopped")
            .await
            .unwrap();
        assert_eq!(here, record);
    }

    #[tokio::test]
    async fn a_session_that_no_engine_answers_for_is_not_over() {
        let dir = tempfile::tempdir().unwrap();
        let (places, mut record) = begun(dir.path());
        std::fs::create_dir_all(record.workspace.join(".git")).unwrap();
        let repository = git::Repository::of(&record.workspace);
        let seen = engine::look::through(&record.workspace, 10);
        let (at, doing) = (record.dir(&places), git::Doing::Write);
        git::prepare(
            &record.workspace,
            &repository,
            "/w",
            &at,
            (0, 0),
            &[],
            &seen,
            doing,
        )
        .unwrap();
        let refused = end(None, None, &places, &mut record, "ended").await;
        let said = &refused.unwrap_err().diagnostics[0].message;
        assert!(said.contains("not looked through"), "{said}");
        assert!(record.ended.is_none() && record.workspace.join(".git/commondir").exists());
        // The control: where nothing was begun, nothing is left to look at.
        git::finish(&record.workspace, &at, git::Others::NOBODY).unwrap();
        end(None, None, &places, &mut record, "ended")
            .await
            .unwrap();
        assert!(record.ended.is_some());
    }

    fn begun(dir: &Path) -> (Places, Record) {
        let places = Places {
            home: None,
            state: dir.join("agentcontainer"),
            config: dir.join("c"),
            cache: dir.join("k"),
        };
        let record = Record {
            session: schema::session::SessionId::parse("abc1").unwrap(),
            name: None,
            workspace: dir.join("w"),
            config: "agentcontainer.json".into(),
            image: "x".into(),
            enforcer: "e".into(),
            created: 1,
            ended: None,
            holder: None,
            granted: None,
            host_variables: None,
            left: Vec::new(),
        };
        std::fs::create_dir(&record.workspace).unwrap();
        record.save(&places).unwrap();
        (places, record)
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_does_not_keep_a_workspace_from_being_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (places, mut record) = begun(dir.path());
        let ours = record.dir(&places).join("veil");
        std::fs::write(&ours, "").unwrap();
        std::fs::write(record.dir(&places).join("session.json"), "{").unwrap();
        end(None, None, &places, &mut record, "ended")
            .await
            .unwrap();
        assert!(!ours.exists());
    }
}
