//! Who opened a connection, for its records: the kernel's word of it (FLOWS), asked for and put into words from /proc once a
//! connection.
//! Held by the loop that serves one gateway; a gateway that starts again starts this anew.

use std::collections::{BTreeMap, HashMap};

use audit::{Event, Kind};
use enforcer_common::Process;

use crate::process::{self, Pinned};

/// Connections whose opener is kept, more than a gateway carries at once: the ends of some are lost. The oldest makes room, and nobody is
/// named at its end: its addresses and ports may be another's by then.
pub const MAX_FLOWS: usize = 8192;
/// Processes that are held open to be known again; one descriptor each.
pub const MAX_PROCESSES: usize = 16;

#[derive(Debug, Default)]
pub struct Attribution {
    /// By the gateway's numbers; of some nobody knows.
    flows: BTreeMap<u64, Option<audit::Process>>,
    /// The highest of those that made room.
    forgotten: Option<u64>,
    processes: HashMap<u32, Known>,
}

/// A process's pid in its own namespace: its own for as long as it lives.
#[derive(Debug)]
struct Known {
    pinned: Pinned,
    pid: Option<u32>,
}

impl Attribution {
    /// Says in `event` who opened `connection`, a number that no other of the gateway's has. `question`: the event is one that
    /// is waited for, as a connection's first is; `opener`: what the kernel knows of it now.
    pub fn attribute(
        &mut self,
        event: &mut Event,
        connection: u64,
        question: bool,
        opener: impl FnOnce() -> Option<Process>,
    ) {
        // Its last says how long it was.
        let ends = event.kind == Kind::Connect && event.duration_ms.is_some();
        let kept = match ends {
            true => self.flows.remove(&connection),
            false => self.flows.get(&connection).cloned(),
        };
        if let Some(kept) = kept {
            event.process = kept;
            return;
        }
        if self.forgotten.is_some_and(|last| connection <= last) {
            return;
        }
        event.process = opener().map(|opener| self.describe(&opener));
        // What is not carried has no end.
        if question {
            if self.flows.len() >= MAX_FLOWS {
                let oldest = self.flows.pop_first().map(|(number, _)| number);
                self.forgotten = self.forgotten.max(oldest);
            }
            self.flows.insert(connection, event.process.clone());
        }
    }

    /// The path of the program that opened `flow`, as it is now. A process that has gone has none.
    pub fn program(&mut self, opener: Option<Process>) -> Option<String> {
        let opener = opener?;
        let program = self.describe(&opener).program?;
        // What was read is this very process's: the kernel's word of a connection outlives the one who opened it.
        let known = self.processes.get(&opener.tgid)?;
        known.pinned.alive().then_some(program)
    }

    /// [`process::describe`], without reading again what cannot have changed.
    fn describe(&mut self, who: &Process) -> audit::Process {
        if let Some(known) = self.processes.get(&who.tgid) {
            let program = process::program(who.tgid);
            // Asked last: what was read before is then this very process's.
            if known.pinned.alive() {
                return audit::Process {
                    pid: known.pid,
                    host_pid: who.tgid,
                    uid: who.uid,
                    program,
                    comm: process::comm(who),
                };
            }
            self.processes.remove(&who.tgid);
        }
        let pinned = Pinned::open(who.tgid);
        let words = process::describe(who);
        if let Ok(pinned) = pinned
            && pinned.alive()
        {
            if self.processes.len() >= MAX_PROCESSES {
                self.processes.clear();
            }
            let pid = words.pid;
            self.processes.insert(who.tgid, Known { pinned, pid });
        }
        words
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use audit::Verdict;

    fn this(comm: u8) -> Process {
        Process {
            tgid: std::process::id(),
            comm: [comm; 16],
            ..Process::default()
        }
    }

    fn comm(
        attribution: &mut Attribution,
        connection: u64,
        question: bool,
        opener: Option<Process>,
    ) -> Option<String> {
        let mut event = Event::new(Kind::Connect, Verdict::Allow, "allowed");
        event.duration_ms = (!question).then_some(1);
        attribution.attribute(&mut event, connection, question, || opener);
        event.process.map(|process| process.comm)
    }

    #[test]
    fn the_end_of_a_connection_names_its_opener_and_forgets_it() {
        let mut attribution = Attribution::default();
        let a = Some("a".repeat(16));
        assert_eq!(comm(&mut attribution, 1, true, Some(this(b'a'))), a);
        assert_eq!(comm(&mut attribution, 1, false, None), a);
        assert_eq!(comm(&mut attribution, 1, false, None), None);
        assert!(attribution.flows.is_empty());
    }

    #[test]
    fn a_connections_opener_is_its_own_whoever_has_its_addresses_and_ports_by_now() {
        let mut attribution = Attribution::default();
        let (a, b) = (Some("a".repeat(16)), Some("b".repeat(16)));
        assert_eq!(comm(&mut attribution, 1, true, Some(this(b'a'))), a);
        // The kernel knows the ports' next user already, and another thread's word of it comes first.
        assert_eq!(comm(&mut attribution, 2, true, Some(this(b'b'))), b);
        assert_eq!(comm(&mut attribution, 1, false, Some(this(b'b'))), a);
        assert_eq!(comm(&mut attribution, 2, false, None), b);
        // Nobody knew who began it, and nobody else is named.
        assert_eq!(comm(&mut attribution, 3, true, None), None);
        assert_eq!(comm(&mut attribution, 3, false, Some(this(b'b'))), None);
    }

    #[test]
    fn the_last_flow_that_has_room_is_kept_and_the_next_takes_the_place_of_the_first() {
        let mut attribution = Attribution::default();
        let bound = MAX_FLOWS as u64;
        for connection in 0..bound {
            comm(&mut attribution, connection, true, Some(this(b'a')));
        }
        assert_eq!(attribution.flows.len(), MAX_FLOWS);
        assert!(attribution.flows.contains_key(&0));
        comm(&mut attribution, bound, true, Some(this(b'a')));
        assert_eq!(attribution.flows.len(), MAX_FLOWS);
        assert!(comm(&mut attribution, bound, false, None).is_some());
        assert!(comm(&mut attribution, 1, false, None).is_some());
        // Its ports may be another's by now.
        assert!(comm(&mut attribution, 0, false, Some(this(b'b'))).is_none());
    }

    #[test]
    fn what_is_said_in_the_middle_of_a_connection_is_not_its_end() {
        let mut attribution = Attribution::default();
        comm(&mut attribution, 1, true, Some(this(b'a')));
        let mut event = Event::new(Kind::Connect, Verdict::Deny, "address-refused");
        attribution.attribute(&mut event, 1, false, || Some(this(b'b')));
        let a = Some("a".repeat(16));
        assert_eq!(event.process.map(|process| process.comm), a);
        assert_eq!(comm(&mut attribution, 1, false, Some(this(b'b'))), a);
    }

    #[test]
    fn a_process_is_known_again_while_it_lives_and_no_more_are_held_than_may_be() {
        let mut attribution = Attribution::default();
        let mut children: Vec<_> = (0..=MAX_PROCESSES)
            .map(|_| {
                std::process::Command::new("sleep")
                    .arg("60")
                    .spawn()
                    .unwrap()
            })
            .collect();
        let who = |child: &std::process::Child| Process {
            tgid: child.id(),
            ..Process::default()
        };
        for (at, child) in children.iter().enumerate() {
            for _ in 0..2 {
                let words = attribution.describe(&who(child));
                assert_eq!(words.pid, Some(child.id()));
                assert!(words.program.is_some());
            }
            assert_eq!(attribution.processes.len(), at % MAX_PROCESSES + 1);
        }
        let last = children.last_mut().unwrap();
        let sleep = std::fs::canonicalize("/usr/bin/sleep").unwrap();
        let program = attribution.program(Some(who(last)));
        assert_eq!(program.as_deref(), sleep.to_str());
        last.kill().unwrap();
        last.wait().unwrap();
        let words = attribution.describe(&who(last));
        assert_eq!((words.pid, words.program), (None, None));
        assert_eq!(attribution.program(Some(who(last))), None);
        assert_eq!(attribution.program(None), None);
        assert!(!attribution.processes.contains_key(&last.id()));
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
