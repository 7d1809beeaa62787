#![allow(clippy::unwrap_used)]
use super::*;

fn write(dir: &Path, name: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(
        path,
        format!("{{ \"image\": \"debian\", \"name\": \"{name}\" }}"),
    )
    .unwrap();
}

#[test]
fn files_are_found_in_the_order_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        discover(dir.path(), Wanted::First),
        Err(DiscoverError::None(_))
    ));
    for name in ORDER.iter().rev() {
        write(dir.path(), name);
        let found = discover(dir.path(), Wanted::First).unwrap();
        assert_eq!(found.name, *name);
        assert_eq!(
            load(dir.path(), Wanted::First).unwrap().name.unwrap(),
            *name
        );
    }
    write(dir.path(), "other/x.json");
    let path = dir.path().join("other/x.json");
    assert_eq!(
        discover(dir.path(), Wanted::File(&path)).unwrap().name,
        "other/x.json"
    );
    let missing = dir.path().join("nope.json");
    assert!(matches!(
        discover(dir.path(), Wanted::File(&missing)),
        Err(DiscoverError::Missing(_))
    ));
}

#[test]
fn a_named_devcontainer_is_taken_only_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".devcontainer/python/devcontainer.json");
    let error = discover(dir.path(), Wanted::First).unwrap_err();
    assert!(matches!(&error, DiscoverError::OnlyNamed { names, .. } if names == &["python"]));
    // A folder of the name is no config (these tests run beside `src`).
    write(dir.path(), ".devcontainer/src/devcontainer.json");
    let folder = Wanted::said(Path::new("src"), dir.path());
    assert!(Path::new("src").is_dir() && matches!(folder, Wanted::Named("src")));
    for said in ["python", "./python", "/python", "go", ".."] {
        let is_named = matches!(
            Wanted::said(Path::new(said), dir.path()),
            Wanted::Named("python")
        );
        assert_eq!(is_named, said == "python", "{said}");
    }
    assert_eq!(
        discover(dir.path(), Wanted::Named("python")).unwrap().name,
        ".devcontainer/python/devcontainer.json"
    );
    assert!(matches!(
        discover(dir.path(), Wanted::Named("go")),
        Err(DiscoverError::Missing(_))
    ));
    for name in ["", ".", "..", "../x", "a/b", "a\0b", ".git", "a\\b"] {
        assert!(
            matches!(
                discover(dir.path(), Wanted::Named(name)),
                Err(DiscoverError::Name(_))
            ),
            "{name:?}"
        );
    }
}

#[test]
fn what_is_there_and_cannot_be_read_is_never_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "agentcontainer.json");
    let ahead = dir.path().join(".devcontainer/agentcontainer.json");
    fs::create_dir_all(&ahead).unwrap();
    assert!(matches!(
        discover(dir.path(), Wanted::First),
        Err(DiscoverError::NotAFile(_))
    ));
    fs::remove_dir(&ahead).unwrap();
    std::os::unix::fs::symlink("/nowhere", &ahead).unwrap();
    assert!(matches!(
        discover(dir.path(), Wanted::First),
        Err(DiscoverError::Io { .. })
    ));
    fs::remove_file(&ahead).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &ahead).unwrap();
    assert!(matches!(
        discover(dir.path(), Wanted::First),
        Err(DiscoverError::NotAFile(_))
    ));
    fs::remove_file(&ahead).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&ahead)
            .status()
            .unwrap()
            .success()
    );
    assert!(
        matches!(
            discover(dir.path(), Wanted::First),
            Err(DiscoverError::NotAFile(_))
        ),
        "a pipe does not block"
    );
    fs::remove_file(&ahead).unwrap();
    fs::write(&ahead, vec![b' '; MAX_FILE_BYTES + 1]).unwrap();
    assert!(matches!(
        discover(dir.path(), Wanted::First),
        Err(DiscoverError::TooLarge(_))
    ));
    fs::write(&ahead, vec![b' '; MAX_FILE_BYTES]).unwrap();
    assert!(discover(dir.path(), Wanted::First).is_ok());
}

#[test]
fn a_socket_holds_a_place_and_is_no_config() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".devcontainer.json");
    std::os::unix::net::UnixListener::bind(dir.path().join("agentcontainer.json")).unwrap();
    let found = discover(dir.path(), Wanted::First).unwrap();
    assert_eq!(found.name, ".devcontainer.json");
}
