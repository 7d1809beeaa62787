//! Kernel events into the session's log: names put to addresses, programs to pids, and a bound on how fast an agent can
//! fill the disk with denials.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use audit::{Event, Kind, Verdict};
use enforcer_common as abi;
use enforcer_common::files::{Act, FileEvent, FileReason};

use crate::process;

/// Kernel events written to the log in one second; what comes beyond is counted as lost.
pub const MAX_PER_SECOND: u32 = 1000;

/// One ring buffer record.
#[derive(Debug)]
pub enum Record {
    Socket(abi::Event),
    File(Box<FileEvent>),
}

/// Reads one ring buffer record; the kinds differ in their length.
pub fn decode(bytes: &[u8]) -> Option<Record> {
    if bytes.len() >= size_of::<FileEvent>() {
        // SAFETY: long enough, and any bit pattern is a valid FileEvent; the pointer need not be aligned.
        let event = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
        return Some(Record::File(Box::new(event)));
    }
    if bytes.len() < size_of::<abi::Event>() {
        return None;
    }
    // SAFETY: long enough, and any bit pattern is a valid abi::Event; the pointer need not be aligned.
    Some(Record::Socket(unsafe {
        std::ptr::read_unaligned(bytes.as_ptr().cast())
    }))
}

/// The path of a record, from its names, the last of which comes first.
fn path(event: &FileEvent) -> String {
    let length = (event.length as usize).min(event.path.len());
    let mut path = String::from(if event.cut == 0 { "" } else { "…" });
    let names = event.path[..length].split(|byte| *byte == 0);
    let names: Vec<&[u8]> = names.filter(|name| !name.is_empty()).collect();
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    if path.is_empty() { "/".into() } else { path }
}

/// The record of what was decided about a file.
pub fn file_record(event: &FileEvent) -> Event {
    const REASONS: [(FileReason, &str); 14] = [
        (FileReason::Denied, "file-denied"),
        (FileReason::ReadOnly, "file-read-only"),
        (FileReason::Moved, "rules-would-move"),
        (FileReason::NotListed, "not-listed"),
        (FileReason::Internal, "path-unreadable"),
        (FileReason::Outside, "socket-from-outside"),
        (FileReason::Linked, "link-at-a-rule"),
        (FileReason::Nameless, "nameless"),
        (FileReason::Once, "approved-once"),
        (FileReason::Changed, "changed-since-approved"),
        (FileReason::Never, "never-inside"),
        (FileReason::NotItsProgram, "secret-of-other-programs"),
        (FileReason::NotInside, "program-from-outside"),
        (FileReason::Replaced, "replaced-since-listed"),
    ];
    const ACTS: [(Act, &str); 15] = [
        (Act::Open, "open"),
        (Act::Create, "create"),
        (Act::Link, "link"),
        (Act::Rename, "rename"),
        (Act::Remove, "remove"),
        (Act::Change, "change"),
        (Act::Execute, "execute"),
        (Act::Connect, "connect"),
        (Act::Start, "ended before its first instruction"),
        (Act::Map, "map to be executed"),
        (Act::Trace, "look into a process that runs it"),
        (Act::Mount, "mount"),
        (Act::Bpf, "bpf"),
        (Act::UserNamespace, "make a user namespace"),
        (Act::Receive, "receive a descriptor"),
    ];
    let reason = REASONS.iter().find(|(r, _)| *r as u8 == event.reason);
    let act = ACTS.iter().find(|(a, _)| *a as u8 == event.act);
    let ended = event.act == Act::Start as u8;
    let about_programs = [
        Act::Execute,
        Act::Map,
        Act::Trace,
        Act::Bpf,
        Act::UserNamespace,
    ];
    let execute = ended || about_programs.iter().any(|act| *act as u8 == event.act);
    let kind = match execute {
        true => Kind::Exec,
        false if event.reason == FileReason::NotItsProgram as u8 => Kind::Secret,
        false => Kind::File,
    };
    let code = reason.map_or("unknown", |(_, code)| *code);
    let verdict = match event.reason == FileReason::Once as u8 {
        true => Verdict::Allow,
        false => Verdict::Deny,
    };
    let mut record = Event::new(kind, verdict, code);
    record.process = Some(process::describe(&event.process));
    record.layer = Some(if ended { "tracepoint" } else { "lsm" }.into());
    record.detail = act.map(|(_, word)| (*word).to_owned());
    match execute {
        true => record.binary = Some(path(event)),
        false => record.file = Some(path(event)),
    }
    record
}

/// IPv4 destination of an event, v4-mapped included.
pub fn address4(event: &abi::Event) -> Option<Ipv4Addr> {
    if event.family == libc::AF_INET as u16 {
        let [a, b, c, d, ..] = event.addr;
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    Ipv6Addr::from(event.addr).to_ipv4_mapped()
}

/// The stable code of a kernel denial.
fn reason(code: u8) -> &'static str {
    const CODES: [(abi::Reason, &str); 9] = [
        (abi::Reason::ForeignNamespace, "foreign-namespace"),
        (abi::Reason::NotAllowed, "not-listed"),
        (abi::Reason::PortZero, "port-zero"),
        (abi::Reason::Ipv6, "ipv6"),
        (abi::Reason::BindReserved, "bind-reserved"),
        (abi::Reason::SocketType, "socket-type"),
        (abi::Reason::NotLoopback, "not-loopback"),
        (abi::Reason::Internal, "not-ready"),
        (abi::Reason::GatewayRange, "address-refused"),
    ];
    CODES
        .iter()
        .find(|(reason, _)| *reason as u8 == code)
        .map_or("unknown", |(_, code)| *code)
}

/// The record of a kernel denial; `host` is the name its address belongs to.
pub fn denial(event: &abi::Event, host: Option<String>) -> Event {
    let send = [
        abi::Hook::Sendmsg4,
        abi::Hook::Sendmsg6,
        abi::Hook::GatewaySendmsg4,
        abi::Hook::GatewaySendmsg6,
    ];
    let kind = if send.iter().any(|hook| *hook as u8 == event.hook) {
        Kind::Send
    } else {
        Kind::Connect
    };
    let mut record = Event::new(kind, Verdict::Deny, reason(event.reason));
    record.process = Some(process::describe(&event.process));
    let gateway = event.hook >= abi::Hook::GatewayConnect4 as u8;
    record.layer = Some(if gateway { "dial-gate" } else { "gate" }.into());
    if event.hook == abi::Hook::SockCreate as u8 {
        record.detail = Some(format!(
            "socket family {} type {} protocol {}",
            event.family, event.proto, event.port
        ));
        return record;
    }
    record.port = Some(event.port);
    record.protocol = match event.proto {
        abi::TCP => Some("tcp".into()),
        abi::UDP => Some("udp".into()),
        _ => None,
    };
    match host {
        Some(host) => record.host = Some(host),
        None => {
            record.address = Some(match address4(event) {
                Some(address) => address.to_string(),
                None => Ipv6Addr::from(event.addr).to_string(),
            });
        }
    }
    if event.hook == abi::Hook::Bind4 as u8 || event.hook == abi::Hook::Bind6 as u8 {
        record.detail = Some("bind".into());
    }
    record
}

/// The record of events that found no room.
pub fn loss(count: u64, total: u64) -> Event {
    let mut record = Event::new(Kind::Loss, Verdict::Flag, "events-lost");
    record.lost = Some(count);
    record.detail = Some(format!("{total} since the session began"));
    record
}

/// The record of packets that were on their way to another device than loopback, which the namespace should not have. Nobody knows
/// whose they were: the kernel counts them, for there may be very many.
pub fn dropped(count: u64, total: u64) -> Event {
    let mut record = Event::new(
        Kind::Send,
        Verdict::Deny,
        reason(abi::Reason::NotLoopback as u8),
    );
    record.layer = Some("gate".into());
    record.detail = Some(format!(
        "{count} packets for another device than loopback, {total} since the session began"
    ));
    record
}

/// At most [`MAX_PER_SECOND`] a second.
#[derive(Debug)]
pub struct Limiter {
    second: Instant,
    used: u32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            second: Instant::now(),
            used: 0,
        }
    }
}

impl Limiter {
    pub fn admit(&mut self, now: Instant) -> bool {
        if now.duration_since(self.second).as_secs() >= 1 {
            self.second = now;
            self.used = 0;
        }
        self.used += 1;
        self.used <= MAX_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_second_is_admitted_and_the_next_is_not() {
        let start = Instant::now();
        let mut limiter = Limiter {
            second: start,
            used: 0,
        };
        for _ in 0..MAX_PER_SECOND {
            assert!(limiter.admit(start));
        }
        assert!(!limiter.admit(start));
        assert!(limiter.admit(start + std::time::Duration::from_secs(1)));
    }
}
