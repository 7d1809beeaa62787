//! Who opened a connection, for its records: the kernel's word of it (FLOWS), put into words from /proc once a connection.
//! Held by the loop that serves one gateway; a gateway that starts again starts this anew.

use std::collections::HashMap;

use audit::{Event, Kind};
use enforcer_common::{FlowKey, Process};

use crate::process::{self, Pinned};

/// Connections whose opener is kept; what comes beyond is looked up again at its end.
pub const MAX_FLOWS: usize = 8192;
/// Processes that are held open to be known again; one descriptor each.
pub const MAX_PROCESSES: usize = 16;

#[derive(Debug, Default)]
pub struct Attribution {
    flows: HashMap<FlowKey, (Process, audit::Process)>,
    processes: HashMap<u32, Known>,
}

/// A process's pid in its own namespace: its own for as long as it lives.
#[derive(Debug)]
struct Known {
    pinned: Pinned,
    pid: Option<u32>,
}

impl Attribution {
    /// Says in `event` who opened `flow`. `question`: the event is one that is waited for, as a connection's first is;
    /// `opener`: what the kernel knows of it now.
    pub fn attribute(
        &mut self,
        event: &mut Event,
        flow: FlowKey,
        question: bool,
        opener: Option<Process>,
    ) {
        let begins = question && event.kind == Kind::Connect;
        let ends = !question && event.kind == Kind::Connect;
        let kept = match self.flows.get(&flow) {
            // The same addresses and ports may be another process's by now.
            Some((who, words)) if !begins && opener.is_none_or(|opener| opener == *who) => {
                Some(words.clone())
            }
            _ => None,
        };
        let known = kept.is_some();
        event.process = kept.or_else(|| opener.map(|opener| self.describe(&opener)));
        if ends {
            self.flows.remove(&flow);
        } else if !known && self.flows.len() < MAX_FLOWS {
            match (opener, &event.process) {
                (Some(opener), Some(words)) => {
                    self.flows.insert(flow, (opener, words.clone()));
                }
                _ => {
                    self.flows.remove(&flow);
                }
            }
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

    fn flow(port: u16) -> FlowKey {
        FlowKey {
            local_port: port,
            ..FlowKey::default()
        }
    }

    fn comm(
        attribution: &mut Attribution,
        port: u16,
        question: bool,
        opener: Option<Process>,
    ) -> Option<String> {
        let mut event = Event::new(Kind::Connect, Verdict::Allow, "allowed");
        attribution.attribute(&mut event, flow(port), question, opener);
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
    fn addresses_and_ports_that_are_used_again_are_the_new_openers() {
        let mut attribution = Attribution::default();
        let (a, b) = (Some("a".repeat(16)), Some("b".repeat(16)));
        // Its end was never heard of.
        assert_eq!(comm(&mut attribution, 1, true, Some(this(b'a'))), a);
        assert_eq!(comm(&mut attribution, 1, false, Some(this(b'b'))), b);
        assert_eq!(comm(&mut attribution, 1, true, Some(this(b'a'))), a);
        assert_eq!(comm(&mut attribution, 1, true, Some(this(b'b'))), b);
        assert_eq!(comm(&mut attribution, 1, true, None), None);
        assert_eq!(comm(&mut attribution, 1, false, None), None);
    }

    #[test]
    fn the_last_flow_that_has_room_is_kept_and_the_next_is_not() {
        let mut attribution = Attribution::default();
        for port in 0..MAX_FLOWS as u16 {
            comm(&mut attribution, port, true, Some(this(b'a')));
        }
        assert_eq!(attribution.flows.len(), MAX_FLOWS);
        comm(&mut attribution, MAX_FLOWS as u16, true, Some(this(b'a')));
        assert_eq!(attribution.flows.len(), MAX_FLOWS);
        let last = MAX_FLOWS as u16 - 1;
        assert!(comm(&mut attribution, last, false, None).is_some());
        assert!(comm(&mut attribution, MAX_FLOWS as u16, false, None).is_none());
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
