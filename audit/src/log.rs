//! The append-only log of one session: JSON lines in one file, written whole or not at all. A write that fails is taken
//! back (the file is cut to its last whole line), so that a full disk leaves a readable log and a refusal.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Event;

/// Longest line that is written or read, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Largest log, in bytes. Beyond it nothing is recorded, and so nothing is carried: as with a full disk.
pub const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {call} the event log: {source}")]
    Io {
        call: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("an event of {0} bytes is longer than a line of the log may be")]
    TooLong(usize),
    #[error("the event log has reached its {0} bytes")]
    Full(u64),
    #[error("line {0} of the event log is not an event")]
    Corrupt(u64),
}

fn io_error(call: &'static str) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { call, source }
}

/// The writer. One a session, held by the enforcer.
#[derive(Debug)]
pub struct Log {
    file: File,
    session: String,
    seq: u64,
    length: u64,
    limit: u64,
}

impl Log {
    /// Opens or creates the log and goes on after its last whole line; a torn last line (a crash in the middle of a
    /// write) is cut.
    pub fn open(path: &Path, session: &str) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error("open"))?;
        let mut seq = 0;
        let mut length = 0u64;
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader
                .read_until(b'\n', &mut line)
                .map_err(io_error("read"))?;
            if n == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let event: Event =
                serde_json::from_slice(&line).map_err(|_| LogError::Corrupt(seq + 1))?;
            seq = event.seq;
            length += n as u64;
        }
        drop(reader);
        file.set_len(length).map_err(io_error("truncate"))?;
        Ok(Self {
            file,
            session: session.to_owned(),
            seq,
            length,
            limit: MAX_BYTES,
        })
    }

    /// Gives the event its time and number and appends it. On error nothing of it stays in the file.
    pub fn append(&mut self, event: &mut Event) -> Result<u64, LogError> {
        event.time = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
            .to_string();
        event.seq = self.seq + 1;
        event.session.clone_from(&self.session);
        let mut line = serde_json::to_vec(event).map_err(|e| LogError::Io {
            call: "encode for",
            source: e.into(),
        })?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            return Err(LogError::TooLong(line.len()));
        }
        if self.length + line.len() as u64 > self.limit {
            return Err(LogError::Full(self.limit));
        }
        if let Err(source) = self.file.write_all(&line) {
            // A partial line must not stay; if even this fails, `open` cuts it.
            let _ = self.file.set_len(self.length);
            return Err(LogError::Io {
                call: "write to",
                source,
            });
        }
        self.seq += 1;
        self.length += line.len() as u64;
        Ok(self.seq)
    }

    /// Number of the last event, 0 when there is none.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Waits until what was appended is on the disk.
    pub fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(io_error("sync"))
    }
}

/// Reads a log from the start or from a number on; called again at the end of file it goes on with what came since.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    offset: u64,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path).map_err(io_error("open"))?;
        Ok(Self {
            file: BufReader::new(file),
            offset: 0,
        })
    }

    /// The next whole line without its newline, or `None` when there is none yet.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let mut line = Vec::new();
        let n = self
            .file
            .read_until(b'\n', &mut line)
            .map_err(io_error("read"))?;
        if n == 0 || line.last() != Some(&b'\n') {
            self.file
                .seek(SeekFrom::Start(self.offset))
                .map_err(io_error("seek in"))?;
            return Ok(None);
        }
        self.offset += n as u64;
        line.pop();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Kind, Verdict};

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = Log::open(&path, "s1").unwrap();
        for _ in 0..3 {
            log.append(&mut Event::new(Kind::Connect, Verdict::Deny, "not-listed"))
                .unwrap();
        }
        drop(log);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"kind\":")
            .unwrap();
        let mut log = Log::open(&path, "s1").unwrap();
        assert_eq!(
            log.append(&mut Event::new(Kind::Dns, Verdict::Allow, "allowed"))
                .unwrap(),
            4
        );
        let mut reader = Reader::open(&path).unwrap();
        let mut seqs = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            seqs.push(serde_json::from_slice::<Event>(&line).unwrap().seq);
        }
        assert_eq!(seqs, [1, 2, 3, 4]);
    }

    #[test]
    fn the_last_line_that_fits_is_written_and_the_next_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = Log::open(&path, "s1").unwrap();
        let event = || Event::new(Kind::Connect, Verdict::Deny, "not-listed");
        log.append(&mut event()).unwrap();
        log.limit = log.length * 2;
        log.append(&mut event()).unwrap();
        assert!(matches!(log.append(&mut event()), Err(LogError::Full(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), log.limit);
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_whole_lines() {
        // /dev/full answers every write with ENOSPC.
        let mut log = Log {
            file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
            session: "s1".into(),
            seq: 0,
            length: 0,
            limit: MAX_BYTES,
        };
        let refused = log.append(&mut Event::new(Kind::Dns, Verdict::Allow, "allowed"));
        assert!(matches!(
            refused,
            Err(LogError::Io {
                call: "write to",
                ..
            })
        ));
        assert_eq!(log.last_seq(), 0);
    }
}
