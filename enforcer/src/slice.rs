//! Slices of systemd's (systemd.slice(5)). Where systemd makes the engine's cgroups, it alone may make a container's parent: a session's
//! cgroup is then a transient unit, asked for over the manager's own socket (org.freedesktop.systemd1(5)), for which no bus has to run. The
//! words are D-Bus's (its specification, "Message Protocol"); zbus refuses the manager's answers, whose sender is no unique name.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zvariant::serialized::{Context, Data};
use zvariant::{DynamicType, Endian, Value, to_bytes};

/// Where the manager answers root.
const SOCKET: &str = "/run/systemd/private";
/// How long it may take to answer.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer that is read, in bytes, without its head.
const MAX_ANSWER: usize = 64 * 1024;
/// Messages of the manager's that are no answer and are passed over.
const MAX_OTHERS: usize = 1000;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Value<'a>)>);

#[derive(Debug, thiserror::Error)]
#[error("systemd does not {call} the slice {unit}: {source}")]
pub struct SliceError {
    call: &'static str,
    unit: String,
    #[source]
    source: Refusal,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{SOCKET}: {0}")]
    Socket(#[from] io::Error),
    #[error("what it says is not D-Bus: {0}")]
    Message(#[from] zvariant::Error),
    /// What it calls the reason.
    #[error("{0}")]
    Said(String),
}

/// The unit of a session's cgroup. An id has no `-`, by which slices are nested.
pub fn unit(session: &str) -> String {
    format!("agentcontainer-{session}.slice")
}

/// The session that a unit is of.
pub fn session(unit: &str) -> Option<&str> {
    unit.strip_prefix("agentcontainer-")?.strip_suffix(".slice")
}

/// Starts a session's slice, which must not be there. Its cgroup appears when systemd has come to it.
pub fn start(session: &str) -> Result<(), SliceError> {
    let unit = unit(session);
    let description = format!("agentcontainer session {session}");
    let properties = vec![("Description", Value::from(description))];
    let others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
    let words = (unit.as_str(), "fail", properties, others);
    ask("StartTransientUnit", &words).map_err(|source| SliceError {
        call: "start",
        unit,
        source,
    })
}

/// Has a slice stopped whose cgroup is gone: what is left is a unit of that name, which holds nothing, and nobody waits for its end.
pub fn let_go(session: &str) {
    let session = session.to_owned();
    std::thread::spawn(move || {
        if let Err(error) = stop(&session) {
            tracing::warn!(%session, %error, "the slice of a session that is over");
        }
    });
}

/// Stops it, and with it whatever is below; one that is not there is no error.
fn stop(session: &str) -> Result<(), SliceError> {
    let unit = unit(session);
    match ask("StopUnit", &(unit.as_str(), "replace")) {
        Err(Refusal::Said(name)) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
        other => other.map_err(|source| SliceError {
            call: "stop",
            unit,
            source,
        }),
    }
}

/// One call of the manager's, on a connection of its own.
fn ask<B: serde::Serialize + DynamicType>(method: &str, body: &B) -> Result<(), Refusal> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    authenticate(&mut stream)?;
    stream.write_all(&call(method, body)?)?;
    for _ in 0..MAX_OTHERS {
        let (kind, fields) = receive(&mut stream)?;
        match kind {
            METHOD_RETURN => return Ok(()),
            ERROR => return Err(Refusal::Said(fields)),
            _ => {}
        }
    }
    Err(io::Error::other("it does not answer what it was asked").into())
}

/// The mechanism EXTERNAL: the kernel says who we are, and we name the same user.
fn authenticate(stream: &mut UnixStream) -> io::Result<()> {
    let user = nix::unistd::geteuid().to_string();
    let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
    let mut line = Vec::new();
    // To the end of the line and no further: what follows it is a message.
    while !line.ends_with(b"\r\n") && line.len() < 256 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if !line.starts_with(b"OK ") {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    stream.write_all(b"BEGIN\r\n")
}

fn call<B: serde::Serialize + DynamicType>(method: &str, body: &B) -> Result<Vec<u8>, Refusal> {
    let context = Context::new_dbus(Endian::Little, 0);
    // The words of a call are not a structure of their own.
    let signature = body.signature().to_string_no_parens();
    let body = to_bytes(context, body)?;
    let mut fields = Vec::new();
    for (code, kind, text) in [
        (PATH, b'o', "/org/freedesktop/systemd1"),
        (INTERFACE, b's', "org.freedesktop.systemd1.Manager"),
        (MEMBER, b's', method),
        (DESTINATION, b's', "org.freedesktop.systemd1"),
        (SIGNATURE, b'g', signature.as_str()),
    ] {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([code, 1, kind, 0]);
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        match kind {
            b'g' => fields.push(length as u8),
            _ => fields.extend(length.to_le_bytes()),
        }
        fields.extend(text.as_bytes());
        fields.push(0);
    }
    let number = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let mut bytes = vec![b'l', METHOD_CALL, 0, 1];
    bytes.extend(number(body.len())?.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(number(fields.len())?.to_le_bytes());
    bytes.extend(fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The next message: its kind, and the name of an error.
fn receive(stream: &mut UnixStream) -> Result<(u8, String), Refusal> {
    let mut start = [0; 16];
    stream.read_exact(&mut start)?;
    let (endian, number): (_, fn([u8; 4]) -> u32) = match start[0] {
        b'l' => (Endian::Little, u32::from_le_bytes),
        _ => (Endian::Big, u32::from_be_bytes),
    };
    let at = |from: usize| {
        let bytes = start[from..from + 4].try_into().unwrap_or_default();
        number(bytes) as usize
    };
    let (body, fields) = (at(4), at(12));
    let rest = fields
        .checked_next_multiple_of(8)
        .and_then(|fields| fields.checked_add(body))
        .filter(|rest| *rest <= MAX_ANSWER)
        .ok_or_else(|| io::Error::other("its answer is too long"))?;
    let mut bytes = start.to_vec();
    bytes.resize(start.len() + rest, 0);
    stream.read_exact(&mut bytes[start.len()..])?;
    bytes.truncate(start.len() + fields);
    let data = Data::new(bytes, Context::new_dbus(endian, 0));
    let (header, _): (Header<'_>, _) = data.deserialize()?;
    let name = header.6.into_iter().find_map(|(field, value)| match value {
        Value::Str(name) if field == ERROR_NAME => Some(name.to_string()),
        _ => None,
    });
    Ok((start[1], name.unwrap_or_else(|| "no reason".to_owned())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_unit_is_of_one_session() {
        assert_eq!(session(&unit("k3v9x2")), Some("k3v9x2"));
        assert_eq!(session("k3v9x2"), None);
        assert_eq!(session("agentcontainer-k3v9x2.scope"), None);
    }

    /// A manager that says this after a call.
    fn answer(said: &[u8]) -> Result<(u8, String), Refusal> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        drop(theirs);
        receive(&mut ours)
    }

    #[test]
    fn a_call_names_its_words_one_by_one() {
        let bytes = call("StopUnit", &("a.slice", "replace")).unwrap();
        // Read back by zvariant, as a structure of its header and what follows it.
        let context = Context::new_dbus(Endian::Little, 0);
        let data = Data::new(bytes.as_slice(), context);
        let ((header, unit, mode), read): ((Header<'_>, &str, &str), usize) =
            data.deserialize().unwrap();
        assert_eq!((unit, mode, read), ("a.slice", "replace", bytes.len()));
        assert_eq!(header.4, 24);
        let said: Vec<(u8, String)> = header
            .6
            .iter()
            .map(|(code, value)| (*code, value.to_string()))
            .collect();
        assert_eq!(said[2], (MEMBER, "\"StopUnit\"".to_owned()));
        // Not as one structure, which would be `(ss)`.
        assert!(bytes.windows(7).any(|at| at == b"\x01g\0\x02ss\0"));
    }

    #[test]
    fn an_answer_is_told_from_an_error_and_what_is_too_long_or_broken_is_neither() {
        let context = Context::new_dbus(Endian::Little, 0);
        let message = |kind: u8, body: u32, fields: Vec<(u8, Value<'_>)>| {
            let header: Header<'_> = (b'l', kind, 1, 1, body, 7, fields);
            let mut bytes = to_bytes(context, &header).unwrap().to_vec();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        // Its sender is no unique name.
        let sender = || (7, Value::from("org.freedesktop.systemd1"));
        let fine = message(METHOD_RETURN, 0, vec![(5, Value::from(1u32)), sender()]);
        assert_eq!(answer(&fine).unwrap().0, METHOD_RETURN);
        let name = "org.freedesktop.systemd1.NoSuchUnit";
        let error = message(ERROR, 0, vec![(ERROR_NAME, Value::from(name)), sender()]);
        assert_eq!(answer(&error).unwrap(), (ERROR, name.to_owned()));

        let longest = u32::try_from(MAX_ANSWER - 8).unwrap();
        let mut at_bound = message(METHOD_RETURN, longest, vec![(5, Value::from(1u32))]);
        at_bound.resize(at_bound.len() + MAX_ANSWER, 0);
        assert_eq!(answer(&at_bound).unwrap().0, METHOD_RETURN);
        at_bound[4..8].copy_from_slice(&(longest + 1).to_le_bytes());
        assert!(answer(&at_bound).is_err());
        assert!(answer(&fine[..fine.len() - 1]).is_err());
        assert!(answer(&[0xff; 64]).is_err());
        assert!(answer(b"").is_err());
    }
}
