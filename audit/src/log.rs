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

fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%9fZ")
        .to_string()
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
        let mut line = Vec::new();
        self.line(event, self.seq + 1, &now(), &mut line)?;
        self.write(&line, 1)?;
        Ok(self.seq)
    }

    /// [`Self::append`] for events that came together, with one write for all of them. Where that fails each is tried by
    /// itself, so that one that is too long or the last that a disk has room for fares as it would alone.
    pub fn append_all(&mut self, events: &mut [Event]) -> Vec<Result<u64, LogError>> {
        let first = self.seq + 1;
        let now = now();
        let mut lines = Vec::new();
        let together = (first..)
            .zip(events.iter_mut())
            .try_for_each(|(seq, event)| self.line(event, seq, &now, &mut lines))
            .and_then(|()| self.write(&lines, events.len() as u64));
        match together {
            Ok(()) => (first..=self.seq).map(Ok).collect(),
            Err(_) => events.iter_mut().map(|event| self.append(event)).collect(),
        }
    }

    /// Adds the event's line.
    fn line(
        &self,
        event: &mut Event,
        seq: u64,
        time: &str,
        lines: &mut Vec<u8>,
    ) -> Result<(), LogError> {
        time.clone_into(&mut event.time);
        event.seq = seq;
        event.session.clone_from(&self.session);
        let before = lines.len();
        serde_json::to_writer(&mut *lines, event).map_err(|e| LogError::Io {
            call: "encode for",
            source: e.into(),
        })?;
        lines.push(b'\n');
        let length = lines.len() - before;
        if length > MAX_LINE {
            return Err(LogError::TooLong(length));
        }
        Ok(())
    }

    /// Writes whole lines, or nothing.
    fn write(&mut self, lines: &[u8], count: u64) -> Result<(), LogError> {
        if self.length + lines.len() as u64 > self.limit {
            return Err(LogError::Full(self.limit));
        }
        if let Err(source) = self.file.write_all(lines) {
            // A partial line must not stay; if even this fails, `open` cuts it.
            let _ = self.file.set_len(self.length);
            return Err(LogError::Io {
                call: "write to",
                source,
            });
        }
        self.seq += count;
        self.length += lines.len() as u64;
        Ok(())
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
    fn events_that_come_together_are_numbered_as_if_alone_and_what_does_not_fit_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = Log::open(&path, "s1").unwrap();
        let event = || Event::new(Kind::Connect, Verdict::Allow, "allowed");
        let seqs = |results: Vec<Result<u64, LogError>>| -> Vec<Option<u64>> {
            results.into_iter().map(Result::ok).collect()
        };
        assert_eq!(seqs(log.append_all(&mut [])), []);
        assert_eq!(
            seqs(log.append_all(&mut [event(), event()])),
            [Some(1), Some(2)]
        );
        let mut long = event();
        long.detail = Some("x".repeat(MAX_LINE));
        assert_eq!(
            seqs(log.append_all(&mut [event(), long, event()])),
            [Some(3), None, Some(4)]
        );
        log.limit = log.length + log.length / 4;
        assert_eq!(
            seqs(log.append_all(&mut [event(), event()])),
            [Some(5), None]
        );
        let mut reader = Reader::open(&path).unwrap();
        for seq in 1..=5 {
            let line = reader.next_line().unwrap().unwrap();
            assert_eq!(serde_json::from_slice::<Event>(&line).unwrap().seq, seq);
        }
        assert!(reader.next_line().unwrap().is_none());
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
        let mut two = [(); 2].map(|()| Event::new(Kind::Dns, Verdict::Allow, "allowed"));
        assert!(log.append_all(&mut two).iter().all(Result::is_err));
        assert_eq!(log.last_seq(), 0);
    }
}
