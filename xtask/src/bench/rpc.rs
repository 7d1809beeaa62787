//! The control channel's calls that `bench` makes, through curl, which speaks HTTP/2 over a Unix socket: a client
//! generated from the .proto would bring the whole of tonic into every build of xtask.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sh;

/// Calls one method and gives the reply's bytes (gRPC over HTTP/2: one byte flag, four bytes length, the message).
fn call(socket: &Path, method: &str, message: &[u8]) -> Result<Vec<u8>> {
    let body = socket.with_extension("request");
    let answer = socket.with_extension("reply");
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len())?.to_be_bytes());
    framed.extend(message);
    fs::write(&body, framed)?;
    fs::write(&answer, [])?;
    let headers = sh::output(
        Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "60",
                "--http2-prior-knowledge",
                "--unix-socket",
            ])
            .arg(socket)
            .args([
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
                "-D",
                "-",
                "-o",
            ])
            .arg(&answer)
            .arg("--data-binary")
            .arg(format!("@{}", body.display()))
            .arg(format!(
                "http://localhost/agentcontainer.v1.Enforcer/{method}"
            )),
    )?;
    let reply = fs::read(&answer)?;
    ensure!(reply.len() >= 5, "{method}: {headers}");
    Ok(reply[5..].to_vec())
}

/// A length-delimited field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

/// Opens a session; gives the cgroup that what runs in it has to be under, as the enforcer spells it.
/// `root`: what upstreams are verified with, in DER; empty for none.
pub fn open(socket: &Path, session: &str, policy: &[u8], root: &[u8]) -> Result<String> {
    let mut message = [
        field(1, session.as_bytes()),
        field(2, b"/bench"),
        field(3, policy),
    ]
    .concat();
    if !root.is_empty() {
        message.extend(field(4, root));
    }
    let reply = call(socket, "OpenSession", &message)?;
    // cgroup_parent is field 1, and short.
    let [0x0a, length, rest @ ..] = &reply[..] else {
        anyhow::bail!("an answer without a cgroup")
    };
    let name = rest.get(..usize::from(*length)).context("a torn answer")?;
    Ok(String::from_utf8(name.to_vec())?)
}

pub fn close(socket: &Path, session: &str) -> Result<()> {
    let message = [field(1, session.as_bytes()), field(2, b"measured")].concat();
    call(socket, "CloseSession", &message).map(|_| ())
}

/// Whether anybody answers.
pub fn answers(socket: &Path) -> bool {
    socket.exists() && call(socket, "Status", &[]).is_ok()
}
