#![allow(clippy::unwrap_used)]
use super::*;

struct Place {
    _dir: tempfile::TempDir,
    workspace: PathBuf,
    session: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (workspace, session) = (dir.path().join("ws"), dir.path().join("sessions/s1"));
    fs::create_dir_all(&workspace).unwrap();
    fs::create_dir_all(&session).unwrap();
    Place {
        _dir: dir,
        workspace,
        session,
    }
}

impl Place {
    fn mounts(&self, doing: Doing) -> Result<Controls, ControlError> {
        let owner = std::os::unix::fs::MetadataExt::uid(&self.workspace.metadata().unwrap());
        let config = self.workspace.join("agentcontainer.json");
        mounts(
            &self.workspace,
            "/w",
            &self.session,
            (owner, owner),
            &config,
            doing,
        )
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.workspace)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn find<'a>(mounts: &'a [Mount], target: &str) -> &'a Mount {
    mounts.iter().find(|m| m.target() == target).unwrap()
}

#[test]
fn what_is_there_is_bound_read_only_over_itself() {
    let at = place();
    fs::create_dir(at.workspace.join(".vscode")).unwrap();
    fs::write(at.workspace.join(".envrc"), "").unwrap();
    let found = at.mounts(Doing::Write).unwrap();
    for name in [".envrc", ".vscode"] {
        assert_eq!(
            *find(&found.mounts, &format!("/w/{name}")),
            Mount::Control {
                source: at.workspace.join(name).display().to_string(),
                target: format!("/w/{name}"),
                read_only: true,
            }
        );
    }
    assert!(!found.masks.contains(&".envrc"));
}

#[test]
fn what_is_not_there_is_masked_and_nothing_of_it_stays() {
    let at = place();
    fs::create_dir(at.workspace.join(".vscode")).unwrap();
    let before = at.names();
    let found = at.mounts(Doing::Write).unwrap();
    assert_eq!(found.mounts.len(), CONTROL_FILES.len());
    assert!(found.mounts.iter().all(|m| matches!(
        m,
        Mount::Control {
            read_only: true,
            ..
        } | Mount::Session {
            read_only: true,
            ..
        }
    )));
    assert!(fs::read(at.workspace.join("agentcontainer.json")).is_err());
    assert_eq!(
        present(&at.workspace),
        BTreeSet::from([".vscode"]),
        "a place is not a control file"
    );
    assert!(!is_there(&at.workspace, "agentcontainer.json"));
    // A second session finds them as the first left them.
    assert_eq!(
        at.mounts(Doing::Look).unwrap().mounts.len(),
        CONTROL_FILES.len()
    );
    release(&at.workspace).unwrap();
    assert_eq!(at.names(), before);
}

#[test]
fn what_the_person_made_meanwhile_stays() {
    let at = place();
    at.mounts(Doing::Write).unwrap();
    fs::write(at.workspace.join(".idea/x"), "").unwrap();
    fs::remove_file(at.workspace.join(".envrc")).unwrap();
    fs::write(at.workspace.join(".envrc"), "mine").unwrap();
    release(&at.workspace).unwrap();
    assert_eq!(at.names(), [".envrc", ".idea"]);
    let mode = at
        .workspace
        .join(".idea")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_plan_makes_nothing() {
    let at = place();
    at.mounts(Doing::Look).unwrap();
    assert!(at.names().is_empty());
}

#[test]
fn a_control_file_that_is_a_link_is_refused() {
    let at = place();
    std::os::unix::fs::symlink("/nowhere", at.workspace.join(".mcp.json")).unwrap();
    assert!(matches!(
        at.mounts(Doing::Write),
        Err(ControlError::Symlink(_))
    ));
}

#[test]
fn a_place_that_cannot_be_held_stops_the_start() {
    let at = place();
    let nowhere = at.workspace.join("gone");
    let made = mounts(&nowhere, "/w", &at.session, (0, 0), &nowhere, Doing::Write);
    assert!(matches!(made, Err(ControlError::Place { .. })));
}

#[test]
fn every_directory_above_a_pinned_path_is_a_mount_point() {
    let mut mounts = Vec::new();
    for _ in 0..2 {
        pin(
            &mut mounts,
            Path::new("/h/ws"),
            "/w",
            Path::new("/h/ws/a/b/c"),
        );
    }
    pin(
        &mut mounts,
        Path::new("/h/ws"),
        "/w",
        Path::new("/elsewhere"),
    );
    let found: Vec<_> = mounts
        .iter()
        .map(|m| match m {
            Mount::Control {
                target, read_only, ..
            } => (target.as_str(), *read_only),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(
        found,
        [("/w/a", false), ("/w/a/b", false), ("/w/a/b/c", true)]
    );
}

#[test]
fn a_config_of_another_name_is_read_only_too() {
    let at = place();
    fs::create_dir(at.workspace.join("conf")).unwrap();
    let config = at.workspace.join("conf/agent.json");
    fs::write(&config, "{}").unwrap();
    let made = mounts(
        &at.workspace,
        "/w",
        &at.session,
        (0, 0),
        &config,
        Doing::Look,
    )
    .unwrap();
    for (target, is) in [("/w/conf", false), ("/w/conf/agent.json", true)] {
        assert!(
            matches!(find(&made.mounts, target), Mount::Control { read_only, .. } if *read_only == is)
        );
    }
}
