//! Who may speak to an enforcer, by the kernel's word of who connects.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use enforcer::service::peers;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;

/// Says when it is connected, and then what it hears first: nothing, where it is turned away.
const CLIENT: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('connected', flush=True)
print('heard', s.recv(9).decode())";

struct Client {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Client {
    /// One that is connected, as that user.
    fn of(uid: u32, socket: &Path) -> Self {
        let uid = uid.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups"])
            .args(["python3", "-c", CLIENT])
            .arg(socket)
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self { child, says };
        assert_eq!(client.line(), "connected\n");
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_and_the_enforcers_user_are_spoken_to_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // As open as can be: what is asked here is not the file's mode.
    for path in [directory.path(), &socket] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut peers = peers(listener, 1234);
    // In the order that they connect in.
    let mut turned_away = [4321, 1235, 65534].map(|uid| Client::of(uid, &socket));
    for uid in [1234, 0] {
        let mut client = Client::of(uid, &socket);
        let next = tokio::time::timeout(Duration::from_secs(60), peers.next());
        let stream = next.await.unwrap().unwrap().unwrap();
        assert_eq!(stream.peer_cred().unwrap().uid(), uid);
        stream.writable().await.unwrap();
        assert_eq!(stream.try_write(b"something").unwrap(), 9);
        assert_eq!(client.line(), "heard something\n");
    }
    for client in &mut turned_away {
        assert_eq!(client.line(), "heard \n");
    }
}
