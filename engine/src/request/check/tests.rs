#![allow(clippy::unwrap_used)]
use super::*;
use crate::request::tests::sample;

fn with(change: impl FnOnce(&mut CreateRequest)) -> Result<(), Violation> {
    let mut request = sample();
    change(&mut request);
    request.check(&places()).map(|_| ())
}

fn places() -> HostPlaces {
    HostPlaces {
        home: Some("/home/ada".into()),
        private: vec!["/home/ada/.ssh".into()],
    }
}

fn extra(source: &str) -> Result<(), Violation> {
    with(|r| {
        r.mounts[0] = Mount::Workspace {
            source: source.into(),
            target: "/workspaces/project".into(),
            read_only: false,
        };
        r.mounts.remove(1);
    })
}

#[test]
fn the_request_of_an_ordinary_run_passes() {
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(extra("/home/ada/.cache/pip"), Ok(()));
    assert_eq!(extra("/srv/data"), Ok(()));
}

#[test]
fn host_roots_and_engine_sockets_cannot_be_mounted() {
    for source in [
        "/",
        "/etc",
        "/etc/shadow",
        "/proc",
        "/proc/1/root",
        "/sys",
        "/sys/fs/cgroup",
        "/sys/fs/bpf",
        "/dev",
        "/dev/kmsg",
        "/run",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/var",
        "/var/lib",
        "/var/lib/docker",
        "/var/lib/docker/overlay2",
        "/root",
        "/home",
        "/usr",
        "/run/user/1000",
        "/run/podman/podman.sock",
        "/run/containerd/containerd.sock",
        "/home/ada/docker.sock",
        "/var/lib/agentcontainer",
        "/boot",
        "/var/lib/kubelet/pods",
        "relative",
        "",
        "/a/../etc",
        "/a//b",
        "/a/./b",
        "/a/",
        "/a\nb",
        "~/.ssh",
        "/home/ada",
        "/home/ada/.ssh",
        "/home/ada/.ssh/id_ed25519",
    ] {
        assert!(
            matches!(extra(source), Err(Violation::Source { .. })),
            "{source}"
        );
    }
}

#[test]
fn a_control_mount_is_the_workspaces_own_file_over_itself() {
    for (source, target) in [
        ("/home/ada/other/.git", "/workspaces/project/.git"),
        ("/home/ada/project/.git", "/workspaces/project/.vscode"),
        ("/home/ada/project", "/workspaces/project"),
        (
            "/home/ada/project-evil/.git",
            "/workspaces/project-evil/.git",
        ),
    ] {
        let refused = with(|r| {
            r.mounts[1] = Mount::Control {
                source: source.into(),
                target: target.into(),
                read_only: true,
            };
        });
        assert!(refused.is_err(), "{source}");
    }
}

#[test]
fn a_second_mount_shows_what_lies_in_the_workspace() {
    let inside = |source: &str| {
        with(|r| {
            r.mounts.push(Mount::Inside {
                source: source.into(),
                target: "/data".into(),
            });
        })
    };
    assert_eq!(inside("/home/ada/project/data"), Ok(()));
    for source in [
        "/home/ada/other",
        "/home/ada/project2",
        "/home/ada/project/../other",
        "/etc/shadow",
    ] {
        assert!(inside(source).is_err(), "{source}");
    }
}

#[test]
fn a_session_file_is_in_the_sessions_own_directory() {
    let session = |source: &str| {
        with(|r| {
            r.mounts.push(Mount::Session {
                source: source.into(),
                target: "/etc/passwd".into(),
                read_only: true,
            });
        })
    };
    assert_eq!(
        session("/home/ada/.local/state/agentcontainer/sessions/k3v9x2/passwd"),
        Ok(())
    );
    for source in [
        "/home/ada/.local/state/agentcontainer/sessions/other/passwd",
        "/home/ada/.local/state/agentcontainer/sessions/k3v9x2",
        "/home/ada/.local/state/agentcontainer/sessions/k3v9x2/../other/passwd",
        "/etc/passwd",
    ] {
        assert!(session(source).is_err(), "{source}");
    }
}

#[test]
fn of_a_repository_outside_each_directory_has_its_place() {
    let with = |mounts: &[(&str, &str, bool)]| {
        with(|r| {
            for (source, target, read_only) in mounts {
                r.mounts.push(Mount::Repository {
                    source: (*source).to_owned(),
                    target: (*target).to_owned(),
                    read_only: *read_only,
                });
            }
        })
    };
    let common = ("/home/ada/main/.git", LENT_COMMON, false);
    let hooks = "/.agentcontainer-repository/hooks";
    let good = [
        common,
        ("/home/ada/main/.git/hooks", hooks, true),
        ("/home/ada/main/.git/worktrees/topic", LENT_OWN, false),
    ];
    assert_eq!(with(&good), Ok(()));
    for wrong in [
        ("/home/ada/main/.git/hooks", hooks, false),
        ("/home/ada/main/.git/objects", hooks, true),
        ("/home/ada/hooks", hooks, true),
        ("/home/ada/main/.git", LENT_OWN, false),
        ("/home/ada/main/.git/worktrees", LENT_OWN, false),
        ("/home/ada/main/.git/worktrees/a/b", LENT_OWN, false),
        ("/home/ada/other/.git/worktrees/a", LENT_OWN, false),
        ("/home/ada/main/.git/worktrees/../x", LENT_OWN, false),
        ("/home/ada/main/.git", "/home/ada", false),
        (
            "/home/ada/main/.git/config",
            "/.agentcontainer-repository/config",
            true,
        ),
    ] {
        assert!(with(&[common, wrong]).is_err(), "{wrong:?}");
    }
    assert!(with(&good[1..]).is_err(), "a repository that is not there");
    for place in ["/", "/etc", "main/.git"] {
        assert!(with(&[(place, LENT_COMMON, false)]).is_err(), "{place}");
    }
}

#[test]
fn trust_files_are_the_sessions_own_and_go_to_their_places() {
    const OURS: &str = "/home/ada/.local/state/agentcontainer/sessions/k3v9x2";
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let trust = |source: &str, target: &str| {
        with(|r| {
            r.mounts.push(Mount::Trust {
                source: source.into(),
                target: target.into(),
            });
        })
    };
    for (file, target) in [
        ("trust", "/run/agentcontainer/trust"),
        ("trust/bundle.pem", bundle),
        ("trust/cacerts.p12", "/etc/pki/java/cacerts"),
        ("trust/ca.pem", "/etc/ssl/certs/06a0de29.0"),
    ] {
        assert_eq!(trust(&format!("{OURS}/{file}"), target), Ok(()), "{file}");
    }
    for (file, target) in [
        ("trust", bundle),
        ("trust", "/run/agentcontainer/other"),
        ("trust", "/run/agentcontainer"),
        ("trust/ca.pem", bundle),
        ("trust/ca.pem", "/etc/ssl/certs/06a0de29.1"),
        ("trust/ca.pem", "/workspaces/project/06a0de29.0"),
        ("trust/ca.pem", "/proc/06a0de29.0"),
        ("trust/bundle.pem", "/proc/06a0de29.0"),
        ("trust/../passwd", bundle),
        ("trust/x/bundle.pem", bundle),
        ("trustbundle.pem", bundle),
        ("passwd", bundle),
        ("", bundle),
        ("trust/bundle.pem", "/run/agentcontainer/trust"),
        ("trust/bundle.pem", "/.agentcontainer/agentcontainer-init"),
        ("trust/bundle.pem", "/proc/version"),
        ("trust/bundle.pem", "/etc/resolv.conf"),
        ("trust/bundle.pem", "/etc/passwd"),
        ("trust/bundle.pem", "/workspaces/project/x.pem"),
        ("trust/bundle.pem", "/workspaces/project/.git"),
        ("trust/bundle.pem", "/workspaces"),
        ("trust/bundle.pem", "/home/agent/x"),
        ("trust/bundle.pem", "/etc/../x"),
        ("trust/bundle.pem", "/"),
    ] {
        let refused = trust(&format!("{OURS}/{file}"), target);
        assert!(refused.is_err(), "{file} at {target}");
    }
    for source in [
        "/home/ada/.local/state/agentcontainer/sessions/other/trust/bundle.pem",
        "/home/ada/trust/bundle.pem",
        "/etc/ssl/certs/ca-certificates.crt",
    ] {
        assert!(trust(source, bundle).is_err(), "{source}");
    }
}

#[test]
fn targets_of_the_kernel_and_ours_are_refused() {
    for target in [
        "/",
        "/proc/sys",
        "/sys",
        "/dev/shm",
        "/.agentcontainer",
        "/.agentcontainer/agentcontainer-init",
        "/run/agentcontainer",
        "/run/agentcontainer/trust",
        "/run/agentcontainer/trust/bundle.pem",
        "rel",
        "/a/../b",
        "/workspaces/project",
    ] {
        let refused = with(|r| {
            r.mounts.push(Mount::Tmpfs {
                target: target.into(),
                size: None,
                owner: None,
            });
        });
        assert!(matches!(refused, Err(Violation::Target { .. })), "{target}");
    }
}

#[test]
fn a_foreign_cgroup_is_refused() {
    for parent in [
        "",
        "/",
        "/agentcontainer",
        "/agentcontainer/other",
        "/agentcontainer/k3v9x2/../other",
        "/system.slice",
        "agentcontainer/k3v9x2",
        "agentcontainer-other.slice",
        "agentcontainer.slice",
    ] {
        assert_eq!(
            with(|r| r.cgroup_parent = parent.into()),
            Err(Violation::CgroupParent(parent.into()))
        );
    }
}

#[test]
fn foreign_volumes_of_ours_and_odd_users_are_refused() {
    for name in [
        "agentcontainer-state-0",
        "agentcontainer-init-0123456789ab",
        "/host",
        "a",
        "../x",
    ] {
        let refused = with(|r| {
            r.mounts.push(Mount::Volume {
                name: name.into(),
                target: "/v".into(),
                read_only: false,
            });
        });
        assert!(matches!(refused, Err(Violation::Volume(_))), "{name}");
    }
    for user in ["", ":", "a:", ":0", "a b", "-x", "a:b:c"] {
        assert!(
            matches!(with(|r| r.user = user.into()), Err(Violation::User(_))),
            "{user}"
        );
    }
}

#[test]
fn bounds_hold_at_n_and_break_at_n_plus_one() {
    let args = |n: usize| with(|r| r.init.program = vec![String::new(); n - 1]);
    assert_eq!(args(MAX_ARGS), Ok(()));
    assert!(matches!(args(MAX_ARGS + 1), Err(Violation::TooMany { .. })));
    let env = |n: usize| with(|r| r.env = (0..n).map(|i| (format!("V{i}"), None)).collect());
    assert_eq!(env(MAX_ENV), Ok(()));
    assert!(env(MAX_ENV + 1).is_err());
    let env_bytes = |n: usize| with(|r| r.env = [("V".to_owned(), Some("x".repeat(n - 3)))].into());
    assert_eq!(env_bytes(MAX_ENV_BYTES), Ok(()));
    assert!(env_bytes(MAX_ENV_BYTES + 1).is_err());
    let arg_bytes = |n: usize| with(|r| r.init.program = vec!["x".repeat(n - 4)]);
    assert_eq!(arg_bytes(MAX_ARG_BYTES), Ok(()));
    assert!(arg_bytes(MAX_ARG_BYTES + 1).is_err());
    let mounts = |n: usize| {
        with(|r| {
            let have = r.mounts.len();
            r.mounts.extend((have..n).map(|i| Mount::Tmpfs {
                target: format!("/t{i}"),
                size: None,
                owner: None,
            }));
        })
    };
    assert_eq!(mounts(MAX_MOUNTS), Ok(()));
    assert!(mounts(MAX_MOUNTS + 1).is_err());
    assert_eq!(with(|r| r.limits.pids = MAX_PIDS), Ok(()));
    assert!(with(|r| r.limits.pids = MAX_PIDS + 1).is_err());
    assert!(with(|r| r.limits.pids = 0).is_err());
    assert_eq!(with(|r| r.limits.memory = Some(MIN_MEMORY)), Ok(()));
    assert!(with(|r| r.limits.memory = Some(MIN_MEMORY - 1)).is_err());
    assert_eq!(with(|r| r.stop_timeout = MAX_STOP_TIMEOUT), Ok(()));
    assert!(with(|r| r.stop_timeout = MAX_STOP_TIMEOUT + 1).is_err());
    assert_eq!(with(|r| r.limits.milli_cpus = Some(MAX_MILLI_CPUS)), Ok(()));
    assert!(with(|r| r.limits.milli_cpus = Some(MAX_MILLI_CPUS + 1)).is_err());
    assert!(with(|r| r.limits.milli_cpus = Some(9)).is_err());
}

#[test]
fn zero_bytes_and_broken_names_are_refused() {
    assert!(with(|r| r.init.program.push("a\0b".into())).is_err());
    assert!(
        with(|r| {
            r.env.insert("A=B".into(), None);
        })
        .is_err()
    );
    assert!(
        with(|r| {
            r.env.insert(String::new(), None);
        })
        .is_err()
    );
    assert!(
        with(|r| {
            r.env.insert("A".into(), Some("\0".into()));
        })
        .is_err()
    );
    assert!(with(|r| r.hostname = "a b".into()).is_err());
    assert!(with(|r| r.stop_signal = Some("SIG TERM".into())).is_err());
}
