//! The control channel: gRPC over the Unix socket in the user's state directory. `running` and `start` give a channel to an enforcer that
//! is the one built into this program, or says why there is none; nothing talks to another one.

use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::v1;
use api::v1::enforcer_client::EnforcerClient;
use engine::Engine;
use engine::sidecar::{Embedded, Sidecar, State};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::places::{Places, make_private};
use crate::report::{Failure, escape};

/// How long a sidecar that was just started has to open its socket.
const START: Duration = Duration::from_secs(20);
/// How long an enforcer may take to answer; opening a session loads programs into the kernel.
const ANSWER: Duration = Duration::from_secs(30);
/// Lines of the sidecar's log that a failure shows.
const LAST_WORDS: u32 = 12;

/// A connected enforcer.
pub type Enforcer = EnforcerClient<Channel>;

/// This user's sidecar of this program's version.
pub fn sidecar(places: &Places) -> Result<Sidecar, Failure> {
    Ok(of(places, crate::embedded::sidecar()?))
}

fn of(places: &Places, embedded: Embedded) -> Sidecar {
    Sidecar {
        embedded,
        uid: nix::unistd::geteuid().as_raw(),
        control: places.control(&embedded.short()),
    }
}

/// An enforcer that runs now, or `None`.
pub async fn running(sidecar: &Sidecar) -> Result<Option<(Enforcer, v1::StatusReply)>, Failure> {
    let Ok(mut enforcer) = connect(sidecar.control.clone()).await else {
        return Ok(None);
    };
    match enforcer.status(v1::StatusRequest {}).await {
        Ok(status) => {
            let status = status.into_inner();
            compare(sidecar, &status)?;
            Ok(Some((enforcer, status)))
        }
        Err(status) if status.code() == tonic::Code::Unavailable => Ok(None),
        Err(status) => Err(refused("say what it is", &status)),
    }
}

/// Every enforcer of this user's that answers, by its sidecar's short name, whatever its version: a session stays with the
/// sidecar that opened it. For taking away alone, which every version understands.
pub async fn every(places: &Places) -> Vec<(String, Enforcer)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(places.controls())
        .into_iter()
        .flatten()
        .flatten()
    {
        if let (Ok(enforcer), Ok(short)) =
            (connect(entry.path()).await, entry.file_name().into_string())
        {
            found.push((short, enforcer));
        }
    }
    found
}

/// Starts the sidecar and waits until its enforcer answers.
pub async fn start(
    engine: &Engine,
    sidecar: &Sidecar,
) -> Result<(Enforcer, v1::StatusReply), Failure> {
    make_private(&sidecar.control)?;
    engine.sidecar_start(sidecar).await?;
    let began = Instant::now();
    let mut looked = began;
    loop {
        if let Some(found) = running(sidecar).await? {
            return Ok(found);
        }
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            let gone = engine.sidecar_state(sidecar).await? != State::Running;
            if gone || began.elapsed() > START {
                return Err(no_answer(engine, sidecar, gone).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn no_answer(engine: &Engine, sidecar: &Sidecar, gone: bool) -> Failure {
    let log = engine.sidecar_log(sidecar, LAST_WORDS).await;
    let said = if log.is_empty() {
        String::new()
    } else {
        let lines: Vec<String> = log.iter().map(|l| escape(l)).collect();
        format!("; its last words: {}", lines.join(" | "))
    };
    let what = if gone {
        "the enforcer ended as soon as it was started"
    } else {
        "the enforcer does not open its control socket"
    };
    Failure::new("enforcer-not-ready", format!("{what}{said}"))
        .about(sidecar.container_name())
        .help("see `agentcontainer doctor`, and `docker logs` of that container")
}

/// The enforcer that answers must be the one built into this program, byte for byte.
fn compare(sidecar: &Sidecar, status: &v1::StatusReply) -> Result<(), Failure> {
    let same = status.version == env!("CARGO_PKG_VERSION")
        && status.binary_sha256.trim_start_matches("sha256:") == sidecar.embedded.enforcer.hex();
    if same {
        return Ok(());
    }
    Err(Failure::new(
        "enforcer-mismatch",
        format!(
            "the enforcer that answers is version {} ({}), and this program's is {} ({})",
            status.version,
            status.binary_sha256.get(..12).unwrap_or_default(),
            env!("CARGO_PKG_VERSION"),
            &sidecar.embedded.enforcer.hex()[..12],
        ),
    )
    .about(sidecar.container_name())
    .help("end its sessions, then `agentcontainer enforcer stop`"))
}

/// An answer of the enforcer's that was no success.
pub fn refused(what: &str, status: &tonic::Status) -> Failure {
    let code = match status.code() {
        tonic::Code::NotFound => "no-session",
        tonic::Code::Unavailable => "enforcer-gone",
        tonic::Code::FailedPrecondition => "enforcer-cannot",
        _ => "enforcer-refused",
    };
    Failure::new(
        code,
        format!("the enforcer did not {what}: {}", status.message()),
    )
}

async fn connect(directory: PathBuf) -> Result<Enforcer, tonic::transport::Error> {
    // The address is never used: the connector goes to the socket.
    let channel = Endpoint::from_static("http://enforcer.invalid")
        .connect_timeout(Duration::from_secs(5))
        .timeout(ANSWER)
        .connect_with_connector(service_fn(move |_: Uri| {
            let directory = directory.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(dial(&directory).await?)) }
        }))
        .await?;
    Ok(EnforcerClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
}

/// Through the directory's descriptor: a state directory may lie deeper than a Unix socket's 108 bytes reach.
async fn dial(directory: &std::path::Path) -> std::io::Result<UnixStream> {
    let directory = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_PATH | nix::libc::O_DIRECTORY)
        .open(directory)?;
    let path = format!("/proc/self/fd/{}/enforcer.sock", directory.as_raw_fd());
    UnixStream::connect(path).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::fake::{Fake, places, serve};
    use schema::digest::Digest;

    #[tokio::test]
    async fn an_enforcer_that_is_not_the_one_built_in_is_not_talked_to() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let ask = async |id: u8, is: Option<(&str, u8)>| {
            let embedded = Embedded {
                archive: &[],
                id: Digest::from_bytes([id; 32]),
                enforcer: Digest::from_bytes([7; 32]),
                gateway: Digest::from_bytes([8; 32]),
                init: Digest::from_bytes([9; 32]),
            };
            let sidecar = of(&places, embedded);
            if let Some((version, own)) = is {
                let is = Some((version.to_owned(), Digest::from_bytes([own; 32]).hex()));
                let fake = Fake {
                    is,
                    ..Default::default()
                };
                serve(&places, &embedded.short(), &fake);
            }
            running(&sidecar).await
        };
        let ours = env!("CARGO_PKG_VERSION");
        for (id, version, own) in [(1, ours, 6), (2, "0.0.0-other", 7), (3, "", 7)] {
            let refused = ask(id, Some((version, own))).await;
            let Err(refused) = refused else {
                panic!("{version} {own} is talked to")
            };
            assert_eq!(refused.diagnostics[0].code, "enforcer-mismatch");
        }
        // Control: the one built in, and none.
        let (_, status) = ask(4, Some((ours, 7))).await.unwrap().unwrap();
        assert_eq!(status.version, ours);
        assert!(ask(5, None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_socket_deeper_than_its_address_can_say_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(dial(&deep).await.is_err());
        // Bound by the same trick that it is reached by.
        let fd = std::fs::File::open(&deep).unwrap();
        let listener = tokio::net::UnixListener::bind(format!(
            "/proc/self/fd/{}/enforcer.sock",
            fd.as_raw_fd()
        ))
        .unwrap();
        let (dialled, accepted) = tokio::join!(dial(&deep), listener.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
    }
}
