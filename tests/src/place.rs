//! What every test needs to find before it starts: the binary, the engine, the bridge. Absent is a failure with the command that
//! helps, never a skip.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::docker;

/// The binary under test and where it runs.
#[derive(Debug)]
pub struct Rig {
    /// The built binary (`AGENTCONTAINER_BIN`).
    pub binary: PathBuf,
    /// The engine (`DOCKER_HOST`).
    pub docker_host: String,
    /// The address of the engine's default bridge on this side: receivers listen here.
    pub bridge: Ipv4Addr,
    /// One state directory for all tests: the enforcer's socket is in it, and all share the enforcer.
    pub state: PathBuf,
    /// The image with the real clients.
    pub image: String,
}

/// The one rig of this test binary.
pub fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let variable = |name: &str| {
            let value = std::env::var(name).unwrap_or_default();
            assert!(
                !value.is_empty(),
                "{name} is not set: run the tests with `cargo xtask test`"
            );
            value
        };
        let binary = PathBuf::from(variable("AGENTCONTAINER_BIN"));
        assert!(
            binary.is_file(),
            "{} is not there: cargo xtask dist",
            binary.display()
        );
        let docker_host = variable("DOCKER_HOST");
        let bridge = docker::run_on(
            &docker_host,
            &[
                "network",
                "inspect",
                "bridge",
                "--format",
                "{{(index .IPAM.Config 0).Gateway}}",
            ],
        );
        let bridge = bridge
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("the engine's bridge has no address: {bridge:?}"));
        let state = PathBuf::from(variable("AGENTCONTAINER_TEST_STATE"));
        std::fs::create_dir_all(&state).unwrap();
        let image = "agentcontainer-test:latest".to_owned();
        docker::run_on(&docker_host, &["image", "inspect", &image]);
        Rig {
            binary,
            docker_host,
            bridge,
            state,
            image,
        }
    })
}

/// Records, loudly, that a test cannot run here; the caller returns. The summary counts it as skipped, not as passed.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(file) = std::env::var_os("AGENTCONTAINER_TEST_SKIPS") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}

/// A word that nobody else uses, of letters and digits: in a payload, a host name or a session name it says whose it is.
pub fn token(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{prefix}{:x}x{:x}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
