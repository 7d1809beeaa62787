//! Keys that sign: read from the file that a person names, opened with `COSIGN_PASSWORD` or by asking at the terminal, and gone from
//! memory when the command is.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use registry::client::Client;
use registry::publish::{Kind, Target};
use registry::sign::keyless::Made;
use registry::sign::{KeyError, PRIVATE_KEY_BYTES, SignError, Signed, SigningKey};
use schema::digest::Digest;
use schema::image::ImageRef;

use crate::files;
use crate::report::Failure;

const PASSWORD: &str = "COSIGN_PASSWORD";

/// The key in a file.
pub fn key(path: &Path) -> Result<SigningKey, Failure> {
    let file = files::named(path, PRIVATE_KEY_BYTES)?;
    let refused =
        |e: KeyError| Failure::new("signing-key", e.to_string()).about(path.display().to_string());
    let from_environment = std::env::var_os(PASSWORD);
    let password = from_environment.as_ref().map(|p| p.as_encoded_bytes());
    match SigningKey::from_pem(&file, password) {
        Err(KeyError::NoPassword) => {
            let asked = ask(path)?;
            SigningKey::from_pem(&file, Some(asked.as_bytes())).map_err(refused)
        }
        other => other.map_err(refused),
    }
}

/// A password, at the terminal, unseen.
fn ask(path: &Path) -> Result<String, Failure> {
    let nobody = || {
        Failure::new(
            "signing-key",
            format!(
                "{} is encrypted, and there is no terminal to ask for its password at",
                path.display()
            ),
        )
        .help(format!("set {PASSWORD}"))
    };
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| nobody())?;
    let was = tcgetattr(&terminal).map_err(|_| nobody())?;
    let _ = write!(
        terminal,
        "password for {}: ",
        crate::report::escape(&path.display().to_string())
    );
    let hidden = Hidden::enter(&terminal, was).ok_or_else(nobody)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    drop(hidden);
    let _ = writeln!(terminal);
    read.map_err(|_| nobody())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed; as it was when this is gone.
struct Hidden<'t> {
    terminal: &'t File,
    was: Termios,
}

impl<'t> Hidden<'t> {
    fn enter(terminal: &'t File, was: Termios) -> Option<Self> {
        let mut hidden = was.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &hidden).ok()?;
        Some(Self { terminal, was })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSAFLUSH, &self.was);
    }
}

/// What a reference names now, to be signed.
pub async fn target(client: &Client, reference: &ImageRef) -> Result<Target, Failure> {
    let found = client.resolve(reference).await?;
    Ok(client.target(&found.repository, &found.digest).await?)
}

/// Puts what was signed beside its subject; the digest of what refers to it.
pub async fn publish(
    client: &Client,
    target: &Target,
    kind: Kind,
    signed: &Signed,
) -> Result<Digest, Failure> {
    Ok(client.publish(target, kind, signed).await?)
}

/// Puts a bundle that a log knows beside its subject; the digest of what refers to it.
pub async fn publish_made(
    client: &Client,
    target: &Target,
    made: &Made,
) -> Result<Digest, Failure> {
    Ok(client
        .publish_bundle(target, &made.bundle, &made.annotations)
        .await?)
}

pub fn refused(error: SignError) -> Failure {
    Failure::new("sign", error.to_string())
}
