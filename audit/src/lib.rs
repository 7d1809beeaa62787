//! Events and the append-only log. An [`Event`] is one JSON object a line: the same object in the stream, the log and
//! `--json`. The enforcer is the only writer; everything else makes events without `time` and `seq` and hands them over.
#![forbid(unsafe_code)]

mod event;
mod log;

pub use event::{Event, Kind, Process, Rule, Verdict};
pub use log::{Log, LogError, Reader};
