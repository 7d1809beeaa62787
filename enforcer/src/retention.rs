//! How long the event logs of sessions that ended are kept: so many, and so many bytes of them; the oldest go first. Called when a
//! session has been closed.

use std::path::Path;
use std::time::SystemTime;

use crate::places::Places;

/// Logs of ended sessions.
pub const MAX_LOGS: usize = 256;
/// Bytes of all of them.
pub const MAX_BYTES: u64 = 4 << 30;

/// One log, as it lies there.
#[derive(Clone, Debug)]
struct Kept {
    session: String,
    written: SystemTime,
    bytes: u64,
}

/// Removes what is beyond the bounds; says how many logs.
pub fn prune(places: &Places) -> usize {
    let root = places.logs.parent().unwrap_or(&places.logs);
    let kept = std::fs::read_dir(&places.logs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let session = name.strip_suffix(".jsonl")?.to_owned();
            let metadata = entry.metadata().ok()?;
            let written = metadata.modified().ok()?;
            let bytes = metadata.len();
            Some(Kept {
                session,
                written,
                bytes,
            })
        })
        .filter(|log| !is_open(root, &log.session))
        .collect();
    let beyond = beyond(kept, MAX_LOGS, MAX_BYTES);
    let removed = beyond
        .iter()
        .filter(|session| std::fs::remove_file(places.log(session)).is_ok());
    removed.count()
}

/// Whether an enforcer of any version has a record of the session.
fn is_open(state: &Path, session: &str) -> bool {
    std::fs::read_dir(state)
        .into_iter()
        .flatten()
        .flatten()
        .any(|version| version.path().join("sessions").join(session).exists())
}

/// The sessions whose logs go.
fn beyond(mut kept: Vec<Kept>, logs: usize, bytes: u64) -> Vec<String> {
    kept.sort_by(|a, b| (b.written, &b.session).cmp(&(a.written, &a.session)));
    let mut total = 0u64;
    let fits = |log: &Kept| {
        total = total.saturating_add(log.bytes);
        total <= bytes
    };
    let by_bytes = kept.iter().map(fits).take_while(|fits| *fits).count();
    kept.split_off(by_bytes.min(logs))
        .into_iter()
        .map(|log| log.session)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn logs(bytes: &[u64]) -> Vec<Kept> {
        let log = |(n, bytes): (usize, &u64)| Kept {
            session: format!("s{n}"),
            written: SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64),
            bytes: *bytes,
        };
        bytes.iter().enumerate().map(log).collect()
    }

    #[test]
    fn the_oldest_log_beyond_the_bound_goes_and_the_last_within_it_stays() {
        assert_eq!(beyond(logs(&[1, 1, 1]), 3, 100), [""; 0]);
        assert_eq!(beyond(logs(&[1, 1, 1, 1]), 3, 100), ["s0"]);
        assert_eq!(beyond(logs(&[50, 20, 30]), 9, 100), [""; 0]);
        assert_eq!(beyond(logs(&[51, 20, 30]), 9, 100), ["s0"]);
        assert_eq!(beyond(logs(&[1, 101, 30]), 9, 100), ["s1", "s0"]);
    }

    #[test]
    fn the_log_of_an_open_session_of_any_version_stays() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(state.path().join("abc/sessions/open")).unwrap();
        assert!(is_open(state.path(), "open"));
        assert!(!is_open(state.path(), "ended"));
    }
}
