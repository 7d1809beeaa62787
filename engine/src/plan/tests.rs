#![allow(clippy::unwrap_used)]
use super::*;
use crate::identity::Accounts;
use crate::request::{HostPlaces, PinnedImage};
use crate::trust::InImage;

struct Bench {
    dir: tempfile::TempDir,
    image: Image,
    contents: Contents,
    command: Vec<String>,
    detached: bool,
    env: BTreeMap<String, String>,
    doing: Doing,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("project")).unwrap();
    std::fs::create_dir_all(dir.path().join("agentcontainer/sessions/s1")).unwrap();
    Bench {
        dir,
        image: Image {
            pinned: PinnedImage {
                repository: None,
                digest: Digest::of(b"i"),
            },
            id: Digest::of(b"i"),
            platform: ("linux".into(), "amd64".into(), String::new()),
            user: String::new(),
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into()],
            env: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
            working_dir: None,
            stop_signal: None,
        },
        contents: Contents {
            accounts: Accounts {
                passwd: "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n".into(),
                group: String::new(),
            },
            trust: InImage::default(),
        },
        command: vec![],
        detached: false,
        env: BTreeMap::new(),
        doing: Doing::Write,
    }
}

impl Bench {
    fn workspace(&self) -> PathBuf {
        self.dir.path().join("project").canonicalize().unwrap()
    }

    fn make(&self, config: &str) -> Result<Planned, PlanError> {
        let config = schema::config::parse(config.as_bytes(), "agentcontainer.json").unwrap();
        let session = SessionId::parse("s1").unwrap();
        let engine = EngineInfo {
            name: String::new(),
            version: String::new(),
            api: String::new(),
            kernel: String::new(),
            architecture: String::new(),
            cgroup_driver: String::new(),
            cgroup_version: String::new(),
            os: String::new(),
            root: String::new(),
            cpus: 2,
            memory: 1 << 30,
            without: vec![],
        };
        Plan {
            config: &config,
            image: &self.image,
            contents: &self.contents,
            engine: &engine,
            workspace: &self.workspace(),
            owner: (501, 20),
            repository: &Repository::Within,
            session: &session,
            name: Some("my demo"),
            session_dir: &self.dir.path().join("agentcontainer/sessions/s1"),
            init_volume: "agentcontainer-init-0123456789ab".into(),
            cgroup_parent: "/agentcontainer/s1".into(),
            command: &self.command,
            detached: self.detached,
            env: &self.env,
            tty: false,
            terminal: None,
            stdin: false,
            placeholders: &BTreeMap::from([("GITHUB_TOKEN".to_owned(), "placeholder".to_owned())]),
            local_env: &|name| (name == "TOKEN").then(|| "t0".to_owned()),
            agent: None,
            doing: self.doing,
        }
        .make()
    }

    fn request(&self, config: &str) -> CreateRequest {
        let planned = self.make(config).unwrap();
        planned.request.check(&HostPlaces::default()).unwrap();
        planned.request
    }
}

/// Without what stands for control files, there or not, and the trust files.
fn targets(request: &CreateRequest) -> Vec<&str> {
    let is_control = |mount: &&Mount| match mount {
        Mount::Control { .. } | Mount::Trust { .. } => true,
        Mount::Session { target, .. } => !target.starts_with("/etc/"),
        _ => false,
    };
    let others = request.mounts.iter().filter(|m| !is_control(m));
    others.map(Mount::target).collect()
}

#[test]
fn a_bare_config_gives_a_workspace_a_user_who_is_not_root_and_the_images_program() {
    let request = bench().request(r#"{ "image": "x" }"#);
    assert_eq!(request.user, "501:20");
    assert_eq!(request.working_dir, "/workspaces/project");
    assert_eq!(request.init.program, ["/entry", "serve"]);
    assert_eq!(
        targets(&request),
        [
            "/workspaces/project",
            "/etc/passwd",
            "/etc/group",
            "/home/agent"
        ]
    );
    assert_eq!(request.env["HOME"].as_deref(), Some("/home/agent"));
    assert_eq!(
        request.env["GIT_CONFIG_KEY_0"].as_deref(),
        Some("core.excludesFile")
    );
    assert_eq!(request.env["AGENTCONTAINER_SESSION"].as_deref(), Some("s1"));
    assert_eq!(request.hostname, "my-demo");
    assert_eq!(request.limits.pids, 4096);
}

#[test]
fn folders_mounts_limits_and_environment_have_devcontainer_meaning() {
    let at = bench();
    std::fs::create_dir(at.workspace().join("data")).unwrap();
    let request = at.request(
        r#"{ "image": "x", "containerUser": "node", "workspaceFolder": "/src/${localWorkspaceFolderBasename}",
             "containerEnv": { "A": "${localEnv:TOKEN}", "WHERE": "${containerWorkspaceFolder}" },
             "remoteEnv": { "PATH": "/x:${containerEnv:PATH}", "B": "${containerEnv:A}", "GONE": null },
             "mounts": ["type=volume,source=cache-${devcontainerId},target=/cache",
                        "type=bind,source=${localWorkspaceFolder}/data,target=/data,readonly",
                        { "type": "tmpfs", "target": "/scratch" }],
             "postCreateCommand": { "a": "echo hi", "b": ["make", "-j"] }, "onCreateCommand": "true",
             "agent": { "capabilities": { "resources": { "memory": "1g", "cpus": 1.5, "pids": 99 } } } }"#,
    );
    assert_eq!(request.user, "node");
    assert_eq!(request.working_dir, "/src/project");
    assert_eq!(
        targets(&request),
        ["/src/project", "/cache", "/data", "/scratch"]
    );
    assert_eq!(request.env["A"].as_deref(), Some("t0"));
    assert_eq!(request.env["WHERE"].as_deref(), Some("/src/project"));
    assert_eq!(request.env["PATH"].as_deref(), Some("/x:/usr/bin"));
    assert_eq!(request.env["B"].as_deref(), Some("t0"));
    assert_eq!(request.env["GONE"], None);
    assert_eq!(
        (
            request.limits.memory,
            request.limits.milli_cpus,
            request.limits.pids
        ),
        (Some(1 << 30), Some(1500), 99)
    );
    let stages: Vec<_> = request
        .init
        .stages
        .iter()
        .map(|s| (s.name.as_str(), s.commands.len()))
        .collect();
    assert_eq!(stages, [("onCreateCommand", 1), ("postCreateCommand", 2)]);
    assert_eq!(request.init.stages[1].commands[1], ["make", "-j"]);
}

#[test]
fn a_bind_that_leads_out_of_the_workspace_is_refused_at_its_place() {
    let at = Bench {
        doing: Doing::Look,
        ..bench()
    };
    std::os::unix::fs::symlink("/etc", at.workspace().join("link")).unwrap();
    for below in ["link", "link/passwd", "gone"] {
        let config = format!(
            r#"{{ "image": "x", "mounts": ["type=bind,source=${{localWorkspaceFolder}}/{below},target=/data,readonly"] }}"#
        );
        let refused = Diagnostic::from(at.make(&config).unwrap_err());
        assert_eq!(refused.code, "mount", "{below}");
        assert!(refused.place.is_some());
    }
}

#[test]
fn what_is_bound_a_second_time_cannot_be_replaced_while_a_session_runs() {
    let at = bench();
    for path in ["a/data", ".vscode/x"] {
        std::fs::create_dir_all(at.workspace().join(path)).unwrap();
    }
    let request = at.request(
        r#"{ "image": "x", "mounts": ["type=bind,source=${localWorkspaceFolder}/a/data,target=/data,readonly",
             "type=bind,source=${localWorkspaceFolder}/.vscode/x,target=/x,readonly"] }"#,
    );
    let own = |path: &str| {
        let target = format!("/workspaces/project/{path}");
        request.mounts.iter().find_map(|mount| match mount {
            Mount::Control {
                target: at,
                read_only,
                ..
            } if *at == target => Some(*read_only),
            _ => None,
        })
    };
    assert_eq!(own("a"), Some(false));
    assert_eq!(own("a/data"), Some(false));
    assert_eq!(own(".vscode"), Some(true));
    assert_eq!(own(".vscode/x"), None);
}

#[test]
fn the_program_is_the_commands_the_images_or_none() {
    let mut at = bench();
    at.command = vec!["bash".into(), "-l".into()];
    assert_eq!(
        at.request(r#"{ "image": "x" }"#).init.program,
        ["bash", "-l"]
    );
    at.command.clear();
    at.detached = true;
    at.doing = Doing::Look;
    assert!(at.request(r#"{ "image": "x" }"#).init.program.is_empty());
    let kept = at.request(r#"{ "image": "x", "overrideCommand": false }"#);
    assert_eq!(kept.init.program, ["/entry", "serve"]);
    at.detached = false;
    at.image.entrypoint.clear();
    at.image.cmd.clear();
    assert!(matches!(
        at.make(r#"{ "image": "x" }"#),
        Err(PlanError::NoProgram)
    ));
}

#[test]
fn a_plan_only_looks() {
    let mut at = bench();
    at.doing = Doing::Look;
    std::fs::create_dir(at.workspace().join(".git")).unwrap();
    std::fs::write(at.workspace().join("agentcontainer.json"), "{}").unwrap();
    let request = at.request(r#"{ "image": "x" }"#);
    assert!(
        request
            .mounts
            .iter()
            .any(|m| m.target() == "/workspaces/project/.git/hooks")
    );
    let bound = |name: &str| request.mounts.iter().any(|m| m.target().ends_with(name));
    assert!(bound("/agentcontainer.json") && bound("/.git/config") && !bound("/.git/modules"));
    assert_eq!(
        std::fs::read_dir(at.workspace().join(".git"))
            .unwrap()
            .count(),
        0
    );
    let session = at.dir.path().join("agentcontainer/sessions/s1");
    assert_eq!(std::fs::read_dir(session).unwrap().count(), 0);
}

#[test]
fn what_the_host_does_not_have_is_said_before_anything_is_made() {
    let config = r#"{ "image": "x", "hostRequirements": { "cpus": 3 } }"#;
    assert_eq!(
        Diagnostic::from(bench().make(config).unwrap_err()).code,
        "host-requirements"
    );
}

#[test]
fn the_sessions_trust_is_mounted_and_told_by_variables_and_a_persons_word_stays() {
    let mut at = bench();
    let bundle = "/etc/ssl/certs/ca-certificates.crt".to_owned();
    at.contents.trust.bundles = [(bundle.clone(), bundle.clone())].into();
    at.image.env.insert("CURL_CA_BUNDLE".into(), bundle.clone());
    at.env.insert("PIP_CERT".into(), "/mine.pem".into());
    let planned = at
        .make(r#"{ "image": "x", "remoteEnv": { "DENO_CERT": null } }"#)
        .unwrap();
    let request = &planned.request;
    request.check(&HostPlaces::default()).unwrap();
    let targets: Vec<_> = request
        .mounts
        .iter()
        .filter(|mount| matches!(mount, Mount::Trust { .. }))
        .map(Mount::target)
        .collect();
    assert_eq!(targets, [trust::TARGET, &bundle]);
    let env = &request.env;
    assert_eq!(
        env["SSL_CERT_FILE"].as_deref(),
        Some("/run/agentcontainer/trust/bundle.pem")
    );
    assert_eq!(env["PIP_CERT"].as_deref(), Some("/mine.pem"));
    assert_eq!(env["DENO_CERT"], None);
    assert!(
        !env.contains_key("CURL_CA_BUNDLE"),
        "the image's own is right"
    );
    let said = |note: &&String| note.contains("PIP_CERT");
    assert_eq!(planned.notes.iter().filter(said).count(), 1);
}

#[test]
fn what_stands_for_a_credential_is_set_whatever_else_sets_it() {
    let mut at = bench();
    at.image.env.insert("GITHUB_TOKEN".into(), "images".into());
    at.env.insert("GITHUB_TOKEN".into(), "command lines".into());
    let request = at.request(
        r#"{ "image": "x", "containerEnv": { "GITHUB_TOKEN": "configs" }, "remoteEnv": { "GITHUB_TOKEN": null } }"#,
    );
    assert_eq!(request.env["GITHUB_TOKEN"].as_deref(), Some("placeholder"));
}

#[test]
fn it_is_said_whose_the_workspace_is_where_the_user_is_another() {
    let said = |config: &str| {
        let notes = bench().make(config).unwrap().notes;
        let mut notes = notes.into_iter().filter(|n| n.contains("the workspace is"));
        notes.next()
    };
    // The bench's is 501:20's.
    for same in [
        r#"{ "image": "x" }"#,
        r#"{ "image": "x", "containerUser": "root" }"#,
    ] {
        assert_eq!(said(same), None, "{same}");
    }
    let mapped = said(r#"{ "image": "x", "containerUser": "node" }"#).unwrap();
    assert!(
        mapped.contains("501:20's on this machine and 1000:1000's inside"),
        "{mapped}"
    );
    let left = r#"{ "image": "x", "containerUser": "node", "updateRemoteUserUID": false }"#;
    let left = said(left).unwrap();
    assert!(left.contains("as `updateRemoteUserUID` says"), "{left}");
    let config = |text: &str| schema::config::parse(text.as_bytes(), "f").unwrap();
    let (on, off) = (
        config(r#"{ "image": "x", "updateRemoteUserUID": true }"#),
        config(r#"{ "image": "x", "updateRemoteUserUID": false }"#),
    );
    assert_eq!(mapped_owner(&on, (501, 20)), Some((501, 20)));
    assert_eq!(mapped_owner(&on, (0, 20)), None);
    assert_eq!(mapped_owner(&off, (501, 20)), None);
}
