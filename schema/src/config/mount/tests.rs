#![allow(clippy::unwrap_used)]
use super::*;

fn mount(text: &str) -> Result<Mount, MountError> {
    Fields::parse(text).and_then(Mount::from_fields)
}

#[test]
fn volumes_tmpfs_and_read_only_binds_of_the_workspace_can_be_asked_for() {
    for text in [
        "type=volume,source=cache,target=/home/node/.cache",
        "type=volume,source=x-${devcontainerId},target=${containerWorkspaceFolder}/node_modules,readonly",
        "type=tmpfs,target=/scratch",
        "type=tmpfs,target=/scratch,tmpfs-size=1048576",
        "type=bind,source=${localWorkspaceFolder}/docs,target=/docs,readonly",
        "type=bind,source=${localWorkspaceFolder},target=/ro,readonly",
    ] {
        assert_eq!(mount(text).unwrap().to_string(), text);
    }
    let other = "dst=/x,src=${localWorkspaceFolder}/a/,ro=true,consistency=cached,type=bind";
    assert_eq!(
        mount(other).unwrap().to_string(),
        "type=bind,source=${localWorkspaceFolder}/a,target=/x,readonly"
    );
}

#[test]
fn the_host_and_the_engine_cannot_be_spelt() {
    use MountError as E;
    for (text, error) in [
        (
            "type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=/,target=/host,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}/..,target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}/a/../../b,target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}2,target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}//a,target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}/${localEnv:X},target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localEnv:HOME},target=/x,readonly",
            E::OutsideWorkspace,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}/a,target=/x",
            E::WritableBind,
        ),
        (
            "type=bind,source=${localWorkspaceFolder}/.git,target=/x,readonly=false",
            E::WritableBind,
        ),
        ("type=volume,source=/var/run,target=/x", E::VolumeName),
        ("type=volume,source=..,target=/x", E::VolumeName),
        ("type=volume,source=,target=/x", E::VolumeName),
        ("type=volume,target=/x", E::Missing("source")),
        (
            "type=volume,source=agentcontainer-state-0,target=/x",
            E::ReservedVolume,
        ),
        ("type=npipe,source=x,target=/x", E::Type("npipe".into())),
        ("type=image,source=x,target=/x", E::Type("image".into())),
        ("source=x,target=/x", E::Missing("type")),
        ("type=volume,source=x", E::Missing("target")),
        (
            "type=volume,source=x,target=/x,volume-opt=type=none",
            E::Option("volume-opt".into()),
        ),
        (
            "type=volume,source=x,target=/x,volume-driver=local",
            E::Option("volume-driver".into()),
        ),
        (
            "type=bind,source=x,target=/x,bind-propagation=shared",
            E::Option("bind-propagation".into()),
        ),
        (
            "type=volume,source=x,target=/x,target=/y",
            E::Twice("target".into()),
        ),
        (
            "type=volume,source=x,target=/x,dst=/proc",
            E::Twice("dst".into()),
        ),
        (
            "type=volume,source=x,target=/x,tmpfs-size=1g",
            E::Unfitting("tmpfs-size"),
        ),
        ("type=tmpfs,source=x,target=/x", E::Unfitting("source")),
        (
            "type=volume,source=x,target=/x,readonly=maybe",
            E::Flag("maybe".into()),
        ),
        ("type=volume,source=x,target=x", E::TargetPath),
        ("type=volume,source=x,target=/a/../b", E::TargetPath),
        ("type=volume,source=x,target=/a//b", E::TargetPath),
        ("type=volume,source=x,target=/", E::TargetPath),
        (
            "type=volume,source=x,target=/proc",
            E::ReservedTarget("/proc".into()),
        ),
        (
            "type=volume,source=x,target=/proc/sys",
            E::ReservedTarget("/proc/sys".into()),
        ),
        (
            "type=volume,source=x,target=/etc",
            E::ReservedTarget("/etc".into()),
        ),
        (
            "type=volume,source=x,target=/run",
            E::ReservedTarget("/run".into()),
        ),
        (
            "type=volume,source=x,target=/.agentcontainer/x",
            E::ReservedTarget("/.agentcontainer/x".into()),
        ),
        ("", E::Option(String::new())),
    ] {
        assert_eq!(mount(text), Err(error), "{text}");
    }
    assert!(mount("type=volume,source=x,target=/process").is_ok());
    assert!(mount("type=volume,source=x,target=/etc/ssl").is_ok());
}

#[test]
fn substitution_cannot_make_a_mount_that_could_not_be_written() {
    let volume = mount(
        "type=volume,source=${localWorkspaceFolderBasename},target=${containerWorkspaceFolder}/x",
    )
    .unwrap();
    let resolve = |local, container| {
        volume.resolve(&Variables {
            local_workspace_folder: local,
            container_workspace_folder: container,
            ..SAMPLE
        })
    };
    assert_eq!(
        resolve("/w/project", "/workspaces/project").unwrap(),
        ResolvedMount {
            source: ResolvedSource::Volume {
                name: "project".into()
            },
            target: "/workspaces/project/x".into(),
            read_only: false
        }
    );
    assert_eq!(
        resolve("/w/agentcontainer-init-1", "/w"),
        Err(MountError::ReservedVolume)
    );
    assert_eq!(resolve("/w/..", "/w"), Err(MountError::VolumeName));
    assert_eq!(resolve("/w/a b", "/w"), Err(MountError::VolumeName));
    assert_eq!(
        resolve("/w/p", "/proc"),
        Err(MountError::ReservedTarget("/proc/x".into()))
    );
    assert_eq!(resolve("/w/p", "/w/../proc"), Err(MountError::TargetPath));
}

#[test]
fn the_workspace_mount_is_the_workspace() {
    assert!(
        Mount::workspace(
            "source=${localWorkspaceFolder},target=/work,type=bind,consistency=cached"
        )
        .is_ok()
    );
    for text in [
        "source=${localWorkspaceFolder}/sub,target=/work,type=bind",
        "source=v,target=/work,type=volume",
        "type=tmpfs,target=/work",
    ] {
        assert_eq!(
            Mount::workspace(text),
            Err(MountError::NotWorkspace),
            "{text}"
        );
    }
    assert_eq!(
        Mount::workspace("source=/,target=/work,type=bind"),
        Err(MountError::OutsideWorkspace)
    );
}

#[test]
fn names_and_paths_are_bounded() {
    let volume = |n: usize| mount(&format!("type=volume,source={},target=/x", "v".repeat(n)));
    assert!(volume(MAX_VOLUME_NAME_BYTES).is_ok());
    assert_eq!(
        volume(MAX_VOLUME_NAME_BYTES + 1),
        Err(MountError::VolumeName)
    );
    let target = |n: usize| mount(&format!("type=tmpfs,target=/{}", "t".repeat(n - 1)));
    assert!(target(MAX_PATH_BYTES).is_ok());
    assert_eq!(target(MAX_PATH_BYTES + 1), Err(MountError::TargetPath));
}
